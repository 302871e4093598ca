"""The sums that Dice and cross entropy need of each case and class, and their gradient, without whole tensors between.

One-hot label, denoised label and probability exist only for a tile at a time; the backward pass computes them again.
What stands in memory beside the network's output is its gradient.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from auvtool.training.class_probabilities import Activation, Block, SigmoidTile, SoftmaxTile
from auvtool.training.recipe import DenoiseForm

# Places in the last axis of `loss_sums`.
OVERLAP, PROBABILITY, LABEL, CROSS_ENTROPY = range(4)


@dataclass(frozen=True)
class Tiling:
    """How much is worked on at once: `n_cases` by `n_classes` by `n_voxels`."""

    n_cases: int
    n_classes: int
    n_voxels: int


@dataclass(frozen=True)
class Labelling:
    """How a nnU-Net target is read.

    Attributes:
        n_classes: foreground classes.
        has_regions: the target has a channel a region, and one more that marks ignored voxels if there are any;
            otherwise one channel of class numbers.
        ignore_label: its voxels count nowhere.
        denoise: "paper": `clamp(y - e n, 0, 1)` (eq. 10); "official", as released: `y (1 - n)`, here with a gradient to
            the noise. The clamp passes the gradient at 0 and 1 themselves, where labels start (e = 0).
    """

    n_classes: int
    has_regions: bool
    ignore_label: int | None
    denoise: DenoiseForm = "paper"

    @property
    def n_heads(self) -> int:
        """Channels of the network's output, without those of noise."""
        return self.n_classes + (not self.has_regions)

    def is_annotated(self, target: Tensor) -> Tensor | None:
        """(case, 1, ...) bool; None: everywhere."""
        if self.ignore_label is None:
            return None
        return target[:, -1:] == 0 if self.has_regions else target != self.ignore_label


def choose_tiling(device: torch.device, *, n_cases: int, n_heads: int, n_voxels: int) -> Tiling:
    """On a CPU all classes of as many voxels as its cache holds; elsewhere all voxels of some classes: few kernels."""
    if device.type == "cpu":
        return Tiling(1, n_heads, max(1, _CPU_ELEMENTS // n_heads))
    return Tiling(n_cases, max(1, _GPU_ELEMENTS // (n_cases * n_voxels)), n_voxels)


_CPU_ELEMENTS = 1 << 16
_GPU_ELEMENTS = 1 << 24


def loss_sums(
    output: Tensor,
    target: Tensor,
    *,
    labelling: Labelling,
    noise: Tensor | None = None,
    level: Tensor | None = None,
    tiling: Tiling | None = None,
) -> Tensor:
    """Sums over the annotated voxels of `p y`, `p`, `y` and the binary cross entropy, y being the denoised label.

    Args:
        output: (case, head, ...) logits; further channels, one a class, are noise logits.
        target: (case, 1, ...) or (case, region, ...), see `Labelling`.
        labelling: how the target is read.
        noise: (case, class, ...) in [0, 1]; None: the sigmoid of the output's further channels, if it has any.
        level: (case, class), e of eq. 10; without it "paper" leaves labels as they are.
        tiling: for tests; by default by the device.

    Returns:
        (case, class, 4) in the order OVERLAP, PROBABILITY, LABEL, CROSS_ENTROPY; float64 of float64, else float32.
    """
    if tiling is None:
        tiling = choose_tiling(
            output.device,
            n_cases=output.shape[0],
            n_heads=labelling.n_heads,
            n_voxels=math.prod(output.shape[2:]),
        )
    result: Tensor = _LossSums.apply(output, noise, level, target, labelling, tiling)
    return result


class _Batch(NamedTuple):
    """What `loss_sums` was given; the first four go into the backward pass."""

    output: Tensor
    noise: Tensor | None
    level: Tensor | None
    target: Tensor
    labelling: Labelling
    tiling: Tiling


class _LossSums(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, *given: Any) -> Tensor:
        batch = _Batch(*given)
        output, labelling = batch.output, batch.labelling
        ctx.save_for_backward(*batch[:4])
        ctx.labelling, ctx.tiling = labelling, batch.tiling
        sums = output.new_zeros(output.shape[0], labelling.n_classes, 4, dtype=torch.float64)
        for tile in _tiles(batch):
            for block in tile.blocks:
                p, _, margin, softplus = tile.activation.probabilities(block)
                label, _ = tile.label(block)
                cross_entropy = softplus.addcmul(label, margin, value=-1)
                if tile.mask is not None:
                    p, label, cross_entropy = p * tile.mask, label * tile.mask, cross_entropy * tile.mask
                parts = ((p * label).sum(-1), p.sum(-1), label.sum(-1), cross_entropy.sum(-1))
                sums[tile.cases, block] += torch.stack(parts, -1)
        return sums.to(torch.float64 if output.dtype is torch.float64 else torch.float32)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, of_sums: Tensor) -> tuple[Tensor | None, ...]:
        output, noise, level, target = ctx.saved_tensors
        labelling: Labelling = ctx.labelling
        of_output = torch.zeros_like(output, memory_format=torch.contiguous_format)
        of_noise = None if noise is None else torch.zeros_like(noise, memory_format=torch.contiguous_format)
        of_level = None if level is None else torch.zeros_like(level, dtype=torch.float64)
        for tile in _tiles(_Batch(output, noise, level, target, labelling, ctx.tiling)):
            of_heads = of_output.flatten(2)[tile.cases, : labelling.n_heads, tile.voxels]
            # The gradient to the logits grows in its place, unless that is of half precision.
            of_margin = (
                of_heads if of_heads.dtype is tile.precision else torch.zeros_like(of_heads, dtype=tile.precision)
            )
            for block in tile.blocks:
                p, q, margin, _ = tile.activation.probabilities(block)
                label, slopes = tile.label(block)
                overlap, probability, of_label, cross_entropy = (
                    of_sums[tile.cases, block, :, None].to(p.dtype).unbind(2)
                )
                heads = slice(block.start + tile.n_background, block.stop + tile.n_background)
                part = (p - label).mul_(cross_entropy).addcmul_((label * overlap).add_(probability), p * q)
                of_margin[:, heads] = part if tile.mask is None else part.mul_(tile.mask)
                if slopes is None:
                    continue
                part = (p * overlap).add_(of_label).addcmul_(margin, cross_entropy, value=-1)
                if tile.mask is not None:
                    part.mul_(tile.mask)
                if of_level is not None and slopes.level is not None:
                    of_level[tile.cases, block] += (part * slopes.level).sum(-1)
                part.mul_(slopes.noise)
                if of_noise is None:
                    noise_channels = slice(labelling.n_heads + block.start, labelling.n_heads + block.stop)
                    of_output.flatten(2)[tile.cases, noise_channels, tile.voxels] = part
                else:
                    of_noise.flatten(2)[tile.cases, block, tile.voxels] = part
            tile.activation.pull_back(of_margin)
            if of_margin is not of_heads:
                of_heads.copy_(of_margin)
        return (
            of_output,
            of_noise,
            None if of_level is None or level is None else of_level.to(level.dtype),
            None,
            None,
            None,
        )


@dataclass(frozen=True)
class _Slopes:
    """Derivatives of the denoised label by the noise (or its logits, where these are given) and by the level."""

    noise: Tensor
    level: Tensor | None


@dataclass(frozen=True)
class _Tile:
    """A part of the batch; tensors are (case, channel, voxel) views of it, computed with in `precision`."""

    cases: slice
    voxels: slice
    blocks: Sequence[Block]
    labelling: Labelling
    precision: torch.dtype
    activation: Activation
    target: Tensor
    mask: Tensor | None
    noise: Tensor | None
    noise_is_logit: bool
    level: Tensor | None

    @property
    def n_background(self) -> int:
        return self.labelling.n_heads - self.labelling.n_classes

    def label(self, block: Block) -> tuple[Tensor, _Slopes | None]:
        """(case, class, voxel) label, denoised if there is noise."""
        if self.labelling.has_regions:
            label = self.target[:, block].to(self.precision)
        else:
            values = torch.arange(
                block.start + 1, block.stop + 1, device=self.target.device, dtype=self.precision
            ).unsqueeze_(1)
            label = self.target.new_empty(len(self.target), len(values), self.target.shape[2], dtype=self.precision)
            torch.eq(
                self.target, values, out=label
            )  # numbers at once: converting booleans would take ten times as long
        if self.noise is None:
            return label, None
        noise = self.noise[:, block].to(self.precision)
        noise = torch.sigmoid(noise) if self.noise_is_logit else noise
        squashed = noise * (1 - noise) if self.noise_is_logit else 1
        if self.labelling.denoise == "official":
            return label * (1 - noise), _Slopes(-label * squashed, None)
        assert self.level is not None  # noqa: S101  # `_tiles` gives no noise without one
        level = self.level[:, block, None]
        value = label - level * noise
        clamped = value.clamp(0, 1)
        passes = torch.eq(value, clamped, out=value)
        return clamped, _Slopes(passes * squashed * -level, passes * -noise)


def _tiles(batch: _Batch) -> Iterator[_Tile]:
    output, noise, level, target, labelling, tiling = batch
    precision = torch.float64 if output.dtype is torch.float64 else torch.float32
    n_heads, n_classes = labelling.n_heads, labelling.n_classes
    flat, flat_target = output.flatten(2), target.flatten(2)
    noise_is_logit = noise is None
    flat_noise = flat[:, n_heads:] if noise is None else noise.flatten(2)
    denoises = flat_noise.shape[1] > 0 and (labelling.denoise == "official" or level is not None)
    blocks = [slice(at, min(at + tiling.n_classes, n_classes)) for at in range(0, n_classes, tiling.n_classes)]
    for first_case in range(0, flat.shape[0], tiling.n_cases):
        cases = slice(first_case, first_case + tiling.n_cases)
        for first_voxel in range(0, flat.shape[2], tiling.n_voxels):
            voxels = slice(first_voxel, first_voxel + tiling.n_voxels)
            logits = flat[cases, :n_heads, voxels]
            part = flat_target[cases, :, voxels]
            mask = labelling.is_annotated(part)
            yield _Tile(
                cases=cases,
                voxels=voxels,
                blocks=blocks,
                labelling=labelling,
                precision=precision,
                activation=SigmoidTile(logits, precision)
                if labelling.has_regions
                else SoftmaxTile(logits, blocks, precision),
                target=part if labelling.has_regions else part.to(precision),
                mask=None if mask is None else mask.to(precision),
                noise=flat_noise[cases, :, voxels] if denoises else None,
                noise_is_logit=noise_is_logit,
                level=None if level is None else level[cases].to(precision),
            )
