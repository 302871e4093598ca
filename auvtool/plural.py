"""How many of something there are, in words."""


def counted(n: int, what: str, plural: str = "") -> str:
    """`1 case`, `2 cases`."""
    return f"{n:,} {what if n == 1 else plural or what + 's'}"
