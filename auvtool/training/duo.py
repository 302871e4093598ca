"""DUO: denoised labels and uncertainty-weighted classes (eqs. 10 and 11)."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from auvtool.training.logit_scale import perception_scale
from auvtool.training.loss_sums import (
    CROSS_ENTROPY,
    LABEL,
    OVERLAP,
    PROBABILITY,
    Labelling,
    loss_sums,
)
from auvtool.training.pooled_noise import pooled_noise
from auvtool.training.recipe import DenoiseForm

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


def class_losses(sums: Tensor, *, n_voxels: Tensor | int, beta: float, batch_dice: bool) -> Tensor:
    """`beta (1 - soft Dice) + (1 - beta) BCE` of each case and class (the right half of eq. 10).

    Args:
        sums: (case, class, 4), see `loss_sums`.
        n_voxels: annotated ones, (case, 1) or of every case.
        beta: share of the Dice term.
        batch_dice: take Dice over the whole batch, as nnU-Net plans it for patches much smaller than the scan; where
            several processes share a batch, over all of them.

    Returns:
        (case, class)
    """
    overlap, size = sums[..., OVERLAP], sums[..., PROBABILITY] + sums[..., LABEL]
    if batch_dice:
        overlap, size = _over_processes(torch.stack([overlap.sum(0), size.sum(0)])).unsqueeze(1).unbind(0)
    dice = (2 * overlap + DICE_SMOOTHING) / (size + DICE_SMOOTHING)
    return beta * (1 - dice) + (1 - beta) * sums[..., CROSS_ENTROPY] / n_voxels


class DuoLoss(nn.Module):
    """Eq. 11 on the outputs of a nnU-Net network, with deep supervision.

    The mean over cases and classes of `class_losses / (1 + alpha S)`; the mean over classes (the paper writes a sum)
    keeps its size independent of their number. S and the weights come from the full resolution and serve every lower
    one. The activation is the one that nnU-Net infers with: softmax with background for exclusive labels, sigmoid for
    regions, so that stock prediction of the network is right.

    In training, the first output may carry one more channel for each class, the noise head's; then labels are denoised:
    in the paper's form with `level`, which the trainer sets for each batch. Lower resolutions take the noise averaged
    over their voxels.

    Args:
        n_classes: foreground classes.
        has_regions: sigmoid outputs, one for each region; otherwise softmax outputs with background first.
        ignore_label: its voxels count nowhere (for regions, any value: their target has a last channel that marks it).
        alpha: strength of the weights; 0, or `reweight` off, is the plain loss.
        beta: share of Dice.
        reweight: take weights from S.
        batch_dice: see `class_losses`.
        resolution_weights: one for each output, highest resolution first.
        denoise_form: see `Labelling`.
        scale_gradient: let the gradient through S, which the paper does not.
        static_weights: of each class, for the whole training, in the place of `1 / (1 + alpha S)`.
        class_weights: of each class, times what it is weighted by otherwise.
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
        denoise_form: DenoiseForm = "paper",
        scale_gradient: bool = False,
        static_weights: Sequence[float] | None = None,
        class_weights: Sequence[float] | None = None,
    ) -> None:
        super().__init__()
        self.labelling = Labelling(n_classes, has_regions, ignore_label, denoise_form)
        self.alpha, self.beta, self.reweight, self.batch_dice = alpha, beta, reweight, batch_dice
        self.scale_gradient = scale_gradient
        self.static_weights, self.class_weights = static_weights, class_weights
        self.resolution_weights = tuple(float(weight) for weight in resolution_weights)
        self.level: Tensor | None = None  # (case, class) of the batch
        self.process_share = 1.0  # cases of this process over the mean of all processes
        self.last_scale: Tensor | None = None  # (case, class) of the last batch, for the log
        self.last_weight: Tensor | None = None

    def forward(self, outputs: Sequence[Tensor] | Tensor, targets: Sequence[Tensor] | Tensor) -> Tensor:
        """The loss of one batch.

        Raises:
            NonFiniteLoss: logits or loss of a class are not finite.
        """
        outputs = [outputs] if isinstance(outputs, Tensor) else list(outputs)
        targets = [targets] if isinstance(targets, Tensor) else list(targets)
        n_heads, n_classes = self.labelling.n_heads, self.labelling.n_classes
        with torch.autocast(outputs[0].device.type, enabled=False):
            scale = perception_scale(outputs[0][:, n_heads - n_classes : n_heads], differentiable=self._draws_gradient)
            weight = self._weight(scale)
            self.last_scale, self.last_weight = scale.detach(), weight.detach()
            is_finite = [scale.isfinite()]
            total = scale.new_zeros(())
            for output, target, noise, resolution_weight in zip(
                outputs, targets, self._noises(outputs), self.resolution_weights, strict=True
            ):
                if resolution_weight:
                    losses = self._class_losses(output, target, noise)
                    is_finite.append(losses.isfinite().expand_as(weight))
                    total = total + resolution_weight * (weight * losses).mean()
            _require_finite(torch.stack(is_finite))
            return self.process_share * total

    @property
    def _draws_gradient(self) -> bool:
        return self.scale_gradient and self.reweight and self.static_weights is None

    def _weight(self, scale: Tensor) -> Tensor:
        """(case, class), or broadcasts to it."""
        weight = 1 / (1 + self.alpha * scale) if self.reweight else torch.ones_like(scale)
        if self.static_weights is not None:
            weight = scale.new_tensor(self.static_weights).expand_as(scale)
        return weight if self.class_weights is None else weight * scale.new_tensor(self.class_weights)

    def _noises(self, outputs: Sequence[Tensor]) -> list[Tensor | None]:
        """For each resolution; None at the highest, where it is in the output."""
        has_noise = outputs[0].shape[1] > self.labelling.n_heads
        if not has_noise or (self.level is None and self.labelling.denoise == "paper"):
            return [None] * len(outputs)
        sizes = [output.shape[2:] for output in outputs[1:]]
        return [None, *pooled_noise(outputs[0], first_channel=self.labelling.n_heads, sizes=sizes)]

    def _class_losses(self, output: Tensor, target: Tensor, noise: Tensor | None) -> Tensor:
        sums = loss_sums(output, target, labelling=self.labelling, noise=noise, level=self.level)
        annotated = self.labelling.is_annotated(target)
        n_voxels = math.prod(target.shape[2:]) if annotated is None else annotated.flatten(1).sum(1, keepdim=True)
        return class_losses(
            sums,
            n_voxels=n_voxels.clamp_min(1) if isinstance(n_voxels, Tensor) else n_voxels,
            beta=self.beta,
            batch_dice=self.batch_dice,
        )


def _over_processes(sums: Tensor) -> Tensor:
    """Added up over the processes of a distributed training, with their gradients."""
    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        return sums
    from nnunetv2.utilities.ddp_allgather import AllGatherGrad

    added: Tensor = AllGatherGrad.apply(sums).sum(0)
    return added


def _require_finite(is_finite: Tensor) -> None:
    """Raise for the first class with a case that is not finite; `is_finite` is (stage, case, class).

    Of the first stage that has any: later ones may owe theirs to another class. One look at the device in a batch.
    """
    if bool(is_finite.all()):
        return
    for stage in is_finite.cpu():
        samples, classes = torch.nonzero(~stage, as_tuple=True)
        if len(classes):
            first = int(classes.min())
            raise NonFiniteLoss(first, [int(sample) for sample in samples[classes == first]])
