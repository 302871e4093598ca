import numpy as np
import pytest
from features import case_features, random_maps, write_features

from auvtool.errors import UsageError
from auvtool.explanation import driving_class, explain
from auvtool.feature_store import FeatureFile
from auvtool.quantification import read_cases
from auvtool.score_options import score_options
from auvtool.scoring import score_cases


def diagonal(values):
    """A map (r, r, 2) of which the singular values of d_hw are `values`."""
    volume = np.zeros((len(values), len(values), 2))
    volume[range(len(values)), range(len(values)), 0] = values
    return volume


@pytest.fixture(scope="module")
def features(tmp_path_factory):
    """Case poor has a liver of low scale; its tumour is as in the other cases."""
    equal, uneven = [1.0, 1.0, 1.0], [3.0, 1.0, 0.0]
    cases = [case_features(name, [diagonal(equal), diagonal(uneven)]) for name in "abcd"]
    cases.append(case_features("poor", [diagonal([9.0, 3.0, 0.0]), diagonal(uneven)]))
    path = write_features(tmp_path_factory.mktemp("explanation") / "F.h5", cases)
    with FeatureFile(path) as file:
        return file.header, read_cases(file)


def explained(features, case_id, quantifier="auv", **options):
    header, cases = features
    return explain(score_cases(cases, header, score_options(quantifier, **options)), cases, case_id)


def test_the_class_that_drove_it_by_hand(features):
    liver, tumour, whole = explained(features, "poor")
    scale = -(0.9 * np.log(0.9) + 0.1 * np.log(0.1)) / np.log(3)
    assert liver["value"] == pytest.approx(scale)
    assert liver["median"] == pytest.approx(1.0)
    assert liver["push"] == pytest.approx((1.0 - scale) / 2)
    assert tumour["push"] == pytest.approx(0.0)
    assert driving_class([liver, tumour, whole]) == ("liver", "uncertain")
    assert (whole["rank"], whole["n_ranked"], whole["auv"]) == (1, 5, 1.0)
    # What the classes push is how far the case lies from where the medians of its classes put it.
    assert liver["push"] + tumour["push"] == pytest.approx((1.0 + scale) / 2 - whole["value"])


def test_the_driver_is_on_the_side_where_the_case_lies():
    def rows(*pushes):
        return [{"class_name": f"{number}", "push": push} for number, push in enumerate(pushes)]

    assert driving_class(rows(-0.03, 0.01, -0.001, None)) == ("0", "certain")
    assert driving_class(rows(-0.03, 0.05)) == ("1", "uncertain")
    assert driving_class(rows(0.0, 0.0)) is None
    assert driving_class(rows(None)) is None


def test_energies_by_hand(features):
    liver, tumour, whole = explained(features, "poor")
    assert [liver[f"energy_{j}"] for j in (1, 2, 3)] == pytest.approx([0.9, 0.1, 0.0])
    assert (liver["n_singular_values"], liver["n_for_90"]) == (3, 1)
    assert explained(features, "a")[0]["n_for_90"] == 3
    linear = explained(features, "poor", scale={"energy": "linear"})[0]
    assert [linear[f"energy_{j}"] for j in (1, 2, 3)] == pytest.approx([0.75, 0.25, 0.0])
    assert "energy_1" not in whole
    assert tumour["energy_1"] == pytest.approx(0.9)


def test_size_percentiles(tmp_path):
    cases = [case_features(f"{n}", random_maps(n, shape=(3 + n, 9, 7))) for n in range(4)]
    with FeatureFile(write_features(tmp_path / "F.h5", cases)) as file:
        found = [explained((file.header, read_cases(file)), f"{n}")[2]["depth_percentile"] for n in range(4)]
    assert found == [25.0, 50.0, 75.0, 100.0]


def test_sides_are_turned_so_that_push_means_uncertain(features):
    uncertain = explained(features, "a", "variance")
    value, median = (float(uncertain[0][name]) for name in ("value", "median"))
    assert uncertain[0]["push"] == pytest.approx((value - median) / 2)


def test_no_push_where_a_case_is_not_made_of_its_classes(features):
    for quantifier, options in (("eaoa", {}), ("depth", {}), ("auv", {"two_sided": True})):
        rows = explained(features, "a", quantifier, **options)
        assert {row["push"] for row in rows} == {None}
        assert driving_class(rows) is None


def test_absent_class_and_unknown_case(tmp_path, features):
    cases = [case_features("a", [random_maps(1)[0], None]), case_features("b", random_maps(2))]
    with FeatureFile(write_features(tmp_path / "F.h5", cases)) as file:
        rows = explained((file.header, read_cases(file)), "a")
    assert (rows[1]["status"], rows[1]["value"], rows[1]["rank"], rows[1]["volume_percentile"]) == ("absent",) + (
        None,
    ) * 3
    with pytest.raises(UsageError, match="--explain: expected a case of the file, got x"):
        explained(features, "x")
