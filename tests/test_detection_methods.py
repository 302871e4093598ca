"""Methods of detection: every quantifier as `score` gives it, and every choice of the scale."""

from dataclasses import replace

import numpy as np
from detection_items import one, run_paired
from features import CLASSES, case_features, random_maps

from auvtool.case_features import FeatureHeader
from auvtool.detection_methods import Item, Method, QuantifierMethod, quantifier_methods, scale_search_methods
from auvtool.quantifiers import QUANTIFIERS
from auvtool.score_options import score_options
from auvtool.scoring import score_cases

HEADER = FeatureHeader("identity", "1", None, "mask-box", "raw", "Dataset999_Test", CLASSES)


def feature_items(n=8):
    return [Item(case_features(f"c{i}", random_maps(i), dice=[0.5 + 0.04 * i, 0.9]), f"c{i}") for i in range(n)]


def values_of(method, items):
    return method.values(items, held_out=frozenset())


def test_every_quantifier_but_that_of_metrics_is_a_method():
    methods = quantifier_methods(HEADER)
    expected = {"auv paper", "auv official", *QUANTIFIERS} - {"auv", "predicted-dice"}
    assert {method.name for method in methods} == expected
    of_data_set = {method.name for method in methods if method.of_data_set}
    assert of_data_set == {name for name, facts in QUANTIFIERS.items() if facts.of_data_set} - {"random"}
    items = feature_items()
    for method in methods:
        assert np.isfinite(values_of(method, items)).all(), method.name


def test_without_prompts_only_what_needs_no_class_is_left():
    header = replace(HEADER, prompt="none")
    names = {method.name for method in quantifier_methods(header)}
    assert "auv paper" in names
    assert not names & {"agreement", "entropy", "mahalanobis"}
    assert len(scale_search_methods(header)) == 2**7 // 4  # one map, one extent, no class region


def test_high_is_suspect_as_in_the_auv():
    items = feature_items()
    cases = [one.features for one in items]
    for name in ("auv", "volume", "variance", "agreement", "semantic-scale"):
        options = score_options(name)
        auv = score_cases(cases, HEADER, options).whole_cases.auv
        found = values_of(QuantifierMethod(name, options, HEADER), items)
        assert np.array_equal(np.argsort(found), np.argsort(auv)), name


def test_two_sided_and_residuals_are_what_score_gives():
    items = feature_items()
    options = score_options("auv", two_sided=True, residualise=("volume", "depth"))
    method = QuantifierMethod("both", options, HEADER)
    assert method.of_data_set
    expected = score_cases([one.features for one in items], HEADER, options).whole_cases.auv
    assert np.array_equal(values_of(method, items), expected)


def test_a_copy_does_not_share_the_random_number_of_its_case():
    (random,) = [method for method in quantifier_methods(HEADER) if method.name == "random"]
    cases = feature_items()
    copies = [replace(one, kind="snow", family="noise", level="high") for one in cases]
    row = one(run_paired([*cases, *copies], random), kind="snow")
    assert row["win_rate"] != 0.5


def test_the_search_has_every_choice_under_a_name_of_its_own():
    methods = scale_search_methods(HEADER)
    assert len({method.name for method in methods}) == 2**7 + 2**4
    assert len({method.options for method in methods[: 2**7]}) == 2**7
    assert methods[0].name == "squared uncentred logits volume d_hw"
    assert methods[127].name == "linear centred probabilities class-box mean, two-sided, residualised by volume depth"
    assert methods[-1].name == "linear uncentred channels, two-sided, residualised by volume depth"
    assert sum(method.of_data_set for method in methods) == 96 + 12
    protocol: Method = methods[0]
    assert not protocol.of_data_set


def test_scale_of_channels_is_the_entropy_of_their_energies():
    items = feature_items()
    (method,) = [one for one in scale_search_methods(HEADER) if one.name == "squared centred channels"]
    expected = []
    for item in items:
        scales = []
        for spectrum in item.features.channel_spectra["centered"]:
            share = spectrum**2 / (spectrum**2).sum()
            scales.append(-(share * np.log(share)).sum() / np.log(len(share)))
        expected.append(-np.log(np.mean(scales)))
    np.testing.assert_allclose(values_of(method, items), expected, rtol=1e-9)
