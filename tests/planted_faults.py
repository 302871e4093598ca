"""Faults that `auvtool check` is to find, each a function that puts one into the clean data set of check_phantoms."""

import shutil
from collections.abc import Callable
from pathlib import Path

import nibabel
import numpy as np
import SimpleITK as sitk  # noqa: N813  # its usual name
from check_phantoms import ODD, change, clean_case, ellipsoid, image_path, label_path
from phantoms import edit_dataset_json, truncate, write_volume

from auvtool.checking import check_dataset
from auvtool.checks import Finding, chosen_codes
from auvtool.checks.files import survey


def check(folder: Path, **options: object) -> list[Finding]:
    return list(check_dataset(survey(folder), codes=chosen_codes(), **options))


def on_image(spoil: Callable[[np.ndarray], np.ndarray], **geometry: object) -> Callable[[Path], None]:
    return lambda folder: change(image_path(folder), spoil, **geometry)


def on_label(spoil: Callable[[np.ndarray], np.ndarray], **geometry: object) -> Callable[[Path], None]:
    return lambda folder: change(label_path(folder), spoil, **geometry)


def put(where: object, value: float, kind: type[np.generic] | None = None) -> Callable[[np.ndarray], np.ndarray]:
    """Voxels with a value put in; `where` is a mask, an index, or a function of the voxels."""

    def spoil(voxels: np.ndarray) -> np.ndarray:
        spoilt = voxels.astype(kind) if kind else voxels.copy()
        spoilt[where(voxels) if callable(where) else where] = value
        return spoilt

    return spoil


def on_both(spoil: Callable[[np.ndarray], np.ndarray], **geometry: object) -> Callable[[Path], None]:
    def plant(folder: Path) -> None:
        change(image_path(folder), spoil, **geometry)
        change(label_path(folder), spoil, **geometry)

    return plant


def same(voxels: np.ndarray) -> np.ndarray:
    return voxels


def rename(before: str, after: str) -> Callable[[Path], None]:
    return lambda folder: (folder / before).rename(folder / after)


def in_every_image(spoil: Callable[[np.ndarray], np.ndarray]) -> Callable[[Path], None]:
    def plant(folder: Path) -> None:
        for path in sorted((folder / "imagesTr").iterdir()):
            change(path, spoil)

    return plant


def no_right_angles(folder: Path) -> None:
    for path in (image_path(folder), label_path(folder)):
        image = nibabel.load(path)
        affine = image.affine.copy()
        affine[0, 1] = 0.1
        nibabel.save(nibabel.Nifti1Image(np.asanyarray(image.dataobj), affine), path)


def two_channels_in_a_file(folder: Path) -> None:
    image = nibabel.load(image_path(folder))
    voxels = np.asanyarray(image.dataobj)
    nibabel.save(nibabel.Nifti1Image(np.stack([voxels, voxels + 1], axis=-1), image.affine), image_path(folder))


def same_image(folder: Path) -> None:
    shutil.copy(image_path(folder, "case_05"), image_path(folder))


def same_label(folder: Path) -> None:
    shutil.copy(label_path(folder, "case_05"), label_path(folder))


def labels_exchanged(folder: Path) -> None:
    """Two cases on grids of their own, each with the label of the other."""
    for case_id, cut in ((ODD, 1), ("case_06", 2)):
        for path in (image_path(folder, case_id), label_path(folder, case_id)):
            change(path, lambda voxels, cut=cut: voxels[:, cut:])
    one, other = label_path(folder), label_path(folder, "case_06")
    one.rename(folder / "kept")
    other.rename(one)
    (folder / "kept").rename(other)


def swap(first: int, second: int) -> Callable[[np.ndarray], np.ndarray]:
    def spoil(label: np.ndarray) -> np.ndarray:
        swapped = label.copy()
        swapped[label == first], swapped[label == second] = second, first
        return swapped

    return spoil


def twice(voxels: np.ndarray) -> np.ndarray:
    return np.concatenate([voxels, voxels])


def another_phase(image: np.ndarray) -> np.ndarray:
    """The same slices again, brighter and with noise of their own."""
    noise = np.random.default_rng(9).normal(0.0, 3.0, image.shape)
    return np.concatenate([image, np.rint(image * 1.1 + noise).astype(np.int16)])


def with_background_again(label: np.ndarray) -> np.ndarray:
    return np.concatenate([label, np.zeros_like(label)])


def shrunk(label: np.ndarray) -> np.ndarray:
    small = np.where(label == 3, 0, label)
    small[ellipsoid((6.5, 22.0, 17.5), (1.6, 1.6, 1.6))] = 3
    return small


def hollow(label: np.ndarray) -> np.ndarray:
    hole = ellipsoid((6.5, 13.0, 25.0), (2.0, 1.5, 1.5))
    return np.where(hole & (label == 1), 0, label).astype(np.uint8)


def extended(label: np.ndarray) -> np.ndarray:
    """The spine cut where it is widest."""
    cut = label.copy()
    cut[:7][cut[:7] == 3] = 0
    return cut


def into_air(label: np.ndarray) -> np.ndarray:
    """The spine behind the patient's back, as far as the view goes."""
    moved = np.where(label == 3, 0, label)
    moved[ellipsoid((6.5, 27.5, 3.5), (4.6, 1.9, 3.2))] = 3
    return moved


def in_padding(image: np.ndarray) -> np.ndarray:
    padded = image.copy()
    padded[:, 20:] = -2000
    return padded


def a_whole_turn(folder: Path) -> None:
    """The label's voxels and header turned together: the header tells the truth, nnU-Net does not look at it."""
    label = sitk.ReadImage(str(label_path(folder)))
    sitk.WriteImage(sitk.Flip(label, [True, False, False], False), str(label_path(folder)))


PLANTED = [
    ("F001", lambda folder: edit_dataset_json(folder, file_ending=None)),
    ("F001", lambda folder: (folder / "dataset.json").write_text("{")),
    ("F001", lambda folder: edit_dataset_json(folder, labels={"background": 0, "kidney_left": 2})),
    ("F002", lambda folder: edit_dataset_json(folder, numTraining=9)),
    ("F003", rename(f"imagesTr/{ODD}_0000.nii.gz", f"imagesTr/{ODD}.nii.gz")),
    ("F004", rename(f"imagesTr/{ODD}_0000.nii.gz", f"imagesTr/{ODD}_0001.nii.gz")),
    ("F005", lambda folder: label_path(folder).unlink()),
    ("F006", lambda folder: shutil.copy(label_path(folder), label_path(folder, "case_99"))),
    ("F007", lambda folder: write_volume(folder / "imagesTr/case_99_0000.nrrd", clean_case(99)[0])),
    ("F008", lambda folder: truncate(image_path(folder))),
    ("F008", lambda folder: truncate(label_path(folder))),
    ("F008", lambda folder: label_path(folder).write_bytes(b"")),
    ("F009", lambda folder: shutil.rmtree(folder / "imagesTr")),
    ("F010", two_channels_in_a_file),
    ("G001", on_label(lambda label: label[:, 1:])),
    ("G002", on_label(same, spacing_mm=(3.0, 1.5, 1.6))),
    ("G003", on_label(same, origin_mm=(-40.0, 25.0, 311.0))),
    ("G004", on_label(same, direction=np.diag([-1.0, 1.0, 1.0]))),
    ("G004", a_whole_turn),
    ("G005", on_both(same, spacing_mm=(1.0, 1.0, 1.0))),
    ("G006", on_both(same, direction=np.diag([1.0, -1.0, 1.0]))),
    ("G007", on_both(same, spacing_mm=(3000.0, 1.5, 1.5))),
    ("G008", no_right_angles),
    ("I001", on_image(put((5, 3, 4), np.nan, np.float32))),
    ("I001", on_image(put((5, 3, 4), np.inf, np.float32))),
    ("I002", on_image(lambda image: np.full_like(image, 7))),
    ("I003", on_image(put(5, -1000))),
    ("I004", on_image(lambda image: image[[0, 1, 2, 2, *range(4, 14)]])),
    ("I005", lambda folder: (on_image(twice)(folder), on_label(with_background_again)(folder))),
    ("I006", on_image(lambda image: image + 1024)),
    ("I006", on_image(lambda image: np.clip(image / 4.0 + 60.0, 0, 255).astype(np.uint8))),
    ("I006", in_every_image(lambda image: np.clip(image / 4.0 + 60.0, 0, 255).astype(np.uint8))),
    ("I007", lambda folder: edit_dataset_json(folder, channel_names={"0": "scan"})),
    ("I008", lambda folder: (on_image(another_phase)(folder), on_label(with_background_again)(folder))),
    ("L001", on_label(put((5, 3, 4), 0.5, np.float32))),
    ("L001", on_label(put((5, 3, 4), np.nan, np.float32))),
    ("L002", on_label(put((5, 3, 4), 9))),
    ("L003", on_label(np.zeros_like)),
    ("L005", on_label(put((slice(6, 8), slice(None), slice(20, None)), 0))),
    ("L006", on_label(shrunk)),
    ("L007", on_label(put((slice(3, 5), slice(3, 5), slice(16, 19)), 2))),
    ("L008", on_label(hollow)),
    ("L009", on_label(extended)),
    ("L010", on_image(in_padding)),
    ("L011", on_label(swap(1, 3))),
    ("D001", same_image),
    ("D002", same_label),
    ("D003", labels_exchanged),
    ("D004", on_label(swap(1, 2))),
    (
        "D005",
        lambda folder: edit_dataset_json(
            folder, labels={"background": 0, "kidney_left": 1, "kidney_right": 2, "spine": 3, "bladder": 4}
        ),
    ),
]

# What a fault brings along: two exchanged labels do not fit their images, a gap leaves a class in two pieces, ....
BESIDE = {
    "G004": {"D004", "L011"},
    "G005": {"L006"},
    "G006": {"D004", "L011"},
    "G007": {"L006"},
    "L005": {"L007", "L009"},
    "L011": {"D004"},
    "D003": {"G001"},
    "D004": {"L011"},
}
COUNTS = {"D003": 2, "G008": 2}  # both cases, both files
