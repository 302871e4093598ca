"""nnU-Net with the DUO loss, from a raw data set to a checkpoint that stock nnU-Net predicts with."""

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813  # its usual name
import torch
from training_phantoms import KEPT, RECIPE, Trained, assert_equal

from auvtool.errors import InputError, UsageError
from auvtool.nnunet_run import read_checkpoint
from auvtool.training import trainer as trainer_module
from auvtool.training.class_table import ClassTable
from auvtool.training.export import NOISE_KEY, RUN_KEY, save_checkpoint
from auvtool.training.recipe import Recipe
from auvtool.training.session import look_ahead, train

OPTIONS = (
    *("--epochs", "2", "--iterations", "2", "--batch-size", "2", "--features", "8"),
    *("--patch-size", "32,32,32", "--seed", "7"),
)


def test_the_keep_list_becomes_one_more_fold_and_val_stays(trained):
    splits = json.loads((trained.folder / "work/nnUNet_preprocessed/Dataset900_Balls/splits_final.json").read_text())
    # Five are nnU-Net's own; other tests of this training append more.
    assert splits[5] == {"train": list(trained.outcome.fold.train), "val": splits[0]["val"]}
    assert set(splits[5]["train"]) == set(splits[0]["train"]) & set(KEPT)
    assert trained.outcome.fold.dropped == ("case_03",)
    assert trained.fold.name == "fold_5"


def test_a_broken_case_is_left_out_and_said(trained):
    (problem,) = trained.outcome.problems
    assert problem.case_id == "case_05"
    assert "\n" not in problem.error
    assert "case_05" not in (*trained.outcome.fold.train, *trained.outcome.fold.val)


def test_no_scan_is_copied(trained):
    raw = trained.folder / "work/nnUNet_raw/Dataset900_Balls"
    assert [path.name for path in raw.iterdir()] == ["dataset.json"]


def test_the_log_has_a_line_an_epoch(trained):
    rows = [json.loads(line) for line in (trained.fold / "training_log.jsonl").read_text().splitlines()]
    assert rows == trained.rows
    assert [row["epoch"] for row in rows] == [0, 1]
    assert rows[0]["lr"] == 0.01
    assert rows[1]["lr"] == pytest.approx(0.01 * 0.5**0.9)
    for row in rows:
        assert set(row["scale"]) == {"organ", "lesion"}
        for name, scale in row["scale"].items():
            assert 0 < scale < 1
            assert 1 / 1.5 < row["class_weight"][name] < 1


def test_summary_and_curves_stand_beside_the_log(trained):
    summary = json.loads((trained.fold / "training_summary.json").read_text())
    assert summary["n_parameters"]["noise_head"] == 2 * 9
    assert summary["n_parameters"]["noise_levels"] == 3 * 2
    assert summary["n_parameters"]["network"] > 1000
    assert summary["n_iterations_timed"] == RECIPE.epochs * RECIPE.iterations
    assert 0 < summary["seconds_per_iteration"] < 60
    assert summary["peak_memory_mib"] > 100
    assert (trained.fold / "training_curves.svg").read_bytes().startswith(b"<?xml")


def test_a_run_of_an_older_version_goes_on(trained):
    """Its record lacks the options that there were not then."""
    record = trained.request.run / "auvtool_run.json"
    whole = record.read_text()
    held = json.loads(whole)
    for option in ("denoise_form", "scale_gradient", "static_scales", "class_weights", "amp"):
        del held["recipe"][option]
    record.write_text(json.dumps(held))
    try:
        assert look_ahead(trained.request).is_resumed
    finally:
        record.write_text(whole)


def test_other_weights_are_another_run(trained):
    weighted = replace(trained.request, recipe=replace(RECIPE, class_weights=ClassTable("aa", {"organ": 2.0})))
    with pytest.raises(UsageError, match="got others: class_weights;"):
        look_ahead(weighted)


def test_what_a_cpu_cannot_do_is_refused(trained):
    fresh = replace(trained.request, run=trained.folder / "NEW")
    with pytest.raises(UsageError, match="--amp"):
        look_ahead(replace(fresh, recipe=replace(RECIPE, amp="fp16")))
    with pytest.raises(UsageError, match="--compile"):
        look_ahead(replace(fresh, compile=True))
    with pytest.raises(UsageError, match="--gpus"):
        look_ahead(replace(fresh, n_processes=3))


def test_the_checkpoint_is_a_stock_one(trained):
    checkpoint = torch.load(trained.outcome.checkpoint, weights_only=True)
    assert checkpoint["trainer_name"] == "nnUNetTrainer"
    assert checkpoint["current_epoch"] == 2
    assert not [name for name in checkpoint["network_weights"] if "noise" in name]
    assert "auvtool" not in checkpoint["init_args"]["plans"]
    plans = json.loads((trained.request.run / "plans.json").read_text())
    assert plans["plans_name"] == "nnUNetPlans_auvtool"
    assert plans["configurations"]["3d_fullres"]["architecture"]["arch_kwargs"]["features_per_stage"][0] == 8
    own = trained.folder / "work/nnUNet_preprocessed/Dataset900_Balls/nnUNetPlans.json"
    assert json.loads(own.read_text())["configurations"]["3d_fullres"]["patch_size"] != [32, 32, 32]
    assert "dataset" not in json.loads((trained.request.run / "dataset.json").read_text())


def test_noise_levels_moved_and_meet_the_constraint(trained):
    noise = read_checkpoint(trained.outcome.checkpoint)[NOISE_KEY]
    assert tuple(noise["case_ids"]) == tuple(sorted(trained.outcome.fold.train))
    assert noise["levels"].shape == (3, 2)
    assert noise["levels"].mean(0).tolist() == pytest.approx([0, 0], abs=1e-5)
    assert noise["levels"].square().mean(0).tolist() == pytest.approx([1, 1], abs=1e-5)
    assert {name.rsplit(".", 2)[-2] for name in noise["weights"]} == {"noise"}
    assert max(value.abs().max() for name, value in noise["weights"].items() if name.endswith("weight")) > 0


def test_the_same_request_again_does_nothing(trained):
    before = trained.outcome.checkpoint.stat().st_mtime_ns
    assert look_ahead(trained.request).is_resumed
    again = train(trained.request)
    assert again.resumed_at == 2
    assert again.fold == trained.outcome.fold
    assert trained.outcome.checkpoint.stat().st_mtime_ns == before


def test_other_options_are_refused_and_named(trained):
    with pytest.raises(UsageError, match=r"alpha 0\.5 \(now 0\.25\)"):
        train(replace(trained.request, recipe=replace(RECIPE, alpha=0.25)))
    with pytest.raises(UsageError, match="got others: keep list"):
        look_ahead(replace(trained.request, kept=None))


def test_a_foreign_folder_is_refused(trained):
    with pytest.raises(UsageError, match="new folder"):
        train(replace(trained.request, run=trained.folder / "work"))


def test_a_killed_run_goes_on_and_ends_as_an_undisturbed_one(trained):
    run = trained.folder / "KILLED"
    keep = trained.folder / "K.txt"
    keep.write_text("\n".join([*KEPT, "case_05"]))
    dataset, work = trained.request.dataset.folder, trained.request.workspace
    command = ["train", dataset, "--keep", keep, "-o", run, "--workspace", work, *OPTIONS]
    process = subprocess.Popen(
        [sys.executable, "-m", "auvtool", *map(str, command)], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    )
    fold = run / trained.fold.name
    deadline = time.monotonic() + 300
    while not (fold / "training_log.jsonl").exists():
        assert process.poll() is None, "the training ended before it could be killed"
        assert time.monotonic() < deadline
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    output, _ = process.communicate()
    assert output == b""
    assert not (fold / "checkpoint_final.pth").exists()
    done = read_checkpoint(fold / "checkpoint_latest.pth")["current_epoch"]
    assert done == 1

    rows: list = []
    outcome = train(replace(trained.request, run=run), on_epoch=rows.append)

    assert outcome.resumed_at == 1
    assert [row["epoch"] for row in rows] == [1]
    assert (fold / "training_log.jsonl").read_bytes() == (trained.fold / "training_log.jsonl").read_bytes()
    straight, resumed = read_checkpoint(trained.outcome.checkpoint), read_checkpoint(outcome.checkpoint)
    for key in ("network_weights", "optimizer_state", NOISE_KEY, RUN_KEY, "current_epoch", "_best_ema"):
        assert_equal(resumed[key], straight[key])
    assert resumed["logging"].keys() == straight["logging"].keys()
    for key in resumed["logging"].keys() - {"epoch_start_timestamps", "epoch_end_timestamps"}:
        assert_equal(resumed["logging"][key], straight["logging"][key])
    assert not (fold / "checkpoint_latest.pth").exists()


def test_what_is_left_before_the_final_checkpoint_is_whole(trained, monkeypatch):
    """Stopped as it is about to be written, after the last epoch: the same command ends with the same files."""
    run = trained.folder / "STOPPED"

    def stop(path, checkpoint):
        if path.name == "checkpoint_final.pth":
            raise KeyboardInterrupt
        save_checkpoint(path, checkpoint)

    with monkeypatch.context() as patch:
        patch.setattr(trainer_module, "save_checkpoint", stop)
        with pytest.raises(KeyboardInterrupt):
            train(replace(trained.request, run=run))
    fold = run / trained.fold.name
    assert not (fold / "checkpoint_final.pth").exists()
    assert (fold / "training_curves.svg").read_bytes() == (trained.fold / "training_curves.svg").read_bytes()
    summary = json.loads((fold / "training_summary.json").read_text())
    assert summary.keys() == json.loads((trained.fold / "training_summary.json").read_text()).keys()
    rows: list = []
    outcome = train(replace(trained.request, run=run), on_epoch=rows.append)
    assert rows == []
    assert outcome.checkpoint.is_file()
    assert json.loads((fold / "training_summary.json").read_text()) == summary
    assert (fold / "training_curves.svg").read_bytes() == (trained.fold / "training_curves.svg").read_bytes()


STOCK = """
import sys
sys.modules["auvtool"] = None  # importing it fails
import torch
from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor

if __name__ == "__main__":
    run, fold, image, output = sys.argv[1:]
    torch.set_num_threads(1)
    predictor = nnUNetPredictor(use_mirroring=True, device=torch.device("cpu"), allow_tqdm=False)
    predictor.initialize_from_trained_model_folder(run, (int(fold),), "checkpoint_final.pth")
    predictor.predict_from_files_sequential([[image]], [output])
"""


def test_stock_nnunet_predicts_without_auvtool_what_predict_does(trained):
    image = trained.request.dataset.folder / "imagesTr/case_00_0000.nii.gz"
    stock = trained.folder / "STOCK"
    stock.mkdir()
    fold = trained.fold.name.removeprefix("fold_")
    environment = {key: value for key, value in os.environ.items() if not key.startswith("nnUNet")}
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", STOCK, trained.request.run, fold, image, stock / "case_00"],
        capture_output=True,
        text=True,
        check=False,
        env=environment | {"nnUNet_def_n_proc": "1"},
        cwd=trained.folder,  # not where the package's sources are
    )
    assert done.returncode == 0, done.stderr

    from auvtool.nnunet_run import find_checkpoints
    from auvtool.prediction import load_model, nnunet_process, predict
    from auvtool.prediction_images import find_images

    with nnunet_process():
        model = load_model(
            trained.request.run, find_checkpoints(trained.request.run, name="checkpoint_final.pth"), mirror=True
        )
        cases, problems = find_images(
            [trained.request.dataset.folder / "imagesTr"], file_ending=".nii.gz", n_channels=1, case_ids=["case_00"]
        )
        result = predict(model, cases, trained.folder / "OURS")
    assert (result.done, result.failures, problems) == (("case_00",), (), [])
    expected = sitk.GetArrayFromImage(sitk.ReadImage(str(stock / "case_00.nii.gz")))
    found = sitk.GetArrayFromImage(sitk.ReadImage(str(trained.folder / "OURS/case_00.nii.gz")))
    assert np.array_equal(found, expected)
    assert len(np.unique(found)) > 1


def test_plain_loss_is_nnunets_own_and_has_no_noise_head(trained):
    from nnunetv2.training.loss.deep_supervision import DeepSupervisionWrapper

    with trainer_of(trained, replace(RECIPE, loss="plain")) as trainer:
        assert isinstance(trainer.loss, DeepSupervisionWrapper)
        assert trainer.noise_levels is None
        assert len(trainer.optimizer.param_groups) == 1
        assert not [name for name, _ in trainer.network.named_parameters() if "noise" in name]


def test_noise_head_is_a_group_of_its_own_and_changes_no_prediction(trained):
    with trainer_of(trained, RECIPE) as trainer:
        stock, noise = trainer.optimizer.param_groups
        assert (stock["weight_decay"], noise["weight_decay"]) == (3e-5, 0.0)
        assert [tuple(parameter.shape) for parameter in noise["params"]] == [(2, 8, 1, 1, 1), (2,), (3, 2)]
        image = torch.randn(1, 1, 32, 32, 32, generator=torch.Generator().manual_seed(0))
        with torch.no_grad():
            assert trainer.network.eval()(image)[0].shape[1] == 3
            training, *lower = trainer.network.train()(image)
        assert training.shape[1] == 5
        assert all(output.shape[1] == 3 for output in lower)


def some_batch():
    generator = torch.Generator().manual_seed(0)
    return {
        "data": torch.randn(2, 1, 32, 32, 32, generator=generator),
        "target": [torch.randint(0, 3, (2, 1, *(side,) * 3), generator=generator).short() for side in (32, 16, 8)],
        "keys": np.array(["case_01", "case_04"]),
    }


def test_bf16_trains_near_to_full_precision_without_a_scaler(trained):
    losses = {}
    for amp in (None, "bf16"):
        with trainer_of(trained, replace(RECIPE, amp=amp)) as trainer:
            trainer.network.train()
            assert trainer.grad_scaler is None
            losses[amp] = [float(trainer.train_step(some_batch())["loss"]) for _ in range(2)]
            assert all(parameter.dtype is torch.float32 for parameter in trainer.network.parameters())
    assert losses["bf16"] != losses[None]
    assert losses["bf16"] == pytest.approx(losses[None], rel=0.02)


def test_the_official_form_trains_a_noise_head_without_levels(trained):
    recipe = replace(RECIPE, denoise_form="official", scale_gradient=True)
    with trainer_of(trained, recipe) as trainer:
        assert trainer.noise_levels is None
        _, noise = trainer.optimizer.param_groups
        assert [tuple(parameter.shape) for parameter in noise["params"]] == [(2, 8, 1, 1, 1), (2,)]
        trainer.network.train()
        trainer.train_step(some_batch())
        assert noise["params"][0].abs().max() > 0
        file = trained.folder / "official.pth"
        trainer.save_checkpoint(str(file))
        assert set(read_checkpoint(file)[NOISE_KEY]) == {"weights"}
        before = noise["params"][0].detach().clone()
        trainer.train_step(some_batch())
        trainer.load_checkpoint(str(file))
        assert torch.equal(noise["params"][0], before)


def test_static_and_class_weights_reach_the_loss(trained):
    scales, weights = ClassTable("aa", {"lesion": 0.5, "organ": 0.0}), ClassTable("bb", {"organ": 3.0, "lesion": 2.0})
    with trainer_of(trained, replace(RECIPE, alpha=2.0, static_scales=scales, class_weights=weights)) as trainer:
        trainer.network.train()
        trainer.train_step(some_batch())
        assert trainer.loss.last_weight.tolist() == [[3.0, 1.0]] * 2


def test_nan_stops_the_run_and_names_epoch_cases_and_class(trained):
    with trainer_of(trained, RECIPE) as trainer:
        batch = {
            "data": torch.full((2, 1, 32, 32, 32), float("nan")),
            "target": [torch.ones(2, 1, *(side,) * 3, dtype=torch.int16) for side in (32, 16, 8)],
            "keys": np.array(["case_01", "case_04"]),
        }
        before = {name: value.clone() for name, value in trainer.network.state_dict().items()}
        trainer.network.train()
        with pytest.raises(InputError, match=r"epoch 0, cases case_01, case_04: .*class organ"):
            trainer.train_step(batch)
        assert all(torch.equal(before[name], value) for name, value in trainer.network.state_dict().items())


def test_an_edited_split_is_noticed(trained):
    with trainer_of(trained, RECIPE) as trainer:
        trainer.expected_split = (["case_01"], ["case_00"])
        with pytest.raises(InputError, match="cases that this run was started with"):
            trainer.do_split()


class trainer_of:  # noqa: N801  # used like a function
    """A trainer on the fixture's data, not yet trained."""

    def __init__(self, trained: Trained, recipe: Recipe) -> None:
        self.trained, self.recipe = trained, recipe

    def __enter__(self):
        from auvtool.training.captured_output import captured_output
        from auvtool.training.session import class_names
        from auvtool.training.workspace import choose_workspace

        request, fold = self.trained.request, self.trained.outcome.fold
        run = self.trained.folder / f"SCRATCH_{self.recipe.loss}"
        workspace = choose_workspace(request.dataset, folder=request.workspace, run=run)
        self.stack = [workspace.environment(augmentation_workers=0), captured_output(self.trained.folder / "log.txt")]
        for context in self.stack:
            context.__enter__()
        from auvtool.training.trainer import OPTIONS_KEY, AuvTrainer

        options = {
            "recipe": self.recipe.to_dict(),
            "run": str(run),
            "train": list(fold.train),
            "val": list(fold.val),
            "class_names": class_names(request.dataset),
        }
        plans = json.loads((request.run / "plans.json").read_text())
        dataset_json = json.loads((request.run / "dataset.json").read_text())
        trainer = AuvTrainer(
            {**plans, "continue_training": False, OPTIONS_KEY: options},
            "3d_fullres",
            fold.number,
            dataset_json,
            torch.device("cpu"),
        )
        trainer.initialize()
        return trainer

    def __exit__(self, *error):
        for context in reversed(self.stack):
            context.__exit__(None, None, None)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_trains_on_a_gpu(trained):
    outcome = train(replace(trained.request, run=trained.folder / "GPU", device="cuda", augmentation_workers=0))
    assert read_checkpoint(outcome.checkpoint)["grad_scaler_state"] is not None
