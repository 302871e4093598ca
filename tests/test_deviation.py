import numpy as np
import pytest

from auvtool.quantifiers.deviation import class_deviations, deviation, group_deviations, most_deviant_class

GROUPS = ["label", "label", "image"]


def test_the_most_deviant_class_speaks_with_its_sign():
    z = np.array([[[1.0, -3.0], [np.nan, 2.0], [np.nan, np.nan]]])
    np.testing.assert_array_equal(most_deviant_class(z), [[-3.0, 2.0, np.nan]])


def test_group_deviations_by_hand():
    # One number of each group speaks: the only one of the image, the larger one of the label.
    z = np.array([[1.0, 0.5, 0.0], [-3.0, 0.0, 0.0], [0.0, 0.0, -4.0]])
    found = group_deviations(z, GROUPS)
    assert found == pytest.approx(np.log([[1, 2], [1, 4], [5, 1]]))  # image before label
    expected = [np.log(2) / 2**0.25, np.log(4) / 2**0.25, np.log(5) / 2**0.25]
    assert deviation(z[..., None], GROUPS) == pytest.approx(expected)


def test_a_twentieth_of_a_large_group_speaks():
    z = np.zeros((1, 60))
    z[0, [3, 17, 40]] = [1.0, -3.0, 7.0]
    assert group_deviations(z, ["a"] * 60) == pytest.approx(np.log([[2 * 4 * 8]]) / 3)


def test_a_group_of_many_names_weighs_as_one_of_few():
    z = np.random.default_rng(0).normal(size=(30, 2, 1))
    many = np.concatenate([np.repeat(z[:, :1], 50, axis=1), z[:, 1:]], axis=1)
    assert deviation(many, ["a"] * 50 + ["b"]) == pytest.approx(deviation(z, ["a", "b"]))


def test_which_way_evidence_lies_does_not_matter():
    z = np.random.default_rng(1).normal(size=(20, 3, 2))
    assert deviation(-z, GROUPS) == pytest.approx(deviation(z, GROUPS))


def test_a_class_is_judged_by_its_own_evidence():
    z = np.array([[[1.0, -3.0], [9.0, np.nan], [0.0, 2.0]]])  # the second name is of the case
    of_case = np.array([False, True, False])
    found = class_deviations(z, ["label", "image", "shape"], of_case)
    assert found[:, 0] == pytest.approx([np.log(2) / 2**0.25, ((np.log(4) ** 4 + np.log(3) ** 4) / 2) ** 0.25])


def test_what_a_case_lacks_does_not_speak_for_it():
    z = np.array([[[3.0], [np.nan], [0.0]], [[3.0], [np.nan], [np.nan]], [[np.nan]] * 3])
    found = group_deviations(most_deviant_class(z), GROUPS)
    assert found == pytest.approx(np.array([[0, np.log(4)], [np.nan, np.log(4)], [np.nan, np.nan]]), nan_ok=True)
    assert deviation(z, GROUPS) == pytest.approx([np.log(4) / 2**0.25, np.log(4), np.nan], nan_ok=True)
