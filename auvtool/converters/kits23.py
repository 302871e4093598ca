"""KiTS23: 489 contrast CT scans of kidneys, tumours and cysts (`case_00000/imaging.nii.gz`, `segmentation.nii.gz`)."""

from pathlib import Path

from auvtool.cases import CaseProblem
from auvtool.converters import SourceCase, SourceDataset, case_problem
from auvtool.converters.download_folder import folder_with
from auvtool.errors import InputError

_GET_IMAGES = "the repository holds labels only: run kits23_download_data in it, then convert again"
_NOTES = (
    "the classes are the regions of the challenge: kidney and mass (1, 2, 3), mass (2, 3), tumor (2)",
    "labels of the instances by up to three annotators stay in the source (instances/): the spread between them is not "
    "in this data set",
)


def find_cases(folder: Path) -> SourceDataset:
    """Cases `case_00000`, ....

    Raises:
        InputError: there is no folder `case_*` with a segmentation, or none of them holds its image.
    """
    root = folder_with(folder, lambda place: any(place.glob("case_*/*.nii.gz")))
    folders = [] if root is None else [place for place in sorted(root.glob("case_*")) if place.is_dir()]
    if not folders:
        raise InputError(
            folder,
            expected="case_00000/imaging.nii.gz and segmentation.nii.gz, case_00001, ...",
            found="no such folder",
            cure="name the folder dataset of the cloned repository",
        )
    found: list[SourceCase | CaseProblem] = []
    for place in folders:
        image, label = place / "imaging.nii.gz", place / "segmentation.nii.gz"
        if image.is_file() and label.is_file():
            found.append(SourceCase(place.name, image, label))
        elif label.is_file():
            found.append(
                case_problem(
                    place.name, image, expected="the image beside its label", found="no such file", cure=_GET_IMAGES
                )
            )
        else:
            there = "imaging.nii.gz without it" if image.is_file() else "neither it nor an image"
            cure = "check out the repository again (git checkout dataset)"
            found.append(case_problem(place.name, label, expected="a label map", found=there, cure=cure))
    if not any(isinstance(one, SourceCase) for one in found):
        raise InputError(
            root,
            expected="imaging.nii.gz beside segmentation.nii.gz",
            found=f"it in none of {len(folders)} case folders",
            cure=_GET_IMAGES,
        )
    return SourceDataset(
        found=tuple(found),
        labels={"background": 0, "kidney_and_mass": [1, 2, 3], "mass": [2, 3], "tumor": [2]},
        channel_names=("CT",),
        # As nnU-Net's own conversion: a voxel is kidney, then mass overwrites it with 3, then tumour with 2.
        more={"regions_class_order": [1, 3, 2], "overwrite_image_reader_writer": "NibabelIOWithReorient"},
        header_quirks=("slices-first", "not-512"),
        notes=_NOTES,
    )
