"""The selective scan against the recurrence token by token, and its gradient against finite differences."""

import math

import numpy as np
import oracles
import pytest
import torch

from auvtool.backbones import selective_scan as module
from auvtool.backbones.selective_scan import selective_scan

N_TOKENS, N_CASES, N_CHANNELS, N_STATES = 13, 2, 3, 4


def tensors(dtype=torch.float64):
    generator = torch.Generator().manual_seed(0)

    def uniform(*shape):
        return torch.rand(*shape, generator=generator, dtype=torch.float64)

    wide, narrow = (N_TOKENS, N_CASES, N_CHANNELS), (N_TOKENS, N_CASES, N_STATES)
    values = (uniform(*wide) - 0.5, uniform(*wide), -uniform(N_CHANNELS, N_STATES), uniform(*narrow), uniform(*narrow))
    return [value.to(dtype).requires_grad_() for value in values]


def scan(inputs, step, decay, write, read):
    return selective_scan(inputs, step=step, decay=decay, write=write, read=read)


def test_by_hand():
    """One state that halves at each step: 1, then 0.5 + 1, then 0.75 + 1."""
    one = torch.ones(3, 1, 1)
    found = scan(one, one, torch.full((1, 1), -math.log(2)), one, one)
    assert found.flatten().tolist() == pytest.approx([1, 1.5, 1.75])


# Chunks: the whole sequence; 4 tokens, so that the last chunk is shorter; one token.
@pytest.mark.parametrize("chunk", [2**22, 4 * N_CASES * N_CHANNELS * N_STATES, 1])
def test_is_the_recurrence_and_has_its_gradient_whatever_the_chunk(chunk, monkeypatch):
    monkeypatch.setattr(module, "_CHUNK_ELEMENTS", chunk)
    values = tensors()
    found = scan(*values).detach().numpy()
    expected = oracles.selective_scan(*(value.detach().numpy() for value in values))
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-14)
    assert torch.autograd.gradcheck(scan, values)


def test_states_of_all_tokens_are_never_kept(monkeypatch):
    monkeypatch.setattr(module, "_CHUNK_ELEMENTS", 4 * N_CASES * N_CHANNELS * N_STATES)
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda tensor: kept.append(tensor) or tensor, lambda tensor: tensor):
        scan(*tensors())
    states = [tensor for tensor in kept if tensor.shape == (N_CASES, N_CHANNELS, N_STATES)]
    assert len(kept) - len(states) == 5  # the arguments
    assert len(states) == math.ceil(N_TOKENS / 4)


def test_single_precision_stays_close():
    double, single = tensors(), tensors(torch.float32)
    scan(*double).sum().backward()
    scan(*single).sum().backward()
    for expected, found in zip(double, single, strict=True):
        assert torch.allclose(found.grad.double(), expected.grad, rtol=1e-5, atol=1e-5)
