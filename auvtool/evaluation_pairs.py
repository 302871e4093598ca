"""Which prediction belongs to which reference, and what their labels mean, found without reading a voxel."""

from dataclasses import dataclass
from pathlib import Path

from auvtool.dataset import open_dataset
from auvtool.dataset_json import SemanticClass, image_file_ending, read_dataset_json, semantic_classes
from auvtool.errors import InputError


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


def _find_dataset_json(predictions: Path, labels: Path, given: Path | None) -> Path:
    if given is not None:
        return given / "dataset.json" if given.is_dir() else given
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
