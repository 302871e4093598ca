"""TotalSegmentator: some 1200 CT scans, a binary mask a structure (`s0000/ct.nii.gz`, `s0000/segmentations/*.nii.gz`).

Version 1 names 104 structures, version 2 names 117; which it is, the names of the masks tell.
"""

import csv
import io
from pathlib import Path

from auvtool.cases import CaseProblem
from auvtool.converters import Part, Quirk, SourceCase, SourceDataset, case_problem
from auvtool.converters.download_folder import folder_with
from auvtool.converters.totalsegmentator_classes import V1, V2
from auvtool.errors import InputError, one_line
from auvtool.tables import read_content

_ENDING = ".nii.gz"
_PARTS: dict[str, Part] = {"train": "train", "val": "val", "test": "test"}

# Cases that others found faulty, by the thread of wasserth/TotalSegmentator.
_REPORTED_V1 = {
    "rotated image, labels in the void (#34)": ("s0001", "s0036", "s0044", "s0067", "s0130", "s0149"),
    "corrupt file": ("s0864",),
}
_REPORTED_V2 = {
    "faulty labels (#245)": ("s0092", "s0201", "s0513", "s0605"),
    "faulty labels (#299)": ("s0143", "s1196"),
    "faulty labels (#394)": ("s0941", "s0350", "s0513", "s0603", "s0676", "s0071", "s0128"),
}
_NOTES = (
    "most structures are absent in most cases: a mean over a structure goes over the cases that hold it",
    "still known to be faulty in version 2: rib ends, and colon taken for small bowel",
)
_MISSING = "masks that are not in the folder: these structures count as background"
_UNKNOWN = "masks of structures that this version does not name: left out"


def find_cases(folder: Path) -> SourceDataset:
    """Cases `s0000`, ..., with the labels of the version that the masks are of; parts as in meta.csv.

    Raises:
        InputError: there is no `s*/ct.nii.gz`, the masks are of both versions, or meta.csv is broken.
    """
    root = folder_with(folder, lambda place: any(place.glob("s[0-9]*/segmentations")) or any(place.glob("s[0-9]*/ct*")))
    places = [] if root is None else [place for place in sorted(root.glob("s[0-9]*")) if place.is_dir()]
    if root is None or not places:
        raise InputError(
            folder,
            expected="s0000/ct.nii.gz and s0000/segmentations/liver.nii.gz, ...",
            found="none",
            cure="unpack Totalsegmentator_dataset_v201.zip and name its folder",
        )
    masks = {place.name: _masks(place / "segmentations") for place in places}
    classes, version = _classes(root, {name for found in masks.values() for name in found})
    meta = root / "meta.csv"
    parts = _parts(meta) if meta.is_file() else None
    found = [_case(place, masks[place.name], classes, parts=parts, meta=meta) for place in places]
    notes = [f"version {version}, {len(classes)} structures", _NOTES[0], *(_NOTES[1:] if version == 2 else ())]
    gone = sorted(set(parts or ()) - masks.keys())
    if gone:
        notes.append(f"{len(gone)} cases of meta.csv have no folder and are left out (first {gone[0]})")
    return SourceDataset(
        found=tuple(found),
        labels={"background": 0, **{name: value for value, name in enumerate(classes, start=1)}},
        channel_names=("CT",),
        # SimpleITK, which nnU-Net would take, refuses the direction cosines of over 100 cases.
        more={"overwrite_image_reader_writer": "NibabelIOWithReorient"},
        header_quirks=("not-orthonormal",),
        notes=tuple(notes),
        why_no_own_split="" if parts else f"there is no {meta}",
    )


def _masks(folder: Path) -> dict[str, Path]:
    return {
        path.name.removesuffix(_ENDING): path
        for path in sorted(folder.glob(f"*{_ENDING}"))
        if not path.name.startswith(".")
    }


def _classes(root: Path, names: set[str]) -> tuple[tuple[str, ...], int]:
    """The structures of the version that the masks are of, and its number; version 2 where nothing tells."""
    only_v1, only_v2 = sorted(names & (set(V1) - set(V2))), sorted(names & (set(V2) - set(V1)))
    if only_v1 and only_v2:
        raise InputError(
            root,
            expected="masks of version 1 or of version 2",
            found=f"{only_v1[0]} of version 1 and {only_v2[0]} of version 2",
            cure="keep the versions in folders of their own",
        )
    return (V1, 1) if only_v1 else (V2, 2)


def _case(
    place: Path,
    masks: dict[str, Path],
    classes: tuple[str, ...],
    *,
    parts: dict[str, Part] | None,
    meta: Path,
) -> SourceCase | CaseProblem:
    case_id, image = place.name, place / f"ct{_ENDING}"
    if not image.is_file():
        return case_problem(
            case_id, image, expected="the image of the case", found="no such file", cure="unpack the archive again"
        )
    named = tuple((value, masks[name]) for value, name in enumerate(classes, start=1) if name in masks)
    if not named:
        cure = "unpack the archive again, or take the case out"
        return case_problem(
            case_id, place / "segmentations", expected="a mask a structure (liver.nii.gz, ...)", found="none", cure=cure
        )
    if parts is not None and case_id not in parts:
        cure = "add the case there, or choose --split random"
        return case_problem(case_id, meta, expected="a row for each case", found="none for this one", cure=cure)
    reported = _REPORTED_V1 if classes == V1 else _REPORTED_V2
    quirks = [Quirk("reported", f"reported by others: {text}") for text, ids in reported.items() if case_id in ids]
    missing = [name for name in classes if name not in masks]
    unknown = sorted(set(masks) - set(classes))
    for name, text, structures in (("masks-missing", _MISSING, missing), ("masks-unknown", _UNKNOWN, unknown)):
        if structures:
            quirks.append(Quirk(name, text, " ".join(structures)))
    part = "train" if parts is None else parts[case_id]
    return SourceCase(case_id, image, masks=named, part=part, quirks=tuple(quirks))


def _parts(meta: Path) -> dict[str, Part]:
    """Where meta.csv puts each case; its columns stand between semicolons."""
    try:
        text = read_content(meta).decode("utf-8-sig")
        header = text.split("\n", 1)[0]
        rows = list(csv.DictReader(io.StringIO(text, newline=""), delimiter=";" if ";" in header else ","))
        parts = {row["image_id"]: _PARTS[row["split"]] for row in rows}
    except (OSError, ValueError, KeyError, csv.Error) as error:
        raise InputError(
            meta,
            expected="a table with columns image_id and split (train, val or test), ; between them",
            found=f"'{type(error).__name__}: {one_line(error)}'",
            cure="get it from the archive again",
        ) from error
    return parts
