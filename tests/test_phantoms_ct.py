import numpy as np
import pytest

from auvtool import phantoms


@pytest.fixture(scope="module")
def cases() -> list[phantoms.Phantom]:
    return [phantoms.ct_phantom(np.random.default_rng(seed)) for seed in range(4)]


def test_every_class_is_in_every_case(cases: list[phantoms.Phantom]) -> None:
    for case in cases:
        assert set(np.unique(case.label)) == {0, *range(1, len(phantoms.CLASS_NAMES) + 1)}
        assert case.image.shape == case.label.shape == (8, 72, 96)
        assert case.image.dtype == np.int16


def test_organs_have_the_intensities_and_volumes_of_ct(cases: list[phantoms.Phantom]) -> None:
    hounsfield = {
        phantoms.LIVER: (80, 150),
        phantoms.SPLEEN: (95, 150),
        phantoms.RIGHT_KIDNEY: (110, 210),
        phantoms.LEFT_KIDNEY: (110, 210),
        phantoms.AORTA: (130, 215),
        phantoms.LESION: (10, 95),
    }
    volume_ml = {
        phantoms.LIVER: (400, 2500),
        phantoms.SPLEEN: (30, 400),
        phantoms.RIGHT_KIDNEY: (40, 250),
        phantoms.LEFT_KIDNEY: (40, 250),
        phantoms.AORTA: (10, 80),
        phantoms.LESION: (2, 150),
    }
    for case in cases:
        for class_id, (low, high) in hounsfield.items():
            region = case.label == class_id
            assert low < np.median(case.image[region]) < high
            assert volume_ml[class_id][0] < region.sum() * np.prod(case.spacing_mm) / 1000 < volume_ml[class_id][1]
        # A lesion is darker than its liver, air surrounds the body, bone is the brightest.
        assert np.median(case.image[case.label == 6]) < np.median(case.image[case.label == 1]) - 20
        assert np.median(case.image[:, :4, :4]) < -950
        assert case.image.max() > 300


def test_the_patient_lies_as_radiologists_see_him(cases: list[phantoms.Phantom]) -> None:
    for case in cases:
        column = {class_id: np.nonzero(case.label == class_id)[2].mean() for class_id in range(1, 7)}
        middle = (case.label.shape[2] - 1) / 2
        assert column[phantoms.LIVER] < middle < column[phantoms.SPLEEN]  # the liver is on the patient's right
        assert column[phantoms.RIGHT_KIDNEY] < column[phantoms.AORTA] < column[phantoms.LEFT_KIDNEY]


def test_equal_generators_give_equal_cases_and_others_vary(cases: list[phantoms.Phantom]) -> None:
    again = phantoms.ct_phantom(np.random.default_rng(0))
    np.testing.assert_array_equal(again.image, cases[0].image)
    np.testing.assert_array_equal(again.label, cases[0].label)
    assert len({case.spacing_mm for case in cases}) == len(cases)
    assert len({int((case.label == phantoms.LIVER).sum()) for case in cases}) == len(cases)


def test_noise_has_the_deviation_asked_for_and_mean_zero_in_each_slice() -> None:
    noise = phantoms.ct_noise(np.random.default_rng(0), (4, 64, 64), deviation=12.0)
    assert noise.std() == pytest.approx(12.0, rel=1e-5)
    np.testing.assert_allclose(noise.mean(axis=(1, 2)), 0.0, atol=1e-4)
    # Band-limited: neighbours along w are correlated, slices are not.
    assert np.corrcoef(noise[:, :, :-1].ravel(), noise[:, :, 1:].ravel())[0, 1] > 0.1
    assert abs(np.corrcoef(noise[:-1].ravel(), noise[1:].ravel())[0, 1]) < 0.05


def test_smooth_field_passes_through_its_knots() -> None:
    field = phantoms.smooth_field(np.random.default_rng(1), (7, 9, 11), knots=(4, 5, 6))
    knots = np.random.default_rng(1).uniform(-1, 1, (4, 5, 6))
    np.testing.assert_allclose(field[::2, ::2, ::2], knots, atol=1e-6)


@pytest.mark.parametrize("shape", [(3, 72, 96), (8, 40, 48), (8, 60, 96)])
def test_a_shape_that_cannot_hold_the_body_is_refused(shape: tuple[int, int, int]) -> None:
    with pytest.raises(ValueError, match="phantom needs"):
        phantoms.ct_phantom(np.random.default_rng(0), shape=shape)
