"""The precision that a network computes in."""

from typing import Any

import torch
from torch import Tensor, nn

from auvtool.training.recipe import Precision

_TYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}


def set_precision(network: nn.Module, precision: Precision | None, device: torch.device) -> None:
    """Let the forward pass of `network` have a precision of its own, inside whatever nnU-Net asks for around it.

    nnU-Net runs every forward pass on a GPU under autocast to fp16 and none on a CPU; this one, innermost, holds for
    training and validation, and for nothing but the network. It is no part of a checkpoint: a predictor builds the
    network anew and runs it as nnU-Net does. None leaves it to nnU-Net.
    """
    if precision is None:
        return
    forward = network.forward

    def in_precision(*inputs: Tensor) -> Any:  # autocast's own decorator cannot be compiled as one graph
        with torch.autocast(device.type, dtype=_TYPES.get(precision, torch.bfloat16), enabled=precision != "off"):
            return forward(*inputs)

    network.forward = in_precision


def needs_gradient_scaler(precision: Precision | None) -> bool:
    """Only half precision has so small a range; None: as nnU-Net has it."""
    return precision in {None, "fp16"}
