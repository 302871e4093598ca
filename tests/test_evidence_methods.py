from itertools import product

import numpy as np
import pytest
from features import case_features, random_maps

from auvtool import evidence_methods
from auvtool.case_features import FeatureHeader
from auvtool.detection_methods import Item, QuantifierMethod, ScaleMethod
from auvtool.evidence import MODEL_GROUPS
from auvtool.evidence_methods import CalibratedMethod, DeviationMethod, EvidenceTable
from auvtool.quantifiers.deviation import deviation
from auvtool.score_options import score_options

HEADER = FeatureHeader("identity", "1", None, "mask-box", "raw", "D", ((1, "liver"), (2, "tumour")))
NOTHING = frozenset()


def an_item(number, kind=None):
    case_id = f"case_{number:02d}"
    own_id = case_id if kind is None else f"{case_id}~{kind}~high"
    maps = random_maps([number, *(kind or "").encode()], shape=(4 + number % 4, 9, 7))
    return Item(case_features(own_id, maps), case_id, kind)


@pytest.fixture(scope="module")
def items():
    """Twelve cases, then their copies of three kinds, of which "contrast" is a null test."""
    copies = [an_item(number, kind) for kind, number in product(("blur", "holes", "contrast"), range(12))]
    return [*(an_item(number) for number in range(12)), *copies]


@pytest.fixture(scope="module")
def table(items):
    return EvidenceTable(items)


def test_deviation_is_that_of_score_in_each_data_set(items, table):
    method = DeviationMethod(table)
    assert method.of_data_set
    scored = QuantifierMethod("deviation", score_options("deviation"), HEADER)
    for data_set in (items[:12], [*items[:5], *items[17:24]], [items[20], *items[:8], items[21]]):
        expected = scored.values(data_set, held_out=NOTHING)
        np.testing.assert_allclose(method.values(data_set, held_out=NOTHING), expected, rtol=1e-9)


def test_halves_of_deviation_read_their_own_groups(items, table):
    groups = set(table.evidence.groups)
    halves = (MODEL_GROUPS, groups - MODEL_GROUPS)
    assert groups > MODEL_GROUPS
    z = table.evidence.z(np.arange(12))
    for own, others in (halves, halves[::-1]):
        method = DeviationMethod(table, name="half", without=frozenset(others))
        used = [place for place, group in enumerate(table.evidence.groups) if group in own]
        expected = deviation(z[:, used], [table.evidence.groups[place] for place in used])
        np.testing.assert_allclose(method.values(items[:12], held_out=NOTHING), expected)
        assert not np.allclose(expected, DeviationMethod(table).values(items[:12], held_out=NOTHING))


def test_a_calibrated_score_is_trained_without_what_is_held_out_once(items, table, monkeypatch):
    trained = []

    class Spy:
        def __init__(self, designs, specimens, *, held_out, seed):
            trained.append((held_out, seed))
            assert len(designs) == len(specimens)
            assert {one.kind for one in specimens} == {None, "blur", "holes"}  # no null test is learnt from
            assert [items[one.position].case_id for one in specimens] == [one.case_id for one in specimens]

        def suspicion(self, designs, case_ids):
            assert case_ids == [f"case_{number:02d}" for number in range(12)]
            return designs[:, -1]

    monkeypatch.setattr(evidence_methods, "CrossFitted", Spy)
    method = CalibratedMethod(table, {"blur": False, "holes": False, "contrast": True}, seed=5)
    data_set = [*items[:10], *items[22:24]]
    for held_out in ({"blur"}, {"blur"}, {"holes", "dilated"}, {"blur"}):
        found = method.values(data_set, held_out=frozenset(held_out))
        # The last feature of a design is the deviation, in the data set that is judged.
        np.testing.assert_allclose(found, DeviationMethod(table).values(data_set, held_out=NOTHING))
    assert trained == [(frozenset({"blur"}), 5), (frozenset({"holes", "dilated"}), 5)]


def test_a_calibrated_score_repeats_and_depends_on_what_is_held_out(items, table):
    null_tests = {"blur": False, "holes": False, "contrast": True}
    one, other = (CalibratedMethod(table, null_tests, seed=0) for _ in range(2))
    data_set = [*items[:10], *items[22:24]]
    found = one.values(data_set, held_out=frozenset({"blur"}))
    assert np.isfinite(found).all()
    np.testing.assert_array_equal(other.values(data_set, held_out=frozenset({"blur"})), found)
    assert not np.array_equal(one.values(data_set, held_out=frozenset({"holes"})), found)


@pytest.mark.parametrize(
    ("two_sided", "residualise"), [*product((False, True), ((), ("volume",), ("volume", "depth")))], ids=str
)
@pytest.mark.parametrize("energy", ["squared", "linear"])
def test_a_scale_looked_up_ranks_as_the_scale_measured(items, energy, two_sided, residualise):
    options = score_options("auv", scale={"energy": energy}, residualise=residualise, two_sided=two_sided)
    looked_up, measured = ScaleMethod("s", options, HEADER), QuantifierMethod("s", options, HEADER)
    assert looked_up.of_data_set == measured.of_data_set
    for data_set in (items[:12], [*items[:5], *items[17:24]], items[3:20]):
        found = looked_up.values(data_set, held_out=NOTHING)
        expected = measured.values(data_set, held_out=NOTHING)
        # Not by rank: on two sides of the median of an even number two cases are equal but for rounding.
        assert (np.diff(found[np.argsort(expected)]) >= -1e-12).all()
        assert (np.diff(expected[np.argsort(found)]) >= -1e-12).all()
        assert len(set(found.round(9))) >= len(found) - 1


def test_z_of_the_last_data_sets_are_kept_and_no_more_than_fit(items, monkeypatch):
    table = EvidenceTable(items)
    first, second = table.z(items[:12]), table.z(items[12:24])
    np.testing.assert_array_equal(first, table.evidence.z(np.arange(12)))
    np.testing.assert_array_equal(second, table.evidence.z(np.arange(12, 24)))
    assert table.z(items[:12]) is first
    monkeypatch.setattr(evidence_methods, "_MOST_BYTES", 2 * first.nbytes)
    table.z(items[24:36])
    assert table.z(items[12:24]) is second
    assert table.z(items[:12]) is not first
