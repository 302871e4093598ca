"""The estimated label noise of eq. 10: a head beside the segmentation head, and a level for each case and class."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from auvtool.backbones.final_layer import final_layer

# The sigmoid of this is the noise at the start: 0.02, so that labels change little before the head has learned.
INITIAL_NOISE_LOGIT = -4.0
_NOISE_KEY = ".noise."


class NoisySegmentationHead(nn.Module):
    """A final 1 x 1 (x 1) convolution that in training also returns the noise logits, as further channels.

    Its parameters keep the names `weight` and `bias`, so that without `noise.*` the network's state is the stock one.
    In evaluation it is the stock layer: validation and prediction see no difference.
    """

    def __init__(self, segmentation: nn.Conv2d | nn.Conv3d, n_classes: int) -> None:
        super().__init__()
        self.weight, self.bias = segmentation.weight, segmentation.bias
        self.noise = type(segmentation)(segmentation.in_channels, n_classes, kernel_size=1)
        assert self.noise.bias is not None  # noqa: S101  # convolutions have one unless told otherwise
        nn.init.zeros_(self.noise.weight)
        nn.init.constant_(self.noise.bias, INITIAL_NOISE_LOGIT)

    def forward(self, features: Tensor) -> Tensor:
        """(case, feature, ...) to (case, head, ...), in training (case, head + class, ...)."""
        convolve = functional.conv3d if features.ndim == 5 else functional.conv2d
        logits = convolve(features, self.weight, self.bias)
        return torch.cat([logits, self.noise(features)], 1) if self.training else logits


def attach_noise_head(network: nn.Module, n_classes: int) -> None:
    """Put the noise head beside the full-resolution segmentation layer of a network.

    Raises:
        ValueError: see `final_layer`.
    """
    layers, last = final_layer(network)
    layers[-1] = NoisySegmentationHead(last, n_classes)


def is_noise_parameter(name: str) -> bool:
    """Whether a parameter of this name belongs to a noise head."""
    return _NOISE_KEY in name


class NoiseLevels(nn.Module):
    """The table e of eq. 10, (case, class); eq. 11 holds each class to mean 0 and mean square 1 over the data set.

    It starts at zero, so that labels are what they are until the first `project`.
    """

    def __init__(self, case_ids: Sequence[str], n_classes: int) -> None:
        super().__init__()
        self.case_ids = tuple(case_ids)
        self._row = {case_id: row for row, case_id in enumerate(self.case_ids)}
        self.values = nn.Parameter(torch.zeros(len(self.case_ids), n_classes))

    def forward(self, case_ids: Sequence[str]) -> Tensor:
        """(case, class): the rows of a batch, in its order."""
        rows = torch.tensor([self._row[str(case_id)] for case_id in case_ids], device=self.values.device)
        return self.values[rows]

    @torch.no_grad()
    def project(self) -> None:
        """Shift and scale each class to mean 0 and mean square 1; a class whose levels are all equal becomes 0.

        Over the data set, after an epoch: over a batch of two it would force every level to +-1.
        """
        centred = self.values.double() - self.values.double().mean(0)
        size = centred.square().mean(0).sqrt()
        # Equal levels differ by rounding only, which must not be blown up to 1.
        varies = size > 1e-7 * self.values.double().abs().amax(0)
        self.values.copy_(torch.where(varies, centred / size.where(varies, torch.ones_like(size)), 0.0))
