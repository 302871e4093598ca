"""Which options of `train` change which part of its loss: where that part is left out, they would change nothing."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Literal, TypeAlias

# Dice and BCE of each class; the weights of eq. 11; the noise of eq. 10.
Part: TypeAlias = Literal["terms", "weights", "noise"]

PART_OF: Mapping[str, Part] = {
    "--beta": "terms",
    "--class-weights": "terms",
    "--alpha": "weights",
    "--static-weights": "weights",
    "--scale-grad": "weights",
    "--denoise-form": "noise",
}
_FLAGS = frozenset({"--scale-grad"})


def parts_of(loss: str, *, reweight: bool, denoise: bool) -> frozenset[Part]:
    """What `--loss` (duo, classwise or plain) with or without --reweight and --denoise is made of."""
    if loss == "plain":
        return frozenset()
    asked: dict[Part, bool] = {"terms": True, "weights": loss == "duo" and reweight, "noise": loss == "duo" and denoise}
    return frozenset(part for part, there in asked.items() if there)


def without_idle(words: Sequence[str], parts: Collection[Part]) -> Iterator[str]:
    """Words of a command line less the options, with their values, that belong to no part of the loss."""
    remaining = iter(words)
    for word in remaining:
        name, equals, _ = word.replace("--no-", "--", 1).partition("=")
        if name not in PART_OF or PART_OF[name] in parts:
            yield word
        elif not equals and name not in _FLAGS:
            next(remaining, None)  # its value
