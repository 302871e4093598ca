"""The scale of logits against an SVD, by its properties, and its gradient against finite differences."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from oracles import written_scale

from auvtool.training.logit_scale import perception_scale


def test_scale_is_one_for_equal_singular_values_and_zero_at_rank_one():
    equal = torch.eye(6).reshape(1, 1, 6, 2, 3)
    single = torch.outer(torch.arange(1.0, 7.0), torch.arange(1.0, 7.0)).reshape(1, 1, 6, 2, 3)
    maps = torch.cat([equal, single, torch.zeros(1, 1, 6, 2, 3)], 1)
    assert perception_scale(maps)[0].tolist() == pytest.approx([1.0, 0.0, 0.0], abs=1e-5)


@pytest.mark.parametrize("shape", [(5, 4, 3), (9, 2, 2)])  # the second has more rows than columns
def test_scale_equals_the_one_by_svd(shape):
    maps = torch.randn(2, 3, *shape, generator=torch.Generator().manual_seed(1)) + 0.5
    expected = [[written_scale(maps[case, index].numpy()) for index in range(3)] for case in range(2)]
    assert np.allclose(perception_scale(maps).numpy(), expected, atol=1e-5)


def test_scale_of_a_2d_network_takes_the_map_as_a_matrix():
    maps = torch.randn(1, 2, 5, 7, generator=torch.Generator().manual_seed(1))
    expected = [written_scale(maps[0, index].numpy()) for index in range(2)]
    assert perception_scale(maps)[0].tolist() == pytest.approx(expected, abs=1e-5)


@settings(max_examples=25)
@given(st.floats(1e-3, 1e3), st.integers(0, 1000))
def test_scale_ignores_gain_and_slice_order(gain, seed):
    maps = torch.randn(1, 1, 6, 4, 4, generator=torch.Generator().manual_seed(seed))
    scale = perception_scale(maps)
    assert torch.allclose(perception_scale(gain * maps), scale, atol=1e-5)
    assert torch.allclose(perception_scale(maps.flip(2)), scale, atol=1e-5)
    assert 0 <= scale.item() <= 1


def test_scale_is_taken_outside_autocast_and_without_gradient():
    maps = torch.randn(1, 2, 6, 4, 4, generator=torch.Generator().manual_seed(1), requires_grad=True)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = perception_scale(maps)
    assert torch.equal(inside, perception_scale(maps))
    assert not inside.requires_grad


def test_a_single_slice_has_no_scale():
    with pytest.raises(ValueError, match="2 x 2"):
        perception_scale(torch.zeros(1, 1, 1, 4, 4))


# --- its gradient


def normal(*shape, seed=0):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("shape", [(2, 2, 4, 3, 2), (1, 2, 7, 2, 2), (2, 1, 4, 5)])
def test_gradient_equals_finite_differences(shape):
    maps = normal(*shape).requires_grad_()
    assert torch.autograd.gradcheck(lambda z: perception_scale(z, differentiable=True), (maps,))


def test_the_differentiable_scale_is_the_same():
    maps = normal(2, 3, 5, 4, 3).float()
    assert torch.allclose(perception_scale(maps, differentiable=True), perception_scale(maps), atol=1e-6)


def test_equal_singular_values_do_the_gradient_no_harm():
    maps = torch.eye(6, dtype=torch.float64).reshape(1, 1, 6, 2, 3).requires_grad_()  # the scale is at its largest
    perception_scale(maps, differentiable=True).sum().backward()
    assert maps.grad.abs().max() < 1e-12
    grouped = torch.diag(torch.tensor([3.0, 3.0, 1.0, 1.0], dtype=torch.float64)).reshape(1, 1, 4, 2, 2)
    slope = normal(1, 1, 4, 2, 2, seed=1)
    grouped.requires_grad_()
    perception_scale(grouped, differentiable=True).sum().backward()
    low, high = (written_scale((grouped + step * slope).detach().numpy()[0, 0]) for step in (-1e-5, 1e-5))
    assert (grouped.grad * slope).sum().item() == pytest.approx((high - low) / 2e-5, rel=1e-6)


@pytest.mark.parametrize(
    "maps", [torch.zeros(1, 1, 4, 3, 3), torch.full((1, 1, 4, 3, 3), 2.0)], ids=["zero", "constant"]
)
def test_flat_maps_have_a_finite_gradient(maps):
    maps.requires_grad_()
    perception_scale(maps, differentiable=True).sum().backward()
    assert maps.grad.isfinite().all()


@pytest.mark.parametrize("differentiable", [False, True])
def test_a_map_that_is_not_finite_has_no_scale_and_spoils_no_other(differentiable):
    maps = normal(2, 2, 4, 3, 3)
    expected = perception_scale(maps)
    maps[1, 0, 2, 1, 1] = math.inf
    scale = perception_scale(maps, differentiable=differentiable)
    assert scale.isnan().tolist() == [[False, False], [True, False]]
    assert torch.allclose(scale[0], expected[0])


def test_half_precision_maps_are_converted():
    maps = normal(1, 2, 4, 3, 3).half()
    assert torch.equal(perception_scale(maps), perception_scale(maps.float()))
