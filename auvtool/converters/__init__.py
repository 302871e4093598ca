"""Public data sets as they are downloaded: a module a data set, named in one table.

Each module has `find_cases(folder) -> SourceDataset`, which lists files and reads no image.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Literal, TypeAlias

from auvtool.cases import CaseProblem
from auvtool.errors import InputError

ConverterName: TypeAlias = Literal["lits", "totalsegmentator", "word", "feta", "kits23", "msd"]
Part: TypeAlias = Literal["train", "val", "test"]
SplitChoice: TypeAlias = Literal["own", "random", "none"]


@dataclass(frozen=True)
class Converter:
    """What is known of a data set before its files are looked at.

    Attributes:
        module: the module that finds its cases.
        split: how its cases are split where the user does not say: as the paper did it.
    """

    module: str
    split: SplitChoice


CONVERTERS: dict[ConverterName, Converter] = {
    "lits": Converter("auvtool.converters.lits", "random"),
    "totalsegmentator": Converter("auvtool.converters.totalsegmentator", "own"),
    "word": Converter("auvtool.converters.word", "random"),
    "feta": Converter("auvtool.converters.feta", "random"),
    "kits23": Converter("auvtool.converters.kits23", "random"),
    "msd": Converter("auvtool.converters.msd", "own"),
}


@dataclass(frozen=True)
class Quirk:
    """Something of a case that its user should know.

    Attributes:
        name: one of a few, the same for all cases that have it.
        text: what it is and what was done about it; the same for all such cases.
        detail: what is of this case alone.
    """

    name: str
    text: str
    detail: str = ""


@dataclass(frozen=True)
class SourceCase:
    """The files of a case as downloaded.

    Attributes:
        case_id: in the new data set.
        image: one file, of one channel or (4D) of all.
        label: its label map; None where there is none, or `masks` in its place.
        masks: (label value, file of a binary mask); where two overlap, the later one has the voxel.
        part: where the data set's own split puts it.
        quirks: what is known without reading a file.
    """

    case_id: str
    image: Path
    label: Path | None = None
    masks: tuple[tuple[int, Path], ...] = ()
    part: Part = "train"
    quirks: tuple[Quirk, ...] = ()

    @property
    def is_labelled(self) -> bool:
        return self.label is not None or bool(self.masks)


@dataclass(frozen=True)
class SourceDataset:
    """A data set as downloaded.

    Attributes:
        found: cases, and those that cannot be used.
        labels: as dataset.json names them: a value, or for a region a list of values.
        channel_names: in the order of the channels.
        file_ending: of images and labels.
        more: further keys of dataset.json.
        header_quirks: names of auvtool.converters.header_quirks to look for.
        notes: what is true of the whole data set, a line each.
        why_no_own_split: why its own split is not known; "" where it is.
    """

    found: tuple[SourceCase | CaseProblem, ...]
    labels: Mapping[str, int | list[int]]
    channel_names: tuple[str, ...]
    file_ending: str = ".nii.gz"
    more: Mapping[str, object] = field(default_factory=dict)
    header_quirks: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    why_no_own_split: str = ""

    @property
    def cases(self) -> tuple[SourceCase, ...]:
        """The usable ones, sorted by id."""
        return tuple(sorted((one for one in self.found if isinstance(one, SourceCase)), key=lambda one: one.case_id))

    @property
    def problems(self) -> tuple[CaseProblem, ...]:
        """The others, sorted by id."""
        return tuple(sorted((one for one in self.found if isinstance(one, CaseProblem)), key=lambda one: one.case_id))

    def label_values(self) -> frozenset[int]:
        """Every value that a label map may hold."""
        values = (value if isinstance(value, list) else [value] for value in self.labels.values())
        return frozenset(value for group in values for value in group)


def find_cases(name: ConverterName, folder: Path) -> SourceDataset:
    """The cases of the data set `name` in `folder`.

    Raises:
        InputError: `folder` does not hold it.
    """
    if not folder.is_dir():
        raise InputError(
            folder, expected=f"the folder of {name} as downloaded", found="no folder", cure="check the path"
        )
    found = import_module(CONVERTERS[name].module).find_cases(folder)
    if not isinstance(found, SourceDataset):
        raise TypeError(name)
    return found


def case_problem(case_id: str, where: object, *, expected: str, found: object, cure: str) -> CaseProblem:
    """A case that cannot be used, its error in the form of all errors."""
    return CaseProblem(case_id, str(InputError(where, expected=expected, found=found, cure=cure)))
