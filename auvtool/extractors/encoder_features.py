"""Mean and standard deviation of an encoder's features over the places of all windows of a volume."""

import numpy as np
import torch
from jaxtyping import Float


class EncoderFeatures:
    """Sums over the places that were seen so far."""

    def __init__(self) -> None:
        self._n = 0
        self._sum: torch.Tensor | None = None
        self._squares: torch.Tensor | None = None

    def add(self, features: Float[torch.Tensor, "window feature d h w"]) -> None:
        """Add the features of windows."""
        places = features.double().transpose(0, 1).flatten(1)
        total, squares = places.sum(dim=1), (places**2).sum(dim=1)
        self._n += places.shape[1]
        self._sum = total if self._sum is None else self._sum + total
        self._squares = squares if self._squares is None else self._squares + squares

    def summary(self) -> Float[np.ndarray, " feature"]:
        """Mean, then population standard deviation, of each feature; empty before any window."""
        if self._sum is None or self._squares is None:
            return np.empty(0)
        mean = self._sum / self._n
        spread = (self._squares / self._n - mean**2).clamp_min(0).sqrt()
        found: np.ndarray = torch.cat([mean, spread]).cpu().numpy()
        return found
