"""`auvtool filter`."""


def filter() -> None:
    """Not built yet."""
    raise NotImplementedError
