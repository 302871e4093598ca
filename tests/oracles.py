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


def trigamma(x):
    """Sum of 1 / (x + k)^2 over k = 0, 1, ..., its tail by Euler and Maclaurin."""
    n = 200
    tail = 1 / (x + n) + 1 / (2 * (x + n) ** 2) + 1 / (6 * (x + n) ** 3)
    return sum(1 / (x + k) ** 2 for k in range(n)) + tail


def log_residual_probability(logits):
    """log(1 - largest of the softmax) of one voxel with logits 0 (background) and those of the classes."""
    weights = sorted(math.exp(z) for z in (0.0, *map(float, logits)))
    return math.log(sum(weights[:-1]) / sum(weights))


def log_volume(features):
    """1/2 log2 det(I + d/m (Z - mean)(Z - mean)^T) through the determinant, Z (d features, m voxels)."""
    z = features - features.mean(axis=1, keepdims=True)
    n_features, n_voxels = z.shape
    _, log_determinant = np.linalg.slogdet(np.eye(n_features) + n_features / n_voxels * z @ z.T)
    return log_determinant / (2 * math.log(2))


def shrunk_covariance(x):
    """Ledoit and Wolf's estimate (2004) from centred rows, sum by sum."""
    n, p = x.shape
    sample = sum(np.outer(row, row) for row in x) / n
    mean_variance = np.trace(sample) / p
    distance = ((sample - mean_variance * np.eye(p)) ** 2).sum() / p
    error = sum(((np.outer(row, row) - sample) ** 2).sum() for row in x) / n**2 / p
    share = min(error, distance) / distance
    return share * mean_variance * np.eye(p) + (1 - share) * sample


def mahalanobis(vectors, case, one, *, relative=False):
    """Distance of vectors[case][one] (nan: absent) from its class among the other cases; the covariance is shrunk."""
    others = np.delete(vectors, case, axis=0)
    rows, background = [], []
    present = [[row for row in others[:, c] if not np.isnan(row).any()] for c in range(vectors.shape[1])]
    everything = [row for rows_of_class in present for row in rows_of_class]
    mean = sum(everything) / len(everything)
    for rows_of_class in present:
        if rows_of_class:
            center = sum(rows_of_class) / len(rows_of_class)
            rows += [row - center for row in rows_of_class]
            background += [center - mean for _ in rows_of_class]
    unit = np.array(rows).std(axis=0)
    covariance = shrunk_covariance(np.array(rows) / unit)
    z = (vectors[case, one] - sum(present[one]) / len(present[one])) / unit
    distance = z @ np.linalg.inv(covariance) @ z
    if relative:
        of_means = np.array(background) / unit
        covariance = covariance + of_means.T @ of_means / len(of_means)
        z = (vectors[case, one] - mean) / unit
        distance -= z @ np.linalg.inv(covariance) @ z
    return distance


def selective_scan(inputs, step, decay, write, read):
    """With h = exp(step A) h + step x B, y = <C, h>, token by token, case by case, channel by channel."""
    n_tokens, n_cases, n_channels = inputs.shape
    output = np.zeros(inputs.shape)
    for case in range(n_cases):
        for channel in range(n_channels):
            state = np.zeros(decay.shape[1])
            for token in range(n_tokens):
                delta = step[token, case, channel]
                state = np.exp(delta * decay[channel]) * state
                state = state + delta * inputs[token, case, channel] * write[token, case]
                output[token, case, channel] = read[token, case] @ state
    return output


def softmax_margins(logits):
    """Margins m with sigmoid(m) = softmax(logits): z_c - log sum over k != c of exp z_k."""
    heads = range(logits.shape[1])
    others = [[other for other in heads if other != head] for head in heads]
    return torch.stack([logits[:, head] - logits[:, rest].logsumexp(1) for head, rest in enumerate(others)], 1)


def denoised_label(label, noise, level):
    """clamp(y - e n, 0, 1), eq. 10; the clamp passes the gradient at its bounds themselves."""
    value = label - level.reshape(*level.shape, *(1,) * (label.ndim - 2)) * noise
    return torch.where((value >= 0) & (value <= 1), value, value.detach().clamp(0, 1))


def plain_loss_sums(margins, label, mask=None):
    """Sums of p y, p, y and binary cross entropy of each case and class, from whole tensors."""
    cross_entropy = torch.nn.functional.binary_cross_entropy_with_logits(margins, label, reduction="none")
    probability = torch.sigmoid(margins)
    parts = torch.stack([probability * label, probability, label, cross_entropy], -1).flatten(2, -2)
    return (parts if mask is None else parts * mask.flatten(2).unsqueeze(-1)).sum(2)


def plain_duo_loss(margins, label, weight, beta, mask=None, batch_dice=False):
    """Eq. 11 at one resolution; weight is (case, class)."""
    sums = plain_loss_sums(margins, label, mask)
    overlap, size = sums[..., 0], sums[..., 1] + sums[..., 2]
    if batch_dice:
        overlap, size = overlap.sum(0), size.sum(0)
    n_voxels = math.prod(margins.shape[2:]) if mask is None else mask.flatten(1).sum(1, keepdim=True).clamp_min(1)
    dice = (2 * overlap + 1e-5) / (size + 1e-5)
    return (weight * (beta * (1 - dice) + (1 - beta) * sums[..., 3] / n_voxels)).mean()
