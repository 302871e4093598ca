"""LiTS: 131 CT scans of the liver with labels and 70 without (`volume-N.nii`, `segmentation-N.nii`).

The training cases come in two folders `Training Batch 1` and `Training Batch 2`, elsewhere images and labels lie apart;
a file is known by its name, wherever it lies.
"""

import re
from collections import Counter, defaultdict
from pathlib import Path

from auvtool.cases import CaseProblem
from auvtool.converters import SourceCase, SourceDataset, case_problem
from auvtool.errors import InputError

_NAME = re.compile(r"(volume|segmentation|test-volume)-(\d+)(\.nii|\.nii\.gz)")
_NOTES = (
    "scans 28 to 47 have lost their voxel size (PatrickChrist/LITS-CHALLENGE#14): take the spacing as a covariate",
    "scans 28 to 44 and 46 to 48 are 3D-IRCADb too (assassint2017/MICCAI-LITS2017#33): do not test on them there",
)


def find_cases(folder: Path) -> SourceDataset:
    """Cases `lits_000`, `lits_001`, ...; those of the test set, which has no labels, are `lits_test_000`, ....

    Raises:
        InputError: there is no `volume-N.nii`.
    """
    files: dict[tuple[str, int], list[Path]] = defaultdict(list)
    endings: Counter[str] = Counter()
    for path in sorted(folder.rglob("*.nii*")):
        if match := _NAME.fullmatch(path.name):
            files[match[1], int(match[2])].append(path)
            endings[match[3]] += match[1] == "volume"
    if not endings.total():
        raise InputError(
            folder,
            expected="volume-0.nii, segmentation-0.nii, ... in it or in folders of it",
            found="no volume",
            cure="unpack the batches, and name the folder that holds them",
        )
    found: list[SourceCase | CaseProblem] = []
    for kind, number in sorted(files):
        if kind == "test-volume":
            found.append(SourceCase(f"lits_test_{number:03d}", files[kind, number][0], part="test"))
        elif kind == "volume" or ("volume", number) not in files:
            found.append(_case(f"lits_{number:03d}", folder, number, files))
    return SourceDataset(
        found=tuple(found),
        labels={"background": 0, "liver": 1, "tumor": 2},
        channel_names=("CT",),
        file_ending=endings.most_common(1)[0][0],
        header_quirks=("unit-spacing", "orientation"),
        notes=_NOTES,
    )


def _case(
    case_id: str, folder: Path, number: int, files: dict[tuple[str, int], list[Path]]
) -> SourceCase | CaseProblem:
    images, labels = files.get(("volume", number), []), files.get(("segmentation", number), [])
    for name, found in ((f"volume-{number}", images), (f"segmentation-{number}", labels)):
        if len(found) != 1:
            others = " and ".join(str(path.relative_to(folder)) for path in found) or "none"
            cure = "leave one of them" if found else "unpack the batch that holds it again, or take its partner out"
            return case_problem(case_id, folder, expected=f"one file {name}.nii", found=others, cure=cure)
    return SourceCase(case_id, images[0], labels[0])
