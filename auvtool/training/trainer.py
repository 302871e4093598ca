"""nnU-Net's trainer with the DUO loss, exact resuming, and output in the run's folder."""

import json
import math
import random
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from torch import Tensor, nn

from auvtool.atomic import write_text
from auvtool.backbones import has_deep_supervision
from auvtool.errors import InputError
from auvtool.training.duo import DuoLoss, NonFiniteLoss
from auvtool.training.export import NOISE_KEY, RUN_KEY, STOCK_TRAINER, read_checkpoint, save_checkpoint
from auvtool.training.noise import NoiseLevels, attach_noise_head, is_noise_parameter
from auvtool.training.recipe import Recipe

EpochRow = dict[str, Any]
LOG_NAME = "training_log.jsonl"
OPTIONS_KEY = "auvtool"


class AuvTrainer(nnUNetTrainer):  # type: ignore[misc]  # nnU-Net ships no types
    """nnU-Net's trainer; what it does beyond that comes in `plans["auvtool"]`, which it takes out of the plans.

    That record has `run` (folder), `recipe` (`Recipe.to_dict`), `train` and `val` (case ids) and `class_names`. It is
    instantiated directly: nnU-Net's search by name imports every trainer there is. Its checkpoints name the stock
    trainer, and hold the noise head under a key of its own.

    Batches, augmentation and weights follow `recipe.seed`, each epoch from its own stream, so that on a CPU without
    augmentation processes a resumed run equals an undisturbed one.
    """

    # nnU-Net reads the parameters' names: they must be exactly these.
    def __init__(
        self,
        plans: dict[str, Any],
        configuration: str,
        fold: int,
        dataset_json: dict[str, Any],
        device: torch.device = torch.device("cuda"),  # noqa: B008
    ) -> None:
        options = plans.pop(OPTIONS_KEY)
        self.recipe = Recipe.from_dict(options["recipe"])
        self.run_folder = Path(options["run"])
        self.class_names: tuple[str, ...] = tuple(options["class_names"])
        self.expected_split = (list(options["train"]), list(options["val"]))
        self.history: list[EpochRow] = []
        self.on_epoch: Callable[[EpochRow], None] = lambda _: None
        self.noise_levels: NoiseLevels | None = None
        self._scales: list[Tensor] = []
        super().__init__(plans, configuration, fold, dataset_json, device)
        self.device = device  # nnU-Net would take the first GPU whichever is named
        self.enable_deep_supervision = has_deep_supervision(self.recipe.backbone)
        self.initial_lr = self.recipe.lr
        self.num_epochs = self.recipe.epochs
        self.num_iterations_per_epoch = self.recipe.iterations
        self.num_val_iterations_per_epoch = self.recipe.val_iterations
        self.save_every = self.num_epochs + 1  # `on_epoch_end` saves, after each epoch and whole

    @property
    def output_folder_base(self) -> str:
        """The run's folder; nnU-Net would make it of data set, trainer and plans."""
        return str(self.run_folder)

    @output_folder_base.setter
    def output_folder_base(self, _: object) -> None:
        pass

    @property
    def fold_folder(self) -> Path:
        """Where the checkpoints are."""
        return self.run_folder / f"fold_{self.fold}"

    def initialize(self) -> None:
        """Build network, optimiser and loss, the same for the same seed."""
        self._seed(0)
        if self.recipe.uses_noise_head:
            # In the order in which nnU-Net sorts the training cases.
            self.noise_levels = NoiseLevels(sorted(self.expected_split[0]), len(self.class_names)).to(self.device)
        super().initialize()

    def build_network_architecture(  # nnU-Net's is static; at inference it calls the stock one
        self,
        plans_manager: Any,
        configuration_manager: Any,
        num_input_channels: int,
        num_output_channels: int,
        enable_deep_supervision: bool = True,
    ) -> nn.Module:
        """The stock network, with the noise head beside its segmentation head."""
        network: nn.Module = nnUNetTrainer.build_network_architecture(
            plans_manager, configuration_manager, num_input_channels, num_output_channels, enable_deep_supervision
        )
        if self.recipe.uses_noise_head:
            attach_noise_head(network, len(self.class_names))
        return network

    def configure_optimizers(self) -> tuple[torch.optim.Optimizer, Any]:
        """nnU-Net's optimiser; noise head and levels are a group of their own, without weight decay."""
        optimizer, scheduler = super().configure_optimizers()
        if self.noise_levels is not None:
            of_head = [parameter for name, parameter in self.network.named_parameters() if is_noise_parameter(name)]
            known = {id(parameter) for parameter in of_head}
            group = optimizer.param_groups[0]
            group["params"] = [parameter for parameter in group["params"] if id(parameter) not in known]
            optimizer.add_param_group({"params": [*of_head, self.noise_levels.values], "weight_decay": 0.0})
        return optimizer, scheduler

    def _build_loss(self) -> nn.Module:
        stock: nn.Module = super()._build_loss()
        if self.recipe.loss == "plain":
            return stock
        return DuoLoss(
            n_classes=len(self.class_names),
            has_regions=self.label_manager.has_regions,
            ignore_label=self.label_manager.ignore_label,
            alpha=self.recipe.alpha,
            beta=self.recipe.beta,
            reweight=self.recipe.reweight,
            batch_dice=self.configuration_manager.batch_dice,
            # Those of its DeepSupervisionWrapper, which it has only with deep supervision.
            resolution_weights=getattr(stock, "weight_factors", (1.0,)),
        )

    @staticmethod
    def get_training_transforms(*args: Any, **options: Any) -> Any:
        """nnU-Net's, but the blur's algorithm is not chosen by timing it, which would make runs differ."""
        transforms = nnUNetTrainer.get_training_transforms(*args, **options)
        for transform in transforms.transforms:
            inner = getattr(transform, "transform", transform)
            if hasattr(inner, "benchmark"):
                inner.benchmark = False
        return transforms

    def do_split(self) -> tuple[list[str], list[str]]:
        """nnU-Net's split, which must be the one that was asked for.

        Raises:
            InputError: splits_final.json has changed since.
        """
        train, val = super().do_split()
        if (sorted(train), sorted(val)) != (sorted(self.expected_split[0]), sorted(self.expected_split[1])):
            raise InputError(
                f"fold {self.fold} of splits_final.json",
                expected="the cases that this run was started with",
                found="others",
                cure="do not edit the file while runs use it; start the run again",
            )
        return train, val

    def on_epoch_start(self) -> None:
        """Each epoch has its own random stream, whether the run was interrupted before it or not."""
        self._seed(1 + self.current_epoch)
        self._scales = []
        super().on_epoch_start()

    def _seed(self, stream: int) -> None:
        state = int(np.random.SeedSequence([self.recipe.seed, stream]).generate_state(1)[0])
        random.seed(state)
        np.random.seed(state)  # what nnU-Net's loaders draw from
        torch.manual_seed(state)

    def train_step(self, batch: dict[str, Any]) -> dict[str, Any]:
        """One batch; its cases' noise levels go into the loss.

        Raises:
            InputError: the loss is not finite; names epoch, cases and class.
        """
        case_ids = [str(case_id) for case_id in batch["keys"]]
        if isinstance(self.loss, DuoLoss) and self.noise_levels is not None:
            self.loss.level = self.noise_levels(case_ids)
        result: dict[str, Any] = self._finite(super().train_step, batch, case_ids)
        if isinstance(self.loss, DuoLoss):
            self.loss.level = None
            if self.loss.last_scale is not None:
                self._scales.append(self.loss.last_scale)
        return result

    def validation_step(self, batch: dict[str, Any]) -> dict[str, Any]:
        """One validation batch.

        Raises:
            InputError: as for `train_step`.
        """
        return self._finite(super().validation_step, batch, [str(case_id) for case_id in batch["keys"]])

    def _finite(
        self, step: Callable[[dict[str, Any]], dict[str, Any]], batch: dict[str, Any], case_ids: Sequence[str]
    ) -> dict[str, Any]:
        try:
            result = step(batch)
        except NonFiniteLoss as error:
            cases = [case_ids[sample] for sample in error.samples]
            raise self._diverged(cases, f"class {self.class_names[error.class_index]}") from error
        if not np.isfinite(result["loss"]).all():
            raise self._diverged(case_ids, "all classes together")
        return result

    def _diverged(self, case_ids: Sequence[str], what: str) -> InputError:
        return InputError(
            f"epoch {self.current_epoch}, cases {', '.join(case_ids)}",
            expected="a finite loss",
            found=f"NaN or infinity ({what})",
            cure="look at these scans, or lower --lr; the same command goes on from the last epoch",
        )

    def on_train_epoch_end(self, train_outputs: list[dict[str, Any]]) -> None:
        """Bring the noise levels back to the constraint of eq. 11."""
        super().on_train_epoch_end(train_outputs)
        if self.noise_levels is not None:
            self.noise_levels.project()

    def on_epoch_end(self) -> None:
        """nnU-Net's end of an epoch, then a row of the log and a checkpoint to resume from."""
        super().on_epoch_end()  # counts the epoch
        self.history.append(self._epoch_row())
        self.current_epoch -= 1  # a checkpoint stores the next epoch's number
        self.save_checkpoint(str(self.fold_folder / "checkpoint_latest.pth"))
        self.current_epoch += 1
        self.write_history()
        self.on_epoch(self.history[-1])

    def write_history(self) -> None:
        """Write training_log.jsonl, one line an epoch, as far as the checkpoint goes."""
        text = "".join(json.dumps(row, ensure_ascii=False, allow_nan=False) + "\n" for row in self.history)
        write_text(self.fold_folder / LOG_NAME, text, force=True)

    def _epoch_row(self) -> EpochRow:
        def last(key: str) -> Any:
            return self.logger.get_value(key, step=-1)

        row: EpochRow = {
            "epoch": self.current_epoch - 1,
            "lr": float(last("lrs")),
            "train_loss": float(last("train_losses")),
            "val_loss": float(last("val_losses")),
            "pseudo_dice": _by_class(self.class_names, last("dice_per_class_or_region")),
        }
        if self._scales:
            scale = torch.cat(self._scales)
            weight = 1 / (1 + self.recipe.alpha * scale) if self.recipe.reweight else torch.ones_like(scale)
            row["scale"] = _by_class(self.class_names, scale.mean(0).tolist())
            row["class_weight"] = _by_class(self.class_names, weight.mean(0).tolist())
        return row

    def save_checkpoint(self, filename: str) -> None:
        """Write a checkpoint that stock nnU-Net predicts with, and that `load_checkpoint` resumes from."""
        if self.local_rank != 0 or self.disable_checkpointing:
            return
        state = self._bare_network().state_dict()
        checkpoint: dict[str, Any] = {
            "network_weights": {name: value for name, value in state.items() if not is_noise_parameter(name)},
            "optimizer_state": self.optimizer.state_dict(),
            "grad_scaler_state": self.grad_scaler.state_dict() if self.grad_scaler is not None else None,
            "logging": self.logger.get_checkpoint(),
            "_best_ema": self._best_ema,
            "current_epoch": self.current_epoch + 1,
            "init_args": {**self.my_init_kwargs, "device": self.device},
            "trainer_name": STOCK_TRAINER,
            "inference_allowed_mirroring_axes": self.inference_allowed_mirroring_axes,
            RUN_KEY: {"recipe": self.recipe.to_dict(), "history": self.history, "class_names": list(self.class_names)},
        }
        if self.noise_levels is not None:
            checkpoint[NOISE_KEY] = {
                "weights": {name: value for name, value in state.items() if is_noise_parameter(name)},
                "case_ids": list(self.noise_levels.case_ids),
                "levels": self.noise_levels.values.detach(),
            }
        save_checkpoint(Path(filename), checkpoint)

    def load_checkpoint(self, filename_or_checkpoint: str) -> None:
        """Go on from a checkpoint of this run: network, noise head and levels, optimiser, log, epoch.

        Raises:
            InputError: see `read_checkpoint`, or the training cases are others.
        """
        if not self.was_initialized:
            self.initialize()
        checkpoint = read_checkpoint(Path(filename_or_checkpoint), device=self.device)
        weights = dict(checkpoint["network_weights"])
        if self.noise_levels is not None:
            noise = checkpoint.get(NOISE_KEY, {"case_ids": []})
            if tuple(noise["case_ids"]) != self.noise_levels.case_ids:
                raise InputError(
                    filename_or_checkpoint,
                    expected="noise levels of this fold's training cases",
                    found="others",
                    cure="start again with --force",
                )
            weights.update(noise["weights"])
            with torch.no_grad():
                self.noise_levels.values.copy_(noise["levels"])
        self._bare_network().load_state_dict(weights)
        self.optimizer.load_state_dict(checkpoint["optimizer_state"])
        if self.grad_scaler is not None and checkpoint["grad_scaler_state"] is not None:
            self.grad_scaler.load_state_dict(checkpoint["grad_scaler_state"])
        self.logger.load_checkpoint(checkpoint["logging"])
        self.current_epoch = checkpoint["current_epoch"]
        self._best_ema = checkpoint["_best_ema"]
        self.inference_allowed_mirroring_axes = checkpoint["inference_allowed_mirroring_axes"]
        self.history = list(checkpoint[RUN_KEY]["history"])

    def _bare_network(self) -> nn.Module:
        """The network without the wrappers of torch.compile."""
        network = getattr(self.network, "_orig_mod", self.network)
        assert isinstance(network, nn.Module)  # noqa: S101  # called after `initialize`
        return network


def _by_class(names: Sequence[str], values: Sequence[float]) -> dict[str, float | None]:
    return {name: None if math.isnan(value) else float(value) for name, value in zip(names, values, strict=True)}
