"""`auvtool info`."""


def info() -> None:
    """Not built yet."""
    raise NotImplementedError
