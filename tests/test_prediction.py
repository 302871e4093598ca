"""`predict` around nnU-Net's predictor: which cases, which checkpoints, failures, resuming."""

import json
import os
import shutil

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813  # its usual name
import torch
from phantoms import truncate, write_volume
from typer.testing import CliRunner

from auvtool.cli.app import app
from auvtool.errors import InputError, UsageError
from auvtool.nnunet_run import find_checkpoints
from auvtool.prediction import find_images, load_model, nnunet_process, predict


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
        cases, _ = find_images(images, file_ending=".nii.gz", n_channels=1, case_ids=["case_00"])
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


def test_images_are_grouped_by_case_and_incomplete_ones_said(tmp_path):
    for name in ("a_0000.nii.gz", "a_0001.nii.gz", "b.c_0000.nii.gz", "notes.txt", "._a_0000.nii.gz"):
        (tmp_path / name).touch()
    cases, problems = find_images(tmp_path, file_ending=".nii.gz", n_channels=2)
    assert [(case.case_id, len(case.images)) for case in cases] == [("a", 2)]
    assert [problem.case_id for problem in problems] == ["b.c"]
    with pytest.raises(UsageError, match="nobody"):
        find_images(tmp_path, file_ending=".nii.gz", n_channels=2, case_ids=["a", "nobody"])
    with pytest.raises(InputError, match=r"CASE_0000\.mha"):
        find_images(tmp_path, file_ending=".mha", n_channels=2)
    with pytest.raises(InputError, match="readable folder"):
        find_images(tmp_path / "none", file_ending=".nii.gz", n_channels=2)
