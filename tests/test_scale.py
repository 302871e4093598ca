import math

import numpy as np
import oracles
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from auvtool.scale import semantic_perception_scale

OFFICIAL = {"energy": "linear", "eps_rule": "added"}
SIDE = 96


def ball(radius):
    z, y, x = np.mgrid[:SIDE, :SIDE, :SIDE] - SIDE // 2
    return z**2 + y**2 + x**2 < radius**2


def noise():
    return np.random.default_rng(0).standard_normal((SIDE, SIDE, SIDE))


def logits(mask):
    return np.where(mask, 8.0, -8.0)


def spectrum(volume, dtype=torch.float64):
    matrix = torch.tensor(volume, dtype=dtype).flatten(1)
    return torch.linalg.svd(matrix, full_matrices=False).S.double().numpy()


# --- by hand ---


def test_equal_values_have_scale_one_and_a_single_value_has_scale_zero():
    values = np.array([[2.0, 2.0, 2.0], [5.0, 0.0, 0.0]])
    for energy in ("squared", "linear"):
        assert semantic_perception_scale(values, energy=energy) == pytest.approx([1.0, 0.0], abs=1e-12)


def test_two_values_by_hand():
    values = np.array([2.0, 1.0])
    squared = -(0.8 * math.log(0.8) + 0.2 * math.log(0.2)) / math.log(2)
    linear = -(2 / 3 * math.log(2 / 3) + 1 / 3 * math.log(1 / 3)) / math.log(2)
    assert float(semantic_perception_scale(values)) == pytest.approx(squared, abs=1e-12)
    assert float(semantic_perception_scale(values, energy="linear")) == pytest.approx(linear, abs=1e-12)


def test_flat_map_has_no_scale_as_written_and_scale_one_as_released():
    values = np.array([[0.0, 0.0, 0.0], [1.0, 0.0, 0.0]])
    written = semantic_perception_scale(values)
    assert math.isnan(written[0])
    assert written[1] == pytest.approx(0.0, abs=1e-12)
    assert semantic_perception_scale(values, **OFFICIAL)[0] == pytest.approx(1.0, abs=1e-12)


@pytest.mark.parametrize("values", [[1.0], [], [1.0, -1e-9], [1.0, math.nan], [1.0, math.inf]])
def test_no_spectrum_is_refused(values):
    with pytest.raises(ValueError, match="singular values"):
        semantic_perception_scale(np.array(values))


def test_tiny_and_huge_values_do_not_leave_the_floating_point_range():
    shape = np.array([4.0, 2.0, 1.0])
    expected = float(semantic_perception_scale(shape))
    for gain in (1e-300, 1e-200, 1e200, 1e300):
        assert float(semantic_perception_scale(shape * gain)) == pytest.approx(expected, rel=1e-12)


# --- oracle ---


@pytest.mark.parametrize(
    ("make", "released", "written"),
    [
        (lambda: np.zeros((SIDE, SIDE, SIDE)), 1.0, None),
        (lambda: np.full((SIDE, SIDE, SIDE), 3.0), 0.0, 0.0),
        (noise, 1.0, 0.999),
        (lambda: ball(30).astype(float), 0.520, 0.1425),
        (lambda: logits(ball(30)), 0.495, 0.187),
        (lambda: logits(ball(8)), 0.132, 0.012),
    ],
    ids=["zero", "constant", "noise", "ball 30", "ball 30 logits", "ball 8 logits"],
)
def test_anchors_of_96_cubed(make, released, written):
    values = spectrum(make())
    assert float(semantic_perception_scale(values, **OFFICIAL)) == pytest.approx(released, abs=6e-4)
    scale = float(semantic_perception_scale(values))
    assert math.isnan(scale) if written is None else scale == pytest.approx(written, abs=6e-4)


def maps():
    rng = np.random.default_rng(1)
    low_rank = np.einsum("ri,rj,rk->ijk", *(rng.standard_normal((3, size)) for size in (24, 30, 20)))
    z, y, x = np.mgrid[:24, :30, :20]
    blob = np.hypot(np.hypot(z - 12, y - 14), x - 9) < 7
    return {
        "random": rng.standard_normal((24, 30, 20)),
        "few slices": rng.standard_normal((5, 30, 20)),
        "more slices than pixels": rng.standard_normal((50, 4, 6)),
        "low rank": low_rank,
        "constant": np.full((24, 30, 20), -7.0),
        "zero": np.zeros((24, 30, 20)),
        "blob": blob.astype(float),
        "blob logits": logits(blob),
    }


@pytest.mark.parametrize("name", maps())
@pytest.mark.parametrize(("unfolding", "axis"), [("d_hw", 0), ("h_dw", 1), ("w_dh", 2)])
def test_official_equals_the_released_function(name, unfolding, axis):
    volume = maps()[name].astype(np.float32)
    unfolded = np.moveaxis(volume, axis, 0)
    released = oracles.released_scale(volume, unfolding)
    rounded = float(semantic_perception_scale(spectrum(unfolded, torch.float32), **OFFICIAL))
    assert rounded == pytest.approx(released, abs=1e-6)
    # The released float32 SVD puts noise where a rank-deficient map has zeros; without it the two agree far closer.
    exact = float(semantic_perception_scale(spectrum(unfolded), **OFFICIAL))
    assert exact == pytest.approx(oracles.released_scale(volume, unfolding, torch.float64), abs=1e-9)
    full_rank = name in {"random", "few slices", "more slices than pixels", "zero"}
    assert exact == pytest.approx(released, abs=1e-6 if full_rank else 2e-3)


@pytest.mark.parametrize("name", [name for name in maps() if name != "zero"])
def test_paper_equals_the_written_equations(name):
    volume = maps()[name]
    assert float(semantic_perception_scale(spectrum(volume))) == pytest.approx(oracles.written_scale(volume), abs=1e-9)


# --- properties ---

values_of_one_map = arrays(np.float64, st.integers(2, 20), elements=st.floats(1e-3, 1e3))


@given(values_of_one_map, st.floats(1e-6, 1e6), st.sampled_from(["squared", "linear"]))
def test_scale_ignores_gain_and_order_and_stays_in_range(values, gain, energy):
    scale = float(semantic_perception_scale(values, energy=energy))
    assert 0.0 <= scale <= 1.0 + 1e-12
    assert float(semantic_perception_scale(values[::-1] * gain, energy=energy)) == pytest.approx(scale, abs=1e-9)


@given(values_of_one_map)
def test_squaring_concentrates_the_energy(values):
    squared, linear = (float(semantic_perception_scale(values, energy=energy)) for energy in ("squared", "linear"))
    assert squared <= linear + 1e-12
