"""Fisher information of an evidential prediction: little evidence for the class, much uncertainty."""

import numpy as np
from jaxtyping import Float
from scipy.special import polygamma


def mean_trigamma(logits: Float[np.ndarray, " voxel"]) -> float:
    """Mean over voxels of trigamma(alpha), alpha = softplus(logit) + 1 the Dirichlet parameter of the class.

    Trigamma of a parameter is its term in the Fisher information of a Dirichlet distribution. Information-based
    evidential learning (Deng et al., ICML 2023) weights its training loss by it and never ranks cases: this mean is the
    use that the paper makes of it, not that method's.

    Returns:
        Dimensionless, in (0, pi^2 / 6], the largest value without any evidence; nan without voxels.
    """
    if not logits.size:
        return float("nan")
    evidence = np.logaddexp(0.0, logits.astype(np.float64))
    return float(polygamma(1, evidence + 1.0).mean())
