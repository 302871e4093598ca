"""The network's own precision, whatever autocast stands around it."""

import pytest
import torch
from torch import nn

from auvtool.training.noise import NoisySegmentationHead
from auvtool.training.precision import needs_gradient_scaler, set_precision


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv3d(1, 4, 3, padding=1), NoisySegmentationHead(nn.Conv3d(4, 3, 1), n_classes=2))


@pytest.mark.parametrize(
    ("precision", "alone", "under_autocast"),
    [
        (None, torch.float32, torch.bfloat16),
        ("off", torch.float32, torch.float32),
        ("bf16", torch.bfloat16, torch.bfloat16),
    ],
)
def test_the_forward_pass_has_the_precision_asked_for(precision, alone, under_autocast):
    inner = network()
    names = list(inner.state_dict())
    set_precision(inner, precision, torch.device("cpu"))
    image = torch.randn(1, 1, 4, 4, 4)
    assert inner(image).dtype is alone
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert inner(image).dtype is under_autocast
    assert list(inner.state_dict()) == names


def test_half_precision_changes_the_output_by_its_rounding():
    image = torch.randn(1, 1, 4, 4, 4, generator=torch.Generator().manual_seed(1))
    whole, half = network(), network()
    set_precision(half, "bf16", torch.device("cpu"))
    assert torch.allclose(half(image).float(), whole(image), atol=0.05)


def test_a_compiled_network_keeps_it():
    inner = network()
    set_precision(inner, "bf16", torch.device("cpu"))
    compiled = torch.compile(inner, backend="eager", fullgraph=True)
    assert compiled(torch.randn(1, 1, 4, 4, 4)).dtype is torch.bfloat16


def test_only_fp16_needs_the_scaler():
    assert [needs_gradient_scaler(precision) for precision in (None, "fp16", "bf16", "off")] == [
        True,
        True,
        False,
        False,
    ]
