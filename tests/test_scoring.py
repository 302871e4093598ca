import math
from dataclasses import replace

import numpy as np
import oracles
import pytest
import torch
from features import case_features, random_maps, write_features

from auvtool.auv import AuvAxis, log_coordinates, place
from auvtool.errors import InputError, UsageError
from auvtool.feature_store import FeatureFile
from auvtool.quantification import read_cases
from auvtool.score_options import score_options
from auvtool.scoring import score_cases, size_correlations


def scoring(path, quantifier="auv", *, metrics=(), reference=(), preset=None, classes=(), seed=None, **choices):
    axis = {name: choices.pop(name) for name in ("mechanism", "residualise", "two_sided") if name in choices}
    options = score_options(quantifier, preset=preset, scale=choices, classes=classes, seed=seed, **axis)
    with FeatureFile(path) as file:
        return score_cases(read_cases(file), file.header, options, metrics=metrics, reference=reference)


def score(path, quantifier="auv", **options):
    return scoring(path, quantifier, **options).rows()


def cells(rows, column, class_name="all"):
    return [row[column] for row in rows if row["class_name"] == class_name]


@pytest.fixture(scope="module")
def maps():
    """Four cases of two classes; case c lacks the tumour."""
    found = {name: random_maps(seed, shape=(5 + seed, 9, 7)) for seed, name in enumerate("abcd")}
    found["c"][1] = None
    for number, name in enumerate("abcd"):
        found[name][0][:, number:, :] *= 0.01  # so that the cases differ
    return found


@pytest.fixture(scope="module")
def path(maps, tmp_path_factory):
    folder = tmp_path_factory.mktemp("scoring")
    return write_features(folder / "F.h5", [case_features(name, maps[name], dice=(0.9, 0.5)) for name in maps])


# --- by hand ---


def test_rows_come_by_case_then_class_then_whole_case(path):
    rows = score(path)
    assert [(row["case"], row["class_id"], row["class_name"]) for row in rows[:3]] == [
        ("a", 1, "liver"),
        ("a", 2, "tumour"),
        ("a", None, "all"),
    ]
    assert cells(rows, "case") == list("abcd")


def test_absent_class_has_no_scale_and_stands_in_no_mean(path):
    rows = score(path)
    assert cells(rows, "status", "tumour") == ["ok", "ok", "absent", "ok"]
    assert cells(rows, "value", "tumour")[2] is None
    assert cells(rows, "auv", "tumour")[2] is None
    assert cells(rows, "value")[2] == cells(rows, "value", "liver")[2]
    assert cells(rows, "value")[0] == pytest.approx(
        (cells(rows, "value", "liver")[0] + cells(rows, "value", "tumour")[0]) / 2
    )
    assert cells(rows, "status") == ["ok"] * 4


def test_each_column_has_its_own_axis_and_hits_0_and_1(path):
    rows = score(path)
    for name in ("liver", "tumour", "all"):
        auv = [value for value in cells(rows, "auv", name) if value is not None]
        assert (min(auv), max(auv)) == (0.0, 1.0)
        scales = [value for value in cells(rows, "value", name) if value is not None]
        assert cells(rows, "axis_min", name) == [pytest.approx(math.log(min(scales)))] * 4
        assert cells(rows, "axis_max", name) == [pytest.approx(math.log(max(scales)))] * 4


def test_stored_axis_places_the_same_cases_again(path):
    rows = [row for row in score(path) if row["class_id"] is None]
    axis = AuvAxis(rows[0]["axis_min"], rows[0]["axis_max"], "certain")
    again = place(log_coordinates(np.array([row["value"] for row in rows]), log_eps=1e-12), axis)
    assert again == pytest.approx([row["auv"] for row in rows])


def test_case_without_any_class_and_flat_map(tmp_path):
    flat = np.zeros((4, 5, 6))
    cases = [
        case_features("a", random_maps(1)),
        case_features("b", [None, None]),
        case_features("c", [flat, None]),
        case_features("d", random_maps(2)),
    ]
    rows = score(write_features(tmp_path / "F.h5", cases))
    assert cells(rows, "status") == ["ok", "absent", "flat", "ok"]
    assert cells(rows, "auv")[1:3] == [None, None]
    assert cells(rows, "n_slices") == [6, 0, 4, 6]
    official = score(tmp_path / "F.h5", preset="official")
    assert cells(official, "value")[1:3] == [pytest.approx(2.0), pytest.approx(2.0)]  # as released
    assert cells(official, "status") == ["ok", "absent", "flat", "ok"]


def test_one_slice_has_no_scale(tmp_path):
    cases = [case_features("a", random_maps(1, shape=(1, 9, 7))), case_features("b", random_maps(2))]
    for preset in ("paper", "official"):
        rows = score(write_features(tmp_path / "F.h5", cases), preset=preset)
        assert cells(rows, "status") == ["flat", "ok"]
        assert cells(rows, "value")[0] is None
    rows = score(tmp_path / "F.h5", unfolding="h_dw")
    assert cells(rows, "status") == ["ok", "ok"]


def test_a_sum_over_fewer_classes_is_no_sum(tmp_path):
    one_slice = case_features("a", [random_maps(1, shape=(4, 9, 7))[0], random_maps(1, shape=(1, 9, 7))[0]])
    cases = [one_slice, case_features("b", random_maps(2)), case_features("c", random_maps(3))]
    path = write_features(tmp_path / "F.h5", cases)
    rows = score(path, preset="official")
    assert cells(rows, "status", "tumour") == ["flat", "ok", "ok"]
    assert (cells(rows, "value")[0], cells(rows, "status")[0]) == (None, "undefined")
    assert cells(score(path), "value")[0] == cells(score(path), "value", "liver")[0]  # a mean does not shrink


@pytest.mark.parametrize("center", [False, True])
def test_a_box_without_variation_is_flat_whatever_the_rest_of_the_map(tmp_path, center):
    volume = np.full((5, 9, 7), 2.0)
    volume[:, :, 0] = np.arange(9)  # outside the box that the features take
    cases = [case_features("a", [volume, None]), *(case_features(f"{n}", random_maps(n)) for n in range(2))]
    path = write_features(tmp_path / "F.h5", cases)
    for quantifier in ("auv", "effective-rank"):
        assert cells(score(path, quantifier, center=center), "status", "liver")[2] == "ok"
        boxed = score(path, quantifier, roi="class-box", center=center)
        row = next(row for row in boxed if (row["case"], row["class_name"]) == ("a", "liver"))
        assert row["value"] is None


def test_constant_map_is_flat_when_centred(tmp_path):
    constant = [np.full((4, 5, 6), 3.0) + 0.0, None]
    features = case_features("a", constant)
    object.__setattr__(features, "status", ("ok", "absent"))  # an extractor that did not look
    rows = score(
        write_features(tmp_path / "F.h5", [features, case_features("b", random_maps(1))]),
        center=True,
    )
    assert cells(rows, "status", "liver") == ["flat", "ok"]
    assert cells(rows, "value", "liver")[0] is None


def test_single_case_has_a_scale_but_no_auv(tmp_path):
    rows = score(write_features(tmp_path / "F.h5", [case_features("a", random_maps(0))]))
    assert cells(rows, "value")[0] is not None
    assert cells(rows, "auv") == [None]


def test_chosen_classes_by_name_or_id(path):
    for wanted in (["liver"], ["1"]):
        rows = score(path, classes=wanted)
        assert {row["class_name"] for row in rows} == {"liver", "all"}
        assert cells(rows, "value") == cells(rows, "value", "liver")
    with pytest.raises(UsageError, match="got spleen"):
        score(path, classes=["liver", "spleen"])


CHANGES = ({"energy": "linear"}, {"center": True}, {"of": "probabilities"}, {"unfolding": "mean"}, {"roi": "class-box"})


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: next(iter(change)))
def test_an_option_changes_the_values(path, change):
    assert cells(score(path, **change), "value") != cells(score(path), "value")


def test_unfolding_mean_is_the_mean_of_the_three(path):
    three = [cells(score(path, unfolding=u), "value", "liver") for u in ("d_hw", "h_dw", "w_dh")]
    mean = cells(score(path, unfolding="mean"), "value", "liver")
    assert mean == pytest.approx(np.mean(three, axis=0))


def test_agreement_is_the_dice_and_goes_through_the_axis(maps, tmp_path):
    dice = {"a": (0.9, 0.5), "b": (0.7, 0.7), "c": (0.8, 0.1), "d": (0.5, 0.9)}
    path = write_features(tmp_path / "F.h5", [case_features(name, maps[name], dice=dice[name]) for name in maps])
    rows = score(path, "agreement")
    assert cells(rows, "value", "liver") == pytest.approx([0.9, 0.7, 0.8, 0.5])
    assert cells(rows, "value", "tumour")[2] is None  # c has no tumour
    assert cells(rows, "auv", "liver") == pytest.approx([0.0, 0.5, 0.25, 1.0])
    assert cells(rows, "value") == pytest.approx([0.7, 0.7, 0.8, 0.7])
    without = write_features(tmp_path / "G.h5", [case_features("a", random_maps(0))])
    with pytest.raises(InputError, match="agreement"):
        score(without, "agreement")


def test_random_control_follows_its_seed(path):
    first, again, other = (cells(score(path, "random", seed=seed), "value") for seed in (1, 1, 2))
    assert first == again != other
    assert all(0.0 <= value < 1.0 for value in first)


def test_scores_name_what_they_are(path):
    row = score(path, center=True, classes=["liver"], two_sided=True)[0]
    assert row["quantifier"] == "auv"
    assert row["method"].startswith("identity mask-box raw ")
    assert row["method"].endswith("; paper squared centred logits d_hw volume mean classes liver; two-sided")


# --- sizes: residuals, two sides, correlations ---


def sized_cases(n=30, *, seed=0):
    """Cases whose agreement grows with the logarithm of their volume, and otherwise is noise."""
    generator = np.random.default_rng(seed)
    found = []
    for index, size in enumerate(generator.uniform(0.1, 3.0, n)):
        dice = np.clip(0.5 + 0.1 * (size - 1.5) + generator.normal(0, 0.01), 0, 1)
        features = case_features(f"case_{index:02d}", [np.ones((3 + index % 4, 4, 4)), None], dice=(dice, 0.0))
        volume = {"volume_ml": np.array([np.exp(size), 0.0]), "foreground_ml": np.exp(size)}
        found.append(replace(features, status=("ok", "absent"), **volume))
    return found


def test_residuals_do_not_correlate_with_what_was_taken_out(tmp_path):
    path = write_features(tmp_path / "F.h5", sized_cases())
    plain, left = scoring(path, "agreement"), scoring(path, "agreement", residualise=["volume", "depth"])
    assert size_correlations(plain.whole_cases)["volume"][0] == pytest.approx(-1.0, abs=0.1)
    assert abs(size_correlations(left.whole_cases)["volume"][0]) < 0.3
    logarithms = np.log(left.whole_cases.volume_ml)
    assert np.corrcoef(left.whole_cases.auv, logarithms)[0, 1] == pytest.approx(0.0, abs=1e-9)
    assert cells(left.rows(), "value") == cells(plain.rows(), "value")  # the value stays what was measured
    assert "residualised by volume depth" in left.method


def test_too_few_cases_to_residualise_are_refused(tmp_path):
    path = write_features(tmp_path / "F.h5", sized_cases(4))
    with pytest.raises(UsageError, match="--residualise: expected more cases"):
        score(path, "agreement", residualise=["volume", "depth"])


def test_two_sided_ranks_by_the_distance_from_the_median(path):
    rows = score(path, two_sided=True)
    logarithms = np.log(cells(rows, "value"))
    distances = np.abs(logarithms - np.median(logarithms))
    auv = np.array(cells(rows, "auv"))
    assert auv == pytest.approx((distances - distances.min()) / np.ptp(distances), abs=1e-9)
    assert cells(rows, "axis_center") == [pytest.approx(np.median(logarithms))] * 4


def test_partial_correlation_tells_volume_from_depth(tmp_path):
    # Slices follow the volume; the score follows the volume alone.
    generator = np.random.default_rng(3)
    cases = []
    for index in range(40):
        size = generator.uniform(1.0, 4.0)
        depth = int(np.clip(np.round(6 * size + generator.normal(0, 2)), 2, None))
        dice = 0.2 * size + generator.normal(0, 0.02)
        features = case_features(f"{index:02d}", [np.ones((2, 3, 3)), None], dice=(dice, 0.0))
        volume = {"volume_ml": np.array([np.exp(size), 0.0]), "foreground_ml": np.exp(size)}
        cases.append(replace(features, n_slices=np.array([depth, 0]), status=("ok", "absent"), **volume))
    found = size_correlations(scoring(write_features(tmp_path / "F.h5", cases), "agreement").whole_cases)
    assert found["depth"][0] < -0.8
    assert abs(found["depth"][1]) < 0.35
    assert found["volume"][1] < -0.8


# --- another data set's axis ---


def test_reference_places_a_case_where_it_stood(path, tmp_path, maps):
    old = score(path)
    alone = write_features(tmp_path / "F.h5", [case_features("b", maps["b"])])
    new = score(alone, reference=old)
    for name in ("liver", "tumour", "all"):
        assert cells(new, "auv", name) == pytest.approx([cells(old, "auv", name)[1]])
    two_sided = score(path, two_sided=True)
    again = score(alone, reference=two_sided, two_sided=True)
    assert cells(again, "auv") == pytest.approx([cells(two_sided, "auv")[1]])


def test_reference_that_was_tampered_with_is_refused(path):
    old = score(path)
    joined = [*old, *(row | {"axis_min": -9.0} for row in old)]
    with pytest.raises(InputError, match="expected one axis a class"):
        score(path, reference=joined)
    with pytest.raises(InputError, match="expected one axis a class"):
        score(path, reference=[row | {"axis_min": 1.0, "axis_max": 0.0} for row in old])
    with pytest.raises(InputError, match="--reference: expected scores of auv"):
        score(path, reference=[*old, *score(path, energy="linear")])


def test_reference_names_classes_in_any_way(path):
    by_name = score(path, classes=["tumour"])
    assert cells(score(path, classes=["2"], reference=by_name), "auv") == cells(by_name, "auv")
    assert score(path, classes=["tumour", "liver"]) == score(path)


def test_reference_of_another_method_is_refused(path):
    with pytest.raises(InputError, match="--reference: expected scores of auv"):
        score(path, reference=score(path, energy="linear"))
    with pytest.raises(InputError, match="got entropy"):
        score(path, reference=[{**row, "quantifier": "entropy"} for row in score(path)])


def test_maps_only_file_and_broken_spectrum_are_refused(tmp_path):
    features = case_features("a", random_maps(0))
    features.spectra["volume", "logits", "d_hw", "uncentered"][0][0] = math.nan
    with pytest.raises(InputError, match="case a, class liver"):
        score(write_features(tmp_path / "F.h5", [features]))
    object.__setattr__(features, "spectra", {})
    object.__setattr__(features, "channel_spectra", {})
    with pytest.raises(InputError, match="--store"):
        score(write_features(tmp_path / "G.h5", [features]))


# --- oracle ---


def test_official_equals_the_released_function_on_the_same_maps(path, maps):
    present = [name for name in maps if maps[name][1] is not None]
    per_class = [[oracles.released_scale(volume.astype(np.float32)) for volume in maps[name]] for name in present]
    rows = [row for row in score(path, preset="official") if row["case"] in present]
    assert cells(rows, "value", "liver") == pytest.approx([row[0] for row in per_class], abs=1e-6)
    assert cells(rows, "value", "tumour") == pytest.approx([row[1] for row in per_class], abs=1e-6)
    assert cells(rows, "value") == pytest.approx([sum(row) for row in per_class], abs=2e-6)


def test_official_auv_equals_the_released_example(maps, tmp_path):
    full = {name: maps[name] for name in maps if maps[name][1] is not None}
    file = write_features(tmp_path / "F.h5", [case_features(name, full[name]) for name in full])
    per_class = [[oracles.released_scale(volume, dtype=torch.float64) for volume in full[name]] for name in full]
    rows = score(file, preset="official")
    assert cells(rows, "auv") == pytest.approx(oracles.released_auv(per_class), abs=1e-9)


def test_paper_equals_the_written_equations(path, maps):
    rows = score(path)
    expected = [oracles.written_scale(maps[name][0]) for name in maps]
    assert cells(rows, "value", "liver") == pytest.approx(expected, abs=1e-9)
