"""A task of the Medical Segmentation Decathlon: files named by its dataset.json, several channels in one 4D file."""

from pathlib import Path
from typing import Any

from auvtool.cases import CaseProblem
from auvtool.converters import SourceCase, SourceDataset, case_problem
from auvtool.converters.download_folder import folder_with
from auvtool.errors import InputError, one_line
from auvtool.json_text import json_text_of, parse_json

_ENDING = ".nii.gz"


def find_cases(folder: Path) -> SourceDataset:
    """Cases named as their files (`hippocampus_001`).

    Raises:
        InputError: there is no dataset.json of the Decathlon, or it is broken.
    """
    root = folder_with(folder, lambda place: (place / "dataset.json").is_file())
    where = (root or folder) / "dataset.json"
    raw = _read(where)
    missing = [key for key in ("training", "labels", "modality") if key not in raw]
    if missing:
        cure = "it is nnU-Net's own already: use the data set as it is" if "channel_names" in raw else "get it anew"
        raise InputError(
            where,
            expected="the keys training, labels and modality of the Decathlon",
            found=f"no {', '.join(missing)}",
            cure=cure,
        )
    found = [_case(where, entry) for entry in _entries(where, raw, "training")]
    test = [_test_image(where, entry) for entry in _entries(where, raw, "test")]
    found += [SourceCase(image.name.removesuffix(_ENDING), image, part="test") for image in test if image.is_file()]
    n_lacking = sum(not image.is_file() for image in test)
    lacking = (f"{n_lacking} test images of dataset.json are not there and are left out",) if n_lacking else ()
    return SourceDataset(
        found=tuple(found),
        labels=_labels(where, raw["labels"]),
        channel_names=_channels(where, raw["modality"]),
        notes=(*lacking, *_orphans(where.parent, raw)),
    )


def _read(path: Path) -> dict[str, Any]:
    try:
        raw = parse_json(json_text_of(path))
    except OSError as error:
        raise InputError(
            path, expected="the dataset.json of a task", found=f"'{error.strerror}'", cure="name the folder TaskXX_Name"
        ) from error
    except ValueError as error:
        raise InputError(path, expected="valid JSON", found=f"'{one_line(error)}'", cure="get the file anew") from error
    if not isinstance(raw, dict):
        raise InputError(path, expected="a JSON object", found=type(raw).__name__, cure="get the file anew")
    return raw


def _entries(where: Path, raw: dict[str, Any], key: str) -> list[object]:
    entries = raw.get(key, [])
    if not isinstance(entries, list):
        raise InputError(where, expected=f"a list in {key}", found=f"{entries!r:.80}", cure="get it anew")
    return entries


def _test_image(where: Path, entry: object) -> Path:
    return where.parent / str(entry.get("image") if isinstance(entry, dict) else entry)


def _case(where: Path, entry: object) -> SourceCase | CaseProblem:
    if not isinstance(entry, dict) or not all(isinstance(entry.get(key), str) for key in ("image", "label")):
        raise InputError(
            where, expected='{"image": path, "label": path} in training', found=f"{entry!r:.80}", cure="get it anew"
        )
    image, label = (where.parent / entry[key] for key in ("image", "label"))
    case_id = image.name.removesuffix(_ENDING)
    for path in (image, label):
        if not path.is_file():
            cure = "unpack the archive again, or take the case out of training there"
            return case_problem(case_id, path, expected=f"the file that {where} names", found="none", cure=cure)
    return SourceCase(case_id, image, label)


def _labels(where: Path, named: object) -> dict[str, int | list[int]]:
    """{"0": "background", "1": "liver"} turned round, in the order of the values."""
    try:
        pairs = sorted((int(value), str(name)) for value, name in dict(named).items())  # type: ignore[call-overload]
    except (TypeError, ValueError):
        pairs = []
    values, names = [value for value, _ in pairs], [name for _, name in pairs[1:]]
    if len(values) < 2 or values != list(range(len(values))) or len(set(names)) < len(names):
        raise InputError(
            where,
            expected='labels like {"0": "background", "1": "liver"}, counted from 0 on',
            found=f"{named!r:.80}",
            cure="number the classes without a gap, there and in the label maps",
        )
    return {"background": 0, **dict(zip(names, values[1:], strict=True))}


def _channels(where: Path, named: object) -> tuple[str, ...]:
    try:
        pairs = sorted((int(number), str(name)) for number, name in dict(named).items())  # type: ignore[call-overload]
    except (TypeError, ValueError):
        pairs = []
    if not pairs or [number for number, _ in pairs] != list(range(len(pairs))):
        raise InputError(
            where, expected='modality like {"0": "MRI"}', found=f"{named!r:.80}", cure="number the channels from 0 on"
        )
    # The name by which nnU-Net knows Hounsfield units.
    return tuple("CT" if name.lower() == "ct" else name for _, name in pairs)


def _orphans(folder: Path, raw: dict[str, Any]) -> tuple[str, ...]:
    named = {Path(entry["image"]).name for entry in raw["training"]}
    files = {path.name for path in (folder / "imagesTr").glob(f"*{_ENDING}") if not path.name.startswith(".")}
    orphans = sorted(files - named)
    if not orphans:
        return ()
    return (f"{len(orphans)} images in imagesTr that dataset.json does not name are left out (first {orphans[0]})",)
