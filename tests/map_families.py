"""Maps that are easy and hard for a Gram matrix, and what a float64 SVD says of them."""

import numpy as np

from auvtool.scale import semantic_perception_scale


def svd_oracle(volume, unfolding, centering):
    rows = {"d_hw": (0, 1, 2), "h_dw": (1, 0, 2), "w_dh": (2, 0, 1)}[unfolding]
    matrix = np.asarray(volume, dtype=np.float64).transpose(rows)
    matrix = matrix.reshape(matrix.shape[0], -1)
    if centering == "centered":
        # Twice: what is left of a large mean after once is no longer large, and a constant row is left with zeros.
        matrix = matrix - matrix[:, :1]
        matrix = matrix - matrix.mean(axis=1, keepdims=True)
    return np.linalg.svd(matrix, compute_uv=False)


def families(shape=(24, 30, 20)):
    """Maps (d, h, w) as float32: what decoders give, and what is hard for a Gram matrix."""
    rng = np.random.default_rng(1)
    d, h, w = shape
    noise = rng.standard_normal(shape)
    z, y, x = np.mgrid[:d, :h, :w]
    ball = np.hypot(np.hypot(z - d / 2, y - h / 2), x - w / 3) < d / 4
    rank = min(d, h * w)
    left, _ = np.linalg.qr(rng.standard_normal((d, rank)))
    right, _ = np.linalg.qr(rng.standard_normal((h * w, rank)))
    maps = {
        "random": noise,
        "low rank": np.einsum("ri,rj,rk->ijk", *(rng.standard_normal((3, size)) for size in shape)),
        "rank one": np.einsum("i,j,k->ijk", *(rng.standard_normal(size) for size in shape)),
        "1000 + 1e-2 noise": 1000 + 1e-2 * noise,
        "-20 + 1e-3 noise": -20 + 1e-3 * noise,
        "a constant a slice + 1e-2 noise": 100 * np.arange(d)[:, None, None] + 1e-2 * noise,
        "a constant a row and a column + noise": 100 * (y + x) + 1e-2 * noise,
        "geometric 1 to 1e-12": ((left * np.geomspace(1, 1e-12, rank)) @ right.T).reshape(shape),
        "ball": ball.astype(float),
        "logits of a ball": np.where(ball, 8.0, -8.0) + 1e-3 * noise,
    }
    return {name: volume.astype(np.float32) for name, volume in maps.items()}


def scale_errors(spectra, volume):
    """Worst error of the scale a (energy, eps rule) over unfoldings and centrings."""
    errors = dict.fromkeys([("squared", "denominator"), ("linear", "denominator"), ("linear", "added")], 0.0)
    for (unfolding, centering), values in spectra.items():
        expected = svd_oracle(volume, unfolding, centering)
        for energy, eps_rule in errors:
            rules = {"energy": energy, "eps_rule": eps_rule}
            difference = semantic_perception_scale(values, **rules) - semantic_perception_scale(expected, **rules)
            errors[energy, eps_rule] = max(errors[energy, eps_rule], abs(float(difference)))
    return errors
