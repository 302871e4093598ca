from dataclasses import replace

import pytest

from auvtool.case_features import FeatureHeader
from auvtool.errors import UsageError
from auvtool.quantifiers import QUANTIFIERS
from auvtool.score_options import check_header, chosen_channels, score_options


def header(*, prompt="mask-box", image_input="mask", dataset="Dataset001_A"):
    return FeatureHeader("litemedsam", "2", "abc", prompt, image_input, dataset, ((1, "liver"),))


def test_an_explicit_choice_wins_over_the_preset():
    chosen = {"energy": "squared", "aggregate": "mean", "unfolding": "mean", "of": "probabilities", "center": None}
    both = score_options(preset="official", scale=chosen)
    assert (both.preset, both.energy, both.aggregate, both.unfolding) == ("official", "squared", "mean", "mean")
    plain = score_options(preset="official")
    assert (plain.energy, plain.aggregate, plain.center, plain.eps_rule) == ("linear", "sum", False, "added")
    paper = score_options(scale={"center": True})
    assert (paper.preset, paper.energy, paper.aggregate, paper.center) == ("paper", "squared", "mean", True)


@pytest.mark.parametrize(
    ("quantifier", "options", "words"),
    [
        ("fisher", {"scale": {"energy": "linear"}}, "--energy: expected a quantifier that it changes, got fisher"),
        ("variance", {"preset": "official"}, "--preset"),
        ("mahalanobis", {"scale": {"roi": "class-box"}}, "it is for auv and effective-rank"),
        ("effective-rank", {"scale": {"energy": "linear"}}, "it is for auv"),
        ("entropy", {"scale": {"center": False}}, "--center"),
        ("depth", {"scale": {"aggregate": "sum"}}, "--aggregate: expected a quantifier that it changes, got depth"),
        ("eaoa", {"classes": ["liver"]}, "--classes: expected a quantifier of classes"),
        ("auv", {"mechanism": "b"}, "--mechanism b: expected --classes beside it"),
        ("auv", {"mechanism": "d"}, "--mechanism d: expected --classes beside it"),
        ("auv", {"mechanism": "a", "classes": ["liver"]}, "leave it out, or use b"),
        ("auv", {"mechanism": "c", "classes": ["liver"]}, "leave it out, or use d"),
        ("auv", {"residualise": ["size"]}, "--residualise: expected some of volume, depth, spacing, got size"),
        ("volume", {"residualise": ["volume"]}, "nothing would be left"),
        ("auv", {"seed": 3}, "--seed: expected --quantifier random, got auv"),
        ("random", {"two_sided": True}, "--quantifier random: expected no --residualise"),
    ],
)
def test_options_that_do_not_fit_are_refused_with_the_reason(quantifier, options, words):
    with pytest.raises(UsageError, match=words):
        score_options(quantifier, **options)


@pytest.mark.parametrize(
    ("mechanism", "classes", "image_input"),
    [("a", [], "raw"), ("b", ["1"], "raw"), ("c", [], "mask"), ("d", ["1"], "mask")],
)
def test_a_mechanism_takes_the_features_it_is_of(mechanism, classes, image_input):
    options = score_options(mechanism=mechanism, classes=classes)
    check_header(options, header(image_input=image_input))
    other = {"raw": "mask", "mask": "raw"}[image_input]
    with pytest.raises(UsageError, match=f"extract with --input {image_input}"):
        check_header(options, header(image_input=other))


@pytest.mark.parametrize(
    ("quantifier", "scale"),
    [
        *((name, {}) for name in ("eaoa", "agreement", "fisher", "entropy", "mahalanobis", "predicted-dice")),
        ("auv", {"roi": "class-box"}),
        ("auv", {"of": "probabilities"}),
    ],
)
def test_what_needs_classes_is_refused_without_prompts(quantifier, scale):
    options = score_options(quantifier, scale=scale)
    with pytest.raises(UsageError, match="--prompt mask-box"):
        check_header(options, header(prompt="none"))


def test_the_method_tells_all_that_moves_a_value():
    methods = {
        score_options(**options).method(of)
        for of in (header(), header(image_input="raw"))
        for options in (
            {},
            {"preset": "official"},
            *({"scale": {name: value}} for name, value in CHOICES),
            {"residualise": ["depth"]},
            {"two_sided": True},
        )
    }
    assert len(methods) == 2 * (4 + len(CHOICES))
    assert score_options().method(header()) == score_options().method(header(dataset="Dataset002_B"))
    stored = replace(header(), options={"store": "both"})
    assert score_options().method(header()) == score_options().method(stored)
    assert score_options().method(header()) != score_options().method(replace(header(), options={"max_slices": 4}))
    in_another_order = [
        score_options(residualise=names).method(header()) for names in (["depth", "volume"], ["volume", "depth"])
    ]
    assert in_another_order[0] == in_another_order[1]


CHOICES = (
    ("energy", "linear"),
    ("center", True),
    ("of", "probabilities"),
    ("unfolding", "mean"),
    ("roi", "class-box"),
    ("aggregate", "sum"),
)


def test_random_numbers_of_two_seeds_do_not_compare():
    assert "seed 3" in score_options("random", seed=3).method(header())


@pytest.mark.parametrize("quantifier", QUANTIFIERS)
def test_the_axis_is_named(quantifier):
    assert score_options(quantifier).axis == QUANTIFIERS[quantifier].axis
    if quantifier not in {"random", "depth"}:
        moved = score_options(quantifier, residualise=["depth"], two_sided=True)
        assert moved.axis == f"{QUANTIFIERS[quantifier].axis} residual two-sided"


def test_a_class_is_found_by_name_before_id():
    of = replace(header(), channels=((2, "1"), (1, "kidney, left"), (3, "c")))
    assert chosen_channels(of, ["1"]) == (0,)
    assert chosen_channels(of, ["c", "2"]) == (0, 2)
    assert chosen_channels(of, []) == (0, 1, 2)
    assert score_options(classes=["3", "1", "2"]).method(of).endswith("classes 1 c")
    with pytest.raises(UsageError, match="got spleen"):
        chosen_channels(of, ["spleen"])
