from dataclasses import replace

import numpy as np
import pytest
from features import case_features, random_maps

from auvtool.case_features import AGREEMENT_COLUMNS, FeatureHeader
from auvtool.evidence import LIMIT, MODEL_GROUPS, evidence_of, reasons
from auvtool.quantification import quantify
from auvtool.quantifiers.deviation import class_deviations, deviation
from auvtool.robust import left_out_distance, robust_z
from auvtool.score_options import score_options
from auvtool.scoring import score_cases

HEADER = FeatureHeader("identity", "1", None, "mask-box", "raw", "D", ((1, "liver"), (2, "tumour")))
GROUPS = {
    *("scale", "channels", "voxels", "agreement", "shape", "boundary"),
    *("quality", "presence", "features", "template"),
}


@pytest.fixture(scope="module")
def cases():
    """Twelve cases of different sizes; the last one has no tumour."""
    whole = [
        case_features(f"case_{n:02d}", random_maps(n, shape=(4 + n % 5, 9, 7)), dice=(0.5 + n / 30, 0.9 - n / 30))
        for n in range(11)
    ]
    return [*whole, case_features("case_11", [random_maps(11)[0], None])]


@pytest.fixture(scope="module")
def evidence(cases):
    return evidence_of(cases)


def test_names_are_unique_and_the_same_for_all_data_sets(cases, evidence):
    assert len(set(evidence.names)) == len(evidence.names) == len(evidence.groups)
    assert set(evidence.groups) == GROUPS
    assert evidence_of(cases[3:7]).names == evidence.names
    assert evidence.items.shape == (12, len(evidence.names) - len(evidence.blocks), 2)
    assert evidence.z().shape == (12, len(evidence.names), 2)


def test_items_stand_under_their_names(cases, evidence):
    where = {name: place for place, name in enumerate(evidence.names)}
    for name, column in (("dice", 0), ("iou", 1)):
        expected = [case.agreement[:, column] for case in cases]
        np.testing.assert_array_equal(evidence.items[:, where[f"agreement: {name}"]], expected)
    assert AGREEMENT_COLUMNS[:2] == ("dice", "iou")
    expected = [case.evidence.label_shape[:, 0] for case in cases]
    np.testing.assert_array_equal(evidence.items[:, where["shape: log_volume_mm3"]], expected)
    residual = evidence.items[:, where["voxels: residual probability"]]
    assert residual[:, 0].tolist() == [case.log_residual_probability for case in cases]
    assert np.isnan(residual[:, 1]).all()  # of the case, which stands in the first class's place


def test_an_absent_class_says_that_it_is_absent_and_nothing_else(evidence):
    items = evidence.items[11, :, 1]
    where = evidence.names.index("presence: absent")
    assert items[where] == 1.0
    assert np.isnan(np.delete(items, where)).all()
    assert (np.delete(evidence.items[:, where].ravel(), 23) == 0.0).all()
    assert all(np.isnan(block[11, 1]).all() for block in evidence.blocks.values() if block.shape[1] > 1)
    z = evidence.z()[11, :, 1]
    assert z[where] > 3.0
    assert np.isnan(np.delete(z, where)).all()


def test_z_of_a_block_is_that_of_the_distance_among_the_members(cases, evidence):
    members = np.arange(2, 11)
    place = evidence.names.index("features: of the class")
    vectors = np.stack([case.class_features[0] for case in cases[2:11]]).astype(np.float64)
    expected = robust_z(np.log(left_out_distance(vectors)), limit=LIMIT)
    assert evidence.z(members)[:, place, 0] == pytest.approx(np.maximum(expected, 0.0))


def test_z_depends_on_the_members_and_on_nobody_else(cases, evidence):
    members = np.array([7, 0, 3, 10, 4, 1, 9, 2, 8])
    np.testing.assert_allclose(evidence.z(members), evidence_of([cases[m] for m in members]).z(), atol=1e-9)
    np.testing.assert_allclose(evidence.z(members), evidence.z(np.sort(members))[np.argsort(np.argsort(members))])
    assert not np.allclose(evidence.z(members)[0], evidence.z()[7], equal_nan=True)


def test_a_linear_effect_of_size_is_taken_out_of_spectra(evidence):
    effect = np.nan_to_num(evidence.sizes) @ [0.7, -2.0] + 3.0
    items = evidence.items.copy()
    items[:, evidence.of_size] += effect[:, None]
    np.testing.assert_allclose(replace(evidence, items=items).z(), evidence.z(), atol=1e-5)
    of_size = {evidence.groups[place] for place in evidence.of_size}
    assert of_size == {"scale", "channels"}


def test_too_few_cases_keep_their_size(evidence):
    members = np.arange(7)
    items = evidence.items.copy()
    items[:, evidence.of_size] += 100.0 * np.nan_to_num(evidence.sizes[:, :, :1]).transpose(0, 2, 1)
    assert not np.allclose(replace(evidence, items=items).z(members), evidence.z(members), equal_nan=True)


def test_missing_numbers_do_not_cost_the_vector(cases):
    lacking = cases[2].evidence.label_shape.copy()
    lacking[0, 3] = np.nan
    some = list(cases)
    some[2] = replace(cases[2], evidence=replace(cases[2].evidence, label_shape=lacking))
    found = evidence_of(some)
    where = found.names.index("shape: all of it")
    # The median is of the members, whoever else the table holds.
    for members in (np.arange(12), np.arange(1, 11)):
        others = [cases[m].evidence.label_shape[0, 3] for m in members if m != 2]
        filled = cases[2].evidence.label_shape.copy()
        filled[0, 3] = np.median(others)
        some[2] = replace(cases[2], evidence=replace(cases[2].evidence, label_shape=filled))
        expected = evidence_of(some).z(members)[:, where, 0]
        np.testing.assert_allclose(found.z(members)[:, where, 0], expected)
        assert not np.isnan(expected).any()


def test_deviation_is_that_of_the_evidence(cases, evidence):
    expected = deviation(evidence.z(), evidence.groups)
    options = score_options("deviation")
    np.testing.assert_array_equal(quantify(cases, HEADER, options).of_cases, expected)
    scoring = score_cases(cases, HEADER, options)
    np.testing.assert_array_equal(scoring.whole_cases.values, expected)
    auv = (expected - expected.min()) / (expected.max() - expected.min())
    np.testing.assert_allclose(scoring.whole_cases.auv, auv, atol=1e-12)


def test_deviation_of_cases_does_not_depend_on_their_order(cases, evidence):
    order = np.random.default_rng(0).permutation(len(cases))
    found = evidence_of([cases[place] for place in order])
    expected = deviation(evidence.z(), evidence.groups)[order]
    assert deviation(found.z(), found.groups) == pytest.approx(expected)


def test_an_empty_label_among_others_is_evidence_and_no_error():
    cases = [case_features(f"case_{n}", random_maps(n)) for n in range(9)]
    empty = case_features("empty", [None, None])
    cases.append(replace(empty, evidence=replace(empty.evidence, image_features=np.empty(0, dtype=np.float32))))
    found = evidence_of(cases)
    z = found.z()
    assert z[-1, found.names.index("presence: absent")].min() > 1
    assert np.isnan(z[-1, found.names.index("features: of the image")]).all()


def test_a_missing_item_of_one_case_costs_no_other_its_fit():
    from auvtool.evidence import _without_size

    rng = np.random.default_rng(0)
    sizes = rng.normal(size=(20, 1, 2))
    line = 3 + sizes @ np.array([2.0, -1.0])  # (case, class)
    items = np.stack([line, 5 * line, np.full_like(line, np.nan)], axis=1)
    items[4, 0] = np.nan  # one case lacks the first item, all the third
    left = _without_size(items, sizes)
    assert np.isnan(left[4, 0]).all()
    assert np.isnan(left[:, 2]).all()
    assert np.delete(left[:, 0], 4) == pytest.approx(0, abs=1e-9)
    assert left[:, 1] == pytest.approx(0, abs=1e-9)


def test_reasons_name_the_strangest_of_each_group(evidence):
    names, of_case = ("shape: holes", "shape: area", "image: noise"), np.array([False, False, True])
    z = np.array([[[1.0, -5.0], [4.0, 0.0], [3.0, np.nan]], [[0.5, 0.5], [np.nan, np.nan], [0.0, np.nan]]])
    said = reasons(z, replace(evidence, names=names, of_case=of_case), ["liver", "tumour"])
    assert said == ["shape: holes of tumour z -5.0; image: noise z +3.0", ""]


def test_what_is_of_the_case_is_of_no_class(evidence):
    of_case = {name for name, mark in zip(evidence.names, evidence.of_case, strict=True) if mark}
    items = len(evidence.names) - len(evidence.blocks)
    for row, name in enumerate(evidence.names[:items]):
        if np.isnan(evidence.items[:, row]).all():
            continue  # the loose box, which these features have not
        assert (name in of_case) == np.isnan(evidence.items[:, row, 1:]).all(), name
    for name, block in evidence.blocks.items():
        assert (name in of_case) == (block.shape[1] == 1), name


def test_deviation_of_chosen_classes_reads_them_and_what_is_of_the_case(cases, evidence):
    whole = quantify(cases, HEADER, score_options("deviation"))
    expected = class_deviations(evidence.z(), evidence.groups, evidence.of_case)
    np.testing.assert_allclose(whole.of_classes[:, :11], expected[:, :11])
    assert np.isnan(whole.of_classes[1, 11])  # it has no tumour
    tumour = quantify(cases, HEADER, score_options("deviation", classes=["tumour"]))
    np.testing.assert_array_equal(tumour.of_classes[0], whole.of_classes[1])
    z = evidence.z()
    z[:, ~evidence.of_case, 0] = np.nan
    np.testing.assert_array_equal(tumour.of_cases, deviation(z, evidence.groups))
    assert len(tumour.reasons) == 12
    assert not any("liver" in reason for reason in tumour.reasons)
    assert score_cases(cases, HEADER, score_options("deviation")).rows()[2]["reason"] == whole.reasons[0]


def test_plain_deviation_reads_nothing_of_the_model(cases, evidence):
    plain = quantify(cases, HEADER, score_options("plain-deviation"))
    used = [place for place, group in enumerate(evidence.groups) if group not in MODEL_GROUPS]
    expected = deviation(evidence.z()[:, used], [evidence.groups[place] for place in used])
    np.testing.assert_allclose(plain.of_cases, expected)
    others = [
        replace(
            case,
            class_features=case.class_features[::-1] * 3,
            voxel_statistics=case.voxel_statistics**2,
            evidence=replace(case.evidence, image_features=case.evidence.image_features[::-1]),
        )
        for case in cases
    ]
    again = quantify(others, HEADER, score_options("plain-deviation"))
    np.testing.assert_array_equal(again.of_cases, plain.of_cases)
    np.testing.assert_array_equal(again.of_classes, plain.of_classes)
    assert again.reasons == plain.reasons
    assert not np.allclose(quantify(others, HEADER, score_options("deviation")).of_cases, plain.of_cases)
