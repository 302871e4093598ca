"""Distance of a case's features from those of the other cases of its class (Lee et al., 2018; Ren et al., 2021)."""

import numpy as np
from jaxtyping import Float

_LEAST_VECTORS = 3  # beside the case left out: a mean, and deviations from it


def mahalanobis_distance(
    vectors: Float[np.ndarray, "case class feature"], *, relative: bool = False
) -> Float[np.ndarray, "case class"]:
    """Squared Mahalanobis distance of each class-pooled feature vector from the mean of its class.

    MD = (z - mu_c)^T C^-1 (z - mu_c), with a mean a class and one covariance C for all. All of them come from the other
    cases, so that an outlier does not vouch for itself. C is the Ledoit-Wolf estimate from the vectors less their class
    means (there are often fewer cases than features), each feature in units of its spread within the classes, for the
    estimate shrinks towards equal variances.

    `relative` takes off the distance from one Gaussian of all classes (relative Mahalanobis distance), which leaves
    what is unusual for the class alone. Its covariance is C plus that of the class means, as without shrinkage, so that
    what both distances have in common cancels.

    Args:
        vectors: nan where a class is absent from a case.
        relative: subtract the distance that knows no classes.

    Returns:
        Dimensionless, at least 0 unless `relative`; nan where the class is absent, where fewer than two other cases
        have it or fewer than three other vectors are left, or where these do not vary.
    """
    from sklearn.covariance import ledoit_wolf

    n_cases, n_classes, _ = vectors.shape
    present = ~np.isnan(vectors).any(axis=2)
    filled = np.where(present[..., None], vectors, 0.0).astype(np.float64)
    distances = np.full((n_cases, n_classes), np.nan)
    for case in range(n_cases):
        others = present.copy()
        others[case] = False
        counts = others.sum(axis=0)
        usable = present[case] & (counts >= 2)
        if not usable.any() or others.sum() < _LEAST_VECTORS:
            continue
        means = (filled * others[..., None]).sum(axis=0) / np.maximum(counts, 1)[:, None]
        within = (filled - means)[others]
        spread = within.std(axis=0)
        varying = spread > 0  # a feature that never varies has no unit, and no say
        if not varying.any():
            continue
        unit = spread[varying]
        covariance, _ = ledoit_wolf(within[:, varying] / unit, assume_centered=True)
        found = _distance((filled[case, usable] - means[usable])[:, varying] / unit, covariance)
        if relative:
            mean = filled[others].mean(axis=0)
            between = (means - mean)[counts > 0][:, varying] / unit
            of_means = (between * counts[counts > 0, None]).T @ between / counts.sum()
            found -= _distance((filled[case, usable] - mean)[:, varying] / unit, covariance + of_means)
        distances[case, usable] = found
    return distances


def _distance(
    deviations: Float[np.ndarray, "vector feature"], covariance: Float[np.ndarray, "feature feature"]
) -> Float[np.ndarray, " vector"]:
    solved = np.linalg.lstsq(covariance, deviations.T, rcond=None)[0]  # the estimate may be singular: equal vectors
    return np.asarray(np.einsum("vf,fv->v", deviations, solved))
