"""`predict` around nnU-Net's predictor: which cases, which checkpoints, failures, resuming."""

import json
import os
import shutil
from contextlib import chdir
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813  # its usual name
import torch
from phantoms import truncate, write_volume
from pickled_code import Touch
from typer.testing import CliRunner

from auvtool.cli.app import app
from auvtool.errors import InputError, UsageError
from auvtool.nnunet_run import find_checkpoints
from auvtool.prediction import load_model, nnunet_process, predict
from auvtool.prediction_images import find_images
from auvtool.training.captured_output import captured_output
from auvtool.training.workspace import choose_workspace


@pytest.fixture(scope="module")
def images(trained, tmp_path_factory):
    """Two good images, one with NaN, one cut off, one with a channel too many."""
    folder = tmp_path_factory.mktemp("images")
    source = trained.request.dataset.folder / "imagesTr"
    for number in (0, 1):
        shutil.copy(source / f"case_{number:02d}_0000.nii.gz", folder)
    array = np.full((32, 40, 40), np.nan, dtype=np.float32)
    write_volume(folder / "nan_0000.nii.gz", array)
    shutil.copy(source / "case_02_0000.nii.gz", folder / "short_0000.nii.gz")
    truncate(folder / "short_0000.nii.gz")
    for channel in (0, 1):
        shutil.copy(source / "case_03_0000.nii.gz", folder / f"two_{channel:04d}.nii.gz")
    (folder / "._case_00_0000.nii.gz").touch()
    return folder


def test_a_bad_image_is_a_failure_row_and_the_others_are_predicted(trained, images, tmp_path):
    output = tmp_path / "P"
    command = ["predict", str(trained.request.run), str(images), "-o", str(output), "--no-mirror"]
    done = CliRunner().invoke(app, command)
    assert done.exception is not None
    assert done.exception.exit_code == 4
    assert done.stdout == f"{output}\n"
    maps = {path.name for path in output.iterdir()}
    assert maps == {"case_00.nii.gz", "case_01.nii.gz", "dataset.json", "plans.json", "auvtool_predict.json"}
    failures = (tmp_path / "P.failures.csv").read_text()
    assert [line.split(",")[0] for line in failures.splitlines()] == ["case", "nan", "short", "two"]
    manifest = json.loads((tmp_path / "P.manifest.json").read_text())
    assert manifest["counts"] == {"predicted": 2, "skipped": 0, "failed": 3}
    reference = sitk.ReadImage(str(images / "case_00_0000.nii.gz"))
    found = sitk.ReadImage(str(output / "case_00.nii.gz"))
    assert (found.GetSize(), found.GetSpacing()) == (reference.GetSize(), reference.GetSpacing())

    # What is there is skipped; what was removed is made again, the same.
    content = (output / "case_01.nii.gz").read_bytes()
    before = (output / "case_00.nii.gz").stat().st_mtime_ns
    (output / "case_01.nii.gz").unlink()
    done = CliRunner().invoke(app, [*command, "--cases", "case_00,case_01"])
    assert done.exit_code == 0, done.output
    assert (output / "case_00.nii.gz").stat().st_mtime_ns == before
    assert (output / "case_01.nii.gz").read_bytes() == content
    assert not (tmp_path / "P.failures.csv").exists()

    # Of another model (here: mirrored), only with --force.
    mirrored = [*command[:-1], "--mirror", "--cases", "case_00"]
    done = CliRunner().invoke(app, mirrored)
    assert isinstance(done.exception, UsageError)
    assert CliRunner().invoke(app, [*mirrored, "--force"]).exit_code == 0


def test_dry_run_writes_nothing(trained, images, tmp_path):
    command = ["predict", str(trained.request.run), str(images), "-o", str(tmp_path / "P"), "-n"]
    done = CliRunner().invoke(app, command)
    assert done.exit_code == 0
    assert "4, of which 0 are predicted; 1 cannot be" in done.stdout
    assert not list(tmp_path.iterdir())


def test_weights_of_another_network_are_refused(trained, tmp_path):
    run = tmp_path / "RUN"
    shutil.copytree(trained.request.run, run)
    path = find_checkpoints(run, name="checkpoint_final.pth")[0]
    checkpoint = torch.load(path, weights_only=True)
    checkpoint["network_weights"].popitem()
    torch.save(checkpoint, path)
    with nnunet_process(), pytest.raises(InputError, match=r"weights of the network in plans\.json"):
        load_model(run, [path])


def test_a_full_disk_ends_the_run(trained, images, tmp_path, monkeypatch):
    from auvtool.errors import OutputError

    def fail(*_, **__):
        raise OSError(28, os.strerror(28))

    with nnunet_process():
        model = load_model(trained.request.run, find_checkpoints(trained.request.run, name="checkpoint_final.pth"))
        cases, _ = find_images([images], file_ending=".nii.gz", n_channels=1, case_ids=["case_00"])
        monkeypatch.setattr(model.predictor.plans_manager.image_reader_writer_class, "write_seg", fail)
        with pytest.raises(OutputError, match="space"):
            predict(model, cases, tmp_path / "P")
    assert not list((tmp_path / "P").glob("*.nii.gz"))
    assert not list((tmp_path / "P").glob(".auvtool*"))


def run_folder(tmp_path, *checkpoints):
    for name in ("plans.json", "dataset.json"):
        (tmp_path / name).write_text("{}")
    for checkpoint in checkpoints:
        (tmp_path / checkpoint).parent.mkdir(exist_ok=True)
        (tmp_path / checkpoint).touch()
    return tmp_path


def test_every_fold_that_is_finished_is_used(tmp_path):
    run = run_folder(tmp_path, "fold_0/final.pth", "fold_1/latest.pth", "fold_5/final.pth")
    assert [path.parent.name for path in find_checkpoints(run, name="final.pth")] == ["fold_0", "fold_5"]
    assert [path.parent.name for path in find_checkpoints(run, name="final.pth", folds=["5"])] == ["fold_5"]
    with pytest.raises(InputError, match=r"final\.pth in fold_1"):
        find_checkpoints(run, name="final.pth", folds=["0", "1"])
    with pytest.raises(InputError, match=r"plans\.json"):
        find_checkpoints(run / "fold_0", name="final.pth")


# --- images and lists


def invoke(*arguments, **options):
    return CliRunner().invoke(app, ["predict", *map(str, arguments), "--no-mirror"], **options)


def label_maps(folder: Path) -> set[str]:
    return {path.name for path in folder.glob("*.nii.gz")}


def test_files_and_lists_are_predicted_as_their_folder_is(trained, images, tmp_path):
    run = trained.request.run
    shutil.copy(images / "case_01_0000.nii.gz", tmp_path / "patient.1.nii.gz")
    done = invoke(run, images / "case_00_0000.nii.gz", tmp_path / "patient.1.nii.gz", "-o", tmp_path / "FILES")
    assert done.exit_code == 0, done.output
    assert label_maps(tmp_path / "FILES") == {"case_00.nii.gz", "patient.1.nii.gz"}
    inputs = json.loads((tmp_path / "FILES.manifest.json").read_text())["inputs"]
    assert inputs["IMAGES"].startswith("listing:")

    names = ("case_00_0000.nii.gz", "lost_0000.nii.gz")
    with chdir(images):
        done = invoke(run, "-o", tmp_path / "LIST", input="\n".join(names))
    assert done.exception.exit_code == 4
    assert done.stdout == f"{tmp_path / 'LIST'}\n"
    assert label_maps(tmp_path / "LIST") == {"case_00.nii.gz"}
    failures = (tmp_path / "LIST.failures.csv").read_text().splitlines()[1:]
    assert [line.split(",")[0] for line in failures] == ["lost"]
    done = invoke(run, images / names[1], images / names[0], "-o", tmp_path / "STOPPED", "--fail-fast")
    assert isinstance(done.exception, InputError)
    assert not (tmp_path / "STOPPED").exists()
    (tmp_path / "list.txt").write_text(f"{images / names[0]}\n{tmp_path / 'patient.1.nii.gz'}\n")
    done = invoke(run, tmp_path / "list.txt", "-o", tmp_path / "LIST")
    assert done.exit_code == 0, done.output
    for name in label_maps(tmp_path / "FILES"):
        assert (tmp_path / "LIST" / name).read_bytes() == (tmp_path / "FILES" / name).read_bytes()


def test_nothing_to_predict_at_a_terminal_is_wrong_usage(trained, tmp_path, monkeypatch):
    from auvtool.cli.predict import predict as command

    monkeypatch.setattr("sys.stdin", None)
    with pytest.raises(UsageError, match="IMAGES"):
        command(trained.request.run, output=tmp_path / "P")


# --- probabilities


def stock(run: Path, image: Path, folder: Path) -> None:
    """nnU-Net's own prediction of one image, with probabilities."""
    from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor

    folder.mkdir()
    with nnunet_process():
        predictor = nnUNetPredictor(use_mirroring=False, device=torch.device("cpu"), allow_tqdm=False)
        predictor.initialize_from_trained_model_folder(str(run), None, "checkpoint_final.pth")
        predictor.predict_from_files_sequential([[str(image)]], str(folder), save_probabilities=True)


def regions_run(run: Path, folder: Path) -> Path:
    """A run whose two outputs are the organ with its lesion, and the lesion."""
    shutil.copytree(run, folder)
    dataset_json = json.loads((folder / "dataset.json").read_text())
    dataset_json["labels"] = {"background": 0, "whole": [1, 2], "lesion": [2]}
    dataset_json["regions_class_order"] = [1, 2]
    (folder / "dataset.json").write_text(json.dumps(dataset_json))
    path = find_checkpoints(folder, name="checkpoint_final.pth")[0]
    checkpoint = torch.load(path, weights_only=True)
    for name, tensor in checkpoint["network_weights"].items():
        if "seg_layers" in name:
            checkpoint["network_weights"][name] = tensor[1:]
    torch.save(checkpoint, path)
    return folder


@pytest.mark.parametrize("kind", ["softmax", "sigmoid"])
def test_probabilities_are_those_of_stock_nnunet_and_feed_its_ensembles(trained, images, tmp_path, kind):
    from nnunetv2.ensembling.ensemble import merge_files
    from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

    run = trained.request.run if kind == "softmax" else regions_run(trained.request.run, tmp_path / "RUN")
    done = invoke(run, images, "-o", tmp_path / "P", "--cases", "case_00", "--probabilities")
    assert done.exit_code == 0, done.output
    ours, theirs = tmp_path / "P" / "case_00", tmp_path / "STOCK" / "case_00"
    stock(run, images / "case_00_0000.nii.gz", tmp_path / "STOCK")
    made, expected = (np.load(f"{stem}.npz")["probabilities"] for stem in (ours, theirs))
    assert made.dtype == expected.dtype
    assert np.array_equal(made, expected)
    assert made.shape == ((3 if kind == "softmax" else 2), 32, 40, 40)
    assert (np.abs(made.sum(0) - 1).max() < 1e-5) == (kind == "softmax")
    assert Path(f"{ours}.nii.gz").read_bytes() == Path(f"{theirs}.nii.gz").read_bytes()
    assert Path(f"{ours}.pkl").read_bytes() == Path(f"{theirs}.pkl").read_bytes()

    # What each process of nnUNetv2_ensemble runs.
    plans = PlansManager(json.loads((tmp_path / "P" / "plans.json").read_text()))
    labels = plans.get_label_manager(json.loads((tmp_path / "P" / "dataset.json").read_text()))
    files = [f"{ours}.npz", f"{theirs}.npz"]
    merge_files(files, str(tmp_path / "MERGED"), ".nii.gz", plans.image_reader_writer_class(), labels)
    assert (tmp_path / "MERGED.nii.gz").read_bytes() == Path(f"{ours}.nii.gz").read_bytes()


def test_a_case_is_done_when_all_that_is_asked_for_is_there(trained, images, tmp_path):
    output = tmp_path / "P"
    endings = (".nii.gz", ".npz", ".pkl")

    def times():
        return {end: path.stat().st_mtime_ns for end in endings if (path := output / f"case_00{end}").exists()}

    def run(*options, force=False):
        command = (trained.request.run, images, "-o", output, "--cases", "case_00", *options)
        done = invoke(*command, *(["--force"] if force else []))
        assert done.exit_code == 0, done.output
        return times()

    label_only = run()
    assert list(label_only) == [".nii.gz"]
    dry = invoke(trained.request.run, images, "-o", output, "--cases", "case_00", "--probabilities", "-n")
    assert "1, of which 0 are predicted" in dry.stdout
    both = run("--probabilities")
    assert list(both) == list(endings)
    assert both[".nii.gz"] > label_only[".nii.gz"]
    assert run("--probabilities") == both == run()  # what is there is enough for either

    content = {end: (output / f"case_00{end}").read_bytes() for end in endings}
    (output / "case_00.npz").unlink()
    run("--probabilities")
    assert {end: (output / f"case_00{end}").read_bytes() for end in endings} == content
    assert list(run(force=True)) == [".nii.gz"]  # those of another prediction do not stay beside the new label map


def test_maps_of_other_images_are_not_taken_for_those_of_todays(trained, images, tmp_path):
    folder, output = shutil.copytree(images, tmp_path / "images"), tmp_path / "P"
    command = (trained.request.run, folder, "-o", output, "--cases", "case_00,case_01")
    assert invoke(*command).exit_code == 0
    link = tmp_path / "case_00_0000.nii.gz"
    link.symlink_to(folder / link.name)  # another name of the same image
    assert invoke(trained.request.run, link, "-o", output).exit_code == 0
    before = {path.name: path.read_bytes() for path in output.iterdir()}
    shutil.copy(folder / "case_01_0000.nii.gz", folder / "case_00_0000.nii.gz")
    done = invoke(*command)
    assert isinstance(done.exception, UsageError)
    assert "before they changed (case_00); name another folder, or add --force" in str(done.exception)
    assert {path.name: path.read_bytes() for path in output.iterdir()} == before
    assert invoke(*command[:-1], "case_00", "--force").exit_code == 0
    assert (output / "case_00.nii.gz").read_bytes() == before["case_01.nii.gz"]
    assert invoke(*command).exit_code == 0


def test_maps_are_on_the_disk_before_they_have_their_names(trained, images, tmp_path, monkeypatch):
    flush, flushed = os.fsync, set()
    monkeypatch.setattr(os, "fsync", lambda file: flushed.add(os.fstat(file).st_ino) or flush(file))
    done = invoke(trained.request.run, images, "-o", tmp_path / "P", "--cases", "case_00", "--probabilities")
    assert done.exit_code == 0, done.output
    assert {path.stat().st_ino for path in (tmp_path / "P").iterdir()} <= flushed


def test_a_full_disk_leaves_neither_map_nor_probabilities(trained, images, tmp_path, monkeypatch):
    def fail(*_, **__):
        raise OSError(28, os.strerror(28))

    monkeypatch.setattr(np, "savez_compressed", fail)
    done = invoke(trained.request.run, images, "-o", tmp_path / "P", "--cases", "case_00", "--probabilities")
    assert done.exception.exit_code == 1
    assert {path.name for path in (tmp_path / "P").iterdir()} == {"dataset.json", "plans.json", "auvtool_predict.json"}


# --- checkpoints of others


def test_a_checkpoint_that_would_run_code_is_refused_unless_it_is_trusted(trained, images, tmp_path):
    run = shutil.copytree(trained.request.run, tmp_path / "RUN")
    path = find_checkpoints(run, name="checkpoint_final.pth")[0]
    checkpoint = torch.load(path, weights_only=True)
    torch.save(checkpoint | {"logging": Touch(tmp_path / "ran")}, path)
    done = invoke(run, images, "-o", tmp_path / "P")
    assert isinstance(done.exception, InputError)
    assert "expected a checkpoint of tensors and plain values, got objects of" in str(done.exception)
    assert not (tmp_path / "ran").exists()
    done = invoke(run, images, "-o", tmp_path / "P", "--trust-checkpoint", "--cases", "case_00")
    assert done.exit_code == 0, done.output
    assert (tmp_path / "ran").exists()
    assert label_maps(tmp_path / "P") == {"case_00.nii.gz"}


def test_a_run_that_stock_nnunet_trained_is_read_without_running_code(trained, images, tmp_path):
    from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

    request = trained.request
    workspace = choose_workspace(request.dataset, folder=request.workspace, run=request.run)
    with workspace.environment(augmentation_workers=0, compiles=False), captured_output(tmp_path / "log.txt"):
        plans, dataset_json = (json.loads((request.run / f"{name}.json").read_text()) for name in ("plans", "dataset"))
        trainer = nnUNetTrainer(
            plans | {"continue_training": False}, "3d_fullres", 0, dataset_json, torch.device("cpu")
        )
        trainer.num_epochs, trainer.num_iterations_per_epoch, trainer.num_val_iterations_per_epoch = 1, 1, 1
        trainer.run_training()
    run = Path(trainer.output_folder_base)
    done = invoke(run, images, "-o", tmp_path / "P", "--cases", "case_00", "--probabilities")
    assert done.exit_code == 0, done.output
    stock(run, images / "case_00_0000.nii.gz", tmp_path / "STOCK")
    for name in ("case_00.npz", "case_00.nii.gz"):
        assert (tmp_path / "P" / name).read_bytes() == (tmp_path / "STOCK" / name).read_bytes()


def test_label_maps_are_not_written_among_the_images(trained, images, tmp_path):
    (tmp_path / "scans").mkdir()
    scan = shutil.copy(images / "case_00_0000.nii.gz", tmp_path / "scans/patient.nii.gz")
    before = Path(scan).read_bytes()
    for words in ((scan, "-o", tmp_path / "scans", "--force"), (images, "-o", images), (images, "-o", ".")):
        done = invoke(trained.request.run, *words)
        assert isinstance(done.exception, UsageError), done.output
        assert "expected a" in str(done.exception)
    assert Path(scan).read_bytes() == before
    assert [path.name for path in (tmp_path / "scans").iterdir()] == ["patient.nii.gz"]


@pytest.mark.parametrize("option", ["--force", "--dry-run", "--no-mirror"])
@pytest.mark.parametrize("inside", ["labelsTr", "."])
def test_a_folder_that_predict_did_not_write_is_left_alone(trained, tmp_path, inside, option):
    data = shutil.copytree(trained.request.dataset.folder, tmp_path / "Dataset123_Own")
    before = {path: path.read_bytes() for path in data.rglob("*") if path.is_file()}
    done = invoke(trained.request.run, data / "imagesTr", "-o", data / inside, "--cases", "case_00", option)
    assert isinstance(done.exception, UsageError), done.output
    assert "expected a new folder or one that predict wrote" in str(done.exception)
    assert {path: path.read_bytes() for path in data.rglob("*") if path.is_file()} == before
