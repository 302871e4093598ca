"""The filtered copy of a fold in nnU-Net's split file."""

import json

import pytest

from auvtool.errors import InputError, UsageError
from auvtool.keep_list import KeepList
from auvtool.split_fold import append_fold, filtered_fold

KEEP = KeepList(frozenset({"a", "b", "d"}), frozenset({"c", "v", "z"}))


@pytest.fixture
def splits(tmp_path):
    """Two folds as nnU-Net writes them."""
    from batchgenerators.utilities.file_and_folder_operations import save_json

    path = tmp_path / "splits_final.json"
    folds = [{"train": ["a", "b", "c", "d"], "val": ["v", "w"]}, {"train": ["v", "w"], "val": ["a", "b", "c", "d"]}]
    save_json(folds, str(path))
    return path


def test_copy_of_fold_0(splits):
    before = splits.read_text()
    fold = filtered_fold(splits, KEEP)
    assert splits.read_text() == before
    assert (fold.number, fold.is_new) == (2, True)
    assert (fold.train, fold.dropped) == (("a", "b", "d"), ("c",))
    assert fold.val_asked == ("v",)
    assert fold.unknown == ("z",)
    assert fold.unlisted == ()
    append_fold(splits, fold)
    after = splits.read_text()
    assert after.startswith(before.rstrip().removesuffix("]").rstrip())  # the folds before it are the same bytes
    assert json.loads(after)[2] == {"train": ["a", "b", "d"], "val": ["v", "w"]}


def test_nnunet_trains_on_the_appended_fold(splits, tmp_path):
    """nnU-Net's own trainer reads the fold; the training cases are the kept ones."""
    from types import SimpleNamespace

    from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

    append_fold(splits, filtered_fold(splits, KEEP))
    trainer = SimpleNamespace(
        dataset_class=lambda *args, **kwargs: SimpleNamespace(identifiers=["a", "b", "c", "d", "v", "w"]),
        fold=2,
        preprocessed_dataset_folder_base=str(tmp_path),
        preprocessed_dataset_folder=str(tmp_path),
        folder_with_segs_from_previous_stage=None,
        print_to_log_file=lambda *args: None,
    )
    assert nnUNetTrainer.do_split(trainer) == (["a", "b", "d"], ["v", "w"])


def test_the_same_fold_is_found_and_not_doubled(splits):
    append_fold(splits, filtered_fold(splits, KEEP))
    once = splits.read_bytes()
    again = filtered_fold(splits, KEEP)
    assert (again.number, again.is_new) == (2, False)
    append_fold(splits, again)
    assert splits.read_bytes() == once
    other = filtered_fold(splits, KeepList(frozenset("a"), frozenset("bcd")))
    assert (other.number, other.is_new) == (3, True)


def test_nothing_to_drop_is_the_fold_itself(splits):
    fold = filtered_fold(splits, KeepList(frozenset("abcd"), frozenset()))
    assert (fold.number, fold.is_new) == (0, False)


def test_other_fold_and_extra_keys(splits):
    folds = json.loads(splits.read_text())
    folds[1]["note"] = "by centre"
    splits.write_text(json.dumps(folds))
    fold = filtered_fold(splits, KeepList(frozenset("w"), frozenset("v")), fold=1)
    append_fold(splits, fold)
    assert json.loads(splits.read_text()) == [*folds, {"train": ["w"], "val": ["a", "b", "c", "d"]}]


def test_plain_ids_drop_all_others(splits):
    fold = filtered_fold(splits, KeepList(frozenset({"a", "w"}), None))
    assert fold.train == ("a",)
    assert fold.val_asked == ("v",)
    assert fold.unknown == ()


def test_training_case_without_a_score_is_kept_and_named(splits):
    fold = filtered_fold(splits, KeepList(frozenset({"a", "b"}), frozenset({"c"})))
    assert fold.train == ("a", "b", "d")
    assert fold.unlisted == ("d",)


def test_link_stays_a_link(splits, tmp_path):
    link = tmp_path / "link.json"
    link.symlink_to(splits)
    append_fold(link, filtered_fold(link, KEEP))
    assert link.is_symlink()
    assert len(json.loads(splits.read_text())) == 3


def test_refusals(splits, tmp_path):
    with pytest.raises(UsageError, match=r"--fold: expected 0 to 1, the folds of .*, got 2"):
        filtered_fold(splits, KEEP, fold=2)
    with pytest.raises(InputError, match="expected training cases of fold 0 that the keep list keeps, got none of 4"):
        filtered_fold(splits, KeepList(frozenset({"other"}), None))
    with pytest.raises(InputError, match="expected a readable splits_final"):
        filtered_fold(tmp_path / "nowhere.json", KEEP)
    for content, message in (
        ("{", "expected valid JSON"),
        ("[]", "expected a list of folds"),
        ('[{"train": ["a"]}]', "expected a list of folds"),
        ('[{"train": "a", "val": []}]', "expected a list of folds"),
        ("[1]", "expected a list of folds"),
    ):
        splits.write_text(content)
        with pytest.raises(InputError, match=message):
            filtered_fold(splits, KEEP)
