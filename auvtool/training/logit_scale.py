"""The semantic perception scale of a network's own logits (eqs. 2 to 5), for the weights of eq. 11."""

import math
from typing import Any

import torch
from torch import Tensor

_SMALLEST_SHARE = 1e-14  # where the gradient's logarithm stops falling


def perception_scale(logits: Tensor, *, differentiable: bool = False) -> Tensor:
    """Scale of each case and class (squared energy, uncentred, first axis as rows).

    Through float32 Gram matrices outside autocast: their error (2e-6) does not matter to `1 / (1 + alpha S)`, and half
    precision would overflow. A map of zeros has scale 0.

    With p = lambda / T the energy shares, H their entropy, the gradient is `2 V diag((-log p - H) / T) V' Z / log r`, a
    function of the whole spectrum: equal singular values do it no harm, as they would to the gradient of an SVD.

    Args:
        logits: (case, class, d, h, w), or (case, class, h, w) for a 2D network.
        differentiable: let the gradient through; the paper draws none.

    Returns:
        (case, class) in [0, 1], float64 of float64, else float32; nan where a logit is not finite.

    Raises:
        ValueError: the unfolded map has a single row or column.
    """
    rows, columns = logits.shape[2], math.prod(logits.shape[3:])
    if min(rows, columns) < 2:
        raise ValueError(f"expected maps of at least 2 x 2, got {tuple(logits.shape)}")
    with torch.autocast(logits.device.type, enabled=False):
        if differentiable:
            result: Tensor = _Scale.apply(logits)
            return result
        with torch.no_grad():
            energy, is_finite = _finite_gram(logits, torch.linalg.eigvalsh)
            share, _ = _shares(energy)
            return _as_scale(torch.special.entr(share).sum(-1), is_finite, rank=energy.shape[-1], like=logits)


class _Scale(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, logits: Tensor) -> Tensor:
        (energy, vectors), is_finite = _finite_gram(logits, torch.linalg.eigh)
        share, total = _shares(energy)
        entropy = torch.special.entr(share).sum(-1, keepdim=True)
        ctx.save_for_backward(logits, share, vectors, total, entropy)
        return _as_scale(entropy.squeeze(-1), is_finite, rank=energy.shape[-1], like=logits)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, of_scale: Tensor) -> Tensor:
        logits, share, vectors, total, entropy = ctx.saved_tensors
        slope = (-share.clamp_min(_SMALLEST_SHARE).log() - entropy) / total
        slope = slope.where(share.sum(-1, keepdim=True) > 0, 0)  # a map of zeros has none
        slope = slope * (2 * of_scale.double().unsqueeze(-1) / math.log(share.shape[-1]))
        of_gram = (vectors * slope.unsqueeze(-2)) @ vectors.mT
        gradient = torch.empty_like(logits, memory_format=torch.contiguous_format)
        for case, of_case in enumerate(of_gram):
            maps = _maps(logits[case])
            of_maps = of_case.to(maps.dtype) @ maps
            gradient[case] = (of_maps.mT if _is_turned(logits) else of_maps).reshape(logits[case].shape)
        return gradient


def _is_turned(logits: Tensor) -> bool:
    """Whether the map has more rows than columns; the smaller Gram matrix has the same eigenvalues."""
    return logits.shape[2] > math.prod(logits.shape[3:])


def _maps(logits: Tensor) -> Tensor:
    """(class, rank, ...) of one case: views, where nothing has to be converted."""
    maps = logits.flatten(2)
    maps = maps if maps.dtype is torch.float64 else maps.float()
    return maps.mT if maps.shape[1] > maps.shape[2] else maps


def _finite_gram(logits: Tensor, decompose: Any) -> tuple[Any, Tensor]:
    """Eigenvalues (and vectors) of the Gram matrices, and (case, class) whether these are finite.

    Decompositions raise on NaN, and on a GPU say nothing of where it is; such a matrix is decomposed as zero.
    """
    gram = torch.stack([maps @ maps.mT for maps in map(_maps, logits.detach())]).double()
    is_finite = gram.diagonal(dim1=-2, dim2=-1).sum(-1).isfinite()
    return decompose(gram.where(is_finite[..., None, None], 0)), is_finite


def _shares(energy: Tensor) -> tuple[Tensor, Tensor]:
    energy = energy.clamp_min(0)
    total = energy.sum(-1, keepdim=True).clamp_min(torch.finfo(torch.float64).tiny)
    return energy / total, total


def _as_scale(entropy: Tensor, is_finite: Tensor, *, rank: int, like: Tensor) -> Tensor:
    scale = (entropy / math.log(rank)).clamp(0, 1).where(is_finite, math.nan)
    return scale if like.dtype is torch.float64 else scale.float()
