import numpy as np
import pytest

from auvtool.quantifiers.deviation import deviation, group_deviations, most_deviant_class

GROUPS = ["label", "label", "image"]


def test_the_most_deviant_class_speaks_with_its_sign():
    z = np.array([[[1.0, -3.0], [np.nan, 2.0], [np.nan, np.nan]]])
    assert most_deviant_class(z).tolist() == [[-3.0, 2.0, 0.0]]


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
