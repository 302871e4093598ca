"""Masks and their agreement with a label, by hand; the networks' own tests have the real ones."""

import math

import numpy as np
import pytest
import torch

from auvtool.extractors.prompted_masks import ClassMasks, boxes_on_grid, region_on_grid

LABEL = np.zeros((2, 4, 4), dtype=bool)
LABEL[0, 1:3, 1:3] = True  # four voxels
LABEL[1, 0, :] = True  # four more


def logits_of(mask: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(np.where(mask, 2.0, -2.0).astype(np.float32))


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_agreement_by_hand_in_any_order_of_the_slices(order: tuple[int, int]) -> None:
    tight, loose = LABEL.copy(), LABEL.copy()
    tight[0, 1, 1] = False  # seven of eight
    loose[1, 1, :2] = True  # ten, eight of them right
    upscaled = np.stack([np.arange(32.0).reshape(2, 4, 4) + 100 * n for n in (0, 1)]).astype(np.float32)
    masks = ClassMasks(LABEL, np.array([3, 7]), region_on_grid(LABEL, (4, 4)), 2)
    for row in order:
        rows = slice(row, row + 1)
        iou = torch.tensor([0.5 + 0.25 * row])
        masks.add(rows, logits_of(tight[rows]), torch.from_numpy(upscaled[rows]), iou)
    for row in order:
        masks.add_loose(slice(row, row + 1), logits_of(loose[row : row + 1]))
    channel = masks.channel(np.array([1.0]))
    found = channel.agreement
    assert (found.dice, found.iou) == (14 / 15, 7 / 8)
    assert (found.loose_dice, found.stability) == (16 / 18, 14 / 17)
    assert (found.log_ratio, found.loose_log_ratio) == (math.log(8 / 9), math.log(11 / 9))
    assert found.predicted_iou == 0.625
    assert channel.slices.tolist() == [3, 7]
    np.testing.assert_array_equal(channel.logits, logits_of(tight).numpy())
    np.testing.assert_array_equal(channel.region, LABEL)
    inside = np.concatenate([upscaled[n][:, LABEL[n]] for n in (0, 1)], axis=1)
    np.testing.assert_allclose(channel.features.mean(), inside.mean(axis=1))
    assert channel.features.n_voxels == 8


def test_an_empty_mask_is_counted_as_one_voxel() -> None:
    masks = ClassMasks(LABEL[:1], np.array([0]), region_on_grid(LABEL[:1], (4, 4)), 1)
    nothing = logits_of(np.zeros((1, 4, 4), dtype=bool))
    masks.add(slice(0, 1), nothing, torch.zeros(1, 1, 4, 4), torch.tensor([0.0]))
    masks.add_loose(slice(0, 1), nothing)
    found = masks.channel(np.empty(0)).agreement
    assert (found.dice, found.iou, found.stability) == (0, 0, 1)
    assert found.log_ratio == found.loose_log_ratio == math.log(1 / 5)


def test_boxes_of_a_stretched_slice() -> None:
    np.testing.assert_array_equal(boxes_on_grid(LABEL, np.array([2.0, 4.0])), [[2, 4, 5, 11], [0, 0, 7, 3]])


def test_boxes_and_regions_lie_on_a_square_whatever_the_slice() -> None:
    mask = np.zeros((1, 48, 64), dtype=bool)
    mask[0, 12:24, 16:48] = True
    # 128 / 64 pixels across and 128 / 48 down; the last pixel's centre is one before the edge.
    np.testing.assert_allclose(boxes_on_grid(mask, np.array([2, 128 / 48])), [[32, 32, 95, 63]], rtol=1e-6)
    region = region_on_grid(mask, (32, 32))
    assert region[0, 8:16, 8:24].all()
    assert region.sum() == 8 * 16
