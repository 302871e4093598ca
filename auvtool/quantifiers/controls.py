"""Plain numbers of a map that a new quantifier has to beat."""

import numpy as np
from jaxtyping import Float
from scipy.special import entr, expit


def effective_rank(spectrum: Float[np.ndarray, " rank"]) -> float:
    """Exponential of the entropy of s / sum s (Roy and Vetterli, 2007).

    Returns:
        Between 1 (rank one) and the number of singular values (all equal); nan where all are zero or there are none.

    Raises:
        ValueError: a singular value is negative or not finite.
    """
    if not np.isfinite(spectrum).all() or (spectrum < 0).any():
        raise ValueError("expected finite singular values >= 0, got others")
    total = spectrum.sum()
    return float(np.exp(entr(spectrum / total).sum())) if total > 0 else float("nan")


def mean_entropy(logits: Float[np.ndarray, " voxel"]) -> float:
    """Mean entropy of the probability sigmoid(logit) of a voxel, in nats, [0, log 2]; nan without voxels."""
    if not logits.size:
        return float("nan")
    values = logits.astype(np.float64)
    # H(p) = log(1 + exp(z)) - z p, without the logarithm of a probability that has rounded to 0 or 1.
    return float((np.logaddexp(0.0, values) - values * expit(values)).mean())
