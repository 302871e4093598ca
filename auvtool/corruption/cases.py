"""What a fault is put into, and what comes out."""

from dataclasses import dataclass, field
from typing import Literal, TypeAlias

from auvtool.arrays import LabelMap
from auvtool.corruption.images import Channels

Level: TypeAlias = Literal["low", "medium", "high"]
Parameters: TypeAlias = dict[str, float | int | str]

LEVELS: tuple[Level, ...] = ("low", "medium", "high")


@dataclass(frozen=True)
class CleanCase:
    """The arrays that a fault is put into.

    Attributes:
        image: (channel, d, h, w) float32.
        label: (d, h, w); all 0 where a case has none.
        spacing_mm: voxel size along d, h, w.
        class_ids: the label values that faults act on; other values (the ignore label) stay where they are.
        donor: the label map of another case, of any shape.
        is_ct: whether the channels are in Hounsfield units.
    """

    image: Channels
    label: LabelMap
    spacing_mm: tuple[float, float, float]
    class_ids: tuple[int, ...]
    donor: LabelMap | None = None
    is_ct: bool = False


@dataclass(frozen=True)
class Corrupted:
    """A case with a fault in it; `parameters` hold what the level and the generator came to."""

    image: Channels
    label: LabelMap
    parameters: Parameters = field(default_factory=dict)
