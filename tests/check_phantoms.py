"""A clean data set for `auvtool check`, in which one fault at a time is planted; nothing is imported from auvtool.

Eight cases of a body (40 HU) in air with two kidneys and a spine, ellipsoids that taper off, on a grid with a real
geometry; sizes, places and noise differ from case to case.
"""

import json
from pathlib import Path

import numpy as np
import SimpleITK as sitk  # noqa: N813  # its usual name
from phantoms import write_volume

NAMES = ("kidney_left", "kidney_right", "spine")
N_CASES = 8
ODD = "case_03"
SHAPE = (14, 30, 36)
GEOMETRY = {"spacing_mm": (3.0, 1.5, 1.5), "origin_mm": (-40.0, 25.0, 310.0)}


def ellipsoid(center, radii, shape=SHAPE):
    axes = np.meshgrid(*(np.arange(length) for length in shape), indexing="ij")
    return sum(((axis - c) / r) ** 2 for axis, c, r in zip(axes, center, radii, strict=True)) <= 1.0


def clean_case(seed):
    """Image (HU, int16) and label of one case; x grows towards the patient's left."""
    generator = np.random.default_rng(seed)
    dz, dy, dx = generator.uniform(-0.4, 0.4, 3)
    size = generator.uniform(0.95, 1.1)
    label = np.zeros(SHAPE, np.uint8)
    for value, x in ((1, 25.0), (2, 10.0)):
        label[ellipsoid((6.5 + dz, 13.0 + dy, x + dx), (4.6 * size, 4.3 * size, 3.8 * size))] = value
    label[ellipsoid((6.5 + dz, 22.0 + dy, 17.5 + dx), (4.6 * size, 3.0 * size, 3.2 * size))] = 3
    body = ellipsoid((6.5, 15.0, 17.5), (40.0, 14.0, 16.5))
    image = np.where(body, 40.0, -1000.0) + 60.0 * (label > 0) + generator.normal(0.0, 15.0, SHAPE)
    image += np.arange(SHAPE[0])[:, None, None] * generator.normal(0.0, 1.0, SHAPE[1:])
    return np.rint(image).astype(np.int16), label


def write_clean_dataset(folder: Path, *, n_cases=N_CASES, channel="CT") -> Path:
    folder.mkdir(parents=True)
    record = {
        "channel_names": {"0": channel},
        "labels": {"background": 0, **{name: value for value, name in enumerate(NAMES, start=1)}},
        "numTraining": n_cases,
        "file_ending": ".nii.gz",
    }
    (folder / "dataset.json").write_text(json.dumps(record))
    for number in range(n_cases):
        image, label = clean_case(number)
        write_volume(image_path(folder, f"case_{number:02d}"), image, **GEOMETRY)
        write_volume(label_path(folder, f"case_{number:02d}"), label, **GEOMETRY)
    return folder


def image_path(folder: Path, case_id=ODD) -> Path:
    return folder / "imagesTr" / f"{case_id}_0000.nii.gz"


def label_path(folder: Path, case_id=ODD) -> Path:
    return folder / "labelsTr" / f"{case_id}.nii.gz"


def voxels_of(path: Path) -> np.ndarray:
    return sitk.GetArrayFromImage(sitk.ReadImage(str(path)))


def change(path: Path, spoil, **geometry) -> None:
    """Write what `spoil` makes of the voxels; the geometry stays but for what is named."""
    write_volume(path, spoil(voxels_of(path)), **{**GEOMETRY, **geometry})
