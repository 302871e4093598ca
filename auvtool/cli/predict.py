"""`auvtool predict`."""


def predict() -> None:
    """Not built yet."""
    raise NotImplementedError
