"""What is left of a quantity when its dependence on others is taken out."""

import numpy as np
from jaxtyping import Float


def residuals(
    values: Float[np.ndarray, " case"], covariates: Float[np.ndarray, "case covariate"]
) -> Float[np.ndarray, " case"]:
    """Values less their least-squares fit by an intercept and the covariates.

    A covariate that does not vary, or that others determine, takes nothing away.

    Returns:
        In the values' unit, of mean 0; nan where a value or a covariate is not finite.

    Raises:
        ValueError: fewer than two cases more than the fit has parameters, so that it could fit anything.
    """
    usable = np.isfinite(values) & np.isfinite(covariates).all(axis=1)
    n_parameters = 1 + covariates.shape[1]
    if usable.sum() < n_parameters + 2:
        raise ValueError(f"a fit of {n_parameters} parameters to {usable.sum()} cases")
    left = np.full(len(values), np.nan)
    x = covariates[usable] - covariates[usable].mean(axis=0)
    spread = np.abs(x).max(axis=0)
    x = x / np.where(spread > 0, spread, 1.0)  # so that lstsq's rank does not hang on units
    y = values[usable] - values[usable].mean()
    left[usable] = y - x @ np.linalg.lstsq(x, y, rcond=1e-10)[0]
    return left
