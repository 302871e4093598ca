"""The parts in their own tests; here that they agree with plain routes over whole volumes, and stay small."""

import tracemalloc

import numpy as np
import pytest
from evidence_oracles import whole_image_quality, whole_label_boundary, whole_label_shape
from scipy import ndimage

from auvtool import slabs
from auvtool.case_evidence import case_evidence
from auvtool.dataset_json import SemanticClass
from auvtool.image_quality import QUALITY_NAMES
from auvtool.label_boundary import BOUNDARY_NAMES
from auvtool.label_shape import SHAPE_NAMES
from auvtool.thumbnail import thumbnail

SPACING = (2.5, 0.75, 1.0)
# Single values, regions that overlap them, an absent class, and a region of which only one value is there.
CLASSES = tuple(
    SemanticClass(k, str(k), labels) for k, labels in enumerate([(1,), (2, 4), (3,), (7,), (1, 2, 3), (4, 7)], start=1)
)
FOREGROUND = [1, 2, 3, 4, 7]
SHAPES = [(1, 19, 23), (2, 3, 3), (5, 1, 17), (9, 31, 1), (1, 1, 21), (11, 1, 1), (9, 21, 15), (27, 13, 18)]


def evidence_of(image, label, classes=CLASSES):
    return case_evidence(
        np.zeros(4), image=image, label=label, classes=classes, spacing_mm=SPACING, n_channels=len(classes)
    )


def random_case(shape, seed=0):
    """Ragged classes 0 to 4 with islands, and an image that knows of them; two rows are constant."""
    rng = np.random.default_rng(seed)
    fields = ndimage.gaussian_filter(rng.normal(size=(5, *shape)), (0, 1, 2, 2), mode="wrap")
    label = fields.argmax(axis=0).astype(np.int16)
    label[rng.random(shape) < 0.02] = rng.integers(5)
    image = (300 * rng.normal(size=shape) + 200 * label - 1000).astype(np.float32)
    image[:, 3:5] = -1000
    return image, label


@pytest.fixture(params=[1, 200, 1 << 18], ids=["slice by slice", "some slices", "whole"])
def thickness(request, monkeypatch):
    monkeypatch.setattr(slabs, "_N_VOXELS", request.param)


@pytest.mark.usefixtures("thickness")
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_slabs_and_boxes_give_what_whole_volumes_give(shape):
    image, label = random_case(shape)
    found = evidence_of(image, label)
    quality = dict(zip(QUALITY_NAMES, found.image_quality, strict=True))
    expected = whole_image_quality(image)
    assert {name: quality[name] for name in expected} == pytest.approx(expected, rel=1e-4, abs=1e-5)
    for number, one in enumerate(CLASSES):
        shapes = dict(zip(SHAPE_NAMES, found.label_shape[number], strict=True))
        boundary = dict(zip(BOUNDARY_NAMES, found.label_boundary[number], strict=True))
        if not np.isin(label, one.labels).any():
            assert np.isnan([*shapes.values(), *boundary.values(), *found.label_thumbnail[number]]).all()
            continue
        expected = whole_label_shape(label, one.labels, FOREGROUND, SPACING)
        assert shapes == pytest.approx(expected, rel=1e-9, abs=1e-12, nan_ok=True)
        expected = whole_label_boundary(image, label, one.labels)
        assert boundary == pytest.approx(expected, rel=1e-4, abs=1e-5, nan_ok=True)
        expected = thumbnail(np.isin(label, one.labels))
        np.testing.assert_allclose(found.label_thumbnail[number], expected, rtol=1e-6)


def test_a_class_of_the_background_value_is_found_too():
    image, label = random_case((5, 12, 14))
    classes = (SemanticClass(1, "everything", (0, 1, 2, 3, 4)), SemanticClass(2, "one", (1,)))
    found = evidence_of(image, label, classes)
    assert found.label_shape[0, 0] == pytest.approx(np.log(label.size * np.prod(SPACING)))
    assert (found.label_thumbnail[0] == 1).all()


def test_memory_stays_below_twice_the_volume_whatever_the_number_of_classes():
    shape, n = (64, 256, 256), 40
    rng = np.random.default_rng(0)
    label = np.zeros(shape, dtype=np.int16)
    for value in range(1, n + 1):
        size = [int(length * rng.uniform(0.1, 0.3)) for length in shape]
        start = [int(rng.integers(0, length - part)) for length, part in zip(shape, size, strict=True)]
        label[tuple(slice(a, a + b) for a, b in zip(start, size, strict=True))] = value
    image = rng.normal(size=shape, loc=label, scale=5).astype(np.int16)
    classes = tuple(SemanticClass(value, str(value), (value,)) for value in range(1, n + 1))
    whole = SemanticClass(n + 1, "whole", tuple(range(1, n + 1)))
    evidence_of(image[:9, :9, :9], label[:9, :9, :9])  # what scipy loads when it is first called is no array
    tracemalloc.start()
    try:
        evidence_of(image, label, (*classes, whole))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    print(f"peak / float32 volume: {peak / (4 * label.size):.2f}")
    assert peak < 2 * 4 * label.size
