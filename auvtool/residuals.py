"""What is left of a quantity when its dependence on others is taken out."""

import numpy as np
from jaxtyping import Float

from auvtool.correlation import orthonormal_basis

# What a fit leaves below this share of a value is rounding, and no case is above another by it.
_ROUNDING = 1e-10


def residuals(
    values: Float[np.ndarray, " case"], covariates: Float[np.ndarray, "case covariate"]
) -> Float[np.ndarray, " case"]:
    """Values less their least-squares fit by an intercept and the covariates.

    A covariate that does not vary, or that others determine, takes nothing away.

    Returns:
        In the values' unit, of mean 0; exactly 0 where the fit leaves rounding only; nan where a value or a covariate
        is not finite.

    Raises:
        ValueError: fewer than two cases more than the fit has parameters, so that it could fit anything.
    """
    usable = np.isfinite(values) & np.isfinite(covariates).all(axis=1)
    n_parameters = 1 + covariates.shape[1]
    if usable.sum() < n_parameters + 2:
        raise ValueError(f"a fit of {n_parameters} parameters to {usable.sum()} cases")
    known = values[usable]
    centered = known - known.mean()
    basis = orthonormal_basis(covariates[usable])
    left = centered - basis @ (basis.T @ centered)
    left[np.abs(left) <= _ROUNDING * np.abs(known).max()] = 0.0
    found = np.full(len(values), np.nan)
    found[usable] = left
    return found
