import numpy as np
import pytest

from auvtool.class_box import class_boxes, class_mask, mask_box


@pytest.mark.parametrize("shape", [(1, 1, 1), (1, 8, 9), (6, 1, 7), (5, 6, 7)])
@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.int32])
def test_boxes_are_those_of_the_masks(shape, dtype):
    label = np.random.default_rng(0).choice(12, size=shape, p=[0.89, *[0.01] * 11]).astype(dtype)
    classes = [(1,), (3, 9), (2, 11), (4, 5, 6, 7), (12,), (40, 8), (0,), (0, 1), ()]
    for values, box in zip(classes, class_boxes(label, classes), strict=True):
        places = np.argwhere(np.isin(label, values))
        if not len(places):
            assert box is None
            continue
        expected = tuple(map(slice, places.min(axis=0), places.max(axis=0) + 1))
        assert box == expected
        assert (class_mask(label[box], values) == np.isin(label[box], values)).all()
        assert mask_box(np.isin(label, values)) == box


def test_an_empty_label_and_values_below_0_have_no_box():
    assert class_boxes(np.full((3, 4, 5), -2, dtype=np.int16), [(1,), (2, 3)]) == [None, None]
    assert class_boxes(np.zeros((3, 4, 5), dtype=np.uint8), []) == []
