"""Which cases are dirty: as many as asked, only those that can be, blindly, and alike by seed."""

from collections import Counter

import numpy as np
import pytest

from auvtool.contamination import ContaminationDraw, draw_contaminations, halves


def drawn(copies, *, n_cases=20, share=0.1, n_draws=5, seed=0):
    return draw_contaminations(
        copies, n_cases=n_cases, share=share, n_draws=n_draws, generator=np.random.default_rng(seed)
    )


def one_copy_each(n_cases=20):
    return {case: [100 + case] for case in range(n_cases)}


def test_a_draw_by_hand():
    draw = ContaminationDraw({1: 7}, n_cases=4, n_asked=2)
    assert draw.positions() == (0, 7, 2, 3)
    assert draw.clean == (0, 2, 3)
    assert draw.share == 0.25


@pytest.mark.parametrize(("share", "n_dirty"), [(0.05, 1), (0.1, 2), (0.2, 4), (0.01, 1), (0.125, 3)])
def test_as_many_are_dirty_as_the_share_asks(share, n_dirty):
    for draw in drawn(one_copy_each(), share=share):
        assert len(draw.dirty) == draw.n_asked == n_dirty
        assert draw.share == n_dirty / 20
        assert all(copy == 100 + case for case, copy in draw.dirty.items())


def test_too_few_copies_are_all_used_and_the_true_share_is_known():
    for draw in drawn({3: [30], 8: [80], 9: []}, share=0.2):
        assert draw.dirty == {3: 30, 8: 80}
        assert (draw.n_asked, draw.share) == (4, 0.1)


def test_one_case_stays_clean():
    assert {len(draw.dirty) for draw in drawn(one_copy_each(3), n_cases=3, share=0.95)} == {2}


def test_each_case_is_as_likely_as_any_other():
    counts = Counter(case for draw in drawn(one_copy_each(), share=0.2, n_draws=5000) for case in draw.dirty)
    assert len(counts) == 20
    assert all(abs(count / 1000 - 1) < 0.12 for count in counts.values())


def test_a_mixed_draw_takes_each_copy_of_a_case_as_likely():
    counts = Counter(draw.dirty[0] for draw in drawn({0: [5, 6, 7]}, n_cases=5, n_draws=3000))
    assert set(counts) == {5, 6, 7}
    assert all(abs(count / 1000 - 1) < 0.12 for count in counts.values())


def test_equal_seeds_draw_alike_and_draws_differ():
    first, again, other = (drawn(one_copy_each(), share=0.2, seed=seed) for seed in (1, 1, 2))
    assert first == again
    assert first != other
    assert len({tuple(draw.dirty) for draw in first}) > 1


@pytest.mark.parametrize(("copies", "n_cases"), [({}, 20), ({0: []}, 20), ({0: [5]}, 1)])
def test_without_a_copy_or_with_one_case_there_is_no_draw(copies, n_cases):
    assert drawn(copies, n_cases=n_cases) == ()


@pytest.mark.parametrize("share", [0.0, 1.0, -0.1, float("nan")])
def test_what_is_no_share_is_refused(share):
    with pytest.raises(ValueError, match="share"):
        drawn(one_copy_each(), share=share)


def test_a_position_beyond_the_cases_is_refused():
    with pytest.raises(ValueError, match="positions of 20 cases"):
        drawn({20: [1]})


def test_halves_keep_the_order_and_the_first_has_the_odd_one():
    assert halves(["noise", "shape", "noise", "place"]) == (("noise", "shape"), ("place",))
    assert halves(["noise"]) == (("noise",),)
    assert halves([]) == ()
