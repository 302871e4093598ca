"""`auvtool merge`."""


def merge() -> None:
    """Not built yet."""
    raise NotImplementedError
