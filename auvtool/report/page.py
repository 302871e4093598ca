"""What stands on a report's page: plain text, numbers and pictures, without a word of HTML or Markdown.

Text may hold anything (case ids and class names come from files of others): who writes the page escapes it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

Points: TypeAlias = tuple[float, ...]
End: TypeAlias = Literal["uncertain", "certain", "chosen"]
NONE = "-"  # what a cell says where there is no value


@dataclass(frozen=True)
class Table:
    """A table of text. `numeric` says of each column whether it holds numbers; the first one names the row."""

    caption: str
    columns: tuple[str, ...]
    numeric: tuple[bool, ...]
    rows: tuple[tuple[str, ...], ...]
    note: str = ""


@dataclass(frozen=True)
class ClassScore:
    """One class of a case, as in the SCORES table."""

    class_id: int
    class_name: str
    status: str
    value: float | None
    auv: float | None
    volume_ml: float | None
    n_slices: int | None


@dataclass(frozen=True)
class ScoredCase:
    """A whole case.

    Attributes:
        rank: 1 is the most uncertain; equal AUVs share the better rank; None without an AUV.
        kept: what the keep list says; None where there is none.
        third: 0, 1, 2: it is of the smallest, middle or largest third by volume; None where a volume is not known.
    """

    case_id: str
    status: str
    value: float | None
    auv: float | None
    rank: int | None
    volume_ml: float | None
    n_slices: int | None
    reason: str
    kept: bool | None
    third: int | None
    classes: tuple[ClassScore, ...] = ()


@dataclass(frozen=True)
class Picture:
    """A slice of a case.

    Attributes:
        title: class and place.
        caption: how it is to be read.
        image: JPEG.
        width, height: of the image in its own pixels, in which the outlines are given.
        outline: of the class, closed polygons of (x, y); others: of all other classes.
        map_image: JPEG of the class's decoded map of the same region, where there is one; map_caption says its range.
    """

    title: str
    caption: str
    image: bytes
    width: int
    height: int
    outline: tuple[tuple[tuple[float, float], ...], ...]
    others: tuple[tuple[tuple[float, float], ...], ...] = ()
    map_image: bytes | None = None
    map_caption: str = ""


@dataclass(frozen=True)
class CaseFigure:
    """A case with its slices; `note` says why there are none."""

    case: ScoredCase
    end: End
    pictures: tuple[Picture, ...] = ()
    note: str = ""


@dataclass(frozen=True)
class Distribution:
    """AUVs of a class or of the whole cases; `highlighted` is that of the one case the page is about."""

    name: str
    auv: Points
    n_without: int = 0
    highlighted: float | None = None


@dataclass(frozen=True)
class SizePlot:
    """AUV against a size; a point a case. `correlation` says what it comes to."""

    quantity: str
    unit: str
    case_ids: tuple[str, ...]
    sizes: Points
    auv: Points
    correlation: str
    highlighted: str | None = None


@dataclass(frozen=True)
class Band:
    """Quantiles 0.1, 0.5 and 0.9 over the cases, point by point."""

    low: Points
    median: Points
    high: Points


@dataclass(frozen=True)
class EnergyPanel:
    """Energy shares of the singular values of one class's maps, by rank, and their running sums."""

    class_name: str
    n_maps: int
    shares: Band
    sums: Band
    highlighted: Points = ()


@dataclass(frozen=True)
class TrainingCurves:
    """A training, epoch by epoch; nan where a class was not in an epoch."""

    name: str
    epochs: tuple[int, ...]
    training_loss: Points
    validation_loss: Points
    pseudo_dice: tuple[tuple[str, Points], ...]


@dataclass(frozen=True)
class Page:
    """A report.

    Attributes:
        title: of the page.
        facts: name and value of what the scores are of.
        meaning: what the score means, a paragraph each.
        notes: what is missing on the page and how to get it.
        cases: all of them, the most uncertain first; of a report of one case that one alone.
        n_cases: of the data set.
        figures: the cases with slices.
        chosen: case id that the page is about; None: the whole data set.
        evidence: of the one case, what stands out.
        classes: a row a class.
        filters: what a filter at some quantiles would drop: of cases, and by class.
    """

    title: str
    facts: tuple[tuple[str, str], ...]
    meaning: tuple[str, ...]
    notes: tuple[str, ...]
    cases: tuple[ScoredCase, ...]
    n_cases: int
    has_keep_list: bool = False
    figures: tuple[CaseFigure, ...] = ()
    chosen: str | None = None
    evidence: Table | None = None
    classes: Table | None = None
    distributions: tuple[Distribution, ...] = ()
    sizes: tuple[SizePlot, ...] = ()
    energies: tuple[EnergyPanel, ...] = ()
    energies_note: str = ""
    filters: tuple[Table, ...] = ()
    metrics: tuple[Table, ...] = ()
    trainings: tuple[TrainingCurves, ...] = ()

    @property
    def has_reasons(self) -> bool:
        return any(case.reason for case in self.cases)


def number(value: float | None, digits: int = 3) -> str:
    """A number as a cell says it; a dash where there is none."""
    return NONE if value is None else f"{value:.{digits}f}"


def table(
    caption: str, columns: Sequence[str], rows: Sequence[Sequence[str]], *, text: int = 1, note: str = ""
) -> Table:
    """A table whose first `text` columns hold words, the others numbers."""
    numeric = tuple(position >= text for position in range(len(columns)))
    return Table(caption, tuple(columns), numeric, tuple(tuple(row) for row in rows), note)
