"""Objects that run code when they are unpickled, as they may stand in a stranger's checkpoint."""

from pathlib import Path


class RunsCode:
    """Prints that it must not run."""

    def __reduce__(self):
        return print, ("this must not run",)


class Touch:
    """Makes a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)
