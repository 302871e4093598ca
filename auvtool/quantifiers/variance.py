"""Variance of the decoder's features within a class region."""

import numpy as np
from jaxtyping import Float


def feature_variance(centered_spectrum: Float[np.ndarray, " feature"], n_voxels: int) -> float:
    """Trace of the covariance of a feature matrix (d features, m voxels): sum of s_j^2 / m (population variance).

    Args:
        centered_spectrum: singular values of the matrix less each feature's mean.
        n_voxels: m.

    Returns:
        In the features' unit squared, at least 0; nan without voxels.
    """
    return float(np.square(centered_spectrum).sum() / n_voxels) if n_voxels else float("nan")
