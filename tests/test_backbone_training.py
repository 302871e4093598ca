"""Every backbone trains, resumes, exports and predicts; two epochs of one batch each."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813  # its usual name
import torch
from training_phantoms import RECIPE, assert_equal

from auvtool.dataset import open_dataset, require_labels
from auvtool.errors import UsageError
from auvtool.nnunet_run import read_checkpoint
from auvtool.training.captured_output import captured_output
from auvtool.training.export import NOISE_KEY, RUN_KEY
from auvtool.training.recipe import Recipe
from auvtool.training.session import Request, train

# Swin-UNETR's patch becomes 32 x 32 x 64. U-Mamba's has three stages, at the last of which channels are the tokens.
SIZES = {
    "swin-unetr": {"patch_size": (32, 32, 32), "features": 12},
    "umamba": {"patch_size": (16, 16, 16), "features": 16},
    "umamba-enc": {"patch_size": (16, 16, 16), "features": 16},
}
SIZES_2D = {name: {**size, "patch_size": size["patch_size"][1:]} for name, size in SIZES.items()}


class StoppedError(Exception):
    pass


def recipe(backbone, **options):
    return replace(RECIPE, backbone=backbone, iterations=1, batch_size=1, **{**SIZES[backbone], **options})


@pytest.fixture(scope="module", params=SIZES)
def run(request, trained):
    """A DUO training straight through; the request, the outcome, what was said."""
    said: list[str] = []
    asked = replace(trained.request, run=trained.folder / f"RUN_{request.param}", recipe=recipe(request.param))
    return asked, train(asked, say=said.append), said


def test_a_rounded_patch_is_said(run):
    asked, _, said = run
    lines = [line for line in said if line.startswith("patch")]
    expected = ["patch 32 x 32 x 64: 32 x 32 x 32 rounded up to what the network can halve"]
    assert lines == (expected if asked.recipe.backbone == "swin-unetr" else [])


def test_the_export_names_the_network_and_holds_the_noise_head_apart(run):
    asked, outcome, _ = run
    checkpoint = torch.load(outcome.checkpoint, weights_only=True)
    assert checkpoint["trainer_name"] == "nnUNetTrainer"
    assert not [name for name in checkpoint["network_weights"] if "noise" in name]
    assert {name.rsplit(".", 1)[1] for name in checkpoint[NOISE_KEY]["weights"]} == {"weight", "bias"}
    assert max(value.abs().max() for name, value in checkpoint[NOISE_KEY]["weights"].items() if "weight" in name) > 0
    plans = json.loads((asked.run / "plans.json").read_text())
    architecture = plans["configurations"]["3d_fullres"]["architecture"]
    assert architecture["network_class_name"].startswith("auvtool.backbones.")
    rows = [json.loads(line) for line in (outcome.checkpoint.parent / "training_log.jsonl").read_text().splitlines()]
    assert all(set(row["scale"]) == {"organ", "lesion"} for row in rows)


def test_a_stopped_run_goes_on_to_the_same_last_bits(run):
    asked, outcome, _ = run
    stopped = replace(asked, run=asked.run.with_name(asked.run.name + "_STOPPED"))

    def stop(_):
        raise StoppedError

    with pytest.raises(StoppedError):
        train(stopped, on_epoch=stop)
    resumed = train(stopped)
    assert resumed.resumed_at == 1
    straight, found = read_checkpoint(outcome.checkpoint), read_checkpoint(resumed.checkpoint)
    for key in ("network_weights", "optimizer_state", NOISE_KEY, RUN_KEY, "current_epoch", "_best_ema"):
        assert_equal(found[key], straight[key])


def test_another_backbone_is_another_run(run):
    asked, _, _ = run
    with pytest.raises(UsageError, match=r"backbone .* \(now nnunet\)"):
        train(replace(asked, recipe=replace(asked.recipe, backbone="nnunet")))


def test_a_run_that_recorded_no_backbone_is_nnunets(trained):
    path = trained.request.run / "auvtool_run.json"
    text = path.read_text()
    record = json.loads(text)
    del record["recipe"]["backbone"]
    path.write_text(json.dumps(record))
    try:
        assert train(trained.request).resumed_at == 2
        with pytest.raises(UsageError, match=r"backbone nnunet \(now umamba\)"):
            train(replace(trained.request, recipe=replace(RECIPE, backbone="umamba")))
    finally:
        path.write_text(text)


def test_stock_nnunet_predicts_what_predict_does(run, tmp_path):
    asked, outcome, _ = run
    image = asked.dataset.folder / "imagesTr/case_00_0000.nii.gz"
    assert np.array_equal(stock_prediction(asked.run, outcome, image, tmp_path), prediction(asked.run, image, tmp_path))


@pytest.mark.parametrize("backbone", SIZES)
def test_trains_in_2d_with_nnunets_own_loss_and_predicts(backbone, trained, tmp_path):
    asked = replace(
        trained.request,
        run=tmp_path / "RUN",
        recipe=recipe(backbone, loss="plain", configuration="2d", **SIZES_2D[backbone]),
        validate=backbone == "swin-unetr",
    )
    outcome = train(asked)
    checkpoint = read_checkpoint(outcome.checkpoint)
    assert NOISE_KEY not in checkpoint
    assert len(checkpoint["optimizer_state"]["param_groups"]) == 1
    assert (outcome.checkpoint.parent / "validation/summary.json").exists() == asked.validate
    image = asked.dataset.folder / "imagesTr/case_00_0000.nii.gz"
    assert prediction(asked.run, image, tmp_path).shape == (32, 40, 40)


def test_a_missing_package_is_said_before_predicting(run, tmp_path, monkeypatch):
    from auvtool import backbones

    asked, _, _ = run
    if asked.recipe.backbone != "swin-unetr":
        pytest.skip("needs no package")
    monkeypatch.setattr(backbones, "find_spec", lambda _: None)
    with pytest.raises(UsageError, match=r"auvtool\[monai\]"):
        prediction(asked.run, asked.dataset.folder / "imagesTr/case_00_0000.nii.gz", tmp_path)


def prediction(run: Path, image: Path, folder: Path) -> np.ndarray:
    """The label map of `auvtool predict`, without mirroring."""
    from auvtool.nnunet_run import find_checkpoints
    from auvtool.prediction import load_model, nnunet_process, predict
    from auvtool.prediction_images import find_images

    with nnunet_process():
        model = load_model(run, find_checkpoints(run, name="checkpoint_final.pth"), mirror=False)
        case_id = image.name.removesuffix("_0000.nii.gz")
        cases, _ = find_images([image.parent], file_ending=".nii.gz", n_channels=1, case_ids=[case_id])
        assert predict(model, cases, folder / "OURS").done == (case_id,)
    return sitk.GetArrayFromImage(sitk.ReadImage(str(folder / f"OURS/{case_id}.nii.gz")))


def stock_prediction(run: Path, outcome, image: Path, folder: Path) -> np.ndarray:
    """That of nnU-Net's predictor on the run as it lies there."""
    from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor

    with captured_output(folder / "log.txt"):
        predictor = nnUNetPredictor(use_mirroring=False, device=torch.device("cpu"), allow_tqdm=False)
        predictor.initialize_from_trained_model_folder(str(run), (outcome.fold.number,), "checkpoint_final.pth")
        predictor.predict_from_files_sequential([[str(image)]], [str(folder / "stock")])
    return sitk.GetArrayFromImage(sitk.ReadImage(str(folder / "stock.nii.gz")))


# --- real scans


@pytest.fixture(scope="module")
def hippocampus(real_data, tmp_path_factory):
    """Five real cases, by reference, and a workspace for the trainings to share."""
    source = real_data / "hippocampus" / "Dataset004_Hippocampus"
    if not source.is_dir():
        pytest.skip("no hippocampus data set among the real scans")
    folder = tmp_path_factory.mktemp("hippocampus")
    target = folder / "Dataset004_Hippocampus"
    names = sorted(path.name for path in (source / "labelsTr").glob("[!.]*.nii.gz"))[:5]
    for name in names:
        for part, file in (("imagesTr", name.replace(".nii.gz", "_0000.nii.gz")), ("labelsTr", name)):
            (target / part).mkdir(parents=True, exist_ok=True)
            (target / part / file).symlink_to((source / part / file).resolve())
    shutil.copy(source / "dataset.json", target)
    record = json.loads((target / "dataset.json").read_text())
    (target / "dataset.json").write_text(json.dumps({**record, "numTraining": len(names)}))
    return require_labels(open_dataset(target)), folder


@pytest.mark.parametrize("backbone", SIZES)
def test_real_cases(backbone, hippocampus):
    dataset, folder = hippocampus
    asked = Request(
        dataset=dataset,
        run=folder / f"RUN_{backbone}",
        recipe=Recipe(backbone=backbone, epochs=1, iterations=2, val_iterations=1, batch_size=1, **SIZES[backbone]),
        workspace=folder / "work",
        intensity_samples=10_000,
    )
    rows: list[dict] = []
    train(asked, on_epoch=rows.append)
    assert np.isfinite([rows[0]["train_loss"], rows[0]["val_loss"]]).all()
    image = dataset.cases[0].images[0]
    found = prediction(asked.run, image, asked.run)
    assert found.shape == sitk.GetArrayFromImage(sitk.ReadImage(str(image))).shape
    assert set(np.unique(found)) <= {0, 1, 2}
