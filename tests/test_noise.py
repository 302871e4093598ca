"""Noise head and noise levels."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from torch import nn

from auvtool.training.noise import (
    NoiseLevels,
    NoisySegmentationHead,
    attach_noise_head,
    is_noise_parameter,
)


class Decoder(nn.Module):
    def __init__(self):
        super().__init__()
        self.seg_layers = nn.ModuleList([nn.Conv3d(8, 3, 1), nn.Conv3d(4, 3, 1)])


class Network(nn.Module):
    def __init__(self):
        super().__init__()
        self.decoder = Decoder()


@pytest.mark.parametrize("convolution", [nn.Conv2d, nn.Conv3d])
def test_in_evaluation_it_is_the_stock_layer(convolution):
    stock = convolution(4, 3, 1)
    head = NoisySegmentationHead(stock, n_classes=2)
    features = torch.randn(1, 4, *(5,) * (2 if convolution is nn.Conv2d else 3))
    expected = stock(features)
    assert torch.equal(head.eval()(features), expected)
    both = head.train()(features)
    assert torch.equal(both[:, :3], expected)
    # It starts the same everywhere: sigmoid(-4) = 0.018.
    assert torch.sigmoid(both[:, 3:]).flatten().tolist() == pytest.approx([0.0179862] * both[:, 3:].numel(), abs=1e-6)


def test_without_the_noise_the_state_is_the_stock_one():
    network = Network()
    names = list(network.state_dict())
    attach_noise_head(network, n_classes=2)
    state = network.state_dict()
    assert [name for name in state if not is_noise_parameter(name)] == names
    assert {name for name in state if is_noise_parameter(name)} == {
        "decoder.seg_layers.1.noise.weight",
        "decoder.seg_layers.1.noise.bias",
    }


def test_a_network_without_segmentation_layers_is_refused():
    with pytest.raises(ValueError, match="seg_layers"):
        attach_noise_head(nn.Conv3d(1, 1, 1), n_classes=2)


def test_levels_come_in_the_order_of_the_batch():
    levels = NoiseLevels(["a", "b", "c"], n_classes=2)
    assert torch.equal(levels(["c", "a"]), torch.zeros(2, 2))
    with torch.no_grad():
        levels.values.copy_(torch.arange(6.0).reshape(3, 2))
    assert levels(np.array(["c", "a", "c"])).tolist() == [[4, 5], [0, 1], [4, 5]]


def test_projection_by_hand():
    levels = NoiseLevels(["a", "b"], n_classes=2)
    with torch.no_grad():
        levels.values.copy_(torch.tensor([[1.0, 5.0], [3.0, 5.0]]))
    levels.project()
    assert levels.values.tolist() == [[-1.0, 0.0], [1.0, 0.0]]


@settings(max_examples=50, deadline=None)
@given(arrays(np.float32, st.tuples(st.integers(2, 9), st.integers(1, 3)), elements=st.floats(-100, 100, width=32)))
def test_projection_meets_the_constraint_of_equation_11_and_repeats(values):
    levels = NoiseLevels([str(row) for row in range(len(values))], values.shape[1])
    with torch.no_grad():
        levels.values.copy_(torch.from_numpy(values))
    levels.project()
    once = levels.values.detach().double().clone()
    spread = np.ptp(values.astype(float), axis=0)
    for column, width in enumerate(spread):
        if width > 1e-3 * np.abs(values).max():
            assert once[:, column].mean().item() == pytest.approx(0, abs=1e-5)
            assert once[:, column].square().mean().item() == pytest.approx(1, abs=1e-4)
        if width == 0:
            assert once[:, column].abs().max() == 0
    levels.project()
    assert torch.allclose(levels.values.double(), once, atol=1e-5)
    assert levels.values.isfinite().all()
