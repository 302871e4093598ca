"""WORD: 150 CT scans for radiotherapy, 16 organs of the abdomen (`imagesTr`, `imagesVal`, `imagesTs` and labels)."""

from pathlib import Path

from auvtool.cases import CaseProblem
from auvtool.converters import Part, Quirk, SourceCase, SourceDataset, case_problem
from auvtool.converters.download_folder import folder_with
from auvtool.errors import InputError

ENDING = ".nii.gz"
ORGANS = (
    "liver",
    "spleen",
    "left_kidney",
    "right_kidney",
    "stomach",
    "gallbladder",
    "esophagus",
    "pancreas",
    "duodenum",
    "colon",
    "intestine",
    "adrenal",
    "rectum",
    "bladder",
    "Head_of_femur_L",
    "Head_of_femur_R",
)
_PARTS: dict[str, Part] = {"Tr": "train", "Val": "val", "Ts": "test"}
_FROM_VAL = Quirk("val-merged", "of the folder imagesVal: among the training cases here, as in the paper's 120")


def find_cases(folder: Path) -> SourceDataset:
    """Cases named as their files (`word_0002`); training and validation folders together.

    Raises:
        InputError: there is no folder imagesTr with images.
    """
    root = folder_with(folder, lambda place: any((place / "imagesTr").glob(f"*{ENDING}")))
    if root is None:
        raise InputError(
            folder,
            expected=f"WORD's folders imagesTr, labelsTr, imagesVal, labelsVal with {ENDING} files",
            found="none",
            cure="unpack WORD-V0.1.0.zip (its password is in the README of its repository) and name its folder",
        )
    found: list[SourceCase | CaseProblem] = []
    notes = []
    for suffix, part in _PARTS.items():
        images, labels = (_files(root / f"{kind}{suffix}") for kind in ("images", "labels"))
        if not images and not labels:
            notes.append(f"there is no folder images{suffix}: its cases are not in this data set")
        for case_id in sorted(images.keys() | labels.keys()):
            quirks = (_FROM_VAL,) if part == "val" else ()
            if case_id in images and (case_id in labels or part == "test"):
                found.append(SourceCase(case_id, images[case_id], labels.get(case_id), part=part, quirks=quirks))
                continue
            lacking = "labels" if case_id in images else "images"
            missing = root / f"{lacking}{suffix}" / (case_id + ENDING)
            cure = f"unpack it again, or take its partner out of the other folder ({suffix})"
            found.append(
                case_problem(case_id, missing, expected=f"a file in {lacking}{suffix}", found="none", cure=cure)
            )
    return SourceDataset(
        found=tuple(found),
        labels={"background": 0, **{name: value for value, name in enumerate(ORGANS, start=1)}},
        channel_names=("CT",),
        notes=tuple(notes),
    )


def _files(folder: Path) -> dict[str, Path]:
    return {
        path.name.removesuffix(ENDING): path
        for path in sorted(folder.glob(f"*{ENDING}"))
        if not path.name.startswith(".")
    }
