"""Noise of lower resolutions: the mean of the sigmoid over each coarse voxel, and its gradient."""

import torch

from auvtool.training.pooled_noise import pooled_noise


def test_the_mean_of_the_sigmoid_not_the_sigmoid_of_the_mean():
    output = torch.tensor([[[0.0, 0.0, 0.0, 0.0], [-100.0, 0.0, 0.0, 100.0]]])
    (pooled,) = pooled_noise(output, first_channel=1, sizes=[(2,)])
    assert pooled.tolist() == [[[0.25, 0.75]]]
    assert pooled_noise(output, first_channel=1, sizes=[]) == ()


def test_gradient_equals_finite_differences():
    """Sides that do not divide, too; the channels before those of noise get none."""
    output = torch.randn(2, 3, 5, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).requires_grad_()
    assert torch.autograd.gradcheck(lambda z: pooled_noise(z, first_channel=1, sizes=[(2, 2), (3, 1)]), (output,))


def test_half_precision_is_averaged_in_single():
    output = torch.randn(1, 2, 4, 4, generator=torch.Generator().manual_seed(0)).half().requires_grad_()
    (pooled,) = pooled_noise(output, first_channel=0, sizes=[(2, 2)])
    assert pooled.dtype is torch.float32
    pooled.sum().backward()
    assert output.grad.dtype is torch.float16
