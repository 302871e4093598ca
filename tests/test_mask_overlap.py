"""Overlap of masks; the oracle is the confusion matrix of `auvtool.metrics`."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from auvtool.extractors.mask_overlap import MaskOverlap, agreement_of
from auvtool.metrics import Overlap

masks = arrays(bool, (2, 3, 4))


@given(masks, masks.filter(np.any), st.integers(0, 2))
def test_parts_add_up_to_the_whole(mask: np.ndarray, region: np.ndarray, cut: int) -> None:
    tp = int((mask & region).sum())
    oracle = Overlap(tp=tp, fp=int(mask.sum()) - tp, fn=int(region.sum()) - tp, tn=0)
    whole = agreement_of(mask, region)
    assert whole.dice == pytest.approx(oracle.dice)
    assert whole.iou == pytest.approx(oracle.iou)
    parts = MaskOverlap()
    parts.add(mask[:cut], region[:cut])
    parts.add(mask[cut:], region[cut:])
    assert (parts.dice(), parts.iou(), parts.log_ratio()) == (whole.dice, whole.iou, whole.log_ratio)


def test_an_empty_mask_has_a_finite_ratio() -> None:
    region = np.ones((2, 2, 2), dtype=bool)
    found = agreement_of(~region, region)
    assert (found.dice, found.iou) == (0, 0)
    assert found.log_ratio == pytest.approx(-np.log(9))
    assert np.isnan([found.predicted_iou, found.loose_dice, found.stability, found.loose_log_ratio]).all()


def test_two_empty_masks_are_equal() -> None:
    assert MaskOverlap().dice() == 1.0
