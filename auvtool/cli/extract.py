"""`auvtool extract`."""


def extract() -> None:
    """Not built yet."""
    raise NotImplementedError
