"""Volume that the features of a class span (semantic scale imbalance, Ma et al., ICLR 2023)."""

import numpy as np
from jaxtyping import Float


def semantic_scale(centered_spectrum: Float[np.ndarray, " feature"], n_voxels: int) -> float:
    """1/2 log2 det(I + d/m (Z - mean)(Z - mean)^T) of a feature matrix Z (d features, m voxels), in bit.

    The determinant is the product of 1 + d/m s_j^2 over the singular values s_j of the centred matrix. The authors'
    package takes d as a free factor, 1 by default; here it is the number of features, as in the coding rate that the
    paper derives it from. It grows with the number of voxels where that is small: compare it given the volume.

    Args:
        centered_spectrum: singular values of Z less each feature's mean, zeros past its rank, d in all.
        n_voxels: m.

    Returns:
        At least 0; nan without voxels.
    """
    if n_voxels == 0:
        return float("nan")
    n_features = len(centered_spectrum)
    return float(0.5 * np.log2(1.0 + n_features / n_voxels * np.square(centered_spectrum)).sum())
