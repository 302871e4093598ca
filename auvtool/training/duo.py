"""DUO: denoised labels and uncertainty-weighted classes (eqs. 10 and 11)."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

DICE_SMOOTHING = 1e-5  # nnU-Net's own


class NonFiniteLoss(ArithmeticError):
    """The loss of some class is NaN or infinite.

    Args:
        class_index: position of the class among the foreground classes.
        samples: positions in the batch.
    """

    def __init__(self, class_index: int, samples: Sequence[int]) -> None:
        self.class_index, self.samples = class_index, tuple(samples)
        super().__init__(f"class {class_index}, samples {list(samples)}")


def softmax_margins(logits: Tensor) -> Tensor:
    """`m` with `sigmoid(m[:, c]) = softmax(logits)[:, c]`, shape as `logits` (case, class, ...).

    `m_c = z_c - log sum over k != c of exp z_k`. Binary cross entropy on `m` is that of the softmax probability
    without the loss of digits of `log(1 - p)`. The sum without class c is the total less its term, except for the
    largest term, where that difference would cancel: there the others are summed. Linear in the number of classes.
    """
    largest, position = logits.detach().max(1, keepdim=True)
    shifted = logits - largest
    terms = shifted.exp()
    is_largest = torch.zeros_like(terms, dtype=torch.bool).scatter_(1, position, value=True)
    rest_of_largest = terms.masked_fill(is_largest, 0).sum(1, keepdim=True)
    rest = torch.where(is_largest, rest_of_largest, terms.sum(1, keepdim=True) - terms)
    return shifted - rest.clamp_min(torch.finfo(rest.dtype).tiny).log()


@torch.no_grad()
def perception_scale(logits: Tensor) -> Tensor:
    """Semantic perception scale of each case and class (eqs. 2 to 5; squared energy, uncentred, first axis as rows).

    Through float32 Gram matrices outside autocast: their error (2e-6) does not matter to `1 / (1 + alpha S)`, and half
    precision would overflow. A map of zeros has scale 0. No gradient: the paper draws none through S.

    Args:
        logits: (case, class, d, h, w), or (case, class, h, w) for a 2D network.

    Returns:
        (case, class) float32 in [0, 1].

    Raises:
        ValueError: the unfolded map has a single row or column.
    """
    with torch.autocast(logits.device.type, enabled=False):
        maps = logits.detach().float().flatten(3)
        if maps.shape[2] > maps.shape[3]:
            maps = maps.mT
        rank = maps.shape[2]
        if rank < 2:
            raise ValueError(f"expected maps of at least 2 x 2, got {tuple(logits.shape)}")
        energy = torch.linalg.eigvalsh((maps @ maps.mT).double()).clamp_min(0)
        total = energy.sum(-1, keepdim=True)
        share = energy / total.clamp_min(torch.finfo(torch.float64).tiny)
        scale: Tensor = torch.special.entr(share).sum(-1) / math.log(rank)
        return scale.clamp(0, 1).float()


def denoised_label(label: Tensor, *, noise: Tensor, level: Tensor) -> Tensor:
    """`clamp(y - e n, 0, 1)` (eq. 10; the clamp keeps it a label).

    At 0 and 1 themselves the gradient passes: labels start there (e = 0), and torch.clamp, which may stop it at its
    bounds depending on the version, would keep e at 0 for ever.

    Args:
        label: (case, class, ...) in {0, 1}.
        noise: (case, class, ...) in [0, 1], the output of the noise head.
        level: (case, class), the learned e of each case and class.
    """
    level = level.reshape(*level.shape, *(1,) * (label.ndim - 2))
    value = label - level * noise
    return torch.where((value >= 0) & (value <= 1), value, value.detach().clamp(0, 1))


def class_losses(margins: Tensor, label: Tensor, *, mask: Tensor | None, beta: float, batch_dice: bool) -> Tensor:
    """`beta (1 - soft Dice) + (1 - beta) BCE` of each case and class (the right half of eq. 10).

    Args:
        margins: (case, class, ...); their sigmoid is the probability.
        label: as `margins`, in [0, 1].
        mask: (case, 1, ...), 1 where the voxel is annotated; None: everywhere.
        beta: share of the Dice term.
        batch_dice: take Dice over the whole batch, as nnU-Net plans it for patches much smaller than the scan.

    Returns:
        (case, class)
    """
    space = tuple(range(2, margins.ndim))
    probability = torch.sigmoid(margins)
    cross_entropy = functional.binary_cross_entropy_with_logits(margins, label, reduction="none")
    if mask is not None:
        probability, label, cross_entropy = probability * mask, label * mask, cross_entropy * mask
        n_voxels = mask.sum(space).clamp_min(1)
    else:
        n_voxels = torch.full((1, 1), math.prod(margins.shape[2:]), device=margins.device)
    overlap, size = (probability * label).sum(space), probability.sum(space) + label.sum(space)
    if batch_dice:
        overlap, size = overlap.sum(0, keepdim=True), size.sum(0, keepdim=True)
    dice = (2 * overlap + DICE_SMOOTHING) / (size + DICE_SMOOTHING)
    return beta * (1 - dice) + (1 - beta) * cross_entropy.sum(space) / n_voxels


class DuoLoss(nn.Module):
    """Eq. 11 on the outputs of a nnU-Net network, with deep supervision.

    The mean over cases and classes of `class_losses / (1 + alpha S)`; the mean over classes (the paper writes a sum)
    keeps its size independent of their number. S and the weights come from the full resolution and serve every lower
    one. The activation is the one that nnU-Net infers with: softmax with background for exclusive labels, sigmoid for
    regions, so that stock prediction of the network is right.

    In training, the first output may carry one more channel for each class, the noise head's; then labels are denoised
    with `level`, which the trainer sets for each batch. Lower resolutions take the noise averaged over their voxels.

    Args:
        n_classes: foreground classes.
        has_regions: sigmoid outputs, one for each region; otherwise softmax outputs with background first.
        ignore_label: its voxels count nowhere (for regions, any value: their target has a last channel that marks it).
        alpha: strength of the weights; 0, or `reweight` off, is the plain loss.
        beta: share of Dice.
        resolution_weights: one for each output, highest resolution first.
    """

    def __init__(
        self,
        *,
        n_classes: int,
        has_regions: bool,
        ignore_label: int | None,
        alpha: float,
        beta: float,
        reweight: bool,
        batch_dice: bool,
        resolution_weights: Sequence[float],
    ) -> None:
        super().__init__()
        self.n_classes, self.has_regions, self.ignore_label = n_classes, has_regions, ignore_label
        self.alpha, self.beta, self.reweight, self.batch_dice = alpha, beta, reweight, batch_dice
        self.resolution_weights = tuple(float(weight) for weight in resolution_weights)
        self.level: Tensor | None = None  # (case, class) of the batch; None: labels as they are
        self.last_scale: Tensor | None = None  # (case, class) of the last batch, for the log

    def forward(self, outputs: Sequence[Tensor] | Tensor, targets: Sequence[Tensor] | Tensor) -> Tensor:
        """The loss of one batch.

        Raises:
            NonFiniteLoss: logits or loss of a class are not finite.
        """
        outputs = [outputs] if isinstance(outputs, Tensor) else list(outputs)
        targets = [targets] if isinstance(targets, Tensor) else list(targets)
        with torch.autocast(outputs[0].device.type, enabled=False):
            n_heads = self.n_classes if self.has_regions else self.n_classes + 1
            noise = torch.sigmoid(outputs[0][:, n_heads:].float()) if outputs[0].shape[1] > n_heads else None
            logits = [output[:, :n_heads].float() for output in outputs]
            foreground = logits[0][:, -self.n_classes :]
            _require_finite(foreground.flatten(2).isfinite().all(-1))
            scale = perception_scale(foreground)
            self.last_scale = scale
            weight = 1 / (1 + self.alpha * scale) if self.reweight else torch.ones_like(scale)
            total = logits[0].new_zeros(())
            for output, target, resolution_weight in zip(logits, targets, self.resolution_weights, strict=True):
                if resolution_weight:
                    losses = self._class_losses(output, target, noise)
                    _require_finite(losses.isfinite().expand_as(weight))
                    total = total + resolution_weight * (weight * losses).mean()
            return total

    def _class_losses(self, logits: Tensor, target: Tensor, noise: Tensor | None) -> Tensor:
        label, mask = self._label_and_mask(target)
        if noise is not None and self.level is not None:
            if noise.shape[2:] != label.shape[2:]:
                noise = functional.interpolate(noise, size=label.shape[2:], mode="area")
            label = denoised_label(label, noise=noise, level=self.level)
        margins = logits if self.has_regions else softmax_margins(logits)[:, 1:]
        return class_losses(margins, label, mask=mask, beta=self.beta, batch_dice=self.batch_dice)

    def _label_and_mask(self, target: Tensor) -> tuple[Tensor, Tensor | None]:
        """(case, class, ...) float label and (case, 1, ...) mask of nnU-Net's target."""
        if self.has_regions:
            mask = None if self.ignore_label is None else 1 - target[:, -1:].float()
            return target[:, : self.n_classes].float(), mask
        mask = None if self.ignore_label is None else (target != self.ignore_label).float()
        values = torch.arange(1, self.n_classes + 1, device=target.device)
        return (target == values.reshape(1, -1, *(1,) * (target.ndim - 2))).float(), mask


def _require_finite(is_finite: Tensor) -> None:
    """Raise for the first class with a case that is not finite; `is_finite` is (case, class)."""
    if bool(is_finite.all()):
        return
    samples, classes = torch.nonzero(~is_finite, as_tuple=True)
    first = int(classes.min())
    raise NonFiniteLoss(first, [int(sample) for sample in samples[classes == first]])
