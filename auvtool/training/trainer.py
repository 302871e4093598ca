"""nnU-Net's trainer with the DUO loss, exact resuming, and output in the run's folder."""

import json
import random
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from auvtool.atomic import write_text
from auvtool.backbones import has_deep_supervision
from auvtool.errors import InputError
from auvtool.training.duo import DuoLoss, NonFiniteLoss
from auvtool.training.export import plain, save_checkpoint
from auvtool.training.noise import NoiseLevels, attach_noise_head, is_noise_parameter
from auvtool.training.precision import needs_gradient_scaler, set_precision
from auvtool.training.processes import number_of_processes, own_rank, share_gradient
from auvtool.training.recipe import Recipe
from auvtool.training.run_log import EpochRow, RunLog
from auvtool.training.run_state import bare_network, checkpoint_of, restore
from auvtool.training.training_curves import draw_whole
from auvtool.training.training_summary import SUMMARY_NAME, PeakMemory, training_summary

OPTIONS_KEY = "auvtool"


class AuvTrainer(nnUNetTrainer):  # type: ignore[misc]  # nnU-Net ships no types
    """nnU-Net's trainer; what it does beyond that comes in `plans["auvtool"]`, which it takes out of the plans.

    That record has `run` (folder), `recipe` (`Recipe.to_dict`), `train` and `val` (case ids) and `class_names`. It is
    instantiated directly: nnU-Net's search by name imports every trainer there is. Its checkpoints name the stock
    trainer, and hold the noise head under a key of its own.

    Batches, augmentation and weights follow `recipe.seed`, each epoch from its own stream, so that on a CPU without
    augmentation processes a resumed run equals an undisturbed one. Of several processes that share a batch, each draws
    its part from a stream of its own, and the first one writes.
    """

    is_ddp: bool
    network: Any
    grad_scaler: Any

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
        self.on_epoch: Callable[[EpochRow], None] = lambda _: None
        self.noise_levels: NoiseLevels | None = None
        self._seconds: list[float] = []  # of each training iteration of this process
        super().__init__(plans, configuration, fold, dataset_json, device)
        self.device = device  # nnU-Net would take the first GPU whichever is named
        self.enable_deep_supervision = has_deep_supervision(self.recipe.backbone)
        if device.type == "cpu" or not needs_gradient_scaler(self.recipe.amp):
            self.grad_scaler = None
        self.log = RunLog(self.fold_folder, self.class_names)
        self.logger.plot_progress_png = partial(draw_whole, self.logger.plot_progress_png)
        self._memory = PeakMemory(device)
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
        if self.recipe.uses_noise_levels:
            # In the order in which nnU-Net sorts the training cases.
            self.noise_levels = NoiseLevels(sorted(self.expected_split[0]), len(self.class_names)).to(self.device)
            share_gradient(self.noise_levels.values)
        on_cpus, self.is_ddp = self.is_ddp and self.device.type == "cpu", self.is_ddp and self.device.type != "cpu"
        super().initialize()
        if on_cpus:  # nnU-Net knows only processes on GPUs
            self.is_ddp = True
            self._set_batch_size_and_oversample()
            self.network = DistributedDataParallel(self.network)
            self.loss = self._build_loss()

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
        set_precision(network, self.recipe.amp, self.device)
        return network

    def configure_optimizers(self) -> tuple[torch.optim.Optimizer, Any]:
        """nnU-Net's optimiser; noise head and levels are a group of their own, without weight decay."""
        optimizer, scheduler = super().configure_optimizers()
        if self.recipe.uses_noise_head:
            of_head = [parameter for name, parameter in self.network.named_parameters() if is_noise_parameter(name)]
            known = {id(parameter) for parameter in of_head}
            group = optimizer.param_groups[0]
            group["params"] = [parameter for parameter in group["params"] if id(parameter) not in known]
            levels = [] if self.noise_levels is None else [self.noise_levels.values]
            optimizer.add_param_group({"params": [*of_head, *levels], "weight_decay": 0.0})
        return optimizer, scheduler

    def _build_loss(self) -> nn.Module:
        stock: nn.Module = super()._build_loss()
        if self.recipe.loss == "plain":
            return stock
        scales, weights = self.recipe.static_scales, self.recipe.class_weights
        loss = DuoLoss(
            n_classes=len(self.class_names),
            has_regions=self.label_manager.has_regions,
            ignore_label=self.label_manager.ignore_label,
            alpha=self.recipe.alpha,
            beta=self.recipe.beta,
            reweight=self.recipe.reweight,
            batch_dice=self.configuration_manager.batch_dice,
            # Those of its DeepSupervisionWrapper, which it has only with deep supervision.
            resolution_weights=getattr(stock, "weight_factors", (1.0,)),
            denoise_form=self.recipe.denoise_form,
            scale_gradient=self.recipe.scale_gradient,
            static_weights=None
            if scales is None
            else [1 / (1 + self.recipe.alpha * scale) for scale in scales.in_order(self.class_names)],
            class_weights=None if weights is None else weights.in_order(self.class_names),
        )
        if self.is_ddp:
            loss.process_share = self.batch_size * number_of_processes() / self.configuration_manager.batch_size
        return loss

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
        self.log.start_epoch()
        super().on_epoch_start()

    def _seed(self, stream: int) -> None:
        entropy = [self.recipe.seed, stream, *([own_rank()] if own_rank() else [])]
        state = int(np.random.SeedSequence(entropy).generate_state(1)[0])
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
        start = time.perf_counter()
        result: dict[str, Any] = self._finite(super().train_step, batch, case_ids)
        self._seconds.append(time.perf_counter() - start)  # the loss in `result` is on the CPU: the device is done
        if isinstance(self.loss, DuoLoss):
            self.loss.level = None
            if self.loss.last_scale is not None and self.loss.last_weight is not None:
                self.log.add_batch(self.loss.last_scale, self.loss.last_weight)
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
        # As a checkpoint gives it back: the moving average of the Dice goes on from it, and float32 rounds otherwise.
        self.logger.load_checkpoint(plain(self.logger.get_checkpoint()))

        def last(key: str) -> Any:
            return self.logger.get_value(key, step=-1)

        numbers = {"lr": last("lrs"), "train_loss": last("train_losses"), "val_loss": last("val_losses")}
        row = self.log.end_epoch(
            {"epoch": self.current_epoch - 1, **{key: float(value) for key, value in numbers.items()}},
            pseudo_dice=last("dice_per_class_or_region"),
        )
        self.current_epoch -= 1  # a checkpoint stores the next epoch's number
        self.save_checkpoint(str(self.fold_folder / "checkpoint_latest.pth"))
        self.current_epoch += 1
        if self.local_rank == 0:
            self.log.write()
            self.on_epoch(row)

    def on_train_end(self) -> None:
        """The results, then nnU-Net's final checkpoint: where that one stands, a run is complete."""
        self._write_results()
        super().on_train_end()

    def _write_results(self) -> None:
        """Log and curves once more, and training_summary.json."""
        if self.local_rank != 0:
            return
        self.log.write(last=True)
        if not self._seconds and (self.fold_folder / SUMMARY_NAME).is_file():
            return  # all epochs were done before: what they cost was known then
        summary = training_summary(
            bare_network(self.network),
            self.noise_levels,
            seconds=self._seconds,
            memory=self._memory,
            n_processes=number_of_processes(),
        )
        write_text(self.fold_folder / SUMMARY_NAME, json.dumps(summary, indent=1) + "\n", force=True)

    def save_checkpoint(self, filename: str) -> None:
        """Write a checkpoint that stock nnU-Net predicts with, and that `load_checkpoint` resumes from."""
        if self.local_rank == 0 and not self.disable_checkpointing:
            save_checkpoint(Path(filename), checkpoint_of(self))

    def load_checkpoint(self, filename_or_checkpoint: str) -> None:
        """Go on from a checkpoint of this run: network, noise head and levels, optimiser, log, epoch.

        Raises:
            InputError: see `read_checkpoint`, or the training cases are others.
        """
        if not self.was_initialized:
            self.initialize()
        restore(self, Path(filename_or_checkpoint))
