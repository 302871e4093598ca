"""Predictions against references: overlap of every class in every case, and its means."""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

import nibabel.orientations
import numpy as np

from auvtool.dataset import open_dataset
from auvtool.dataset_json import SemanticClass, image_file_ending, read_dataset_json, semantic_classes
from auvtool.errors import InputError
from auvtool.metrics import Overlap, confusion_matrix, overlap
from auvtool.schema import Row
from auvtool.volume import whole_numbers
from auvtool.volume_file import FileVolume, read_volume_file, spacing_of
from auvtool.worker_pool import WorkerDied
from auvtool.workplace import HERE, Workplace

_ORIGIN_TOLERANCE_MM = 1e-3


@dataclass(frozen=True)
class Pair:
    """Prediction and reference of one case."""

    case_id: str
    prediction: Path
    reference: Path


@dataclass(frozen=True)
class Comparison:
    """What is compared with what, found without reading a voxel.

    Attributes:
        pairs: sorted by case id.
        missing: reference cases without a prediction.
        extra: predictions without a reference.
        classes: foreground classes in the order of dataset.json.
        ignore_label: its voxels count nowhere.
        nnunet_keys: the name of each class in nnU-Net's summary.json.
        has_regions: the classes are regions of several labels.
        dataset_json: where classes were read.
    """

    pairs: tuple[Pair, ...]
    missing: tuple[str, ...]
    extra: tuple[str, ...]
    classes: tuple[SemanticClass, ...]
    ignore_label: int | None
    nnunet_keys: tuple[str, ...]
    has_regions: bool
    dataset_json: Path


@dataclass(frozen=True)
class CaseOverlap:
    """Overlap of each class, in the order of the comparison's classes."""

    pair: Pair
    overlaps: tuple[Overlap, ...]
    warnings: tuple[str, ...] = ()


@dataclass
class Evaluation:
    """Result of a run: cases in the order of the pairs, and the rows of the FAILURES table."""

    comparison: Comparison
    cases: list[CaseOverlap] = field(default_factory=list)
    failures: list[Row] = field(default_factory=list)


def find_pairs(predictions: Path, labels: Path, *, dataset_json: Path | None = None) -> Comparison:
    """Match the predictions of a folder with the references of another by case id (file name less its ending).

    Args:
        predictions: folder of label maps, as nnU-Net's predict writes it.
        labels: folder of label maps, or an nnU-Net raw data set, of which labelsTs is taken where it has more of the
            predicted cases than labelsTr.
        dataset_json: tells the classes; by default the one of the data set, beside the labels or with the predictions.

    Raises:
        InputError: a folder cannot be read, no dataset.json is found, or no case is in both folders.
    """
    source = _find_dataset_json(predictions, labels, dataset_json)
    raw = read_dataset_json(source)
    classes, ignore_label, has_regions = semantic_classes(raw, source)
    if not classes:
        raise InputError(source, expected="a foreground class", found="none", cure="name the classes in 'labels'")
    ending = image_file_ending(raw, source)
    predicted = _label_files(predictions, ending)
    references = _references(labels, ending, set(predicted))
    common = sorted(predicted.keys() & references.keys())
    if not common:
        raise InputError(
            predictions,
            expected=f"predictions ({ending}) named as the cases of {labels}",
            found=f"{len(predicted)} predictions, none of {len(references)} cases",
            cure="check both folders",
        )
    if not has_regions:
        keys = tuple(str(item.class_id) for item in classes)
    else:
        foreground = [value for name, value in raw["labels"].items() if name != "ignore" and value not in (0, [0])]
        keys = tuple(str(tuple(value)) if isinstance(value, list) else str(value) for value in foreground)
    return Comparison(
        pairs=tuple(Pair(case_id, predicted[case_id], references[case_id]) for case_id in common),
        missing=tuple(sorted(references.keys() - predicted.keys())),
        extra=tuple(sorted(predicted.keys() - references.keys())),
        classes=classes,
        ignore_label=ignore_label,
        nnunet_keys=keys,
        has_regions=has_regions,
        dataset_json=source,
    )


def evaluate(
    comparison: Comparison,
    *,
    workplace: Workplace = HERE,
    keep_going: bool = True,
    on_case: Callable[[str], None] = lambda case_id: None,
) -> Evaluation:
    """Read and count every pair; a case that fails becomes a row of the failures.

    Args:
        comparison: see `find_pairs`.
        workplace: its jobs are threads (reading and counting leave the interpreter's lock).
        keep_going: otherwise the first bad case is raised.
        on_case: called with the case id of each finished or failed case.

    Raises:
        InputError: a case is bad and `keep_going` is off.
    """
    result = Evaluation(comparison)
    for pair, outcome in zip(comparison.pairs, _outcomes(comparison, workplace), strict=True):
        on_case(pair.case_id)
        if isinstance(outcome, CaseOverlap):
            result.cases.append(outcome)
        elif keep_going:
            result.failures.append({"case": pair.case_id, "step": "eval", "error": str(outcome)})
        else:
            raise outcome
    return result


def _attempt(pair: Pair, *, comparison: Comparison) -> CaseOverlap | InputError:
    try:
        return compare_case(pair, comparison)
    except InputError as error:
        return error


def _outcomes(comparison: Comparison, workplace: Workplace) -> Iterator[CaseOverlap | InputError]:
    attempt = partial(_attempt, comparison=replace(comparison, pairs=(), missing=(), extra=()))
    if workplace.cluster is not None:
        yield from _outcomes_on_cluster(attempt, comparison.pairs, workplace)
        return
    if workplace.jobs == 1:
        yield from map(attempt, comparison.pairs)
        return
    with ThreadPoolExecutor(workplace.jobs) as pool:
        try:
            yield from pool.map(attempt, comparison.pairs)
        finally:
            pool.shutdown(cancel_futures=True)


def _outcomes_on_cluster(
    attempt: Callable[[Pair], CaseOverlap | InputError], pairs: Sequence[Pair], workplace: Workplace
) -> Iterator[CaseOverlap | InputError]:
    """In the order of the pairs, each as soon as those before it are there."""
    early: dict[str, CaseOverlap | InputError] = {}
    order = iter(pairs)
    expected = next(order)
    with closing(workplace.results(attempt, pairs, on_worker_died=lambda lost: None)) as results:
        for pair, result in results:
            early[pair.case_id] = _killed(pair) if isinstance(result, WorkerDied) else result
            while expected.case_id in early:
                yield early.pop(expected.case_id)
                expected = next(order, Pair("", Path(), Path()))


def _killed(pair: Pair) -> InputError:
    return InputError(
        pair.case_id,
        expected="a case that can be compared",
        found="its worker process killed",
        cure="is memory short? use larger workers",
    )


def compare_case(pair: Pair, comparison: Comparison) -> CaseOverlap:
    """Overlap of one case, voxel by voxel in the order of the files, as nnU-Net compares them.

    Raises:
        InputError: a file cannot be read whole or is no label map, or the two differ in shape, spacing or orientation.
    """
    reference, prediction = read_volume_file(pair.reference), read_volume_file(pair.prediction)
    notes = _check_geometry(reference, prediction)
    n_labels = 1 + max(comparison.ignore_label or 0, *(max(item.labels) for item in comparison.classes))
    # The files' first index is the fastest in memory: transposed, the arrays are cut into blocks without a copy.
    confusion = confusion_matrix(whole_numbers(reference)[0].T, whole_numbers(prediction)[0].T, n_labels=n_labels)
    for path, count in (
        (pair.reference, int(confusion[n_labels].sum())),
        (pair.prediction, int(confusion[:, n_labels].sum())),
    ):
        if count:
            notes.append(f"{path}: {count} voxels with labels that dataset.json does not name; counted as no class")
    overlaps = (overlap(confusion, item.labels, ignore_label=comparison.ignore_label) for item in comparison.classes)
    return CaseOverlap(pair, tuple(overlaps), tuple(notes))


def metrics_rows(evaluation: Evaluation) -> list[Row]:
    """Rows of the METRICS table: for each case its classes, then the whole case (mean over its defined classes)."""
    rows: list[Row] = []
    for case in evaluation.cases:
        for item, found in zip(evaluation.comparison.classes, case.overlaps, strict=True):
            rows.append(
                {
                    "case": case.pair.case_id,
                    "class_id": item.class_id,
                    "class_name": item.name,
                    "status": found.status,
                    "dice": found.dice,
                    "iou": found.iou,
                    "tp": found.tp,
                    "fp": found.fp,
                    "fn": found.fn,
                    "n_reference": found.tp + found.fn,
                    "n_prediction": found.tp + found.fp,
                }
            )
        dice = _mean([found.dice for found in case.overlaps])
        rows.append(
            {
                "case": case.pair.case_id,
                "class_id": None,
                "class_name": "all",
                "status": "absent" if dice is None else "ok",
                "dice": dice,
                "iou": _mean([found.iou for found in case.overlaps]),
            }
        )
    return rows


def class_means(evaluation: Evaluation) -> list[Row]:
    """Means of each class over the cases where it is defined, then of all classes over the classes that have one.

    Columns: class, dice, iou (None where no case defines them), n_defined, n_absent (in neither map: no part of the
    mean), n_false_alarm and n_missed (both count 0).
    """
    rows: list[Row] = []
    for position, item in enumerate(evaluation.comparison.classes):
        found = [case.overlaps[position] for case in evaluation.cases]
        statuses = [one.status for one in found]
        rows.append(
            {
                "class": item.name,
                "dice": _mean([one.dice for one in found]),
                "iou": _mean([one.iou for one in found]),
                "n_defined": len(found) - statuses.count("absent"),
                "n_absent": statuses.count("absent"),
                "n_false_alarm": statuses.count("false_alarm"),
                "n_missed": statuses.count("missed"),
            }
        )
    counts = {name: sum(int(str(row[name])) for row in rows) for name in list(rows[0])[3:]}
    means = {name: _mean([row[name] for row in rows]) for name in ("dice", "iou")}  # type: ignore[misc]
    return [*rows, {"class": "all", **means, **counts}]


def _mean(values: Sequence[float | None]) -> float | None:
    defined = [value for value in values if value is not None]
    return sum(defined) / len(defined) if defined else None


def _check_geometry(reference: FileVolume, prediction: FileVolume) -> list[str]:
    """Raise where voxels of equal index are not at one place; warnings where the headers differ a little."""
    shape, found_shape = reference.voxels.shape[1:], prediction.voxels.shape[1:]
    spacing, found_spacing = spacing_of(reference.affine), spacing_of(prediction.affine)
    axes, found_axes = (_axis_codes(volume.affine) for volume in (reference, prediction))
    checks = (
        ("shape", shape == found_shape, _times(shape), _times(found_shape)),
        ("spacing in mm", np.allclose(spacing, found_spacing), _times(spacing), _times(found_spacing)),
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


def _times(values: Sequence[int] | np.ndarray) -> str:
    return "x".join(f"{float(value):.6g}" for value in values)


def _find_dataset_json(predictions: Path, labels: Path, given: Path | None) -> Path:
    if given is not None:
        return given if given.is_file() else given / "dataset.json"
    candidates = [folder / "dataset.json" for folder in (labels, labels.absolute().parent, predictions)]
    for path in candidates:
        if path.is_file():
            return path
    raise InputError(
        labels, expected="a dataset.json in it, beside it or with the predictions", found="none", cure="name one (-d)"
    )


def _references(labels: Path, ending: str, predicted: set[str]) -> dict[str, Path]:
    if not (labels / "dataset.json").is_file():
        return _label_files(labels, ending)
    test = _label_files(labels / "labelsTs", ending) if (labels / "labelsTs").is_dir() else {}
    if (labels / "labelsTr").is_dir() and "dataset" not in read_dataset_json(labels):
        training = _label_files(labels / "labelsTr", ending)
    else:  # a data set by reference, of which labelsTr holds some at most
        training = {case.case_id: case.label for case in open_dataset(labels).cases if case.label is not None}
    return test if len(test.keys() & predicted) > len(training.keys() & predicted) else training


def _label_files(folder: Path, ending: str) -> dict[str, Path]:
    try:
        names = sorted(entry.name for entry in folder.iterdir() if entry.is_file())
    except OSError as error:
        raise InputError(
            folder, expected="a readable folder", found=f"'{error.strerror}'", cure="check the path and its rights"
        ) from error
    return {
        name.removesuffix(ending): folder / name for name in names if name.endswith(ending) and not name.startswith(".")
    }
