import math

import numpy as np
import oracles
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from auvtool import metrics
from auvtool.metrics import confusion_matrix, overlap


def of(reference, prediction, labels, *, n_labels=5, ignore_label=None):
    matrix = confusion_matrix(np.asarray(reference), np.asarray(prediction), n_labels=n_labels)
    return overlap(matrix, labels, ignore_label=ignore_label)


# --- by hand ---


def test_confusion_matrix_by_hand():
    matrix = confusion_matrix(np.array([0, 0, 1, 1, 2]), np.array([0, 1, 1, 2, 2]), n_labels=3)
    assert matrix.tolist() == [[1, 1, 0, 0], [0, 1, 1, 0], [0, 0, 1, 0], [0, 0, 0, 0]]


def test_dice_and_iou_by_hand():
    found = of([0, 1, 1, 1, 0], [0, 1, 1, 0, 1], [1])
    assert (found.tp, found.fp, found.fn, found.tn) == (2, 1, 1, 1)
    assert found.dice == pytest.approx(4 / 6)
    assert found.iou == pytest.approx(2 / 4)
    assert found.status == "ok"


def test_empty_cases_have_a_stated_rule():
    absent, false_alarm, missed = of([0, 0], [0, 0], [1]), of([0, 0], [0, 1], [1]), of([0, 1], [0, 0], [1])
    assert (absent.status, absent.dice, absent.iou) == ("absent", None, None)
    assert (false_alarm.status, false_alarm.dice, false_alarm.iou) == ("false_alarm", 0.0, 0.0)
    assert (missed.status, missed.dice, missed.iou) == ("missed", 0.0, 0.0)


def test_a_region_is_one_mask():
    found = of([1, 2, 3, 0], [2, 1, 0, 0], [1, 2])
    assert (found.tp, found.fp, found.fn, found.tn) == (2, 0, 0, 2)


def test_ignored_voxels_count_nowhere():
    found = of([1, 4, 4, 0], [1, 1, 0, 0], [1], ignore_label=4)
    assert (found.tp, found.fp, found.fn, found.tn) == (1, 0, 0, 1)


@pytest.mark.parametrize("kind", [np.uint8, np.int8, np.int16, np.uint16, np.int32, np.int64])
def test_other_values_belong_to_no_class(kind):
    strange = np.array([-1 if np.dtype(kind).kind == "i" else 100, 100, 1, 2], dtype=kind)
    matrix = confusion_matrix(strange, np.array([1, 1, 1, 2], dtype=np.uint8), n_labels=3)
    assert matrix.sum() == 4
    assert matrix[3].tolist() == [0, 2, 0, 0]


@pytest.mark.parametrize("n_labels", [3, 256, 300])
@pytest.mark.parametrize("kind", [np.uint8, np.int8])
def test_narrow_types_with_many_labels(kind, n_labels):
    values = np.array([0, 1, 1], dtype=kind)
    matrix = confusion_matrix(values, values, n_labels=n_labels)
    assert (matrix[0, 0], matrix[1, 1], matrix.sum()) == (1, 2, 3)


def test_negative_bytes_are_no_label_however_many_there_are():
    matrix = confusion_matrix(np.array([-1, 1], np.int8), np.array([1, 1], np.int8), n_labels=300)
    assert (matrix[300, 1], matrix[1, 1]) == (1, 1)


def test_shapes_must_agree():
    with pytest.raises(ValueError, match="one shape"):
        confusion_matrix(np.zeros((2, 2), int), np.zeros(4, int), n_labels=2)


def test_empty_maps():
    assert confusion_matrix(np.zeros((0, 3), int), np.zeros((0, 3), int), n_labels=2).sum() == 0


@pytest.mark.parametrize("runs", [True, False])
def test_blocks_and_both_ways_of_counting_agree(runs, monkeypatch):
    rng = np.random.default_rng(0)
    reference, prediction = rng.integers(0, 5, (2, 13, 11, 7))
    if runs:
        reference, prediction = np.sort(reference, axis=None).reshape(13, 11, 7), np.sort(prediction, axis=1)
        monkeypatch.setattr(metrics, "_MOST_RUNS", 1.0)
    expected = np.zeros((6, 6), int)
    np.add.at(expected, (reference.ravel(), prediction.ravel()), 1)
    whole = confusion_matrix(reference, prediction, n_labels=5)
    monkeypatch.setattr(metrics, "_BLOCK_VOXELS", 100)
    assert (confusion_matrix(reference, prediction, n_labels=5) == expected).all()
    assert (whole == expected).all()


# --- oracle and properties ---

label_maps = st.integers(0, 6).flatmap(
    lambda n: st.tuples(*(arrays(np.int16, (n, 3), elements=st.integers(0, 4)) for _ in range(2)))
)


@given(label_maps, st.sampled_from([(1,), (2,), (1, 2), (3,)]), st.sampled_from([None, 4]))
def test_equals_boolean_masks(maps, labels, ignore):
    found = of(*maps, labels, ignore_label=ignore)
    dice, iou, *counts = oracles.masks_dice(*maps, labels, ignore)
    assert [found.tp, found.fp, found.fn, found.tn] == counts
    assert (found.dice is None) == math.isnan(dice)
    if found.dice is not None:
        assert (found.dice, found.iou) == pytest.approx((dice, iou))


@given(label_maps)
def test_dice_is_symmetric_and_between_iou_and_one(maps):
    there, back = of(*maps, (1, 2)), of(*reversed(maps), (1, 2))
    assert there.dice == back.dice
    assert there.dice is None or 0.0 <= there.iou <= there.dice <= 1.0
