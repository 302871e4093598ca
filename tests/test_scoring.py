import math

import numpy as np
import oracles
import pytest
import torch
from features import case_features, random_maps, write_features

from auvtool.auv import AuvAxis, place
from auvtool.errors import InputError, UsageError
from auvtool.feature_store import FeatureFile
from auvtool.scoring import confound, scale_options, score_features


def score(path, options=None, **chosen):
    with FeatureFile(path) as file:
        return score_features(file, options or scale_options("paper"), **chosen)


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
    assert cells(rows, "scale", "tumour")[2] is None
    assert cells(rows, "auv", "tumour")[2] is None
    assert cells(rows, "scale")[2] == cells(rows, "scale", "liver")[2]
    assert cells(rows, "scale")[0] == pytest.approx(
        (cells(rows, "scale", "liver")[0] + cells(rows, "scale", "tumour")[0]) / 2
    )
    assert cells(rows, "status") == ["ok"] * 4


def test_each_column_has_its_own_axis_and_hits_0_and_1(path):
    rows = score(path)
    for name in ("liver", "tumour", "all"):
        auv = [value for value in cells(rows, "auv", name) if value is not None]
        assert (min(auv), max(auv)) == (0.0, 1.0)
        scales = [value for value in cells(rows, "scale", name) if value is not None]
        assert cells(rows, "log_scale_min", name) == [pytest.approx(math.log(min(scales)))] * 4
        assert cells(rows, "log_scale_max", name) == [pytest.approx(math.log(max(scales)))] * 4


def test_stored_axis_places_the_same_cases_again(path):
    rows = [row for row in score(path) if row["class_id"] is None]
    axis = AuvAxis(rows[0]["log_scale_min"], rows[0]["log_scale_max"], log_eps=1e-12)
    again = place(np.array([row["scale"] for row in rows]), axis)
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
    official = score(tmp_path / "F.h5", scale_options("official"))
    assert cells(official, "scale")[1:3] == [pytest.approx(2.0), pytest.approx(2.0)]  # as released
    assert cells(official, "status") == ["ok", "absent", "flat", "ok"]


def test_one_slice_has_no_scale(tmp_path):
    cases = [case_features("a", random_maps(1, shape=(1, 9, 7))), case_features("b", random_maps(2))]
    for preset in ("paper", "official"):
        rows = score(write_features(tmp_path / "F.h5", cases), scale_options(preset))
        assert cells(rows, "status") == ["flat", "ok"]
        assert cells(rows, "scale")[0] is None
    rows = score(tmp_path / "F.h5", scale_options("paper", unfolding="h_dw"))
    assert cells(rows, "status") == ["ok", "ok"]


def test_constant_map_is_flat_when_centred(tmp_path):
    constant = [np.full((4, 5, 6), 3.0) + 0.0, None]
    features = case_features("a", constant)
    object.__setattr__(features, "status", ("ok", "absent"))  # an extractor that did not look
    rows = score(
        write_features(tmp_path / "F.h5", [features, case_features("b", random_maps(1))]),
        scale_options("paper", center=True),
    )
    assert cells(rows, "status", "liver") == ["flat", "ok"]
    assert cells(rows, "scale", "liver")[0] is None


def test_single_case_has_a_scale_but_no_auv(tmp_path):
    rows = score(write_features(tmp_path / "F.h5", [case_features("a", random_maps(0))]))
    assert cells(rows, "scale")[0] is not None
    assert cells(rows, "auv") == [None]


def test_chosen_classes_by_name_or_id(path):
    for wanted in (["liver"], ["1"]):
        rows = score(path, classes=wanted)
        assert {row["class_name"] for row in rows} == {"liver", "all"}
        assert cells(rows, "scale") == cells(rows, "scale", "liver")
    with pytest.raises(UsageError, match="got spleen"):
        score(path, classes=["liver", "spleen"])


def test_explicit_option_wins_over_the_preset(path):
    both = scale_options("official", energy="squared", aggregate="mean", unfolding="mean", of="probabilities")
    assert (both.preset, both.energy, both.aggregate, both.center) == ("official", "squared", "mean", False)
    assert scale_options("paper", center=True).center
    for change in ({"energy": "linear"}, {"center": True}, {"of": "probabilities"}, {"unfolding": "mean"}):
        assert cells(score(path, scale_options("paper", **change)), "scale") != cells(score(path), "scale")


def test_unfolding_mean_is_the_mean_of_the_three(path):
    three = [
        cells(score(path, scale_options("paper", unfolding=u)), "scale", "liver") for u in ("d_hw", "h_dw", "w_dh")
    ]
    mean = cells(score(path, scale_options("paper", unfolding="mean")), "scale", "liver")
    assert mean == pytest.approx(np.mean(three, axis=0))


def test_agreement_is_one_minus_dice(path, tmp_path):
    rows = score(path, quantifier="agreement")
    assert cells(rows, "auv", "liver") == pytest.approx([0.1] * 4)
    assert cells(rows, "auv") == pytest.approx([0.3] * 4)
    assert {row["scale"] for row in rows} == {None}
    without = write_features(tmp_path / "F.h5", [case_features("a", random_maps(0))])
    with pytest.raises(InputError, match="agreement"):
        score(without, quantifier="agreement")


def test_random_control_follows_its_seed(path):
    first, again, other = (cells(score(path, quantifier="random", seed=seed), "auv") for seed in (1, 1, 2))
    assert first == again != other
    assert all(0.0 <= value < 1.0 for value in first)


def test_maps_only_file_and_broken_spectrum_are_refused(tmp_path):
    features = case_features("a", random_maps(0))
    features.spectra["logits", "d_hw", "uncentered"][0][0] = math.nan
    with pytest.raises(InputError, match="case a, class liver"):
        score(write_features(tmp_path / "F.h5", [features]))
    object.__setattr__(features, "spectra", {})
    object.__setattr__(features, "channel_spectra", {})
    with pytest.raises(InputError, match="--store"):
        score(write_features(tmp_path / "G.h5", [features]))


def test_confound_is_a_rank_correlation_with_size():
    def rows(pairs):
        return [{"class_id": None, "auv": auv, "volume_ml": volume} for auv, volume in pairs]

    assert confound(rows([(0.1, 30.0), (0.5, 20.0), (0.9, 1.0)]), "volume_ml") == pytest.approx(-1.0)
    assert confound(rows([(0.1, 30.0), (0.5, 30.0), (0.9, 30.0)]), "volume_ml") is None
    assert confound(rows([(0.1, 30.0), (None, 20.0), (0.9, 1.0)]), "volume_ml") is None


# --- oracle ---


def test_official_equals_the_released_function_on_the_same_maps(path, maps):
    present = [name for name in maps if maps[name][1] is not None]
    per_class = [[oracles.released_scale(volume.astype(np.float32)) for volume in maps[name]] for name in present]
    rows = [row for row in score(path, scale_options("official")) if row["case"] in present]
    assert cells(rows, "scale", "liver") == pytest.approx([row[0] for row in per_class], abs=1e-6)
    assert cells(rows, "scale", "tumour") == pytest.approx([row[1] for row in per_class], abs=1e-6)
    assert cells(rows, "scale") == pytest.approx([sum(row) for row in per_class], abs=2e-6)


def test_official_auv_equals_the_released_example(maps, tmp_path):
    full = {name: maps[name] for name in maps if maps[name][1] is not None}
    file = write_features(tmp_path / "F.h5", [case_features(name, full[name]) for name in full])
    per_class = [[oracles.released_scale(volume, dtype=torch.float64) for volume in full[name]] for name in full]
    rows = score(file, scale_options("official"))
    assert cells(rows, "auv") == pytest.approx(oracles.released_auv(per_class), abs=1e-9)


def test_paper_equals_the_written_equations(path, maps):
    rows = score(path)
    expected = [oracles.written_scale(maps[name][0]) for name in maps]
    assert cells(rows, "scale", "liver") == pytest.approx(expected, abs=1e-9)
