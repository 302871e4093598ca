"""The noise of lower resolutions: that of the highest averaged over their voxels."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional


def pooled_noise(output: Tensor, *, first_channel: int, sizes: Sequence[Sequence[int]]) -> tuple[Tensor, ...]:
    """The sigmoid of the noise logits, averaged (area interpolation) to each size; float64 of float64, else float32.

    The sigmoid exists for one class at a time, in the backward pass too.

    Args:
        output: (case, channel, ...); noise logits from `first_channel` on.
        first_channel: see `output`.
        sizes: of the voxel grids, none for none.
    """
    if not sizes:
        return ()
    result: tuple[Tensor, ...] = _PooledNoise.apply(output, first_channel, sizes)
    return result


class _PooledNoise(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, output: Tensor, first_channel: int, sizes: Sequence[Sequence[int]]) -> tuple[Tensor, ...]:
        ctx.save_for_backward(output)
        ctx.first_channel, ctx.sizes = first_channel, sizes
        classes = [_pooled(output[:, [channel]], sizes) for channel in range(first_channel, output.shape[1])]
        return tuple(torch.cat(of_size, 1) for of_size in zip(*classes, strict=True))

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *of_pooled: Tensor) -> tuple[Tensor, None, None]:
        (output,) = ctx.saved_tensors
        of_output = torch.zeros_like(output)
        for index in range(output.shape[1] - ctx.first_channel):
            channel = ctx.first_channel + index
            with torch.enable_grad():
                logits = output[:, [channel]].detach().requires_grad_()
                pooled = _pooled(logits, ctx.sizes)
            of_class = [gradient[:, [index]] for gradient in of_pooled]
            (of_output[:, [channel]],) = torch.autograd.grad(pooled, logits, of_class)
        return of_output, None, None


def _pooled(logits: Tensor, sizes: Sequence[Sequence[int]]) -> list[Tensor]:
    precision = torch.float64 if logits.dtype is torch.float64 else torch.float32
    noise = torch.sigmoid(logits.to(precision))
    return [functional.interpolate(noise, size=tuple(size), mode="area") for size in sizes]
