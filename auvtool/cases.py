"""Cases and data sets as every command holds them: files and what they mean, nothing read."""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, TypeAlias

from auvtool.case_id import shown
from auvtool.dataset_json import SemanticClass
from auvtool.errors import InputError


@dataclass(frozen=True)
class Fault:
    """A fault that is put into a case as it is read (auvtool.faults).

    Attributes:
        kind: its name in auvtool.corruption.kinds.
        level: one of that kind's levels.
        seed: of what is drawn at random for it.
        donor: the label file of another case, for the kind that takes one.
    """

    kind: str
    level: str
    seed: int
    donor: Path | None = None


@dataclass(frozen=True)
class Case:
    """One scan with its label; a file for each channel, or one file that holds them all.

    With `fault`, the files are clean, and what `auvtool.faults.read_case_with_fault` makes of them is not.
    """

    case_id: str
    images: tuple[Path, ...]
    label: Path | None
    fault: Fault | None = None

    def image_bytes(self) -> int:
        """Size of its image files: the case that takes most memory is mostly the largest."""
        return sum(path.stat().st_size for path in self.images if path.is_file())


# A name without a channel number, or with an id that no file name can hold; channel files that are not there; a broken
# entry of the map `dataset`; a file that it names and that is not there; no label; a label that cannot be read.
ProblemReason: TypeAlias = Literal["name", "channels", "entry", "file", "no label", "unreadable"]


@dataclass(frozen=True)
class CaseProblem:
    """A case that cannot be used, and why: one row of the FAILURES table.

    Attributes:
        case_id: the case, or what its file name seems to say.
        error: one line.
        reason: what is wrong, for `auvtool.checks`.
        fault: the parts of `error`.
    """

    case_id: str
    error: str
    reason: ProblemReason | None = field(default=None, compare=False)
    fault: InputError | None = field(default=None, compare=False, repr=False)


@dataclass(frozen=True)
class Dataset:
    """Cases and what their labels mean.

    `cases` holds only usable cases, sorted by id; the others stand in `problems`, so that a run can make failure rows
    of them and go on. `classes` are in dataset.json's order, which for regions is part of their meaning; empty where
    there are no labels. `raw` is dataset.json as read (empty for a plain folder).
    """

    folder: Path
    name: str
    cases: tuple[Case, ...]
    classes: tuple[SemanticClass, ...]
    ignore_label: int | None
    channel_names: tuple[str, ...]
    file_ending: str
    has_regions: bool
    raw: dict[str, Any] = field(hash=False, repr=False)
    problems: tuple[CaseProblem, ...] = ()

    def label_values(self) -> frozenset[int]:
        """Every value that a label map may hold: background, classes, ignore label."""
        values = {0, *(value for semantic_class in self.classes for value in semantic_class.labels)}
        return frozenset(values if self.ignore_label is None else values | {self.ignore_label})

    def meaning(self) -> str:
        """SHA-256 of what says how the files of a case are read; where it changes, the same files are another case."""
        reader = self.raw.get("overwrite_image_reader_writer")
        facts = repr((self.channel_names, self.classes, self.ignore_label, reader))
        return hashlib.sha256(facts.encode()).hexdigest()

    def without_cases(self) -> "Dataset":
        """What a worker needs beside its case: what the cases mean, and no list of them, in dataset.json neither."""
        raw = {key: value for key, value in self.raw.items() if key != "dataset"}
        return replace(self, cases=(), problems=(), raw=raw)


def problem_of(
    case_id: str, reason: ProblemReason, where: object, *, expected: str, found: object, cure: str
) -> CaseProblem:
    """The problem of a case; arguments as of InputError."""
    fault = InputError(where, expected=expected, found=found, cure=cure)
    return CaseProblem(shown(case_id), str(fault), reason, fault)


def by_case(problems: Iterable[CaseProblem]) -> tuple[CaseProblem, ...]:
    """Problems sorted by case id."""
    return tuple(sorted(problems, key=lambda problem: problem.case_id))
