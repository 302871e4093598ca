"""FeTA 2022: 120 reconstructed T2-weighted MR scans of the fetal brain, in BIDS (`sub-001/anat/*_T2w.nii.gz`)."""

import re
from pathlib import Path

from auvtool.cases import CaseProblem
from auvtool.converters import Quirk, SourceCase, SourceDataset, case_problem
from auvtool.converters.download_folder import folder_with
from auvtool.errors import InputError

TISSUES = (
    "external_cerebrospinal_fluid",
    "grey_matter",
    "white_matter",
    "ventricles",
    "cerebellum",
    "deep_grey_matter",
    "brainstem",
)
_NAME = re.compile(r"(sub-[^_]+_rec-([^_]+))_(T2w|dseg)\.nii\.gz")
_NOTES = (
    "the way of reconstruction (rec-) stands in the case id: it is a domain and goes with image quality, so report "
    "results by it",
    "the background is filled with 0: nnU-Net crops to the brain and normalises within it (use_mask_for_norm)",
)


def find_cases(folder: Path) -> SourceDataset:
    """Cases `sub-001_rec-mial`, ....

    Raises:
        InputError: there is no folder `sub-*/anat` with a T2-weighted image.
    """
    root = folder_with(folder, lambda place: any(place.glob("sub-*/anat")))
    pairs: dict[str, dict[str, Path]] = {}
    reconstruction: dict[str, str] = {}
    for path in [] if root is None else sorted(root.glob("sub-*/anat/sub-*_rec-*.nii.gz")):
        if match := _NAME.fullmatch(path.name):
            pairs.setdefault(match[1], {})[match[3]] = path
            reconstruction[match[1]] = match[2]
    if root is None or not pairs:
        raise InputError(
            folder,
            expected="sub-001/anat/sub-001_rec-mial_T2w.nii.gz, ...",
            found="none",
            cure="name the folder that holds the subjects (feta_2.2)",
        )
    found: list[SourceCase | CaseProblem] = []
    for case_id, files in sorted(pairs.items()):
        if len(files) == 2:
            way = reconstruction[case_id]
            quirk = Quirk(f"reconstruction-{way}", f"super-resolution reconstruction {way}")
            found.append(SourceCase(case_id, files["T2w"], files["dseg"], quirks=(quirk,)))
            continue
        there = next(iter(files.values()))
        lacking = there.with_name(f"{case_id}_{'dseg' if 'T2w' in files else 'T2w'}.nii.gz")
        cure = f"get it again, or take {there.name} out"
        found.append(
            case_problem(case_id, lacking, expected="an image and its label beside it", found="no such file", cure=cure)
        )
    return SourceDataset(
        found=tuple(found),
        labels={"background": 0, **{name: value for value, name in enumerate(TISSUES, start=1)}},
        channel_names=("T2w",),
        notes=_NOTES,
    )
