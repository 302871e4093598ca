"""The Mamba block (Gu and Dao, arXiv 2312.00752, fig. 3), with the parameter names of the package mamba_ssm."""

import math
from collections.abc import Callable
from functools import cache

import torch
from torch import Tensor, nn
from torch.nn import functional

from auvtool.backbones.selective_scan import selective_scan

# The range that the step Delta starts in (section 3.6 there; defaults of mamba_ssm).
_SMALLEST_STEP, _LARGEST_STEP = 0.001, 0.1


class Mamba(nn.Module):
    """A sequence (case, token, feature) to one of the same shape.

    On a GPU the scan is the kernel of mamba_ssm where that is installed, else our own; the parameters are the same, so
    that checkpoints go from one to the other.

    Args:
        n_features: of a token.
        n_states: of the state-space model.
        kernel_size: of the causal convolution.
        expansion: inner channels for each feature.
    """

    def __init__(self, n_features: int, *, n_states: int = 16, kernel_size: int = 4, expansion: int = 2) -> None:
        super().__init__()
        inner, rank = expansion * n_features, math.ceil(n_features / 16)
        self.n_states, self.rank = n_states, rank
        self.in_proj = nn.Linear(n_features, 2 * inner, bias=False)
        self.conv1d = nn.Conv1d(inner, inner, kernel_size, groups=inner, padding=kernel_size - 1)
        self.x_proj = nn.Linear(inner, rank + 2 * n_states, bias=False)
        self.dt_proj = nn.Linear(rank, inner)
        self.A_log = nn.Parameter(torch.arange(1.0, n_states + 1).log().repeat(inner, 1))
        self.D = nn.Parameter(torch.ones(inner))
        self.out_proj = nn.Linear(inner, n_features, bias=False)
        nn.init.uniform_(self.dt_proj.weight, -(rank**-0.5), rank**-0.5)
        # softplus(bias) is spread evenly on a logarithmic scale.
        first_step = torch.empty(inner).uniform_(math.log(_SMALLEST_STEP), math.log(_LARGEST_STEP)).exp()
        with torch.no_grad():
            self.dt_proj.bias.copy_(first_step + torch.log(-torch.expm1(-first_step)))

    def forward(self, tokens: Tensor) -> Tensor:
        """(case, token, feature) to the same."""
        inputs, gate = self.in_proj(tokens).chunk(2, dim=-1)
        inputs = functional.silu(self.conv1d(inputs.mT)[..., : tokens.shape[1]]).mT
        step, write, read = self.x_proj(inputs).split([self.rank, self.n_states, self.n_states], dim=-1)
        step = functional.softplus(self.dt_proj(step))
        output = self._scan(inputs, step, write, read) + self.D * inputs
        projected: Tensor = self.out_proj(output * functional.silu(gate))
        return projected

    def _scan(self, inputs: Tensor, step: Tensor, write: Tensor, read: Tensor) -> Tensor:
        decay = -self.A_log.exp()
        kernel = _kernel_for(inputs)
        if kernel is not None:
            on_tokens: Tensor = kernel(inputs.mT, step.mT, decay, write.mT, read.mT)
            return on_tokens.mT
        inputs, step, write, read = (tensor.transpose(0, 1) for tensor in (inputs, step, write, read))
        output: Tensor = selective_scan(inputs, step=step, decay=decay, write=write, read=read)
        return output.transpose(0, 1)


def _kernel_for(inputs: Tensor) -> Callable[..., Tensor] | None:
    return _cuda_kernel() if inputs.is_cuda else None


@cache
def _cuda_kernel() -> Callable[..., Tensor] | None:
    try:
        from mamba_ssm.ops.selective_scan_interface import selective_scan_fn
    except ImportError:  # not installed, or built for another torch
        return None
    kernel: Callable[..., Tensor] = selective_scan_fn
    return kernel
