"""Denoised labels of a tile (eq. 10), and the way back from them to the noise and to its level."""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class TileNoise:
    """The estimated noise of a block of classes.

    Attributes:
        noise: (case, class, voxel) in [0, 1].
        is_squashed: it is the sigmoid of what the gradient goes to.
        level: (case, class, 1), e of eq. 10; None: the official form, which has none.
    """

    noise: Tensor
    is_squashed: bool
    level: Tensor | None

    def denoised(self, label: Tensor) -> Tensor:
        """`clamp(y - e n, 0, 1)`, or `y (1 - n)` without a level."""
        return self._subtracted(label).clamp_(0, 1)

    def pull_back(self, of_denoised: Tensor, label: Tensor) -> tuple[Tensor, Tensor | None]:
        """Gradients to the noise (or its logits) and to the level, from that to the denoised label, which is lost.

        The clamp passes the gradient at 0 and 1 themselves: labels start there (e = 0), and stopping it would keep e at
        0 for ever.
        """
        if self.level is None:
            return self._squashed_back(of_denoised.mul_(label).neg_()), None
        value = self._subtracted(label)
        of_value = of_denoised.mul_(torch.eq(value, value.clamp(0, 1), out=value))
        of_level = torch.linalg.vecdot(of_value, self.noise).neg_()
        return self._squashed_back(of_value.mul_(-self.level)), of_level

    def _subtracted(self, label: Tensor) -> Tensor:
        return torch.addcmul(label, self.noise, label if self.level is None else self.level, value=-1)

    def _squashed_back(self, of_noise: Tensor) -> Tensor:
        if not self.is_squashed:
            return of_noise
        of_noise.mul_(self.noise)
        return of_noise.addcmul_(of_noise, self.noise, value=-1)
