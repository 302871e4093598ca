"""Predictions against references: overlap of every class in every case, and its means."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TypeAlias

import nibabel.orientations
import numpy as np

from auvtool.errors import InputError, one_line
from auvtool.evaluation_pairs import Comparison, Pair
from auvtool.failures import failure_row
from auvtool.label_stream import label_blocks, read_label_grid
from auvtool.metrics import Confusion, Overlap, PairCounts, confusion_matrix, overlap
from auvtool.schema import ALL_CLASSES, Row, class_label
from auvtool.surface_distances import NO_SURFACES, SurfaceAgreement, SurfaceMeasures, surface_agreement
from auvtool.volume import whole_numbers
from auvtool.volume_file import FileGrid, FileVolume, read_volume_file, spacing_of, times
from auvtool.worker_pool import WorkerDied
from auvtool.workplace import HERE, Workplace

Measures: TypeAlias = dict[str, float | None]

_ORIGIN_TOLERANCE_MM = 1e-3


@dataclass(frozen=True)
class CaseOverlap:
    """Overlap of each class, in the order of the comparison's classes; agreement of surfaces if it was asked for."""

    pair: Pair
    overlaps: tuple[Overlap, ...]
    warnings: tuple[str, ...] = ()
    surfaces: tuple[SurfaceAgreement, ...] = ()


@dataclass
class Evaluation:
    """Result of a run: cases in the order of the pairs, and the rows of the FAILURES table."""

    comparison: Comparison
    surfaces: SurfaceMeasures = NO_SURFACES
    cases: list[CaseOverlap] = field(default_factory=list)
    failures: list[Row] = field(default_factory=list)


def evaluate(
    comparison: Comparison,
    *,
    surfaces: SurfaceMeasures = NO_SURFACES,
    workplace: Workplace = HERE,
    keep_going: bool = True,
    on_case: Callable[[str], None] = lambda case_id: None,
) -> Evaluation:
    """Read and count every pair; a case that fails becomes a row of the failures.

    Args:
        comparison: see `find_pairs`.
        surfaces: what to measure of surfaces, for which both maps are in memory at once.
        workplace: where, and how many cases at once.
        keep_going: otherwise the first bad case is raised.
        on_case: called with the case id of each finished or failed case.

    Raises:
        InputError: a case is bad and `keep_going` is off.
    """
    result = Evaluation(comparison, surfaces)
    for pair, outcome in zip(comparison.pairs, _outcomes(comparison, surfaces, workplace), strict=True):
        on_case(pair.case_id)
        if isinstance(outcome, CaseOverlap):
            result.cases.append(outcome)
        elif keep_going:
            result.failures.append(failure_row(pair.case_id, "eval", str(outcome)))
        else:
            raise outcome
    return result


def _attempt(pair: Pair, *, comparison: Comparison, surfaces: SurfaceMeasures) -> CaseOverlap | InputError:
    try:
        return compare_case(pair, comparison, surfaces=surfaces)
    except InputError as error:
        return error
    except Exception as error:  # becomes this case's row of the failure table
        found = f"'{type(error).__name__}: {one_line(error)}'"
        return _not_compared(pair, found, cure="look at the case, or leave it out")


def _outcomes(
    comparison: Comparison, surfaces: SurfaceMeasures, workplace: Workplace
) -> Iterator[CaseOverlap | InputError]:
    """In the order of the pairs, each as soon as those before it are there."""
    attempt = partial(_attempt, comparison=replace(comparison, pairs=(), missing=(), extra=()), surfaces=surfaces)
    early: dict[str, CaseOverlap | InputError] = {}
    order = iter(comparison.pairs)
    expected = next(order, None)
    with closing(workplace.results(attempt, comparison.pairs, on_worker_died=lambda lost: None)) as results:
        for pair, result in results:
            early[pair.case_id] = _killed(pair) if isinstance(result, WorkerDied) else result
            while expected is not None and expected.case_id in early:
                yield early.pop(expected.case_id)
                expected = next(order, None)


def _killed(pair: Pair) -> InputError:
    return _not_compared(pair, "its worker process killed", cure="is memory short? use larger workers")


def _not_compared(pair: Pair, found: str, *, cure: str) -> InputError:
    return InputError(pair.case_id, expected="a case that can be compared", found=found, cure=cure)


def compare_case(pair: Pair, comparison: Comparison, *, surfaces: SurfaceMeasures = NO_SURFACES) -> CaseOverlap:
    """Overlap of one case, voxel by voxel in the order of the files, as nnU-Net compares them; surfaces on request.

    Raises:
        InputError: a file cannot be read whole or is no label map, or the two differ in shape, spacing or orientation.
    """
    n_labels = 1 + max(comparison.ignore_label or 0, *(max(item.labels) for item in comparison.classes))
    maps = None
    counted = None if surfaces else _count_in_blocks(pair, n_labels)
    if counted is None:
        maps = _read_whole(pair)
        counted = confusion_matrix(maps.reference, maps.prediction, n_labels=n_labels), maps.notes
    confusion, notes = counted
    for path, count in (
        (pair.reference, int(confusion[n_labels].sum())),
        (pair.prediction, int(confusion[:, n_labels].sum())),
    ):
        if count:
            notes.append(f"{path}: {count} voxels with labels that dataset.json does not name; counted as no class")
    overlaps = [overlap(confusion, item.labels, ignore_label=comparison.ignore_label) for item in comparison.classes]
    agreements = _surface_agreements(maps, comparison, surfaces) if maps is not None and surfaces else ()
    return CaseOverlap(pair, tuple(overlaps), tuple(notes), agreements)


def _count_in_blocks(pair: Pair, n_labels: int) -> tuple[Confusion, list[str]] | None:
    """Confusion matrix and warnings, both files read side by side; None where they must be read whole.

    So must files with a fault, whatever it is: what is wrong is said by `_read_whole`, for all kinds of files alike.
    """
    reference, prediction = read_label_grid(pair.reference), read_label_grid(pair.prediction)
    if reference is None or prediction is None:
        return None
    counts = PairCounts(n_labels)
    try:
        notes = _check_geometry(reference, prediction)
        for block_of_reference, block_of_prediction in label_blocks(reference, prediction):
            counts.add(block_of_reference, block_of_prediction)
    except InputError:
        return None
    return counts.matrix(), notes


@dataclass(frozen=True)
class _LabelMaps:
    """Both maps of a case (k, j, i), the order of the files in memory, and what is odd about them."""

    reference: np.ndarray
    prediction: np.ndarray
    spacing_mm: tuple[float, ...]
    notes: list[str]


def _read_whole(pair: Pair) -> _LabelMaps:
    reference, prediction = read_volume_file(pair.reference), read_volume_file(pair.prediction)
    notes = _check_geometry(reference, prediction)
    # The files' first index is the fastest in memory: transposed, the arrays are cut into blocks without a copy.
    labels, predicted = (whole_numbers(volume)[0].T for volume in (reference, prediction))
    return _LabelMaps(labels, predicted, tuple(map(float, spacing_of(reference.affine)[::-1])), notes)


def _surface_agreements(
    maps: _LabelMaps, comparison: Comparison, surfaces: SurfaceMeasures
) -> tuple[SurfaceAgreement, ...]:
    """Of each class; what the reference ignores is outside of every class in both maps."""
    from auvtool.class_box import class_boxes, class_mask, union_of_boxes  # loads SciPy

    reference, prediction = maps.reference, maps.prediction
    if comparison.ignore_label is not None:
        prediction = np.where(reference == comparison.ignore_label, 0, prediction)
    values = [item.labels for item in comparison.classes]
    found = []
    for labels, *boxes in zip(values, class_boxes(reference, values), class_boxes(prediction, values), strict=True):
        # The class's own part of the maps: a mask of the whole is made for no class. With a voxel around it, since a
        # class on one slice of a volume is no 2D image.
        box = union_of_boxes([box for box in boxes if box is not None])
        if box is None:
            found.append(SurfaceAgreement())
            continue
        part = tuple(slice(max(0, along.start - 1), along.stop + 1) for along in box)
        masks = [class_mask(label[part], labels) for label in (reference, prediction)]
        found.append(surface_agreement(*masks, spacing_mm=maps.spacing_mm, measures=surfaces))
    return tuple(found)


def metrics_rows(evaluation: Evaluation) -> list[Row]:
    """Rows of the METRICS table: for each case its classes, then the whole case (mean over its defined classes)."""
    rows: list[Row] = []
    tolerance: Row = {"nsd_tolerance_mm": evaluation.surfaces.nsd_tolerance_mm}
    for case in evaluation.cases:
        of_classes = [
            {
                "case": case.pair.case_id,
                "class_id": item.class_id,
                "class_name": item.name,
                "status": found.status,
                **_measures(case, position),
                "tp": found.tp,
                "fp": found.fp,
                "fn": found.fn,
                "n_reference": found.tp + found.fn,
                "n_prediction": found.tp + found.fp,
                **tolerance,
            }
            for position, (item, found) in enumerate(zip(evaluation.comparison.classes, case.overlaps, strict=True))
        ]
        means = _means([_measures(case, position) for position in range(len(case.overlaps))])
        whole: Row = {
            "case": case.pair.case_id,
            "class_id": None,
            "class_name": ALL_CLASSES,
            "status": "absent" if means["dice"] is None else "ok",
        }
        rows += [*of_classes, {**whole, **means, **tolerance}]
    return rows


def class_means(evaluation: Evaluation) -> list[Row]:
    """Means of each class over the cases where it is defined, then of all classes over the classes that have one.

    Columns: class, dice, iou (None where no case defines them), hd95_mm and nsd if they were measured, n_defined,
    n_absent (in neither map: no part of the mean), n_false_alarm and n_missed (both count 0, and have no distance).
    """
    rows: list[Row] = []
    of_classes: list[Measures] = []
    for position, item in enumerate(evaluation.comparison.classes):
        statuses = [case.overlaps[position].status for case in evaluation.cases]
        of_classes.append(_means([_measures(case, position) for case in evaluation.cases]))
        counts: Row = {
            "n_defined": len(statuses) - statuses.count("absent"),
            "n_absent": statuses.count("absent"),
            "n_false_alarm": statuses.count("false_alarm"),
            "n_missed": statuses.count("missed"),
        }
        rows.append({"class": class_label(item.name), **of_classes[-1], **counts})
    sums = {name: sum(int(str(row[name])) for row in rows) for name in counts}
    return [*rows, {"class": ALL_CLASSES, **_means(of_classes), **sums}]


def _measures(case: CaseOverlap, position: int) -> Measures:
    """What was measured of a class in a case; None where it is not defined."""
    found = case.overlaps[position]
    measures: Measures = {"dice": found.dice, "iou": found.iou}
    if case.surfaces:
        measures |= {"hd95_mm": case.surfaces[position].hd95_mm, "nsd": case.surfaces[position].nsd}
    return measures


def _means(rows: Sequence[Measures]) -> Measures:
    """Of each measure, over the rows that have it."""
    return {name: _mean([row[name] for row in rows]) for name in rows[0]}


def _mean(values: Sequence[float | None]) -> float | None:
    defined = [value for value in values if value is not None]
    return sum(defined) / len(defined) if defined else None


def _check_geometry(reference: FileVolume | FileGrid, prediction: FileVolume | FileGrid) -> list[str]:
    """Raise where voxels of equal index are not at one place; warnings where the headers differ a little."""
    shape, found_shape = reference.shape, prediction.shape
    spacing, found_spacing = spacing_of(reference.affine), spacing_of(prediction.affine)
    axes, found_axes = (_axis_codes(volume.affine) for volume in (reference, prediction))
    checks = (
        ("shape", shape == found_shape, times(shape), times(found_shape)),
        ("spacing in mm", np.allclose(spacing, found_spacing), times(spacing), times(found_spacing)),
        ("orientation", axes == found_axes, axes, found_axes),
    )
    for what, agree, expected, found in checks:
        if not agree:
            raise InputError(
                prediction.path,
                expected=f"the reference's {what} {expected}",
                found=found,
                cure="predict on the images that belong to these labels",
            )
    if np.allclose(reference.affine, prediction.affine, rtol=1e-5, atol=_ORIGIN_TOLERANCE_MM):
        return []
    return [f"{prediction.path}: its origin or direction is not quite the reference's; voxels are compared by index"]


def _axis_codes(affine: np.ndarray) -> str:
    return "".join(nibabel.orientations.aff2axcodes(affine))  # type: ignore[no-untyped-call]
