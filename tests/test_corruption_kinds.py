"""What every kind of fault keeps to."""

from functools import cache

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from auvtool import phantoms
from auvtool.corruption.cases import LEVELS, CleanCase, Corrupted, Level
from auvtool.corruption.images import peak_signal_to_noise
from auvtool.corruption.kinds import KINDS, corrupt_arrays
from auvtool.corruption.labels import severity_dice

EVERY = [(kind, level) for kind, facts in KINDS.items() for level in facts.levels]
GRADED = [kind for kind, facts in KINDS.items() if len(facts.levels) > 1]
IMAGE_KINDS = [kind for kind, facts in KINDS.items() if facts.of == "image"]
LABEL_KINDS = [kind for kind, facts in KINDS.items() if facts.of == "label"]


@cache
def clean_case(*, is_ct: bool = True) -> CleanCase:
    first, second = (phantoms.ct_phantom(np.random.default_rng(seed), shape=(10, 64, 80)) for seed in (0, 1))
    image = first.image.astype(np.float32)
    return CleanCase(
        image=np.stack([image, 0.5 * image + 7.0]),
        label=first.label,
        spacing_mm=first.spacing_mm,
        class_ids=tuple(int(value) for value in np.unique(first.label) if value),
        donor=second.label,
        is_ct=is_ct,
    )


def tiny(label: np.ndarray, *, donor: np.ndarray | None = None) -> CleanCase:
    image = np.random.default_rng(0).normal(size=(1, *label.shape)).astype(np.float32)
    return CleanCase(image, label, (3.0, 1.0, 2.0), (1, 2, 3), donor)


def spoil(clean: CleanCase, kind: str, level: Level, seed: int = 0) -> Corrupted:
    return corrupt_arrays(clean, kind, level, np.random.default_rng(seed))


@pytest.mark.parametrize(("kind", "level"), EVERY)
def test_a_fault_spoils_its_part_and_nothing_else(kind: str, level: Level) -> None:
    clean = clean_case()
    before = (clean.image.copy(), clean.label.copy())
    corrupt, again = (spoil(clean, kind, level, seed=3) for _ in range(2))
    np.testing.assert_array_equal(clean.image, before[0])
    np.testing.assert_array_equal(clean.label, before[1])
    assert corrupt.image.tobytes() == again.image.tobytes()
    assert corrupt.label.tobytes() == again.label.tobytes()
    assert corrupt.parameters == again.parameters
    assert (corrupt.image.shape, corrupt.image.dtype) == (clean.image.shape, np.float32)
    assert (corrupt.label.shape, corrupt.label.dtype) == (clean.label.shape, clean.label.dtype)
    assert np.isfinite(corrupt.image).all()
    assert set(np.unique(corrupt.label)) <= {0, *clean.class_ids}
    assert np.array_equal(corrupt.image, clean.image) == (KINDS[kind].of == "label")
    assert np.array_equal(corrupt.label, clean.label) == (KINDS[kind].of == "image")
    assert all(type(value) in {int, float, str} for value in corrupt.parameters.values())


@pytest.mark.parametrize("kind", GRADED)
def test_a_higher_level_is_worse(kind: str) -> None:
    """On average over draws: Dice of labels, peak signal-to-noise ratio of images."""
    clean = clean_case()
    severity = []
    for level in LEVELS:
        corrupt = [spoil(clean, kind, level, seed) for seed in range(6)]
        if KINDS[kind].of == "label":
            severity.append(np.mean([severity_dice(one.label, clean.label) for one in corrupt]))
        else:
            severity.append(np.mean([peak_signal_to_noise(one.image, clean.image) or np.nan for one in corrupt]))
    assert severity[0] > severity[1] > severity[2]
    if KINDS[kind].of == "label":
        assert severity[2] < 0.99


@pytest.mark.parametrize("kind", IMAGE_KINDS)
def test_channels_get_the_same_draw(kind: str) -> None:
    """The second channel is an affine map of the first, which all faults but those of CT units respect."""
    corrupt = spoil(clean_case(is_ct=False), kind, "high", seed=1).image
    expected = 0.5 * corrupt[0] + 7.0
    if kind == "wrong-units":  # ten times each, plus the same constant
        expected = 10.0 * clean_case().image[1] + 1000.0
    np.testing.assert_allclose(corrupt[1], expected, rtol=1e-3, atol=0.5)


@pytest.mark.parametrize("is_ct", [True, False])
@pytest.mark.parametrize("kind", [kind for kind, facts in KINDS.items() if facts.null_test])
def test_null_tests_are_affine(kind: str, is_ct: bool) -> None:
    clean = clean_case(is_ct=is_ct)
    for level in KINDS[kind].levels:
        # What lies below -1024 is no measurement.
        measured = np.maximum(clean.image, -1024.0) if is_ct and kind == "wrong-units" else clean.image
        for before, after in zip(measured, spoil(clean, kind, level).image, strict=True):
            gain, offset = np.polyfit(before.ravel().astype(float), after.ravel(), 1)
            np.testing.assert_allclose(after, gain * before + offset, atol=0.05)
            assert gain > 0.0


def test_null_tests_are_of_the_null_family_and_only_they() -> None:
    assert {kind for kind, facts in KINDS.items() if facts.null_test} == {"contrast", "wrong-units"}
    assert all((facts.family == "null") == facts.null_test for facts in KINDS.values())
    assert all(facts.levels in {LEVELS, ("high",)} for facts in KINDS.values())
    assert all(facts.describes and "\n" not in facts.describes for facts in KINDS.values())


@pytest.mark.parametrize("kind", LABEL_KINDS)
def test_an_empty_label_has_nothing_to_spoil(kind: str) -> None:
    clean = tiny(np.zeros((2, 6, 6), np.uint8))
    with pytest.raises(ValueError, match=r"changes nothing|needs|no second"):
        spoil(clean, kind, "high")


@pytest.mark.parametrize("kind", ["swapped-classes", "missing-component", "missing-slices", "mirrored-label"])
def test_one_class_in_one_slice_in_one_piece_refuses_what_needs_more(kind: str) -> None:
    label = np.zeros((1, 7, 7), np.uint8)
    label[0, 2:5, 2:5] = 1
    with pytest.raises(ValueError, match=r"needs|no second|changes nothing"):
        spoil(tiny(label), kind, "high")


def test_without_a_donor_there_is_no_other_label() -> None:
    with pytest.raises(ValueError, match="label of another case"):
        spoil(tiny(np.ones((1, 3, 3), np.uint8)), "other-label", "high")


@pytest.mark.parametrize("kind", ["gaussian-noise", "rician-noise", "gamma", "spike", "contrast", "blur"])
def test_a_flat_image_refuses(kind: str) -> None:
    flat = CleanCase(np.full((1, 2, 6, 6), 4.0, np.float32), np.ones((2, 6, 6), np.uint8), (1.0, 1.0, 1.0), (1,))
    with pytest.raises(ValueError, match="changes nothing"):
        spoil(flat, kind, "high")


def test_one_slice_has_no_thicker_ones_and_is_mirrored_in_plane() -> None:
    clean = tiny(np.ones((1, 6, 6), np.uint8))
    with pytest.raises(ValueError, match="changes nothing"):
        spoil(clean, "thick-slices", "high")
    assert {spoil(clean, "flipped-axis", "high", seed).parameters["axis"] for seed in range(20)} == {"h", "w"}


def test_unknown_kinds_and_levels_are_refused() -> None:
    clean = tiny(np.ones((1, 3, 3), np.uint8))
    with pytest.raises(ValueError, match="no fault is called fog"):
        spoil(clean, "fog", "high")
    with pytest.raises(ValueError, match="no level low"):
        spoil(clean, "swapped-classes", "low")


@pytest.mark.parametrize(("kind", "level"), [(kind, "high") for kind in LABEL_KINDS])
def test_the_ignore_label_stays_where_it_is(kind: str, level: Level) -> None:
    clean = clean_case()
    label, donor = clean.label.copy(), np.array(clean.donor)
    label[:, :4], donor[:, 20:30] = 9, 9
    with_ignore = CleanCase(clean.image, label, clean.spacing_mm, clean.class_ids, donor)
    for seed in range(3):
        np.testing.assert_array_equal(spoil(with_ignore, kind, level, seed).label == 9, label == 9)


def test_kinds_say_what_was_drawn() -> None:
    clean = clean_case()
    corrupt = spoil(clean, "swapped-classes", "high")
    first, second = corrupt.parameters["class_id"], corrupt.parameters["other_class_id"]
    np.testing.assert_array_equal(corrupt.label == first, clean.label == second)
    shifted = spoil(clean, "shifted", "high")
    rows, columns = int(shifted.parameters["voxels_h"]), int(shifted.parameters["voxels_w"])
    moved = np.hypot(rows * clean.spacing_mm[1], columns * clean.spacing_mm[2])
    assert moved == pytest.approx(10.0, abs=clean.spacing_mm[1])
    np.testing.assert_array_equal(
        shifted.label[:, 20:40, 20:40], clean.label[:, 20 - rows : 40 - rows, 20 - columns : 40 - columns]
    )
    blobs = spoil(clean, "extra-blob", "high")
    added = (blobs.label != clean.label) & (blobs.label == blobs.parameters["class_id"])
    assert added.any()
    assert (blobs.label[clean.label > 0] == clean.label[clean.label > 0]).all()


@settings(deadline=None, max_examples=60)
@given(
    label=hnp.arrays(
        np.uint8, st.tuples(st.integers(1, 4), st.integers(1, 7), st.integers(1, 7)), elements=st.integers(0, 4)
    ),
    what=st.sampled_from(EVERY),
    seed=st.integers(0, 3),
)
def test_any_small_case_is_spoilt_or_refused(label: np.ndarray, what: tuple[str, Level], seed: int) -> None:
    clean = tiny(label, donor=np.ones((2, 3, 2), np.int16))
    before = (clean.image.copy(), label.copy())
    try:
        corrupt = spoil(clean, *what, seed=seed)
    except ValueError:
        pass
    else:
        assert (corrupt.image.shape, corrupt.label.shape) == (clean.image.shape, label.shape)
        assert corrupt.label.dtype == label.dtype
        assert np.isfinite(corrupt.image).all()
        np.testing.assert_array_equal(corrupt.label == 4, label == 4)
    np.testing.assert_array_equal(clean.image, before[0])
    np.testing.assert_array_equal(label, before[1])
