"""`auvtool eval`."""


def eval() -> None:
    """Not built yet."""
    raise NotImplementedError
