"""Tiny volumes and data sets with answers that one can check by hand; nothing is imported from auvtool.

Every case has a box of class 1 and a box of class 2 on the array (d, h, w), whose axes grow towards the patient's head,
back and left (SPL). The image is 100 in class 1, 200 in class 2 and 0 elsewhere, plus 10 in channel 1, 20 in channel 2,
..., plus noise of standard deviation 1.
"""

import json
from pathlib import Path

import numpy as np
import SimpleITK as sitk  # noqa: N813  # its usual name

BOXES = {1: (slice(1, 4), slice(1, 5), slice(1, 5)), 2: (slice(4, 6), slice(5, 8), slice(6, 9))}
VOXELS = {1: 3 * 4 * 4, 2: 2 * 3 * 3}
SHAPE = (8, 10, 12)


def box_label(shape=SHAPE, boxes=BOXES):
    """A label map with a box a class."""
    label = np.zeros(shape, dtype=np.uint8)
    for value, box in boxes.items():
        label[box] = value
    return label


def box_image(label, *, channel=0, seed=0):
    """The image of a label map, float32."""
    noise = np.random.default_rng([seed, channel]).normal(size=label.shape)
    return (100.0 * label + 10.0 * channel + noise).astype(np.float32)


def write_volume(path: Path, array, *, spacing_mm=(1.0, 1.0, 1.0), origin_mm=(0.0, 0.0, 0.0), direction=None) -> Path:
    """Write (d, h, w) in any format; spacing in (d, h, w) order, origin in ITK's (x, y, z) order."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix in {".tif", ".tiff"}:
        import tifffile

        tifffile.imwrite(path, array)
        stem = path.name.removesuffix(path.suffix)
        beside = stem[:-5] if "images" in path.parent.name else stem
        path.with_name(beside + ".json").write_text(json.dumps({"spacing": list(spacing_mm)}))
        return path
    if path.suffix in {".png", ".bmp"}:
        array = np.clip(array[0], 0, 255).astype(np.uint8)
        sitk.WriteImage(sitk.GetImageFromArray(array), str(path))
        return path
    image = sitk.GetImageFromArray(array)
    image.SetSpacing([float(length) for length in spacing_mm[::-1]])
    image.SetOrigin(origin_mm)
    if direction is not None:
        image.SetDirection(np.asarray(direction, dtype=float).ravel())
    sitk.WriteImage(image, str(path), True)
    return path


def write_raw_dataset(
    folder: Path,
    *,
    n_cases=3,
    shape=SHAPE,
    spacing_mm=(1.0, 1.0, 1.0),
    file_ending=".nii.gz",
    n_channels=1,
    regions=False,
    ignore=False,
    as_map=False,
    labels=True,
    prefix="case_",
) -> Path:
    """Write an nnU-Net raw data set with cases `{prefix}00`, `{prefix}01`, ...; returns `folder`.

    With `regions`, "whole" is (1, 2) and "core" is 2. With `ignore`, label 3 is to be ignored and fills the last slice.
    With `as_map`, the files lie in a folder `elsewhere` and dataset.json names each in `dataset`.
    """
    folder.mkdir(parents=True)
    images_folder = folder / ("elsewhere/images" if as_map else "imagesTr")
    labels_folder = folder / ("elsewhere/labels" if as_map else "labelsTr")
    classes = {"whole": [1, 2], "core": 2} if regions else {"large": 1, "small": 2}
    record = {
        "channel_names": {str(channel): f"sequence_{channel}" for channel in range(n_channels)},
        "labels": {"background": 0, **classes, **({"ignore": 3} if ignore else {})},
        "numTraining": n_cases,
        "file_ending": file_ending,
    }
    if regions:
        record["regions_class_order"] = [1, 2]
    mapped = {}
    for number in range(n_cases):
        case_id = f"{prefix}{number:02d}"
        label = box_label(shape)
        if ignore:
            label[-1] = 3
        images = [images_folder / f"{case_id}_{channel:04d}{file_ending}" for channel in range(n_channels)]
        for channel, path in enumerate(images):
            write_volume(path, box_image(box_label(shape), channel=channel, seed=number), spacing_mm=spacing_mm)
        entry = {"images": [str(path.relative_to(folder)) for path in images]}
        if labels:
            path = write_volume(labels_folder / f"{case_id}{file_ending}", label, spacing_mm=spacing_mm)
            entry["label"] = str(path.relative_to(folder))
        mapped[case_id] = entry
    if as_map:
        record["dataset"] = mapped
    (folder / "dataset.json").write_text(json.dumps(record, indent=1))
    return folder


def edit_dataset_json(folder: Path, **changes) -> None:
    """Change keys of dataset.json; a value of None takes the key out."""
    path = folder / "dataset.json"
    record = json.loads(path.read_text()) | changes
    path.write_text(json.dumps({key: value for key, value in record.items() if value is not None}))


def truncate(path: Path, share=0.5) -> None:
    """Cut a file off, as a broken download does."""
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
