from dataclasses import replace

import numpy as np
import pytest
from features import case_features, random_maps

from auvtool.calibrating import calibrate
from auvtool.calibration import (
    CrossFitted,
    ProbabilityScale,
    Specimen,
    case_folds,
    design,
    suspicion_of_unseen_kinds,
    training_designs,
)
from auvtool.case_features import FeatureHeader
from auvtool.detection import auroc
from auvtool.errors import InputError
from auvtool.evidence import evidence_of
from auvtool.faults import copy_id
from auvtool.schema import SCORES
from auvtool.tables import parse_table

HEADER = FeatureHeader("identity", "1", None, "mask-box", "raw", "D", ((1, "liver"), (2, "tumour")))
FAMILIES = {"blur": "resolution", "thick-slices": "resolution", "dilated": "boundary", "eroded": "boundary"}


def spoiled(case, by):
    """Image quality numbers moved `by` times their natural spread."""
    case.evidence.image_quality[:20] += by
    return case


@pytest.fixture(scope="module")
def cases():
    return [case_features(f"case_{n:02d}", random_maps(n)) for n in range(24)]


@pytest.fixture(scope="module")
def copies():
    return [
        spoiled(case_features(copy_id(f"case_{n:02d}", kind, "high"), random_maps(n)), by=sign * 5)
        for n in range(24)
        for kind, sign in (("blur", 1), ("dilated", -1))
    ]


@pytest.fixture(scope="module")
def specimens(cases, copies):
    found = [Specimen(place, case.case_id) for place, case in enumerate(cases)]
    for place, copy in enumerate(copies, start=len(cases)):
        case_id, kind, _ = copy.case_id.split("~")
        found.append(Specimen(place, case_id, kind))
    return found


@pytest.fixture(scope="module")
def evidence(cases, copies):
    return evidence_of([*cases, *copies])


def test_designs_of_cases_are_those_of_the_data_set_as_it_is(evidence, specimens):
    designs = training_designs(evidence, specimens, FAMILIES, seed=0)
    assert designs[:24] == pytest.approx(design(evidence.z(np.arange(24)), evidence.groups))
    # One copy in the place of its case moves the medians little, and where it was spoiled it stands out.
    quality = sorted(set(evidence.groups)).index("quality") - len(set(evidence.groups)) - 1
    assert designs[24:, quality].min() > np.median(designs[:24, quality])


def test_a_copy_is_measured_among_copies_of_its_family_only(monkeypatch, evidence, specimens):
    asked, measured = [], type(evidence).z

    def spy(self, members=None):
        asked.append(members)
        return measured(self, members)

    monkeypatch.setattr(type(evidence), "z", spy)
    training_designs(evidence, specimens, FAMILIES, seed=0)
    kinds = {one.position: one.kind for one in specimens}
    families = [{FAMILIES[kinds[place]] for place in members if kinds[place]} for members in asked]
    assert [len(found) for found in families] == [0] + [1] * (len(asked) - 1)
    assert max(sum(kinds[place] is not None for place in members) for members in asked) == 2  # a tenth of 24


def test_a_case_and_its_copies_are_in_one_fold_and_folds_are_even():
    folds = case_folds([f"c{n}" for n in (1, 1, 2, 3, 3, 3, 4, 5, 6)], seed=0)
    assert sorted(np.bincount(list(folds.values()))) == [2, 2, 2]


def test_faults_of_a_family_never_seen_are_found(evidence, specimens):
    designs = training_designs(evidence, specimens, FAMILIES, seed=0)
    unseen = suspicion_of_unseen_kinds(designs, specimens, FAMILIES, seed=0)
    assert set(unseen) == {"resolution", "boundary"}
    for family, votes in unseen.items():
        dirty = [i for i, one in enumerate(specimens) if one.kind and FAMILIES[one.kind] == family]
        others = [i for i, one in enumerate(specimens) if one.kind and FAMILIES[one.kind] != family]
        assert auroc(votes[dirty], votes[:24]) > 0.95
        assert np.isnan(votes[others]).all()


def test_a_held_out_kind_and_the_case_itself_are_not_trained_on(monkeypatch, evidence, specimens):
    designs = training_designs(evidence, specimens, FAMILIES, seed=0)
    seen = []

    class Spy:
        def __init__(self, used, dirty):
            seen.append((used, dirty))

        def suspicion(self, judged):
            return np.zeros(len(judged))

    monkeypatch.setattr("auvtool.calibration.DirtModel", Spy)
    CrossFitted(designs, specimens, held_out=frozenset({"blur"}), seed=0)
    folds = case_folds([one.case_id for one in specimens], seed=0)
    for fold, (used, dirty) in enumerate(seen):
        expected = [i for i, one in enumerate(specimens) if folds[one.case_id] != fold and one.kind != "blur"]
        assert np.array_equal(used, designs[expected])
        assert dirty.tolist() == [specimens[i].kind is not None for i in expected]


def test_a_label_of_the_fold_is_not_trained_on_under_another_name(monkeypatch, evidence, specimens):
    designs = training_designs(evidence, specimens, FAMILIES, seed=0)
    folds = case_folds([one.case_id for one in specimens], seed=0)
    copy = next(i for i, one in enumerate(specimens) if one.kind == "dilated" and folds[one.case_id] == 0)
    donor = next(case_id for case_id, fold in folds.items() if fold == 1)
    given = [*specimens[:copy], replace(specimens[copy], donor=donor), *specimens[copy + 1 :]]
    n_used = []
    monkeypatch.setattr("auvtool.calibration.DirtModel", lambda used, _: n_used.append(len(used)))
    CrossFitted(designs, specimens, seed=0)
    CrossFitted(designs, given, seed=0)
    assert np.subtract(n_used[3:], n_used[:3]).tolist() == [0, -1, 0]


def test_probabilities_keep_the_order_and_the_prior():
    rng = np.random.default_rng(0)
    dirty = np.repeat([False, True], 500)
    votes = np.clip(np.where(dirty, rng.normal(0.6, 0.15, 1000), rng.normal(0.4, 0.15, 1000)), 0, 1)
    scale = ProbabilityScale.fit(votes, dirty, prior=0.1)
    probabilities = scale.probability(np.array([0.1, 0.4, 0.6, 0.9]))
    assert (np.diff(probabilities) > 0).all()
    # Weighted as one dirty case in ten, the mean probability is the prior: Platt's scaling is unbiased.
    found = scale.probability(votes)
    assert 0.9 * found[~dirty].mean() + 0.1 * found[dirty].mean() == pytest.approx(0.1, abs=0.005)


def test_calibrate_ranks_spoiled_cases_first_and_says_why(cases, copies):
    dirty = {"case_03", "case_17"}
    data_set = [
        spoiled(case_features(case.case_id, random_maps(n)), by=12) if case.case_id in dirty else case
        for n, case in enumerate(cases)
    ]
    found = calibrate(data_set, copies, HEADER, prior=0.1, seed=0)
    whole = {row["case"]: row for row in found.rows if row["class_id"] is None}
    assert set(sorted(whole, key=lambda case: -whole[case]["value"])[:2]) == dirty
    assert "quality" in whole["case_03"]["reason"]
    assert all(0 < row["value"] < 1 for row in whole.values())
    assert {row["auv"] for row in whole.values()} >= {0.0, 1.0}
    model, plain = found.mean_auroc("high")
    assert model > 0.9
    assert plain > 0.8
    assert np.isnan(found.mean_auroc("low")).all()
    assert calibrate(data_set, copies, HEADER, prior=0.1, seed=0).rows == found.rows
    odds = [
        [row["value"] for row in calibrate(data_set, copies, HEADER, prior=p, seed=0).rows if row["class_id"] is None]
        for p in (0.1, 0.3)
    ]
    assert np.argsort(odds[0]).tolist() == np.argsort(odds[1]).tolist()
    assert (np.array(odds[1]) > odds[0]).all()


def test_scores_of_calibrate_are_scores(tmp_path, cases, copies):
    from auvtool.keep_list import judge
    from auvtool.tables import write_table

    rows = calibrate(cases, copies, HEADER, prior=0.1, seed=0).rows
    write_table(rows, SCORES, tmp_path / "S.csv", force=False)
    read = parse_table((tmp_path / "S.csv").read_bytes(), SCORES, "S.csv")
    kept = judge(read, 0.9)
    assert sum(row["keep"] for row in kept) == 22
    assert any("z " in str(row["reason"]) for row in kept if not row["keep"])


def test_too_little_to_learn_from_is_said(cases, copies):
    with pytest.raises(InputError, match="at least 6 cases and 12 copies"):
        calibrate(cases, copies[:5], HEADER, prior=0.1, seed=0)
