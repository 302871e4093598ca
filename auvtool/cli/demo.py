"""`auvtool demo`."""


def demo() -> None:
    """Not built yet."""
    raise NotImplementedError
