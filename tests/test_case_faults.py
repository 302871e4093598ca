"""Faults put into cases as they are read (auvtool.faults)."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from phantoms import VOXELS, write_raw_dataset

from auvtool.case_extraction import input_state
from auvtool.cases import Case, Dataset, Fault
from auvtool.corruption.cases import CleanCase
from auvtool.corruption.kinds import KINDS, corrupt_arrays
from auvtool.dataset import open_dataset
from auvtool.errors import InputError
from auvtool.faults import copy_id, put_fault, read_case_with_fault, split_copy_id
from auvtool.volume import read_case


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return open_dataset(write_raw_dataset(tmp_path_factory.mktemp("raw") / "Dataset001_All", n_channels=2))


def copy_of(case: Case, kind: str, level: str, *, seed: int = 0) -> Case:
    return replace(case, case_id=copy_id(case.case_id, kind, level), fault=Fault(kind, level, seed))


@pytest.mark.parametrize("case_id", ["case_00", "a~b", "~", "x~blur~high"])
def test_copy_ids_can_be_split(case_id: str) -> None:
    assert split_copy_id(copy_id(case_id, "thick-slices", "low")) == (case_id, "thick-slices", "low")


@pytest.mark.parametrize("text", ["case_00", "a~b~c", "a~blur~extreme", "a~swapped-classes~low", "~blur~high", ""])
def test_other_ids_are_of_no_copy(text: str) -> None:
    assert split_copy_id(text) is None


def test_a_copy_and_its_case_get_the_same_voxels(dataset: Dataset) -> None:
    case = dataset.cases[1]
    copy = read_case_with_fault(copy_of(case, "gaussian-noise", "medium"), dataset)
    faulty = put_fault(read_case(case, dataset), Fault("gaussian-noise", "medium", 0), dataset)
    np.testing.assert_array_equal(copy.image, faulty.volume.image)
    assert (copy.case_id, faulty.volume.case_id) == ("case_01~gaussian-noise~medium", "case_01")
    assert copy.geometry == faulty.volume.geometry


def test_seed_case_kind_and_level_make_the_draw(dataset: Dataset) -> None:
    volumes = [read_case(case, dataset) for case in dataset.cases[:2]]
    faults = [Fault("gaussian-noise", level, seed) for level in ("low", "high") for seed in (0, 1)]
    noise = []
    for volume in volumes:
        for fault in faults:
            added = put_fault(volume, fault, dataset).volume.image[0] - volume.image[0]
            noise.append((added / added.std()).round(2).tobytes())
    assert len(set(noise)) == len(noise)


def test_without_a_fault_it_is_the_case(dataset: Dataset) -> None:
    case = dataset.cases[0]
    np.testing.assert_array_equal(read_case_with_fault(case, dataset).image, read_case(case, dataset).image)


def test_severity_by_hand(dataset: Dataset) -> None:
    volume = read_case(dataset.cases[0], dataset)
    swapped = put_fault(volume, Fault("swapped-classes", "high", 0), dataset)
    assert (swapped.dice, swapped.psnr) == (0.0, None)
    gone = put_fault(volume, Fault("missing-component", "high", 0), dataset)
    assert gone.dice == 0.5  # one of two classes
    lower = put_fault(volume, Fault("contrast", "high", 0), dataset)
    shares = [(0.25 * channel.var()) / np.ptp(channel) ** 2 for channel in volume.image]
    assert lower.psnr == pytest.approx(-10.0 * np.log10(np.mean(shares)), rel=1e-4)
    assert lower.dice == 1.0
    assert lower.parameters == {"gain": 0.5}


def test_an_image_fault_needs_no_label_and_draws_the_same(dataset: Dataset) -> None:
    case = copy_of(dataset.cases[0], "bias-field", "high")
    with_label, without = (read_case_with_fault(one, dataset) for one in (case, replace(case, label=None)))
    np.testing.assert_array_equal(with_label.image, without.image)
    assert without.label is None


def test_a_label_fault_needs_one(dataset: Dataset) -> None:
    with pytest.raises(InputError, match="expected a label to put dilated into, got none"):
        read_case_with_fault(replace(copy_of(dataset.cases[0], "dilated", "low"), label=None), dataset)


def test_a_fault_that_changes_nothing_is_an_error_of_the_case(tmp_path: Path) -> None:
    one_slice = open_dataset(write_raw_dataset(tmp_path / "Dataset001_All", shape=(1, 10, 12)))
    with pytest.raises(InputError, match=r"case_00: expected a case that thick-slices \(low\) can be put into, got"):
        read_case_with_fault(copy_of(one_slice.cases[0], "thick-slices", "low"), one_slice)


@pytest.mark.parametrize(("kind", "level"), [("fog", "high"), ("blur", "extreme"), ("other-label", "low")])
def test_an_unknown_fault_is_refused(dataset: Dataset, kind: str, level: str) -> None:
    with pytest.raises(InputError, match="expected a known fault at one of its levels"):
        put_fault(read_case(dataset.cases[0], dataset), Fault(kind, level, 0), dataset)


def test_the_label_of_another_case_is_its_file(dataset: Dataset) -> None:
    case, other = dataset.cases[0], dataset.cases[1]
    fault = Fault("other-label", "high", 0, donor=other.label)
    assert other.label is not None
    with pytest.raises(InputError, match="changes nothing"):  # all phantoms have the same label
        read_case_with_fault(replace(case, fault=fault), dataset)
    state = input_state(replace(case, fault=fault), dataset)
    assert other.label.name in state
    assert state.endswith("fault other-label high 0")
    assert "fault" not in input_state(case, dataset)
    assert len({input_state(replace(case, fault=Fault("blur", "high", seed)), dataset) for seed in (0, 1)}) == 2


def test_the_ignore_label_is_no_class(tmp_path: Path) -> None:
    ignoring = open_dataset(write_raw_dataset(tmp_path / "Dataset001_All", ignore=True))
    volume = read_case(ignoring.cases[0], ignoring)
    faulty = put_fault(volume, Fault("mirrored-label", "high", 0), ignoring)
    assert faulty.volume.label is not None
    assert volume.label is not None
    np.testing.assert_array_equal(faulty.volume.label == 3, volume.label == 3)
    assert np.count_nonzero(faulty.volume.label == 1) == VOXELS[1]
    assert faulty.dice == 0.0


def test_ct_is_told_by_the_channel_name(tmp_path: Path) -> None:
    folder = write_raw_dataset(tmp_path / "Dataset001_All")
    (folder / "dataset.json").write_text((folder / "dataset.json").read_text().replace("sequence_0", "CT"))
    for where, gain in ((open_dataset(folder), 1), (replace(open_dataset(folder), channel_names=("T2",)), 10)):
        faulty = put_fault(read_case(where.cases[0], where), Fault("wrong-units", "high", 0), where)
        assert faulty.parameters["gain"] == gain


def test_a_plain_folder_without_labels_takes_image_faults(dataset: Dataset) -> None:
    plain = open_dataset(dataset.cases[0].images[0].parent)
    copy = copy_of(plain.cases[0], "blur", "low")
    assert read_case_with_fault(copy, plain).image.shape == read_case(plain.cases[0], plain).image.shape


def test_it_is_what_corrupt_arrays_gives(dataset: Dataset) -> None:
    volume = read_case(dataset.cases[0], dataset)
    assert volume.label is not None
    clean = CleanCase(volume.image, volume.label, volume.geometry.spacing_mm, (1, 2))
    faulty = put_fault(volume, Fault("blur", "high", 5), dataset)
    drawn = corrupt_arrays(clean, "blur", "high", np.random.default_rng(0))  # blur draws nothing
    np.testing.assert_array_equal(faulty.volume.image, drawn.image)
    assert KINDS["blur"].of == "image"
