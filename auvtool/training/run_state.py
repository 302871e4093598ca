"""What a trainer's checkpoint holds, and how a trainer goes on from it."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from auvtool.errors import InputError
from auvtool.nnunet_run import read_checkpoint
from auvtool.training.export import NOISE_KEY, RUN_KEY, STOCK_TRAINER
from auvtool.training.noise import is_noise_parameter

if TYPE_CHECKING:
    from auvtool.training.trainer import AuvTrainer


def bare_network(network: nn.Module) -> nn.Module:
    """The network without the wrappers of several processes and of torch.compile."""
    inner = network.module if isinstance(network, DistributedDataParallel) else network
    original = getattr(inner, "_orig_mod", inner)
    assert isinstance(original, nn.Module)  # noqa: S101  # both wrappers hold one
    return original


def checkpoint_of(trainer: "AuvTrainer") -> dict[str, Any]:
    """A checkpoint in nnU-Net's layout, whose network is the stock one; ours is under keys of its own."""
    state = bare_network(trainer.network).state_dict()
    checkpoint: dict[str, Any] = {
        "network_weights": {name: value for name, value in state.items() if not is_noise_parameter(name)},
        "optimizer_state": trainer.optimizer.state_dict(),
        "grad_scaler_state": trainer.grad_scaler.state_dict() if trainer.grad_scaler is not None else None,
        "logging": trainer.logger.get_checkpoint(),
        "_best_ema": trainer._best_ema,
        "current_epoch": trainer.current_epoch + 1,
        "init_args": {**trainer.my_init_kwargs, "device": trainer.device},
        "trainer_name": STOCK_TRAINER,
        "inference_allowed_mirroring_axes": trainer.inference_allowed_mirroring_axes,
        RUN_KEY: {
            "recipe": trainer.recipe.to_dict(),
            "history": trainer.log.rows,
            "class_names": list(trainer.class_names),
        },
    }
    if trainer.recipe.uses_noise_head:
        checkpoint[NOISE_KEY] = {"weights": {name: value for name, value in state.items() if is_noise_parameter(name)}}
    if trainer.noise_levels is not None:
        checkpoint[NOISE_KEY]["case_ids"] = list(trainer.noise_levels.case_ids)
        checkpoint[NOISE_KEY]["levels"] = trainer.noise_levels.values.detach()
    return checkpoint


def restore(trainer: "AuvTrainer", path: Path) -> None:
    """Bring an initialised trainer to where a checkpoint of its run was.

    Raises:
        InputError: see `read_checkpoint`, or the training cases are others.
    """
    checkpoint = read_checkpoint(path, device=trainer.device)
    noise = checkpoint.get(NOISE_KEY, {"weights": {}, "case_ids": []})
    if trainer.noise_levels is not None:
        if tuple(noise["case_ids"]) != trainer.noise_levels.case_ids:
            raise InputError(
                path,
                expected="noise levels of this fold's training cases",
                found="others",
                cure="start again with --force",
            )
        with torch.no_grad():
            trainer.noise_levels.values.copy_(noise["levels"])
    bare_network(trainer.network).load_state_dict({**checkpoint["network_weights"], **noise["weights"]})
    trainer.optimizer.load_state_dict(checkpoint["optimizer_state"])
    if trainer.grad_scaler is not None and checkpoint["grad_scaler_state"] is not None:
        trainer.grad_scaler.load_state_dict(checkpoint["grad_scaler_state"])
    trainer.logger.load_checkpoint(checkpoint["logging"])
    trainer.current_epoch = checkpoint["current_epoch"]
    trainer._best_ema = checkpoint["_best_ema"]
    trainer.inference_allowed_mirroring_axes = checkpoint["inference_allowed_mirroring_axes"]
    trainer.log.rows = list(checkpoint[RUN_KEY]["history"])
