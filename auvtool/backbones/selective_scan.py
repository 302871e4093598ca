"""The selective scan of a state-space model (Gu and Dao, Mamba, arXiv 2312.00752, eqs. 2 and 4), in plain PyTorch."""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

# Elements (token, case, channel, state) of one chunk: 16 MiB for each of the four float32 arrays held at once.
_CHUNK_ELEMENTS = 2**22


@torch.compiler.disable  # type: ignore[untyped-decorator]  # it would unroll the loop over tokens
def selective_scan(inputs: Tensor, *, step: Tensor, decay: Tensor, write: Tensor, read: Tensor) -> Tensor:
    """`y_t = <read_t, h_t>` with `h_t = exp(step_t decay) h_(t-1) + step_t inputs_t write_t` and `h_0 = 0`.

    As Mamba's authors compute it: the decay by zero-order hold, the input by Euler's rule. The states of all tokens are
    never in memory together, also not for the gradient: states are kept at the ends of chunks and computed again.

    Args:
        inputs: (token, case, channel).
        step: Delta, as `inputs`.
        decay: A, (channel, state), negative.
        write: B, (token, case, state).
        read: C, as `write`.

    Returns:
        As `inputs`.
    """
    output: Tensor = _SelectiveScan.apply(inputs, step, decay, write, read)
    return output


class _SelectiveScan(torch.autograd.Function):
    @staticmethod
    def forward(  # noqa: PLR0917  # `apply` takes no keywords
        ctx: Any, inputs: Tensor, step: Tensor, decay: Tensor, write: Tensor, read: Tensor
    ) -> Tensor:
        state = inputs.new_zeros(*inputs.shape[1:], decay.shape[1])
        output = torch.empty_like(inputs)
        starts = []
        for part in _chunks(len(inputs), state.numel()):
            starts.append(state)
            states, _ = _states(inputs[part], step[part], decay, write[part], state)
            output[part] = torch.einsum("lbdn,lbn->lbd", states, read[part])
            state = states[-1].clone()
        ctx.save_for_backward(inputs, step, decay, write, read, *starts)
        return output

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, output_gradient: Tensor) -> tuple[Tensor, ...]:
        inputs, step, decay, write, read, *starts = ctx.saved_tensors
        of_inputs, of_step, of_write, of_read = (torch.empty_like(tensor) for tensor in (inputs, step, write, read))
        of_decay = torch.zeros_like(decay)
        later = torch.zeros_like(starts[0])  # what the next chunk's first state passes back to this one's last
        parts = list(_chunks(len(inputs), later.numel()))
        for part, start in zip(reversed(parts), reversed(starts), strict=True):
            states, kept = _states(inputs[part], step[part], decay, write[part], start)
            gradient = output_gradient[part]
            of_read[part] = torch.einsum("lbdn,lbd->lbn", states, gradient)
            of_state = gradient.unsqueeze(-1) * read[part].unsqueeze(2)
            of_state[-1] += later
            rows, shares = of_state.unbind(), kept.unbind()
            for token in range(len(rows) - 2, -1, -1):
                rows[token].addcmul_(shares[token + 1], rows[token + 1])
            later = shares[0] * rows[0]
            of_write[part] = torch.einsum("lbdn,lbd->lbn", of_state, step[part] * inputs[part])
            of_product = torch.einsum("lbdn,lbn->lbd", of_state, write[part])  # of step times inputs
            of_inputs[part] = step[part] * of_product
            # From here on of exp's argument, step times decay: of_state * kept * the state before.
            of_state *= kept
            of_state[1:] *= states[:-1]
            of_state[0] *= start
            of_step[part] = inputs[part] * of_product + torch.einsum("lbdn,dn->lbd", of_state, decay)
            of_decay += torch.einsum("lbdn,lbd->dn", of_state, step[part])
        return of_inputs, of_step, of_decay, of_write, of_read


def _states(inputs: Tensor, step: Tensor, decay: Tensor, write: Tensor, start: Tensor) -> tuple[Tensor, Tensor]:
    """The states of a chunk's tokens, and the share of the state before that each keeps."""
    kept = (step.unsqueeze(-1) * decay).exp_()
    states = (step * inputs).unsqueeze(-1) * write.unsqueeze(2)
    before = start
    for state, share in zip(states.unbind(), kept.unbind(), strict=True):
        before = state.addcmul_(share, before)
    return states, kept


def _chunks(n_tokens: int, n_elements: int) -> Iterator[slice]:
    length = max(1, _CHUNK_ELEMENTS // n_elements)
    return (slice(first, min(first + length, n_tokens)) for first in range(0, n_tokens, length))
