"""How well a number tells dirty cases from clean ones: high means suspect.

A case may have no number (nan). It is neither suspect nor cleared, and leaving it out would reward a score for giving
up on the hard cases: in a comparison of pairs it counts half, as a tie does, and in a ranking it stands at the median
of the cases that have a number, tied with those that have just that. Nothing is defined where no case has one.
"""

import math
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float

from auvtool.correlation import Interval, partial_spearman

_Z = 1.959963984540054  # of a normal deviate, two-sided 95 %
_MAD_OF_NORMAL = 1.482602218505602  # standard deviations in a median absolute deviation
_BLOCK_NUMBERS = 1 << 22  # of resampled cases held at once


@dataclass(frozen=True)
class PairedWins:
    """Copies with a fault against their own clean cases.

    Attributes:
        n: pairs.
        n_without_value: pairs of which one or both have no number; each counts half a win.
        rate: share of the pairs in which the copy is the more suspect one; ties half. None without pairs, or where no
            pair has both numbers.
        interval: 95 % (Wilson), None with the rate.
        median_change: median of copy less clean, in robust standard deviations (1.4826 median absolute deviations) of
            the clean cases; None where these do not vary.
    """

    n: int
    n_without_value: int
    rate: float | None
    interval: Interval | None
    median_change: float | None


def pair_wins(
    dirty: Float[np.ndarray, "*draw dirty"], clean: Float[np.ndarray, "*draw clean"]
) -> Float[np.ndarray, "*draw dirty clean"]:
    """1 where the dirty case is the more suspect one of a pair, 0 where the clean one is, else 0.5.

    Raises:
        ValueError: a number is infinite.
    """
    dirty, clean = _checked(dirty), _checked(clean)
    above = dirty[..., :, None] > clean[..., None, :]
    below = dirty[..., :, None] < clean[..., None, :]  # neither, where one is nan
    return np.asarray(0.5 + 0.5 * above - 0.5 * below)


def auroc(
    dirty: Float[np.ndarray, "*draw dirty"], clean: Float[np.ndarray, "*draw clean"]
) -> Float[np.ndarray, "*draw"]:
    """Probability that a dirty case is more suspect than a clean one; ties, and a case without a number, half.

    Returns:
        In [0, 1]; nan where there is no dirty or no clean case, or where no case at all has a number.

    Raises:
        ValueError: a number is infinite.
    """
    wins = pair_wins(dirty, clean)
    if 0 in wins.shape[-2:]:
        return np.full(wins.shape[:-2], np.nan)
    without = np.isnan(dirty).all(axis=-1) & np.isnan(clean).all(axis=-1)
    return np.where(without, np.nan, wins.mean(axis=(-2, -1)))


def average_precision(
    values: Float[np.ndarray, "*draw case"], dirty: Bool[np.ndarray, "*draw case"]
) -> Float[np.ndarray, "*draw"]:
    """Mean over the dirty cases of the precision among all cases at least as suspect (scikit-learn's definition).

    A blind score has the share of dirty cases, the base rate, up to chance.

    Returns:
        In [0, 1]; nan where no case is dirty or none has a number.

    Raises:
        ValueError: a number is infinite.
    """
    if values.shape[-1] == 0:
        return np.full(values.shape[:-1], np.nan)
    _, hits, last = _ranking(values, dirty)
    precision = np.take_along_axis(np.cumsum(hits, axis=-1), last, axis=-1) / (last + 1.0)
    return _or_nan((precision * hits).sum(axis=-1) / np.maximum(hits.sum(axis=-1), 1), values, dirty)


def precision_at_k(
    values: Float[np.ndarray, "*draw case"], dirty: Bool[np.ndarray, "*draw case"]
) -> Float[np.ndarray, "*draw"]:
    """Share of dirty cases among the k most suspect, k the number of dirty cases.

    Of cases tied across the k-th place as many as there is room for are drawn blindly: the expected share is returned.

    Returns:
        In [0, 1]; nan where no case is dirty or none has a number.

    Raises:
        ValueError: a number is infinite.
    """
    if values.shape[-1] == 0:
        return np.full(values.shape[:-1], np.nan)
    first, hits, last = _ranking(values, dirty)
    k = hits.sum(axis=-1, keepdims=True)
    found = np.concatenate([np.zeros_like(k), np.cumsum(hits, axis=-1)], axis=-1)
    place = np.maximum(k - 1, 0)
    start, end = (np.take_along_axis(edge, place, axis=-1) for edge in (first, last + 1))
    above, tied = np.take_along_axis(found, start, axis=-1), np.take_along_axis(found, end, axis=-1)
    expected = above + (k - start) * (tied - above) / (end - start)
    return _or_nan((expected / np.maximum(k, 1))[..., 0], values, dirty)


def paired_win_rate(copy: Float[np.ndarray, " pair"], own_clean: Float[np.ndarray, " pair"]) -> PairedWins:
    """How often, and by how much, a fault makes a case more suspect than it was.

    The interval is Wilson's (1927), in which a tie is half a win and half a loss.

    Raises:
        ValueError: a number is infinite.
    """
    copy, own_clean = _checked(copy), _checked(own_clean)
    without = np.isnan(copy) | np.isnan(own_clean)
    n, n_without = len(copy), int(without.sum())
    if n == n_without:
        return PairedWins(n, n_without, None, None, None)
    rate = float(np.where(without, 0.5, 0.5 + 0.5 * np.sign(copy - own_clean)).mean())
    middle = (rate + _Z**2 / (2 * n)) / (1 + _Z**2 / n)
    half = _Z / (1 + _Z**2 / n) * math.sqrt(rate * (1 - rate) / n + _Z**2 / (4 * n**2))
    interval = Interval(max(0.0, middle - half), min(1.0, middle + half))
    clean = own_clean[~np.isnan(own_clean)]
    spread = _MAD_OF_NORMAL * float(np.median(np.abs(clean - np.median(clean))))
    change = float(np.median((copy - own_clean)[~without]))
    return PairedWins(n, n_without, rate, interval, change / spread if spread > 0 else None)


def severity_spearman(
    values: Float[np.ndarray, " case"],
    severity: Float[np.ndarray, " case"],
    log_volume: Float[np.ndarray, " case"],
) -> float | None:
    """Partial Spearman correlation of dirty cases' values with the severity of their fault, given log volume.

    A fault of one level is worse in a small structure, and many scores follow size: without the volume taken out, a
    score of size alone would seem to grade faults. A case that lacks one of the three is left out.

    Returns:
        None where it is not defined (see `partial_spearman`).
    """
    found = partial_spearman(values, severity, log_volume[:, None])
    return None if found is None else found.coefficient


def case_resamples(n_cases: int, *, resamples: int = 1000, seed: int = 0) -> Float[np.ndarray, "resample case"]:
    """How often each case is drawn in each resample: n of n with replacement.

    Equal arguments give equal resamples, so that two methods, or two kinds of faults, are resampled alike.
    """
    generator = np.random.default_rng(seed)
    return generator.multinomial(n_cases, np.full(n_cases, 1.0 / n_cases), size=resamples).astype(np.float64)


def resampled_auroc(
    wins: Float[np.ndarray, "case case"],
    pairs: Float[np.ndarray, "case case"],
    counts: Float[np.ndarray, "resample case"],
) -> Float[np.ndarray, " resample"]:
    """Mean AUROC in resamples of the clean cases, each taking its copies along.

    The copies of a case are no independent observations, so the case is what is drawn. A pair of a copy of case i and
    the clean case j is there as often as the product of how often i and j are drawn.

    Args:
        wins: sum over draws of what the copy of case (row) won against the clean case (column), see `pair_wins`.
        pairs: how many draws held that pair. sum(wins) / sum(pairs) is the mean AUROC of draws of one size.
        counts: from `case_resamples`.

    Returns:
        In [0, 1]; nan for a resample that holds no pair.
    """
    found = np.full(len(counts), np.nan)
    step = max(1, _BLOCK_NUMBERS // max(1, counts.shape[1]))
    for start in range(0, len(counts), step):
        block = counts[start : start + step]
        won, held = (((block @ table) * block).sum(axis=1) for table in (wins, pairs))
        np.divide(won, held, out=found[start : start + step], where=held > 0)
    return found


def percentile_interval(resampled: Float[np.ndarray, " resample"], *, confidence: float = 0.95) -> Interval | None:
    """The middle of resampled numbers; None where fewer than half of them are defined."""
    defined = resampled[~np.isnan(resampled)]
    if len(defined) == 0 or 2 * len(defined) < len(resampled):
        return None
    low, high = np.quantile(defined, [(1 - confidence) / 2, (1 + confidence) / 2])
    return Interval(float(low), float(high))


def _checked(values: Float[np.ndarray, "*draw case"]) -> Float[np.ndarray, "*draw case"]:
    values = np.asarray(values, dtype=np.float64)
    if np.isinf(values).any():
        raise ValueError("expected finite numbers or nan, got an infinite one")
    return values


def _ranking(
    values: Float[np.ndarray, "*draw case"], dirty: Bool[np.ndarray, "*draw case"]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Of cases, the most suspect first: first place of its ties, whether it is dirty (0, 1), last place of its ties."""
    values = _checked(values)
    filled = np.where(np.isnan(values), _row_medians(values), values)
    order = np.argsort(-filled, axis=-1, kind="stable")
    descending = np.take_along_axis(filled, order, axis=-1)
    hits = np.take_along_axis(np.broadcast_to(dirty, values.shape), order, axis=-1).astype(np.int64)
    places = np.broadcast_to(np.arange(values.shape[-1]), values.shape)
    edge = np.ones((*values.shape[:-1], 1), dtype=bool)
    differs = descending[..., 1:] != descending[..., :-1]
    starts = np.concatenate([edge, differs], axis=-1)
    ends = np.concatenate([differs, edge], axis=-1)
    first = np.maximum.accumulate(np.where(starts, places, 0), axis=-1)
    last = np.minimum.accumulate(np.where(ends, places, values.shape[-1])[..., ::-1], axis=-1)[..., ::-1]
    return first, hits, last


def _row_medians(values: Float[np.ndarray, "*draw case"]) -> Float[np.ndarray, "*draw 1"]:
    """Median of the numbers of each row; 0 where there is none, which leaves all of its cases tied."""
    ascending = np.sort(values, axis=-1)  # nan last
    n_known = (~np.isnan(values)).sum(axis=-1, keepdims=True)
    places = [np.maximum((n_known - 1) // 2, 0), np.minimum(n_known // 2, np.maximum(n_known - 1, 0))]
    low, high = (np.take_along_axis(ascending, place, axis=-1) for place in places)
    return np.where(n_known > 0, low / 2 + high / 2, 0.0)


def _or_nan(
    found: Float[np.ndarray, "*draw"],
    values: Float[np.ndarray, "*draw case"],
    dirty: Bool[np.ndarray, "*draw case"],
) -> Float[np.ndarray, "*draw"]:
    return np.where(np.any(dirty, axis=-1) & ~np.isnan(values).all(axis=-1), found, np.nan)
