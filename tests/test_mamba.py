"""The Mamba block against two others: mambapy's parallel scan and the recurrence of transformers' MambaMixer."""

import pytest
import torch

from auvtool.backbones import mamba as module
from auvtool.backbones.mamba import Mamba

N_FEATURES = 20  # no multiple of 16: the rank of the step is rounded up, to 2


def by_mambapy():
    from mambapy.mamba import MambaBlock, MambaConfig

    return MambaBlock(MambaConfig(d_model=N_FEATURES, n_layers=1))


def by_transformers():
    mamba = pytest.importorskip("transformers.models.mamba")
    config = mamba.MambaConfig(hidden_size=N_FEATURES, state_size=16, num_hidden_layers=1, use_mambapy=False)
    return mamba.modeling_mamba.MambaMixer(config, layer_idx=0).eval()


@pytest.mark.parametrize("other", [by_mambapy, by_transformers])
def test_output_and_gradients_are_those_of_other_implementations(other):
    torch.manual_seed(0)
    ours, theirs = Mamba(N_FEATURES), other()
    with torch.no_grad():
        ours.A_log.add_(0.1 * torch.randn(ours.A_log.shape))
        ours.D.mul_(torch.rand(ours.D.shape))
    theirs.load_state_dict(ours.state_dict())  # the same names and shapes
    tokens, direction = torch.randn(2, 50, N_FEATURES), torch.randn(2, 50, N_FEATURES)
    outputs, gradients = [], []
    for block in (ours, theirs):
        given = tokens.clone().requires_grad_()
        output = block(given)
        (output * direction).sum().backward()
        outputs.append(output.detach())
        named = dict(block.named_parameters())
        gradients.append([given.grad, *(named[name].grad for name in sorted(named))])
    assert torch.allclose(outputs[0], outputs[1], rtol=0, atol=1e-6 * outputs[1].abs().max().item())
    for found, expected in zip(*gradients, strict=True):
        assert torch.allclose(found, expected, rtol=0, atol=1e-5 * expected.abs().max().item())


def test_a_token_sees_only_those_before_it():
    torch.manual_seed(0)
    block = Mamba(8)
    tokens = torch.randn(1, 9, 8, requires_grad=True)
    block(tokens)[0, 4].sum().backward()
    reached = tokens.grad[0].abs().sum(1) > 0
    assert reached.tolist() == [True] * 5 + [False] * 4


def test_the_step_starts_between_a_thousandth_and_a_tenth():
    step = torch.nn.functional.softplus(Mamba(64).dt_proj.bias)
    assert step.min() >= 0.000999
    assert step.max() <= 0.1001
    assert step.max() / step.min() > 10


def test_the_kernel_gets_what_mamba_ssm_documents(monkeypatch):
    """A stand-in with mamba_ssm's order of axes, (case, channel, token), gives what our own scan gives."""

    def kernel(inputs, step, decay, write, read):
        on_tokens = (tensor.permute(2, 0, 1) for tensor in (inputs, step, write, read))
        inputs, step, write, read = on_tokens
        output = module.selective_scan(inputs, step=step, decay=decay, write=write, read=read)
        return output.permute(1, 2, 0)

    torch.manual_seed(0)
    block, tokens = Mamba(8), torch.randn(2, 6, 8)
    expected = block(tokens)
    monkeypatch.setattr(module, "_kernel_for", lambda _: kernel)
    assert torch.allclose(block(tokens), expected, atol=1e-7)


# torch.compile looks at the gradient of what the part before the scan hands on.
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf Tensor:UserWarning")
def test_torch_compile_does_not_unroll_the_scan():
    """nnU-Net compiles networks on a GPU."""
    torch.manual_seed(0)
    block, tokens = Mamba(8), torch.randn(1, 9, 8)
    parts = []

    def count(graph, _):
        parts.append(graph)
        return graph

    found = torch.compile(block, backend=count)(tokens)
    assert torch.allclose(found, block(tokens), atol=1e-7)
    found.sum().backward()
    assert block.A_log.grad is not None
    assert len(parts) > 1  # before and after the scan
    assert max(len(graph.graph.nodes) for graph in parts) < 50


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_on_a_gpu_it_is_mamba_ssms_block_or_the_cpus_result():
    torch.manual_seed(0)
    block, tokens = Mamba(32), torch.randn(2, 100, 32)
    expected = block(tokens)
    found = block.cuda()(tokens.cuda())
    assert torch.allclose(found.cpu(), expected, atol=1e-5)
    reference = pytest.importorskip("mamba_ssm").Mamba(d_model=32).cuda()
    reference.load_state_dict(block.state_dict())
    assert torch.allclose(reference(tokens.cuda()), found, atol=1e-5)
