"""Public data sets in miniature, laid out as they are downloaded; nothing is imported from auvtool.

Every function returns the folder to convert. Voxels (i, j, k) are on the axes of the file; a label is a box a class,
the image 100 times the label, the number of the case in its first voxel, air elsewhere.
"""

import json
from pathlib import Path

import nibabel
import numpy as np

SHAPE = (8, 9, 6)
AFFINE = np.array([[-0.7, 0, 0, 90.0], [0, -0.7, 0, 80.0], [0, 0, 2.5, -300.0], [0, 0, 0, 1]])
IDENTITY = np.eye(4)


def label_of(number: int, n_classes: int, shape=SHAPE) -> np.ndarray:
    """One voxel a class, and a block of the first; where they lie depends on the number of the case."""
    label = np.zeros(shape, np.uint8)
    label[1:4, 1:4, 1:3] = 1
    flat = label.reshape(-1)
    places = np.random.default_rng(number).permutation(np.flatnonzero(flat == 0)[1:])[:n_classes]
    flat[places] = np.arange(1, n_classes + 1)
    return label


def image_of(label: np.ndarray, number: int = 0) -> np.ndarray:
    """Air, and 100 times the label."""
    image = np.where(label > 0, 100 * label.astype(np.int16), -1000).astype(np.int16)
    image[0, 0, 0] = number
    return image


def write(path: Path, voxels: np.ndarray, affine=AFFINE) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    image = nibabel.Nifti1Image(voxels, affine)
    image.set_qform(affine, 1)
    image.set_sform(affine, 1)
    image.to_filename(path)
    return path


def lits(folder: Path, numbers=(0, 1, 2, 27, 28, 53), test=(0,)) -> Path:
    """Case 28 has lost its voxel size, the label of 53 its header; 27 lies in the first batch, as published."""
    for number in numbers:
        batch = folder / f"Training Batch {1 if number < 28 else 2}"
        label = label_of(number, 2)
        image_affine = IDENTITY if number == 28 else AFFINE
        label_affine = IDENTITY if number in {28, 53} else AFFINE
        write(batch / f"volume-{number}.nii", image_of(label, number), image_affine)
        write(batch / f"segmentation-{number}.nii", label, label_affine)
    for number in test:
        write(folder / "LITS-Challenge-Test-Data" / f"test-volume-{number}.nii", image_of(label_of(number, 2)))
    return folder


def totalsegmentator(folder: Path, structures, parts: dict[str, str], *, overlap: tuple[str, ...] = ()) -> Path:
    """A mask a structure in each case of `parts` (case id: its part); in those of `overlap` two masks overlap."""
    for number, case_id in enumerate(parts):
        label = label_of(number, len(structures))
        write(folder / case_id / "ct.nii.gz", image_of(label, number), np.diag([1.5, 1.5, 1.5, 1.0]))
        for value, name in enumerate(structures, start=1):
            mask = (label == value).astype(np.uint8)
            if case_id in overlap and value == 1:
                mask[label == 2] = 1
            write(folder / case_id / "segmentations" / f"{name}.nii.gz", mask, np.diag([1.5, 1.5, 1.5, 1.0]))
    rows = [f"{case_id};60;m;A;ct abdomen;{part}" for case_id, part in parts.items()]
    (folder / "meta.csv").write_text("\n".join(["image_id;age;gender;institute;study_type;split", *rows]) + "\n")
    return folder


def word(folder: Path, tr=5, val=2, ts=2) -> Path:
    number = 0
    for suffix, n_cases in (("Tr", tr), ("Val", val), ("Ts", ts)):
        for _ in range(n_cases):
            number += 1
            label, name = label_of(number, 16), f"word_{number:04d}.nii.gz"
            write(folder / "WORD-V0.1.0" / f"images{suffix}" / name, image_of(label, number))
            write(folder / "WORD-V0.1.0" / f"labels{suffix}" / name, label)
    return folder


def feta(folder: Path, n_mial=4, n_irtk=2) -> Path:
    for number in range(1, n_mial + n_irtk + 1):
        way = "mial" if number <= n_mial else "irtk"
        place, stem = folder / f"sub-{number:03d}" / "anat", f"sub-{number:03d}_rec-{way}"
        label = label_of(number, 7)
        write(place / f"{stem}_T2w.nii.gz", image_of(label, number).clip(0).astype(np.float32))
        write(place / f"{stem}_dseg.nii.gz", label)
    return folder


def kits23(folder: Path, n_cases=5) -> Path:
    """The slice axis is the first of the file, as published."""
    affine = np.array([[0, 0, 0.8, -100.0], [0, 0.8, 0, -90.0], [-3.0, 0, 0, 50.0], [0, 0, 0, 1]])
    for number in range(n_cases):
        place = folder / "kits23" / "dataset" / f"case_{number:05d}"
        label = label_of(number, 3)
        write(place / "imaging.nii.gz", image_of(label, number), affine)
        write(place / "segmentation.nii.gz", label, affine)
        write(place / "instances" / "kidney_instance-1_annotation-1.nii.gz", (label == 1).astype(np.uint8), affine)
    return folder / "kits23"


def msd(folder: Path, modalities=("MRI",), n_cases=4, n_test=1, classes=("Anterior", "Posterior")) -> Path:
    """With several modalities the channels are the last axis of one file."""
    task = folder / "Task04_Tiny"
    for number in range(n_cases + n_test):
        label = label_of(number, len(classes))
        channels = [image_of(label, number) + 10 * channel for channel in range(len(modalities))]
        voxels = np.stack(channels, axis=-1) if len(channels) > 1 else channels[0]
        write(task / f"images{'Tr' if number < n_cases else 'Ts'}" / f"tiny_{number:03d}.nii.gz", voxels)
        if number < n_cases:
            write(task / "labelsTr" / f"tiny_{number:03d}.nii.gz", label)
    record = {
        "name": "Tiny",
        "modality": {str(number): name for number, name in enumerate(modalities)},
        "labels": {"0": "background", **{str(value): name for value, name in enumerate(classes, start=1)}},
        "numTraining": n_cases,
        "training": [
            {"image": f"./imagesTr/tiny_{number:03d}.nii.gz", "label": f"./labelsTr/tiny_{number:03d}.nii.gz"}
            for number in range(n_cases)
        ],
        "test": [f"./imagesTs/tiny_{number:03d}.nii.gz" for number in range(n_cases, n_cases + n_test)],
    }
    (task / "dataset.json").write_text(json.dumps(record))
    return task
