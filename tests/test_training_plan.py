"""What is decided before a training: recipe, plans, folds, workspace."""

import json
import os
import pickle

import pytest
from phantoms import edit_dataset_json, write_raw_dataset

from auvtool.cases import CaseProblem
from auvtool.dataset import open_dataset
from auvtool.dataset_json import SemanticClass
from auvtool.errors import InputError, UsageError
from auvtool.training.captured_output import captured_output
from auvtool.training.class_table import ClassTable
from auvtool.training.folds import Fold, choose_fold, read_or_make_splits, require_every_class, write_fold
from auvtool.training.plans import adapted_plans
from auvtool.training.recipe import Recipe
from auvtool.training.session import Request, look_ahead
from auvtool.training.workspace import choose_workspace, leave_out, nnunet_dataset_json, refer_to_dataset

IDS = [f"case_{number:02d}" for number in range(10)]


# --- recipe


def test_a_recipe_survives_json():
    recipe = Recipe(patch_size=(32, 40, 48), alpha=0.25, loss="plain")
    assert Recipe.from_dict(json.loads(json.dumps({**recipe.to_dict(), "of a later version": 1}))) == recipe


@pytest.mark.parametrize(
    ("option", "value"), [("alpha", -0.1), ("beta", 1.5), ("lr", 0.0), ("epochs", 0), ("patch_size", (96, 96, 4))]
)
def test_a_senseless_recipe_is_refused(option, value):
    with pytest.raises(UsageError, match=f"--{option.replace('_', '-')}"):
        Recipe(**{option: value})


WEIGHTS = ClassTable("0a1b", {"organ": 0.25, "lesion": 1.0})


def test_a_recipe_with_tables_survives_json():
    recipe = Recipe(static_scales=WEIGHTS, class_weights=WEIGHTS, denoise_form="official", amp="bf16")
    assert Recipe.from_dict(json.loads(json.dumps(recipe.to_dict()))) == recipe
    assert not recipe.uses_noise_levels
    assert Recipe().uses_noise_levels


def test_a_recipe_of_an_older_version_has_the_defaults():
    older = {"alpha": 0.25, "loss": "duo", "patch_size": None}
    assert Recipe.from_dict(older) == Recipe(alpha=0.25)


@pytest.mark.parametrize(
    ("option", "values"),
    [
        ("static-weights", {"static_scales": WEIGHTS, "reweight": False}),
        ("static-weights", {"static_scales": WEIGHTS, "loss": "plain"}),
        ("class-weights", {"class_weights": WEIGHTS, "loss": "plain"}),
        ("scale-grad", {"scale_gradient": True, "static_scales": WEIGHTS}),
        ("scale-grad", {"scale_gradient": True, "reweight": False}),
        ("denoise-form", {"denoise_form": "official", "denoise": False}),
        ("denoise-form", {"denoise_form": "official", "loss": "plain"}),
    ],
)
def test_options_that_would_change_nothing_are_refused(option, values):
    with pytest.raises(UsageError, match=f"--{option}"):
        Recipe(**values)


# --- plans


def plans():
    architecture = {
        "n_stages": 3,
        "features_per_stage": [32, 64, 128],
        "kernel_sizes": [[3, 3, 3]] * 3,
        "strides": [[1, 1, 1], [2, 2, 2], [2, 2, 2]],
        "n_conv_per_stage": [2, 2, 2],
        "n_conv_per_stage_decoder": [2, 2],
    }
    fullres = {
        "data_identifier": "nnUNetPlans_3d_fullres",
        "batch_size": 2,
        "patch_size": [16, 16, 16],
        "spacing": [1.0, 1.0, 1.0],
        "architecture": {"arch_kwargs": architecture},
    }
    cascade = {"inherits_from": "3d_fullres", "previous_stage": "3d_lowres"}
    return {
        "dataset_name": "Dataset900_Balls",
        "plans_name": "nnUNetPlans",
        "configurations": {
            "3d_fullres": fullres,
            "3d_cascade_fullres": cascade,
            "wide": {"inherits_from": "3d_fullres"},
        },
    }


def test_plans_stay_what_they_are_without_a_wish():
    original = plans()
    assert adapted_plans(original, Recipe()) is original


def test_a_wish_makes_a_copy_under_another_name_with_the_same_data():
    original = plans()
    changed = adapted_plans(original, Recipe(batch_size=5, features=100))
    assert original == plans()
    assert changed["plans_name"] == "nnUNetPlans_auvtool"
    configuration = changed["configurations"]["3d_fullres"]
    assert (configuration["batch_size"], configuration["patch_size"]) == (5, [16, 16, 16])
    assert configuration["data_identifier"] == "nnUNetPlans_3d_fullres"
    assert configuration["architecture"]["arch_kwargs"]["features_per_stage"] == [100, 200, 320]  # nnU-Net's most


def test_a_patch_gets_the_topology_that_nnunet_would_give_it():
    configuration = adapted_plans(plans(), Recipe(patch_size=(33, 64, 16)))["configurations"]["3d_fullres"]
    architecture = configuration["architecture"]["arch_kwargs"]
    assert configuration["patch_size"] == [40, 64, 16]  # rounded up to what the strides divide
    assert architecture["strides"] == [[1, 1, 1], [2, 2, 2], [2, 2, 2], [2, 2, 1]]
    for key in ("kernel_sizes", "features_per_stage", "n_conv_per_stage"):
        assert len(architecture[key]) == architecture["n_stages"] == 4
    assert len(architecture["n_conv_per_stage_decoder"]) == 3
    assert architecture["features_per_stage"] == [32, 64, 128, 256]


def test_what_a_configuration_inherits_is_written_out():
    changed = adapted_plans(plans(), Recipe(configuration="wide", batch_size=3))
    assert changed["configurations"]["wide"]["patch_size"] == [16, 16, 16]
    assert "inherits_from" not in changed["configurations"]["wide"]


@pytest.mark.parametrize(
    ("recipe", "message"),
    [
        (Recipe(configuration="2d"), "3d_fullres"),
        (Recipe(configuration="3d_cascade_fullres"), "cascade"),
        (Recipe(patch_size=(32, 32)), "3 sides"),
    ],
)
def test_plans_that_cannot_be_trained_are_refused(recipe, message):
    with pytest.raises((InputError, UsageError), match=message):
        adapted_plans(plans(), recipe)


# --- folds


def test_the_folds_are_nnunets_own(tmp_path):
    from nnunetv2.utilities.crossval_split import generate_crossval_split

    found = read_or_make_splits(tmp_path / "splits_final.json", IDS[::-1])
    assert found == generate_crossval_split(IDS, seed=12345, n_splits=5)
    assert json.loads(json.dumps(found)) == found
    assert not list(tmp_path.iterdir())


def test_folds_on_disk_win_and_broken_ones_are_refused(tmp_path):
    path = tmp_path / "splits_final.json"
    path.write_text('[{"train": ["a"], "val": ["b"]}]')
    assert read_or_make_splits(path, IDS) == [{"train": ["a"], "val": ["b"]}]
    path.write_text('{"train": []}')
    with pytest.raises(InputError, match="folds"):
        read_or_make_splits(path, IDS)


def two_folds():
    return [{"train": IDS[2:], "val": IDS[:2]}, {"train": IDS[:8], "val": IDS[8:]}]


def test_a_keep_list_filters_train_and_leaves_val():
    kept = [*IDS[2:5], IDS[8]]
    fold = choose_fold(two_folds(), case_ids=IDS, number=1, kept=kept)
    assert fold == Fold(2, tuple(IDS[2:5]), tuple(IDS[8:]), (*IDS[:2], *IDS[5:8]))


def test_a_fold_that_nothing_changes_keeps_its_number():
    assert choose_fold(two_folds(), case_ids=IDS, number=1, kept=IDS).number == 1
    splits = [*two_folds(), {"train": IDS[2:4], "val": IDS[:2]}]
    assert choose_fold(splits, case_ids=IDS, number=0, kept=IDS[2:4]).number == 2


def test_val_cases_may_be_named():
    fold = choose_fold(two_folds(), case_ids=IDS, number=0, val_cases=[IDS[5]], kept=IDS[:7])
    assert (fold.number, fold.val, fold.train) == (2, (IDS[5],), (*IDS[:5], IDS[6]))
    with pytest.raises(UsageError, match="nobody"):
        choose_fold([], case_ids=IDS, number=0, val_cases=["nobody"])


def test_a_case_that_cannot_be_used_is_in_neither_part():
    fold = choose_fold(two_folds(), case_ids=set(IDS) - {IDS[0], IDS[9]}, number=0)
    assert (fold.train, fold.val, fold.number) == (tuple(IDS[2:9]), (IDS[1],), 2)


def test_a_fold_beyond_the_list_is_refused_where_nnunet_would_take_a_random_one():
    with pytest.raises(UsageError, match="0 to 1"):
        choose_fold(two_folds(), case_ids=IDS, number=2)
    with pytest.raises(UsageError, match="at least 5"):
        choose_fold([], case_ids=IDS[:4], number=0)


def test_nothing_left_is_refused():
    with pytest.raises(InputError, match="train"):
        choose_fold(two_folds(), case_ids=IDS, number=0, kept=IDS[:2])


def test_a_fold_is_appended_once_and_the_others_stay(tmp_path):
    path = tmp_path / "splits_final.json"
    fold = choose_fold(two_folds(), case_ids=IDS, number=0, kept=IDS[:4])
    write_fold(path, two_folds(), fold)
    written = json.loads(path.read_text())
    assert written == [*two_folds(), {"train": IDS[2:4], "val": IDS[:2]}]
    again = choose_fold(written, case_ids=IDS, number=0, kept=IDS[:4])
    write_fold(path, written, again)
    assert json.loads(path.read_text()) == written


def test_a_class_without_a_training_case_is_refused(tmp_path):
    classes = [SemanticClass(1, "organ", (1,)), SemanticClass(2, "lesion", (2,)), SemanticClass(3, "rare", (3,))]
    for case_id, present in (("a", [1]), ("b", [1, 2])):
        locations = {value: [[0, 0, 0, 0]] if value in present else [] for value in (1, 2, 3)}
        (tmp_path / f"{case_id}.pkl").write_bytes(pickle.dumps({"class_locations": locations}))
    require_every_class(tmp_path, Fold(5, ("a", "b"), (), ()), classes)
    require_every_class(tmp_path, Fold(5, ("b",), (), ("a",)), classes)  # rare was in no case before
    with pytest.raises(InputError, match=r"none of lesion;"):
        require_every_class(tmp_path, Fold(5, ("a",), (), ("b",)), classes)


# --- workspace


def test_workspace_option_wins_then_the_variables_then_a_folder_beside_the_run(tmp_path, monkeypatch):
    dataset = open_dataset(write_raw_dataset(tmp_path / "raw/Dataset007_Boxes", n_cases=1))
    for name in ("raw", "preprocessed", "results"):
        monkeypatch.delenv(f"nnUNet_{name}", raising=False)
    beside = choose_workspace(dataset, folder=None, run=tmp_path / "out/RUN")
    assert beside.raw == tmp_path / "out/nnUNet_workspace/nnUNet_raw"
    for name in ("raw", "preprocessed", "results"):
        monkeypatch.setenv(f"nnUNet_{name}", str(tmp_path / name))
    users = choose_workspace(dataset, folder=None, run=tmp_path / "RUN")
    assert (users.dataset_folder, users.is_own) == (tmp_path / "preprocessed/Dataset007_Boxes", False)
    given = choose_workspace(dataset, folder=tmp_path / "work", run=tmp_path / "RUN")
    assert (given.dataset_folder, given.is_own) == (tmp_path / "work/nnUNet_preprocessed/Dataset007_Boxes", True)
    monkeypatch.setenv("nnUNet_raw", str(tmp_path / "elsewhere"))
    assert choose_workspace(dataset, folder=None, run=tmp_path / "RUN").is_own


def test_a_folder_without_nnunets_name_gets_one(tmp_path):
    dataset = open_dataset(write_raw_dataset(tmp_path / "my scans", n_cases=1))
    assert choose_workspace(dataset, folder=tmp_path / "w", run=tmp_path / "R").dataset_name == "Dataset000_my_scans"


def test_the_environment_is_what_it_was_afterwards(tmp_path, monkeypatch):
    monkeypatch.setenv("nnUNet_raw", "before")
    monkeypatch.delenv("nnUNet_n_proc_DA", raising=False)
    dataset = open_dataset(write_raw_dataset(tmp_path / "Dataset007_Boxes", n_cases=1))
    workspace = choose_workspace(dataset, folder=tmp_path / "w", run=tmp_path / "R")
    with workspace.environment(augmentation_workers=0):
        found = {name: value for name, value in os.environ.items() if name.startswith("nnUNet_")}
    assert found["nnUNet_raw"] == str(tmp_path / "w/nnUNet_raw")
    assert found["nnUNet_n_proc_DA"] == "0"
    assert dict(os.environ)["nnUNet_raw"] == "before"
    assert "nnUNet_n_proc_DA" not in os.environ


def test_the_reference_names_the_users_files_for_nnunet(tmp_path):
    from nnunetv2.utilities.utils import get_filenames_of_train_images_and_targets

    dataset = open_dataset(write_raw_dataset(tmp_path / "Dataset007_Boxes", n_cases=2, n_channels=2))
    workspace = choose_workspace(dataset, folder=tmp_path / "w", run=tmp_path / "R")
    assert refer_to_dataset(workspace, dataset) == ()
    found = get_filenames_of_train_images_and_targets(str(workspace.raw / "Dataset007_Boxes"))
    assert found == {
        case.case_id: {"images": [str(path) for path in case.images], "label": str(case.label)}
        for case in dataset.cases
    }


def test_changed_cases_remove_what_was_preprocessed_and_equal_ones_do_not(tmp_path):
    folder = write_raw_dataset(tmp_path / "Dataset007_Boxes", n_cases=2)
    dataset = open_dataset(folder)
    workspace = choose_workspace(dataset, folder=tmp_path / "w", run=tmp_path / "R")
    refer_to_dataset(workspace, dataset)
    leave_out(workspace, dataset, [CaseProblem("case_01", "broken")])
    done = workspace.dataset_folder / "nnUNetPlans.json"
    done.touch()
    assert refer_to_dataset(workspace, dataset) == (CaseProblem("case_01", "broken"),)
    assert done.exists()
    os.utime(dataset.cases[0].images[0], (1, 1))
    assert refer_to_dataset(workspace, open_dataset(folder)) == ()
    assert not done.exists()


def test_folds_of_the_data_set_are_taken_and_may_grow_but_not_change(tmp_path):
    folder = write_raw_dataset(tmp_path / "Dataset007_Boxes", n_cases=2)
    first, second = {"train": ["case_00"], "val": ["case_01"]}, {"train": ["case_01"], "val": ["case_00"]}
    own = folder / "splits_final.json"
    own.write_text(json.dumps([first]))
    dataset = open_dataset(folder)
    workspace = choose_workspace(dataset, folder=tmp_path / "w", run=tmp_path / "R")
    refer_to_dataset(workspace, dataset)
    assert json.loads(workspace.splits_file.read_text()) == [first]
    own.write_text(json.dumps([first, second]))
    refer_to_dataset(workspace, dataset)
    own.write_text(json.dumps([first]))
    refer_to_dataset(workspace, dataset)
    assert json.loads(workspace.splits_file.read_text()) == [first, second]
    own.write_text(json.dumps([second]))
    with pytest.raises(UsageError, match="folds"):
        refer_to_dataset(workspace, dataset)


def test_a_folder_that_auvtool_did_not_make_is_not_touched(tmp_path):
    dataset = open_dataset(write_raw_dataset(tmp_path / "Dataset007_Boxes", n_cases=1))
    workspace = choose_workspace(dataset, folder=tmp_path / "w", run=tmp_path / "R")
    theirs = workspace.dataset_folder / "nnUNetPlans.json"
    theirs.parent.mkdir(parents=True)
    theirs.touch()
    with pytest.raises(UsageError, match="another --workspace"):
        refer_to_dataset(workspace, dataset)
    assert theirs.exists()


def test_a_plain_folder_gets_a_dataset_json(tmp_path):
    raw = write_raw_dataset(tmp_path / "d", n_cases=1)
    dataset = open_dataset(raw / "imagesTr", labels=raw / "labelsTr")
    description = nnunet_dataset_json(dataset)
    assert description["labels"] == {"background": 0, "class_1": 1, "class_2": 2}
    assert description["channel_names"] == {"0": "channel_0"}


def test_the_map_of_files_does_not_reach_the_run(tmp_path):
    dataset = open_dataset(write_raw_dataset(tmp_path / "Dataset007_Boxes", n_cases=1, as_map=True))
    assert "dataset" not in nnunet_dataset_json(dataset)


def test_look_ahead_writes_nothing(tmp_path):
    folder = write_raw_dataset(tmp_path / "Dataset007_Boxes", n_cases=5)
    edit_dataset_json(folder, numTraining=5)
    request = Request(dataset=open_dataset(folder), run=tmp_path / "R", recipe=Recipe(), kept=["case_00", "case_04"])
    outlook = look_ahead(request)
    assert (outlook.fold.number, outlook.patch_size, outlook.is_resumed) == (5, None, False)
    assert {path.name for path in tmp_path.iterdir()} == {"Dataset007_Boxes"}


# --- output


def test_what_children_and_c_write_goes_to_the_log(tmp_path, capfd):
    import subprocess
    import warnings

    log = tmp_path / "new/log.txt"
    with captured_output(log):
        print("from python")
        os.write(1, b"from c\n")
        subprocess.run(["echo", "from a child"], check=True)
        warnings.warn("from a warning", UserWarning, stacklevel=1)
    print("afterwards")
    text = log.read_text()
    assert all(word in text for word in ("from python", "from c", "from a child", "from a warning"))
    assert capfd.readouterr().out == "afterwards\n"
