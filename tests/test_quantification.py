"""Every quantifier from one features file: what it reads, what it gives, and what it does where there is nothing."""

import math
from dataclasses import replace

import numpy as np
import oracles
import pytest
from features import case_features, random_maps, write_features

from auvtool.errors import InputError
from auvtool.feature_store import FeatureFile
from auvtool.measurement import STATISTIC_NAMES
from auvtool.quantification import quantify, read_cases
from auvtool.quantifiers import QUANTIFIERS
from auvtool.score_options import score_options
from auvtool.scoring import score_cases

NAMES = [name for name in QUANTIFIERS if name != "predicted-dice"]


@pytest.fixture(scope="module")
def features(tmp_path_factory):
    """Eight cases of two classes; case_5 lacks the tumour. Header and cases."""
    cases = []
    for seed in range(8):
        maps = random_maps(seed, shape=(4 + seed % 3, 9, 7))
        if seed == 5:
            maps[1] = None
        cases.append(case_features(f"case_{seed}", maps, dice=(0.9 - 0.05 * seed, 0.5)))
    path = write_features(tmp_path_factory.mktemp("quantification") / "F.h5", cases)
    with FeatureFile(path) as file:
        return file.header, read_cases(file)


def values(features, name, **options):
    header, cases = features
    return quantify(cases, header, score_options(name, **options))


@pytest.mark.parametrize("name", NAMES)
def test_every_quantifier_goes_through_the_same_axis(features, name):
    header, cases = features
    scoring = score_cases(cases, header, score_options(name))
    whole = scoring.whole_cases
    assert np.isfinite(whole.values).all()
    assert (whole.auv.min(), whole.auv.max()) == (0.0, 1.0)
    direction = -1 if QUANTIFIERS[name].high == "certain" else 1
    order = np.argsort(direction * whole.values, kind="stable")
    assert (np.diff(whole.auv[order]) >= 0).all()
    classes = scoring.columns[:-1]
    assert all(np.isnan(column.values).all() != QUANTIFIERS[name].of_classes for column in classes)
    assert math.isnan(classes[1].values[5])  # absent
    assert classes[1].status[5] == "absent"
    assert {row["quantifier"] for row in scoring.rows()} == {name}


@pytest.mark.parametrize("name", ["variance", "fisher", "entropy"])
def test_voxel_statistics_are_read_by_their_name(features, name):
    column = {"variance": "std", "fisher": "trigamma", "entropy": "probability_entropy"}[name]
    found = values(features, name)
    for index, case in enumerate(features[1]):
        expected = case.voxel_statistics[0, STATISTIC_NAMES.index(column)]
        assert found.of_classes[0, index] == (expected**2 if name == "variance" else expected)


def test_a_whole_case_is_the_mean_or_sum_of_its_classes_or_its_own(features):
    for name in ("variance", "mahalanobis", "semantic-scale"):
        mean, total = values(features, name), values(features, name, scale={"aggregate": "sum"})
        assert mean.of_cases == pytest.approx(np.nanmean(mean.of_classes, axis=0))
        assert total.of_cases == pytest.approx(np.nansum(mean.of_classes, axis=0))
    assert values(features, "volume").of_cases == pytest.approx([case.volume_ml.sum() for case in features[1]])
    assert values(features, "depth").of_cases.tolist() == [case.n_slices.max() for case in features[1]]
    assert values(features, "eaoa").of_cases.tolist() == [case.log_residual_probability for case in features[1]]


def test_effective_rank_is_the_exponential_of_the_linear_scale(features):
    ranks = values(features, "effective-rank").of_classes[0]
    scales = values(features, "auv", scale={"energy": "linear"}).of_classes[0]
    assert np.log(ranks) / np.log([case.n_slices[0] for case in features[1]]) == pytest.approx(scales)


def test_mahalanobis_is_that_of_the_stored_vectors(features):
    vectors = np.stack([case.class_features for case in features[1]]).astype(np.float64)
    found = values(features, "mahalanobis").of_classes
    assert found[0, 2] == pytest.approx(oracles.mahalanobis(vectors, 2, 0))
    relative = values(features, "relative-mahalanobis").of_classes
    assert relative[1, 0] == pytest.approx(oracles.mahalanobis(vectors, 0, 1, relative=True))


def test_a_class_that_is_there_without_a_value_is_undefined(features):
    header, cases = features
    found = quantify(cases[:2], header, score_options("mahalanobis"))  # too few others
    assert found.status == (("undefined", "undefined"), ("undefined", "undefined"))
    assert np.isnan(found.of_cases).all()
    scoring = score_cases(cases[:2], header, score_options("mahalanobis"))
    assert {row["status"] for row in scoring.rows()} == {"undefined"}
    eaoa = score_cases(cases, header, score_options("eaoa"))
    assert {(row["class_name"], row["status"]) for row in eaoa.rows() if row["case"] == "case_5"} == {
        ("liver", "undefined"),
        ("tumour", "absent"),
        ("all", "ok"),
    }


def test_predicted_dice_is_read_from_metrics(features):
    header, cases = features
    rows = [{"case": f"case_{n}", "class_id": 7, "class_name": "liver", "dice": 0.1 * n} for n in range(7)]
    rows.append({"case": "case_0", "class_id": 2, "class_name": "tumour", "dice": 0.4})
    rows.append({"case": "case_1", "class_id": 2, "class_name": "tumour", "dice": None})
    scoring = score_cases(cases, header, score_options("predicted-dice"), metrics=rows)
    liver, tumour, whole = scoring.columns
    assert liver.values[:7] == pytest.approx([0.1 * n for n in range(7)])
    assert (liver.status[7], tumour.status[1]) == ("undefined", "undefined")
    assert whole.values[0] == pytest.approx(0.2)
    assert liver.auv[:7] == pytest.approx([1 - n / 6 for n in range(7)])
    with pytest.raises(InputError, match="--metrics: expected a Dice"):
        quantify(cases, header, score_options("predicted-dice"), metrics=[rows[0] | {"case": "x"}])
    with pytest.raises(InputError, match="liver of case_3 twice"):
        quantify(cases, header, score_options("predicted-dice"), metrics=[*rows, rows[3]])


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("variance", {"voxel_statistics": np.full((2, len(STATISTIC_NAMES)), np.inf)}),
        ("semantic-scale", {"channel_spectra": {c: np.full((2, 4), np.inf) for c in ("centered", "uncentered")}}),
        ("eaoa", {"log_residual_probability": -np.inf}),
        ("fisher", {"statistic_names": ("other",) * len(STATISTIC_NAMES)}),
        ("agreement", {"agreement": np.full((2, 3), np.inf)}),
    ],
)
def test_a_damaged_value_is_refused_before_it_bends_the_axis(features, name, change):
    header, cases = features
    with pytest.raises(InputError, match="case case_2"):
        quantify([*cases[:2], replace(cases[2], **change), *cases[3:]], header, score_options(name))


def test_a_negative_singular_value_is_refused(features):
    header, cases = features
    spectra = {key: [-values for values in of_key] for key, of_key in cases[2].spectra.items()}
    for name in ("auv", "effective-rank"):
        with pytest.raises(InputError, match="case case_2, class liver: expected a spectrum"):
            quantify([*cases[:2], replace(cases[2], spectra=spectra)], header, score_options(name))


def test_the_volume_of_a_case_counts_each_voxel_once(features):
    header, cases = features
    overlapping = [replace(case, foreground_ml=0.7 * case.volume_ml.sum()) for case in cases]
    found = quantify(overlapping, header, score_options("volume")).of_cases
    assert found == pytest.approx([case.foreground_ml for case in overlapping])


@pytest.mark.parametrize("name", ["auv", "effective-rank", "semantic-scale", "feature-variance"])
def test_maps_only_are_refused(features, name):
    header, cases = features
    bare = [replace(case, spectra={}, channel_spectra={}) for case in cases]
    with pytest.raises(InputError, match="--store spectrum or both"):
        quantify(bare, header, score_options(name))
