"""Data sets: nnU-Net raw layout, the `dataset` map, plain folders, and what is wrong with them."""

import json
import os
import pickle

import numpy as np
import pytest
from phantoms import BOXES, box_image, box_label, edit_dataset_json, write_raw_dataset, write_volume

from auvtool.dataset import open_dataset, require_labels
from auvtool.dataset_json import SemanticClass
from auvtool.errors import InputError
from auvtool.image_files import strip_channel


def test_raw_dataset(tmp_path):
    folder = write_raw_dataset(tmp_path / "Dataset001_Boxes", n_cases=2, n_channels=2)
    dataset = open_dataset(folder)
    assert dataset.name == "Dataset001_Boxes"
    assert [case.case_id for case in dataset.cases] == ["case_00", "case_01"]
    assert [path.name for path in dataset.cases[1].images] == ["case_01_0000.nii.gz", "case_01_0001.nii.gz"]
    assert dataset.cases[1].label == folder / "labelsTr/case_01.nii.gz"
    assert dataset.classes == (SemanticClass(1, "large", (1,)), SemanticClass(2, "small", (2,)))
    assert dataset.channel_names == ("sequence_0", "sequence_1")
    assert (dataset.has_regions, dataset.ignore_label, dataset.problems) == (False, None, ())
    assert dataset.label_values() == {0, 1, 2}
    assert pickle.loads(pickle.dumps(dataset)) == dataset  # noqa: S301  # worker processes get it so


def test_regions_and_ignore_keep_the_order_of_dataset_json(tmp_path):
    folder = write_raw_dataset(tmp_path / "d", regions=True, ignore=True)
    labels = {"background": 0, "zebra": [1, 2], "ant": 2, "ignore": 3}
    edit_dataset_json(folder, labels=labels, regions_class_order=[1, 2])
    dataset = open_dataset(folder)
    assert dataset.classes == (SemanticClass(1, "zebra", (1, 2)), SemanticClass(2, "ant", (2,)))
    assert dataset.has_regions
    assert dataset.ignore_label == 3
    assert dataset.label_values() == {0, 1, 2, 3}


@pytest.mark.parametrize("regions", [False, True])
def test_labels_are_those_of_nnunet(tmp_path, regions):
    """nnU-Net's own label manager sees the same labels, regions and ignore label."""
    from nnunetv2.utilities.label_handling.label_handling import LabelManager

    dataset = open_dataset(write_raw_dataset(tmp_path / "d", n_cases=1, regions=regions, ignore=True))
    theirs = LabelManager(dataset.raw["labels"], regions_class_order=dataset.raw.get("regions_class_order"))
    assert theirs.has_regions == dataset.has_regions
    assert theirs.ignore_label == dataset.ignore_label
    if regions:
        ours = [item.labels if len(item.labels) > 1 else item.labels[0] for item in dataset.classes]
        assert theirs.foreground_regions == ours
    else:
        assert theirs.foreground_labels == [item.class_id for item in dataset.classes]


def test_cases_are_those_of_nnunet(tmp_path):
    """Dots in ids, dotfiles and files of other endings: the same cases and files as nnU-Net finds."""
    from nnunetv2.utilities.utils import get_filenames_of_train_images_and_targets

    folder = write_raw_dataset(tmp_path / "d", prefix="scan.v1.2_", n_channels=2)
    (folder / "imagesTr/notes.txt").write_text("x")
    dataset = open_dataset(folder)
    theirs = get_filenames_of_train_images_and_targets(str(folder))
    assert [case.case_id for case in dataset.cases] == list(theirs) == ["scan.v1.2_00", "scan.v1.2_01", "scan.v1.2_02"]
    for case in dataset.cases:
        assert [str(path) for path in case.images] == theirs[case.case_id]["images"]
        assert str(case.label) == theirs[case.case_id]["label"]


def test_dotfiles_are_ignored(tmp_path):
    folder = write_raw_dataset(tmp_path / "d", n_cases=1)
    (folder / "imagesTr/._case_00_0000.nii.gz").write_bytes(b"mac")
    (folder / "imagesTr/.case_01_0000.nii.gz").write_bytes(b"")
    dataset = open_dataset(folder)
    assert [case.case_id for case in dataset.cases] == ["case_00"]
    assert dataset.problems == ()


def test_dataset_map_with_relative_paths_and_variables(tmp_path, monkeypatch):
    from nnunetv2.utilities.utils import get_filenames_of_train_images_and_targets

    folder = write_raw_dataset(tmp_path / "d", n_cases=2, as_map=True)
    monkeypatch.setenv("BOXES_AT", str(folder / "elsewhere"))
    record = json.loads((folder / "dataset.json").read_text())
    record["dataset"]["case_01"] = {
        "images": ["$BOXES_AT/images/case_01_0000.nii.gz"],
        "label": "${BOXES_AT}/labels/case_01.nii.gz",
    }
    (folder / "dataset.json").write_text(json.dumps(record))
    dataset = open_dataset(folder)
    theirs = get_filenames_of_train_images_and_targets(str(folder))
    assert [case.case_id for case in dataset.cases] == ["case_00", "case_01"]
    for case in dataset.cases:
        assert [str(path) for path in case.images] == theirs[case.case_id]["images"]
        assert str(case.label) == theirs[case.case_id]["label"]


def test_a_fault_of_one_case_is_a_problem_of_that_case(tmp_path):
    folder = write_raw_dataset(tmp_path / "d", n_cases=5, n_channels=2)
    (folder / "imagesTr/case_01_0001.nii.gz").unlink()
    (folder / "imagesTr/case_02_0000.nii.gz").unlink()
    (folder / "imagesTr/case_03_0000.nii.gz").rename(folder / "imagesTr/case_03.nii.gz")
    (folder / "imagesTr/case_03_0001.nii.gz").unlink()
    dataset = open_dataset(folder)
    assert [case.case_id for case in dataset.cases] == ["case_00", "case_04"]
    found = {problem.case_id: problem.error for problem in dataset.problems}
    assert list(found) == ["case_01", "case_02", "case_03"]
    assert "expected 2 channel files, got 1" in found["case_01"]
    assert "case_02_0000.nii.gz: expected an image for every channel from 0000 on, got only 0001" in found["case_02"]
    assert "expected a channel number in the name" in found["case_03"]


def test_missing_file_of_the_map_is_a_problem_of_that_case(tmp_path):
    folder = write_raw_dataset(tmp_path / "d", n_cases=3, as_map=True)
    (folder / "elsewhere/labels/case_01.nii.gz").unlink()
    record = json.loads((folder / "dataset.json").read_text())
    record["dataset"]["case_02"] = {"images": "one.nii.gz"}
    (folder / "dataset.json").write_text(json.dumps(record))
    dataset = open_dataset(folder)
    assert [case.case_id for case in dataset.cases] == ["case_00"]
    assert [problem.case_id for problem in dataset.problems] == ["case_01", "case_02"]
    assert "case_01.nii.gz: expected the file that dataset.json names, got none" in dataset.problems[0].error


def test_image_without_label(tmp_path):
    folder = write_raw_dataset(tmp_path / "d", n_cases=2)
    (folder / "labelsTr/case_01.nii.gz").unlink()
    dataset = open_dataset(folder)
    assert [case.label is None for case in dataset.cases] == [False, True]
    labelled = require_labels(dataset)
    assert [case.case_id for case in labelled.cases] == ["case_00"]
    assert [problem.case_id for problem in labelled.problems] == ["case_01"]
    assert "expected a label for this image, got none" in labelled.problems[0].error


def test_no_labels_at_all(tmp_path):
    dataset = open_dataset(write_raw_dataset(tmp_path / "d", labels=False))
    assert all(case.label is None for case in dataset.cases)
    with pytest.raises(InputError, match="expected labels for the images, got none"):
        require_labels(dataset)


def test_labels_from_another_folder(tmp_path):
    folder = write_raw_dataset(tmp_path / "d", n_cases=1)
    (folder / "labelsTr").rename(tmp_path / "predicted")
    dataset = open_dataset(folder, labels=tmp_path / "predicted")
    assert dataset.cases[0].label == tmp_path / "predicted/case_00.nii.gz"


@pytest.mark.parametrize("key", ["labels", "channel_names", "numTraining", "file_ending"])
def test_missing_key(tmp_path, key):
    folder = write_raw_dataset(tmp_path / "d", n_cases=1)
    edit_dataset_json(folder, **{key: None})
    with pytest.raises(InputError, match=f"got no {key}; "):
        open_dataset(folder)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"labels": {"background": 0, "a": 1, "b": 3}}, "expected consecutive labels from 0 on, got 0, 1, 3"),
        ({"labels": {"a": 1, "b": 2}}, 'expected "background": 0 among the labels, got none'),
        ({"labels": {"0": "background", "1": "a"}}, "as nnU-Net 1 wrote them; turn keys and values round"),
        ({"labels": {"background": 1, "a": 0}}, "expected background to be 0, got 1"),
        ({"labels": {"background": 0, "a": 1.5}}, "label a: expected a whole number or a list of them, got 1.5"),
        ({"labels": {"background": 0, "ignore": 1, "a": 2}}, "ignore the highest, got 0, 1, 2 with ignore 1"),
        ({"labels": {"background": 0, "a": 1, "ignore": 1}}, "ignore the highest"),
        (
            {"labels": {"background": 0, "a": [1, 2], "b": 2}},
            "regions_class_order with 2 values, one a region, got None",
        ),
        ({"labels": []}, "expected labels like"),
        ({"channel_names": {}}, "expected channel_names like"),
        ({"file_ending": ".dcm"}, r"expected a file_ending among .*, got '\.dcm'"),
        ({"file_ending": ".nrrd"}, "expected at least one usable case, got no image"),
        ({"dataset": []}, "expected a map of case ids in 'dataset', got list"),
    ],
)
def test_bad_dataset_json(tmp_path, changes, message):
    folder = write_raw_dataset(tmp_path / "d", n_cases=1)
    edit_dataset_json(folder, **changes)
    with pytest.raises(InputError, match=message) as caught:
        open_dataset(folder)
    assert "\n" not in str(caught.value)


def test_broken_json(tmp_path):
    folder = write_raw_dataset(tmp_path / "d", n_cases=1)
    (folder / "dataset.json").write_text('{"labels": ')
    with pytest.raises(InputError, match=r"dataset.json: expected valid JSON, got 'Expecting value"):
        open_dataset(folder)


def test_missing_and_unreadable_folder(tmp_path, monkeypatch):
    with pytest.raises(InputError, match="expected a readable folder, got 'No such file or directory'"):
        open_dataset(tmp_path / "nowhere")
    (tmp_path / "file").write_text("x")
    with pytest.raises(InputError, match="expected a readable folder, got 'Not a directory'"):
        open_dataset(tmp_path / "file")
    (tmp_path / "imagesTr").mkdir()
    with pytest.raises(InputError, match=r"expected a dataset\.json beside imagesTr, got none"):
        open_dataset(tmp_path)

    def refuse(path):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(os, "scandir", refuse)  # root, who often runs tests, may read everything
    with pytest.raises(InputError, match="expected a readable folder, got 'Permission denied'"):
        open_dataset(tmp_path)


def test_no_usable_case_names_the_first_fault(tmp_path):
    folder = write_raw_dataset(tmp_path / "d", n_cases=1)
    (folder / "imagesTr/case_00_0000.nii.gz").rename(folder / "imagesTr/case_00.nii.gz")
    with pytest.raises(
        InputError, match=r"expected at least one usable case, got 1 faulty, the first: .*case_00\.nii\.gz"
    ):
        open_dataset(folder)


@pytest.mark.parametrize("names", [("word_0001", "word_0002"), ("a", "b.c")])
def test_plain_folder_with_labels(tmp_path, names):
    """A number at the end of a name is no channel if the label has it too."""
    for name in names:
        label = box_label()
        write_volume(tmp_path / f"scans/{name}.nrrd", box_image(label))
        write_volume(tmp_path / f"masks/{name}.nrrd", label)
    dataset = open_dataset(tmp_path / "scans", labels=tmp_path / "masks")
    assert tuple(case.case_id for case in dataset.cases) == names
    assert dataset.cases[0].label == tmp_path / f"masks/{names[0]}.nrrd"
    assert dataset.classes == tuple(SemanticClass(value, f"class_{value}", (value,)) for value in BOXES)
    assert dataset.file_ending == ".nrrd"
    assert dataset.raw == {}


def test_plain_folder_with_channels(tmp_path):
    folder = write_raw_dataset(tmp_path / "d", n_cases=2, n_channels=2)
    for labels in (folder / "labelsTr", None):
        dataset = open_dataset(folder / "imagesTr", labels=labels)
        assert [case.case_id for case in dataset.cases] == ["case_00", "case_01"]
        assert [len(case.images) for case in dataset.cases] == [2, 2]
        assert [case.label is not None for case in dataset.cases] == [labels is not None] * 2
        assert len(dataset.classes) == (2 if labels else 0)


def test_plain_folder_numbers_that_are_no_channels(tmp_path):
    for number in (2, 5):
        write_volume(tmp_path / f"word_{number:04d}.nii.gz", box_image(box_label()))
    assert [case.case_id for case in open_dataset(tmp_path).cases] == ["word_0002", "word_0005"]


def test_plain_folder_with_one_bad_label(tmp_path):
    for name in ("a", "b"):
        write_volume(tmp_path / f"scans/{name}.nii.gz", box_image(box_label()))
        write_volume(tmp_path / f"masks/{name}.nii.gz", np.full((2, 2, 2), 0.5 if name == "b" else 1.0))
    dataset = open_dataset(tmp_path / "scans", labels=tmp_path / "masks")
    assert [case.case_id for case in dataset.cases] == ["a"]
    assert [problem.case_id for problem in dataset.problems] == ["b"]
    assert [semantic_class.class_id for semantic_class in dataset.classes] == [1]


def test_plain_folder_of_mixed_or_no_images(tmp_path):
    (tmp_path / "notes.txt").write_text("x")
    with pytest.raises(InputError, match=r"expected a dataset\.json, or images of one file ending, got no image"):
        open_dataset(tmp_path)
    (tmp_path / "a.nii.gz").write_bytes(b"")
    (tmp_path / "b.nrrd").write_bytes(b"")
    with pytest.raises(InputError, match=r"got \.nii\.gz, \.nrrd;"):
        open_dataset(tmp_path)


def test_strip_channel():
    assert strip_channel("a.b_0003") == ("a.b", 3)
    assert strip_channel("a_003") is None
    assert strip_channel("_0003") is None


def test_real_hippocampus(real_data):
    dataset = open_dataset(real_data / "hippocampus/Dataset004_Hippocampus")
    assert len(dataset.cases) == dataset.raw["numTraining"] == 80
    assert [semantic_class.name for semantic_class in dataset.classes] == ["anterior", "posterior"]
    assert dataset.problems == ()
