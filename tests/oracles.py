"""The equations again, plainly and by another route, importing nothing of auvtool."""

import math

import numpy as np
import torch

_ROW_AXIS = {"d_hw": 0, "h_dw": 1, "w_dh": 2}


def released_scale(volume, unfolding="d_hw", dtype=torch.float32):
    """What the authors' released function gives for one class map (d, h, w): float32 SVD, linear energy.

    Every singular value becomes s + 1e-6, then p = s / sum s and S = -sum p log p / log(number of values). Voxels that
    are not finite count as 0. dtype float64 is the same without the rounding noise of its SVD.
    """
    axis = _ROW_AXIS[unfolding]
    finite = torch.tensor(np.where(np.isfinite(volume), volume, 0.0), dtype=dtype)
    # With its vectors: LAPACK's values-only driver has other rounding noise, which counts on a low-rank map.
    values = torch.linalg.svd(finite.movedim(axis, 0).flatten(1), full_matrices=False).S + 1e-6
    p = values / values.sum()
    return float(-(p * p.log()).sum() / math.log(len(values)))


def released_auv(scales_of_cases):
    """AUV as the released example computes it; one row of foreground scales a case."""
    logarithms = [math.log(sum(row) + 1e-8) for row in scales_of_cases]
    low, high = min(logarithms), max(logarithms)
    return [1.0 - (value - low) / (high - low + 1e-8) for value in logarithms]


def written_scale(volume):
    """Eqs 2 to 5 as written, of one class map (d, h, w): the entropy of the squared values of a float64 SVD."""
    z = np.asarray(volume, dtype=np.float64).reshape(len(volume), -1)
    energies = np.linalg.svd(z, compute_uv=False) ** 2  # no Gram matrix: another route than the program's
    shares = energies / sum(energies)
    return -sum(p * math.log(p) for p in shares if p > 0) / math.log(min(z.shape))


def masks_dice(reference, prediction, labels, ignore=None):
    """Dice, IoU, tp, fp, fn, tn of one class or region from boolean masks; Dice and IoU nan when both are empty."""
    counted = np.ones(reference.shape, bool) if ignore is None else reference != ignore
    a = np.isin(reference, labels) & counted
    b = np.isin(prediction, labels) & counted
    tp, union = int((a & b).sum()), int((a | b).sum())
    fp, fn = int(b.sum()) - tp, int(a.sum()) - tp
    dice = 2 * tp / (int(a.sum()) + int(b.sum())) if union else math.nan
    return dice, (tp / union if union else math.nan), tp, fp, fn, int(counted.sum()) - union


def kept_cases(auv, quantile):
    """Equations 7 and 8 by counting: F(x) is the share of cases whose AUV is at most x; None is kept unjudged."""
    judged = [value for value in auv if value is not None]
    reached = [x for x in judged if sum(value <= x for value in judged) / len(judged) >= quantile]
    return [value is None or value <= min(reached) for value in auv]


def kept_by_class(auv, quantile, combination):
    """Equation 9 case by case: the votes of the classes that a case has; one row of classes a case, None if absent."""
    votes = [[] for _ in auv]
    for column in zip(*auv, strict=True):
        for case_votes, value, kept in zip(votes, column, kept_cases(list(column), quantile), strict=True):
            if value is not None:
                case_votes.append(kept)
    decide = any if combination == "union" else all
    return [not case_votes or decide(case_votes) for case_votes in votes]
