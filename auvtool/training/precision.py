"""The precision that a network computes in."""

import torch
from torch import nn

from auvtool.training.recipe import Precision

_TYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}


def set_precision(network: nn.Module, precision: Precision | None, device: torch.device) -> None:
    """Let the forward pass of `network` have a precision of its own, inside whatever nnU-Net asks for around it.

    nnU-Net runs every forward pass on a GPU under autocast to fp16 and none on a CPU; this one, innermost, holds for
    training, validation and prediction alike, and for nothing but the network. None leaves it to nnU-Net.
    """
    if precision is None:
        return
    context = torch.autocast(device.type, dtype=_TYPES.get(precision, torch.bfloat16), enabled=precision != "off")
    network.forward = context(network.forward)


def needs_gradient_scaler(precision: Precision | None) -> bool:
    """Only half precision has so small a range; None: as nnU-Net has it."""
    return precision in {None, "fp16"}
