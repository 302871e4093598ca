import itertools
import math

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy import stats

from auvtool import correlation
from auvtool.correlation import (
    Interval,
    bootstrap_intervals,
    mean_ranks,
    partial_pearson,
    partial_spearman,
    pearson,
    spearman,
)


def points(*values):
    return np.array(values, dtype=np.float64)


def related(seed, n, *, ties=False):
    """x, y and two covariates that all hang together."""
    generator = np.random.default_rng(seed)
    shared = generator.normal(size=n)
    x, y, a, b = (shared + generator.normal(size=n) for _ in range(4))
    values = [np.round(side, 0 if ties else 9) for side in (x, y, a, b)]
    return values[0], values[1], np.stack(values[2:], axis=1)


# By hand


def test_pearson_with_paper_and_pencil():
    # Means 2 and 3; deviations (-1, 0, 1) and (-1, -2, 3): 4 / sqrt(2 * 14) = 2 / sqrt 7.
    found = pearson(points(1, 2, 3), points(2, 1, 6))
    assert found.coefficient == pytest.approx(2 / math.sqrt(7), abs=1e-15)
    # One degree of freedom: t = r / sqrt(1 - r^2) = 2 / sqrt 3 is Cauchy, p = 1 - 2 atan(t) / pi.
    assert found.p == pytest.approx(1 - 2 * math.atan(2 / math.sqrt(3)) / math.pi, abs=1e-14)
    assert found.n == 3


def test_spearman_with_paper_and_pencil():
    # Ranks 1 2 3 4 and 2 1 3 4: 1 - 6 (1 + 1) / (4 * 15) = 0.8. Of the 24 orders one has rho 1 and three have 0.8 (one
    # exchange of neighbours), and as many the opposite: 8 / 24.
    found = spearman(points(10, 20, 30, 40), points(5, 1, 7, 70))
    assert found.coefficient == pytest.approx(0.8, abs=1e-15)
    assert found.p == pytest.approx(8 / 24, abs=1e-15)


def test_equal_values_share_their_mean_rank():
    assert mean_ranks(points(5, 1, 5, 3, 5, 1)).tolist() == [5, 1.5, 5, 3, 5, 1.5]


def test_partial_with_paper_and_pencil():
    # The covariate is (-1, -1, 1, 1): what it leaves are deviations from the mean of each half, (-1, 1, -1, 1) of x and
    # (-1, 1, 1, -1) + (-2, 2, -2, 2) of y. Their products sum to 8; lengths 2 and sqrt(4 + 16).
    covariate = points(-1, -1, 1, 1)
    x = points(-1, 1, -1, 1) + 7 * covariate
    y = points(-1, 1, 1, -1) + points(-2, 2, -2, 2) - 9 * covariate
    found = partial_pearson(x, y, covariate[:, np.newaxis])
    assert found.coefficient == pytest.approx(8 / (2 * math.sqrt(20)), abs=1e-14)
    assert (found.n, found.n_covariates) == (4, 1)
    # 4 - 2 - 1 = 1 degree of freedom, t = 0.8944 / sqrt(0.2) = 2.
    assert found.p == pytest.approx(1 - 2 * math.atan(2) / math.pi, abs=1e-13)


# Oracles


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("n", [9, 16, 75])
def test_equals_scipy(n, ties):
    for seed in range(10):
        x, y, _ = related(seed, n, ties=ties)
        for ours, theirs in ((pearson(x, y), stats.pearsonr(x, y)), (spearman(x, y), stats.spearmanr(x, y))):
            assert ours.coefficient == pytest.approx(theirs.statistic, abs=1e-12)
            assert ours.p == pytest.approx(theirs.pvalue, rel=1e-9)
            assert ours.n == n


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("n", [3, 5, 6])
def test_exact_p_is_that_of_all_permutations(n, ties):
    for seed in range(5):
        x, y, _ = related(seed, n, ties=ties)
        found = spearman(x, y)
        if found is None:
            assert len(set(x)) == 1 or len(set(y)) == 1
            continue
        rhos = [stats.spearmanr(x, order).statistic for order in itertools.permutations(y)]
        assert found.coefficient == pytest.approx(stats.spearmanr(x, y).statistic, abs=1e-12)
        assert found.p == pytest.approx(np.mean(np.abs(rhos) >= abs(found.coefficient) - 1e-9), abs=1e-12)


def test_p_of_the_t_test_is_near_that_of_a_permutation_test():
    x, y, _ = related(3, 12)
    y = y - 0.4 * x
    generator = np.random.default_rng(0)

    def p_of_permutations(one, other):
        drawn = [abs(np.corrcoef(one, generator.permutation(other))[0, 1]) for _ in range(4000)]
        return np.mean(np.array(drawn) >= abs(np.corrcoef(one, other)[0, 1]))

    assert 0.02 < pearson(x, y).p < 0.9
    assert pearson(x, y).p == pytest.approx(p_of_permutations(x, y), abs=0.03)
    assert spearman(x, y).p == pytest.approx(p_of_permutations(mean_ranks(x), mean_ranks(y)), abs=0.03)


def one_out(xy, xz, yz):
    return (xy - xz * yz) / math.sqrt((1 - xz**2) * (1 - yz**2))


def recursive_partial(x, y, covariates):
    """Partial correlation from plain ones: the covariates are taken out one after the other."""
    columns = [x, y, *covariates.T]
    matrix = [[stats.pearsonr(one, other).statistic for other in columns] for one in columns]
    while len(matrix) > 2:
        last = len(matrix) - 1
        matrix = [
            [
                1.0 if row == column else one_out(matrix[row][column], matrix[row][last], matrix[column][last])
                for column in range(last)
            ]
            for row in range(last)
        ]
    return matrix[0][1]


def regression_partial(x, y, covariates):
    """Partial correlation and its p from the normal equations and the t test of a slope: y on 1, x, covariates."""
    design = np.column_stack([np.ones(len(x)), x, covariates])
    inverse = np.linalg.inv(design.T @ design)
    slopes = inverse @ design.T @ y
    n_free = len(x) - design.shape[1]
    error = np.sqrt(((y - design @ slopes) ** 2).sum() / n_free * inverse[1, 1])
    t = slopes[1] / error
    return t / math.sqrt(t**2 + n_free), 2 * stats.t.sf(abs(t), n_free)


@pytest.mark.parametrize("n_covariates", [1, 2])
@pytest.mark.parametrize("n", [8, 20, 200])
def test_partial_equals_both_oracles(n, n_covariates):
    for seed in range(5):
        x, y, covariates = related(seed, n)
        covariates = covariates[:, :n_covariates]
        ranks = [stats.rankdata(values) for values in (x, y, *covariates.T)]
        for found, (one, other, *rest) in (
            (partial_pearson(x, y, covariates), (x, y, *covariates.T)),
            (partial_spearman(x, y, covariates), ranks),
        ):
            r, p = regression_partial(one, other, np.column_stack(rest))
            assert found.coefficient == pytest.approx(r, abs=1e-10)
            assert found.p == pytest.approx(p, rel=1e-7, abs=1e-12)
            assert found.coefficient == pytest.approx(recursive_partial(one, other, np.column_stack(rest)), abs=1e-10)
            assert (found.n, found.n_covariates) == (n, n_covariates)


def test_a_common_cause_is_taken_out():
    generator = np.random.default_rng(0)
    size = generator.normal(size=500)
    x, y = (size + 0.3 * generator.normal(size=500) for _ in range(2))
    assert spearman(x, y).coefficient > 0.85
    assert abs(partial_spearman(x, y, size[:, np.newaxis]).coefficient) < 0.15


def loop_intervals(x, y, *, resamples, seed):
    """The same resamples one by one through scipy."""
    drawn = np.random.default_rng(seed).integers(len(x), size=(resamples, len(x)))
    found = ([], [])
    for chosen in drawn:
        if len(set(x[chosen])) > 1 and len(set(y[chosen])) > 1:
            found[0].append(np.corrcoef(x[chosen], y[chosen])[0, 1])
            found[1].append(stats.spearmanr(x[chosen], y[chosen]).statistic)
    return [np.quantile(values, [0.025, 0.975]) for values in found]


@pytest.mark.parametrize(("n", "ties"), [(4, False), (6, True), (16, False), (40, True)])
def test_bootstrap_equals_a_plain_loop(n, ties, monkeypatch):
    x, y, _ = related(0, n, ties=ties)
    expected = loop_intervals(x, y, resamples=300, seed=7)
    for block in (1 << 22, 50 * n, 1):
        monkeypatch.setattr(correlation, "_BLOCK_NUMBERS", block)
        found = bootstrap_intervals(x, y, resamples=300, seed=7)
        for interval, (low, high) in zip(found, expected, strict=True):
            assert (interval.low, interval.high) == pytest.approx((low, high), abs=1e-12)


def test_intervals_cover_the_truth_about_as_often_as_they_say():
    # Of 200 intervals at 95 %, 190 are expected to; percentile intervals of 40 points cover a little less.
    generator = np.random.default_rng(0)
    rho, covered = 0.6, np.zeros(2)
    rank_rho = 6 / math.pi * math.asin(rho / 2)  # of the bivariate normal distribution
    for seed in range(200):
        x = generator.normal(size=40)
        y = rho * x + math.sqrt(1 - rho**2) * generator.normal(size=40)
        found = bootstrap_intervals(x, y, resamples=400, seed=seed)
        covered += [one.low <= truth <= one.high for one, truth in zip(found, (rho, rank_rho), strict=True)]
    assert (covered >= 176).all()
    assert (covered <= 199).all()


# Edges


@pytest.mark.parametrize(
    ("x", "y"),
    [
        ([], []),
        ([1.0], [2.0]),
        ([1.0, 2.0], [2.0, 1.0]),
        ([3.0, 3.0, 3.0, 3.0], [1.0, 2.0, 3.0, 4.0]),
        ([1.0, 2.0, 3.0, 4.0], [0.0, 0.0, 0.0, 0.0]),
        ([0.1 + 0.2, 0.3, 0.3, 0.3], [1.0, 2.0, 3.0, 4.0]),
        ([1.0, 2.0, math.nan, 4.0], [1.0, math.nan, 3.0, 4.0]),
    ],
    ids=["none", "one", "two", "x constant", "y zero", "constant but for rounding", "two without nan"],
)
def test_undefined_is_none(x, y):
    x, y = points(*x), points(*y)
    if len(set(x)) != 2:  # ranks do not know of rounding
        assert spearman(x, y) is None
    assert pearson(x, y) is None
    assert bootstrap_intervals(x, y)[0] is None


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_perfect_correlation(sign):
    x = np.arange(12.0)
    linear, ranked = pearson(x, sign * 3 * x + 1), spearman(x, sign * np.exp(x))
    assert (linear.coefficient, ranked.coefficient) == pytest.approx((sign, sign), abs=1e-15)
    assert linear.p == pytest.approx(0.0, abs=1e-12)
    assert ranked.p == pytest.approx(2 / math.factorial(12), rel=1e-9)  # two of all orders are as good
    for n in (3, 8, 9):  # exact, and beyond
        assert spearman(x[:n], sign * x[:n]).p == pytest.approx(2 / math.factorial(n), rel=1e-9)
    assert bootstrap_intervals(x, 2 * x)[1] == Interval(pytest.approx(1.0), pytest.approx(1.0))


def test_nan_pairs_are_left_out_and_infinity_is_an_error():
    x, y, covariates = related(0, 20)
    with_gap_x, with_gap_y, with_gap_covariates = x.copy(), y.copy(), covariates.copy()
    with_gap_x[2] = with_gap_y[5] = with_gap_covariates[7, 1] = math.nan
    rest = [position for position in range(20) if position not in {2, 5}]
    assert pearson(with_gap_x, with_gap_y) == pearson(x[rest], y[rest])
    assert spearman(with_gap_x, with_gap_y) == spearman(x[rest], y[rest])
    assert bootstrap_intervals(with_gap_x, with_gap_y) == bootstrap_intervals(x[rest], y[rest])
    rest.remove(7)
    found = partial_spearman(with_gap_x, with_gap_y, with_gap_covariates)
    assert found == partial_spearman(x[rest], y[rest], covariates[rest])
    assert found.n == 17
    with_gap_x[2] = math.inf
    for function in (pearson, spearman, bootstrap_intervals):
        with pytest.raises(ValueError, match="finite"):
            function(with_gap_x, y)


def test_shapes_that_do_not_belong_together_are_an_error():
    with pytest.raises(ValueError, match="expected shapes"):
        pearson(points(1, 2, 3), points(1, 2))
    with pytest.raises(ValueError, match="expected shapes"):
        partial_spearman(points(1, 2, 3), points(1, 2, 4), points(1, 2, 3))
    with pytest.raises(ValueError, match="expected shapes"):
        partial_pearson(points(1, 2, 3), points(1, 2, 4), np.ones((4, 1)))


def test_covariates_count_by_their_rank():
    x, y, covariates = related(0, 20)
    a = covariates[:, :1]
    expected = partial_pearson(x, y, a)
    for more in (np.hstack([a, a]), np.hstack([a, 3 - 2 * a]), np.hstack([a, np.full_like(a, 4.2)])):
        found = partial_pearson(x, y, more)
        assert found.coefficient == pytest.approx(expected.coefficient, abs=1e-12)
        assert (found.p, found.n_covariates) == (pytest.approx(expected.p, rel=1e-9), 1)
    ranked = partial_spearman(x, y, np.hstack([a, np.exp(a)]))
    assert (ranked.coefficient, ranked.n_covariates) == (pytest.approx(partial_spearman(x, y, a).coefficient), 1)
    constant = np.ones((20, 2))
    assert partial_pearson(x, y, constant) == pearson(x, y)
    assert partial_spearman(x, y, constant) == spearman(x, y)


def test_what_covariates_explain_has_no_partial_correlation():
    x, y, covariates = related(0, 20)
    explained = 2 * covariates[:, 0] - covariates[:, 1] + 5
    assert partial_pearson(explained, y, covariates) is None
    assert partial_pearson(x, explained, covariates) is None
    assert partial_spearman(np.exp(covariates[:, 0]), y, covariates) is None  # a volume, given its logarithm


def test_partial_needs_a_degree_of_freedom():
    x, y, covariates = related(0, 5)
    assert partial_pearson(x, y, covariates).n == 5
    assert partial_pearson(x[:4], y[:4], covariates[:4]) is None
    assert partial_spearman(x[:4], y[:4], covariates[:4]) is None
    assert partial_pearson(x[:3], y[:3], np.ones((3, 2))) == pearson(x[:3], y[:3])


def test_numbers_of_any_size():
    x, y, covariates = related(0, 20)
    for scale in (1e-300, 1e-150, 1e150, 1e300):
        assert pearson(scale * x, y).coefficient == pytest.approx(pearson(x, y).coefficient, abs=1e-12)
        scaled = partial_pearson(x, y, scale * covariates)
        assert scaled.coefficient == pytest.approx(partial_pearson(x, y, covariates).coefficient, abs=1e-10)
        intervals = bootstrap_intervals(scale * x, y, resamples=50)
        assert intervals[0].low == pytest.approx(bootstrap_intervals(x, y, resamples=50)[0].low, abs=1e-12)


def test_bootstrap_with_too_little_to_resample():
    x, y, _ = related(0, 10)
    assert bootstrap_intervals(x[:3], y[:3]) == (None, None)
    assert bootstrap_intervals(x, y, resamples=0) == (None, None)
    # A resample without the one other value is constant, and (3/4)^4 + (1/4)^4 = 0.32 of them are; with two sides that
    # have different odd ones, more than half define nothing.
    assert bootstrap_intervals(points(0, 0, 0, 1), x[:4])[0] is not None
    assert bootstrap_intervals(points(0, 0, 0, 1), points(1, 0, 0, 0)) == (None, None)


def test_same_seed_same_interval():
    x, y, _ = related(0, 20)
    assert bootstrap_intervals(x, y, seed=1) == bootstrap_intervals(x, y, seed=1)
    assert bootstrap_intervals(x, y, seed=1) != bootstrap_intervals(x, y, seed=2)
    narrow, wide = (bootstrap_intervals(x, y, confidence=share)[0] for share in (0.5, 0.95))
    assert wide.low < narrow.low < pearson(x, y).coefficient < narrow.high < wide.high


# Properties

# Whole numbers, so that a map of them keeps distinct values distinct.
NUMBERS = st.integers(-1000, 1000).map(float)
PAIRS = st.lists(st.tuples(NUMBERS, NUMBERS), min_size=3, max_size=25).map(lambda pairs: np.array(pairs).T)
FUNCTIONS = pytest.mark.parametrize("function", [pearson, spearman])


@FUNCTIONS
@given(pairs=PAIRS)
def test_symmetric_and_within_bounds(function, pairs):
    x, y = pairs
    found = function(x, y)
    assert (found is None) == (len(set(x)) == 1 or len(set(y)) == 1)
    if found is not None:
        other = function(y, x)
        assert found.coefficient == pytest.approx(other.coefficient, abs=1e-12)
        assert found.p == pytest.approx(other.p, abs=1e-7)
        assert -1.0 <= found.coefficient <= 1.0
        assert 0.0 <= found.p <= 1.0
        assert function(x, -y).coefficient == pytest.approx(-found.coefficient, abs=1e-12)


@given(pairs=PAIRS, gain=st.floats(0.01, 100.0), offset=st.floats(-100.0, 100.0))
def test_pearson_ignores_gain_and_offset(pairs, gain, offset):
    x, y = pairs
    found = pearson(x, y)
    assume(found is not None)
    assert pearson(gain * x + offset, y).coefficient == pytest.approx(found.coefficient, abs=1e-9)


@given(pairs=PAIRS)
def test_spearman_ignores_monotone_maps(pairs):
    x, y = pairs
    assert spearman(np.exp(x / 100), y**3) == spearman(x, y)


@given(pairs=PAIRS)
def test_partial_without_covariates_is_plain(pairs):
    x, y = pairs
    none = np.empty((len(x), 0))
    assert partial_pearson(x, y, none) == pearson(x, y)
    assert partial_spearman(x, y, none) == spearman(x, y)


@settings(max_examples=50)
@given(seed=st.integers(0, 1000), n=st.integers(5, 30), mixing=st.floats(0.5, 2.0))
def test_partial_ignores_which_combinations_of_the_covariates_are_given(seed, n, mixing):
    x, y, covariates = related(seed, n)
    found = partial_pearson(x, y, covariates)
    mixed = covariates @ np.array([[1.0, mixing], [0.0, -1.0]]) + 3.0
    assert -1.0 <= found.coefficient <= 1.0
    assert partial_pearson(x + mixed[:, 0], y, mixed).coefficient == pytest.approx(found.coefficient, abs=1e-7)


@settings(max_examples=50)
@given(pairs=PAIRS, seed=st.integers(0, 9))
def test_intervals_are_ordered_within_bounds_and_symmetric(pairs, seed):
    x, y = pairs
    found = bootstrap_intervals(x, y, resamples=50, seed=seed)
    turned = bootstrap_intervals(y, x, resamples=50, seed=seed)
    for one, other in zip(found, turned, strict=True):
        assert (one is None) == (other is None)
        if one is not None:
            assert -1.0 <= one.low <= one.high <= 1.0
            assert (one.low, one.high) == pytest.approx((other.low, other.high), abs=1e-12)
