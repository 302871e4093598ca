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
from auvtool.training.denoised_label import TileNoise
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


_CPU_ELEMENTS = 1 << 17
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
                sums[tile.cases, block] += tile.sums(block)
        return sums.to(torch.float64 if output.dtype is torch.float64 else torch.float32)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, of_sums: Tensor) -> tuple[Tensor | None, ...]:
        output, noise, level, target = ctx.saved_tensors
        labelling: Labelling = ctx.labelling
        of_output = torch.empty_like(output, memory_format=torch.contiguous_format)
        if noise is not None or not _denoises(output, noise, level, labelling):
            of_output[:, labelling.n_heads :].zero_()
        of_noise = None if noise is None else torch.zeros_like(noise, memory_format=torch.contiguous_format)
        of_level = None if level is None else torch.zeros_like(level, dtype=torch.float64)
        for tile in _tiles(_Batch(output, noise, level, target, labelling, ctx.tiling)):
            of_heads = of_output.flatten(2)[tile.cases, : labelling.n_heads, tile.voxels]
            # The gradient to the logits grows in its place, unless that is of half precision.
            of_margin = of_heads if of_heads.dtype is tile.precision else of_heads.to(tile.precision)
            of_margin[:, : tile.n_background].zero_()
            for block in tile.blocks:
                slopes = of_sums[tile.cases, block, :, None].to(tile.precision).unbind(2)
                of_label = tile.pull_back(block, slopes, into=of_margin)
                if of_label is None:
                    continue
                of_tile_noise, of_tile_level = of_label
                if of_level is not None and of_tile_level is not None:
                    of_level[tile.cases, block] += of_tile_level
                place = of_output.flatten(2)[:, labelling.n_heads :] if of_noise is None else of_noise.flatten(2)
                place[tile.cases, block, tile.voxels] = of_tile_noise
            tile.activation.pull_back(of_margin)
            if of_margin is not of_heads:
                of_heads.copy_(of_margin)
        gradient_of_level = None if of_level is None or level is None else of_level.to(level.dtype)
        return of_output, of_noise, gradient_of_level, None, None, None


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

    def sums(self, block: Block) -> Tensor:
        """(case, class, 4), see `loss_sums`."""
        label, noise = self._label(block), self._noise(block)
        label = label if noise is None else noise.denoised(label)
        p, _ = self.activation.probabilities(block)
        margin, softplus = self.activation.margins(block)
        cross_entropy = softplus.addcmul_(label, margin, value=-1)
        if self.mask is not None:
            p, label, cross_entropy = p * self.mask, label * self.mask, cross_entropy.mul_(self.mask)
        return torch.stack((torch.linalg.vecdot(p, label), p.sum(-1), label.sum(-1), cross_entropy.sum(-1)), -1)

    def pull_back(
        self, block: Block, of_sums: Sequence[Tensor], *, into: Tensor
    ) -> tuple[Tensor, Tensor | None] | None:
        """Write the gradient to the block's margins `into` its heads; returns those to noise and level, if any.

        With gradients g to the sums: `(g_overlap y + g_probability) p q + g_ce (p - y)` to the margin m, and
        `g_overlap p + g_label - g_ce m` to the label y.
        """
        overlap, probability, of_label, cross_entropy = of_sums
        label, noise = self._label(block), self._noise(block)
        denoised = label if noise is None else noise.denoised(label)
        p, q = self.activation.probabilities(block)
        part = into[:, block.start + self.n_background : block.stop + self.n_background]
        torch.addcmul(probability, denoised, overlap, out=part).mul_(p).mul_(q)
        part.addcmul_(p - denoised, cross_entropy)
        if self.mask is not None:
            part.mul_(self.mask)
        if noise is None:
            return None
        margin, _ = self.activation.margins(block)
        part = torch.addcmul(of_label, p, overlap).addcmul_(margin, cross_entropy, value=-1)
        return noise.pull_back(part if self.mask is None else part.mul_(self.mask), label)

    def _label(self, block: Block) -> Tensor:
        """(case, class, voxel) in {0, 1}."""
        if self.labelling.has_regions:
            return self.target[:, block].to(self.precision)
        values = torch.arange(block.start + 1, block.stop + 1, device=self.target.device, dtype=self.precision)
        label = self.target.new_empty(len(self.target), len(values), self.target.shape[2])
        # Numbers at once: converting booleans would take ten times as long.
        return torch.eq(self.target, values.unsqueeze(1), out=label)

    def _noise(self, block: Block) -> TileNoise | None:
        if self.noise is None:
            return None
        noise = self.noise[:, block].to(self.precision)
        return TileNoise(
            torch.sigmoid(noise) if self.noise_is_logit else noise,
            is_squashed=self.noise_is_logit,
            level=None if self.level is None or self.labelling.denoise == "official" else self.level[:, block, None],
        )


def _denoises(output: Tensor, noise: Tensor | None, level: Tensor | None, labelling: Labelling) -> bool:
    has_noise = noise is not None or output.shape[1] > labelling.n_heads
    return has_noise and (labelling.denoise == "official" or level is not None)


def _tiles(batch: _Batch) -> Iterator[_Tile]:
    output, noise, level, target, labelling, tiling = batch
    precision = torch.float64 if output.dtype is torch.float64 else torch.float32
    n_heads, n_classes = labelling.n_heads, labelling.n_classes
    flat, flat_target = output.flatten(2), target.flatten(2)
    noise_is_logit = noise is None
    flat_noise = flat[:, n_heads:] if noise is None else noise.flatten(2)
    denoises = _denoises(output, noise, level, labelling)
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
