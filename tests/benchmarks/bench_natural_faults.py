"""Faults that nobody put in: labels and an image of a public copy of the hippocampus data that do not belong to it.

Run by hand: AUVTOOL_TEST_DATA=... pytest -s tests/benchmarks/bench_natural_faults.py
"""

import os
from pathlib import Path

import numpy as np
import pytest

from auvtool.dataset import open_dataset
from auvtool.image_quality import QUALITY_NAMES, image_quality
from auvtool.label_shape import SHAPE_NAMES, label_shapes
from auvtool.quantifiers.deviation import deviation
from auvtool.robust import robust_z
from auvtool.volume import read_image, read_label

DATA = Path(os.environ.get("AUVTOOL_TEST_DATA", ""))
CLASSES = ((1,), (2,))

pytestmark = pytest.mark.skipif(not (DATA / "faulty").is_dir(), reason="no folder of real scans in AUVTOOL_TEST_DATA")


def report(name, names, z, values):
    """Place among all cases, and the strangest numbers, of the last case."""
    place = 1 + int((values[:-1] >= values[-1]).sum())
    strange = np.unravel_index(np.argsort(-np.abs(np.nan_to_num(z[-1])), axis=None)[:3], z.shape[1:])
    words = ", ".join(f"{names[n]} z {z[-1, n, c]:+.0f}" for n, c in zip(*strange, strict=True))
    print(f"{name}: deviation place {place} of {len(values)}; {words}")


def test_labels_of_whole_heads():
    dataset = open_dataset(DATA / "hippocampus" / "Dataset004_Hippocampus")
    usual = []
    for case in dataset.cases:
        label, geometry = read_label(case.label)
        usual.append(label_shapes(label, CLASSES, geometry.spacing_mm))
    for path in sorted((DATA / "faulty").glob("*_label.nii.gz")):
        label, geometry = read_label(path)
        shapes = np.array([*usual, label_shapes(label, CLASSES, geometry.spacing_mm)])
        z = robust_z(shapes.swapaxes(1, 2), limit=50.0)
        report(f"{path.name} {label.shape}", SHAPE_NAMES, z, deviation(z, ["shape"] * len(SHAPE_NAMES)))


def test_an_image_without_a_label():
    dataset = open_dataset(DATA / "hippocampus" / "Dataset004_Hippocampus")
    usual = []
    for case in dataset.cases:
        image, geometry = read_image(case.images)
        usual.append(image_quality(image[0], geometry.spacing_mm))
    for path in sorted((DATA / "faulty").glob("*_image.nii.gz")):
        image, geometry = read_image([path])
        quality = np.array([*usual, image_quality(image[0], geometry.spacing_mm)])
        z = robust_z(quality, limit=50.0)[..., None]
        report(f"{path.name} {image.shape[1:]}", QUALITY_NAMES, z, deviation(z, ["quality"] * len(QUALITY_NAMES)))
