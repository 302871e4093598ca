from pathlib import Path

import numpy as np
import pytest

from auvtool.dataset import open_dataset
from auvtool.demonstration import phantom_data
from auvtool.demonstration.phantom_data import DataPlan
from auvtool.schema import ANSWER_KEY, Row
from auvtool.tables import read_table
from auvtool.volume import read_image, read_label

PLAN = DataPlan(n_training=9, n_validation=1, n_test=1, shape=(4, 48, 64), seed=3)


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("demo")
    seen: list[str] = []
    phantom_data.write_phantom_dataset(folder, plan=PLAN, on_case=seen.append)
    assert seen == [f"phantom_{number:03d}" for number in range(1, 11)]
    return folder


def key_of(folder: Path) -> dict[str, Row]:
    return {str(row["case"]): row for row in read_table(folder / phantom_data.ANSWER_KEY_NAME, ANSWER_KEY)}


def test_the_data_set_is_a_raw_nnunet_one(written: Path) -> None:
    dataset = open_dataset(written / phantom_data.DATASET_NAME)
    assert [case.case_id for case in dataset.cases] == list(key_of(written))
    assert [item.name for item in dataset.classes] == list(phantom_data.phantoms.CLASS_NAMES)
    assert dataset.channel_names == ("CT",)
    assert {file.name for file in (written / phantom_data.DATASET_NAME / "labelsTs").iterdir()} == {
        "phantom_010.nii.gz"
    }
    assert [item.name for item in written.iterdir() if item.name.startswith(".")] == []


def test_each_fault_once_and_never_in_validation(written: Path) -> None:
    key = key_of(written)
    assert sorted(str(row["kind"]) for row in key.values() if row["dirty"]) == sorted(
        f.kind for f in phantom_data.FAULTS
    )
    assert not key["phantom_009"]["dirty"]
    assert all(row["kind"] is None and row["dice"] == 1.0 for row in key.values() if not row["dirty"])


def test_a_fault_spoils_the_image_or_the_label_and_the_key_grades_it(written: Path) -> None:
    dataset = open_dataset(written / phantom_data.DATASET_NAME)
    key = key_of(written)
    for position, case in enumerate(dataset.cases):
        assert case.label is not None
        clean = phantom_data._draw(PLAN, position)
        (image, geometry), (label, _) = read_image(case.images), read_label(case.label)
        assert geometry.spacing_mm == pytest.approx(clean.spacing_mm)
        kind = str(key[case.case_id]["kind"] or "")
        assert np.array_equal(image[0], clean.image) == (not kind.startswith("image"))
        same_label = np.array_equal(label, clean.label)
        assert same_label == (not kind or kind.startswith("image"))
        dice = key[case.case_id]["dice"]
        assert isinstance(dice, float)
        assert (dice == 1.0) == same_label


def test_another_seed_spoils_other_cases() -> None:
    assert set(phantom_data.dirty_positions(DataPlan(seed=0))) != set(phantom_data.dirty_positions(DataPlan(seed=1)))


def test_too_few_cases_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="cannot hold"):
        phantom_data.write_phantom_dataset(tmp_path, plan=DataPlan(n_training=7), on_case=print)
