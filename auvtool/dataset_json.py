"""dataset.json of an nnU-Net raw data set: keys, channels, classes, regions, ignore label, file ending."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from auvtool.errors import InputError, one_line
from auvtool.json_text import json_text_of, parse_json

# What nnU-Net 2.8 has a reader for, and .mhd, which SimpleITK reads as well. The longer ending stands first.
FILE_ENDINGS = (".nii.gz", ".nii", ".nrrd", ".mha", ".mhd", ".gipl", ".tiff", ".tif", ".png", ".bmp")
# Atlases of the brain have some hundred. A confusion matrix of as many is 128 MiB.
_MOST_LABELS = 4096
_REQUIRED_KEYS = ("labels", "channel_names", "numTraining", "file_ending")


@dataclass(frozen=True)
class SemanticClass:
    """A foreground class: one label value, or a region of several.

    `class_id` is the label value, or for regions the 1-based position among the foreground regions.
    """

    class_id: int
    name: str
    labels: tuple[int, ...]


def read_dataset_json(folder: Path) -> dict[str, Any]:
    """dataset.json of an nnU-Net raw data set (its folder, or the file itself), with all required keys.

    Raises:
        InputError: it is missing, not JSON, or lacks a key.
    """
    path = folder if folder.is_file() or (folder.suffix == ".json" and not folder.is_dir()) else folder / "dataset.json"
    try:
        raw = parse_json(json_text_of(path))
    except OSError as error:
        raise InputError(
            path, expected="a readable dataset.json", found=f"'{error.strerror}'", cure="check the path"
        ) from error
    except ValueError as error:
        raise InputError(path, expected="valid JSON", found=f"'{one_line(error)}'", cure="correct the file") from error
    if not isinstance(raw, dict):
        raise InputError(path, expected="a JSON object", found=type(raw).__name__, cure="correct the file")
    missing = [key for key in _REQUIRED_KEYS if key not in raw]
    if missing:
        raise InputError(
            path,
            expected=f"the keys {', '.join(_REQUIRED_KEYS)}",
            found=f"no {', '.join(missing)}",
            cure="add what is missing (nnU-Net requires it too)",
        )
    return raw


def image_file_ending(raw: Mapping[str, Any], where: Path) -> str:
    """The ending of image and label files."""
    ending = raw["file_ending"]
    if not isinstance(ending, str) or ending.lower() not in FILE_ENDINGS:
        raise InputError(
            where,
            expected=f"a file_ending among {', '.join(FILE_ENDINGS)}",
            found=repr(ending),
            cure="correct it, or convert the files",
        )
    return ending


def channel_names(raw: Mapping[str, Any], where: Path) -> tuple[str, ...]:
    """Names of the channels in the order of dataset.json."""
    names = raw["channel_names"]
    if not isinstance(names, dict) or not names:
        raise InputError(
            where, expected='channel_names like {"0": "CT"}', found=f"{names!r:.80}", cure="correct dataset.json"
        )
    return tuple(str(name) for name in names.values())


def semantic_classes(raw: Mapping[str, Any], where: Path) -> tuple[tuple[SemanticClass, ...], int | None, bool]:
    """Foreground classes in the order of dataset.json, ignore label, and whether there are regions.

    Raises:
        InputError: no background 0, values that are not consecutive or far too many, an ignore label that is not the
            highest, or regions without `regions_class_order`.
    """
    labels = raw["labels"]
    if not isinstance(labels, dict) or not labels:
        raise InputError(
            where,
            expected='labels like {"background": 0, "liver": 1}',
            found=f"{labels!r:.80}",
            cure="correct dataset.json",
        )
    if "background" not in labels:
        turned = "background" in labels.values()
        raise InputError(
            where,
            expected='"background": 0 among the labels',
            found="names under numbers, as nnU-Net 1 wrote them" if turned else "none",
            cure="turn keys and values round" if turned else "add it",
        )
    values = {str(name): _label_values(value, f"{where}: label {name}") for name, value in labels.items()}
    if values["background"] != (0,):
        raise InputError(where, expected="background to be 0", found=labels["background"], cure="correct dataset.json")
    ignore = values.pop("ignore", None)
    if ignore is not None and len(ignore) != 1:
        raise InputError(where, expected="one value for ignore", found=labels["ignore"], cure="correct dataset.json")
    has_regions = any(isinstance(value, list) and len(value) > 1 for value in labels.values())
    foreground = {name: group for name, group in values.items() if set(group) != {0}}
    used = sorted({0, *(value for group in values.values() for value in group)} | set(ignore or ()))
    highest_is_ignore = ignore is None or (
        used[-1] == ignore[0] and all(ignore[0] not in group for group in values.values())
    )
    if used != list(range(len(used))) or not highest_is_ignore:
        raise InputError(
            where,
            expected="consecutive labels from 0 on" + ("" if ignore is None else ", ignore the highest"),
            found=", ".join(map(str, used)) + ("" if ignore is None else f" with ignore {ignore[0]}"),
            cure="renumber the labels in dataset.json and in the label files",
        )
    if len(used) > _MOST_LABELS:
        raise InputError(
            where, expected=f"at most {_MOST_LABELS} labels", found=len(used), cure="leave out what no label holds"
        )
    if has_regions:
        order = raw.get("regions_class_order")
        if not isinstance(order, list) or len(order) != len(foreground):
            raise InputError(
                where,
                expected=f"regions_class_order with {len(foreground)} values, one a region",
                found=repr(order),
                cure="add it (nnU-Net writes regions in that order)",
            )
        classes = tuple(
            SemanticClass(position, name, group) for position, (name, group) in enumerate(foreground.items(), start=1)
        )
    else:
        classes = tuple(SemanticClass(group[0], name, group) for name, group in foreground.items())
    return classes, None if ignore is None else ignore[0], has_regions


def _label_values(value: object, where: str) -> tuple[int, ...]:
    items = value if isinstance(value, list) else [value]
    if not items or not all(isinstance(item, int) and not isinstance(item, bool) and item >= 0 for item in items):
        raise InputError(where, expected="a whole number or a list of them", found=repr(value), cure="correct it")
    return tuple(items)
