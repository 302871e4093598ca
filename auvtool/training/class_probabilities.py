"""Class probabilities of a tile of logits and the way back from them, for blocks of classes.

Both activations give p, q = 1 - p to full relative precision, and the margin m with p = sigmoid(m), so that binary
cross entropy is `softplus(m) - y m` of either. A tile is (case, head, voxel); its blocks of classes are worked on one
after the other, so that what stands in memory at once is a block.
"""

from collections.abc import Sequence
from typing import Protocol, TypeAlias

import torch
from torch import Tensor

Block: TypeAlias = slice  # of foreground classes


class Activation(Protocol):
    """What turns the logits of a tile into probabilities."""

    def probabilities(self, block: Block) -> tuple[Tensor, Tensor]:
        """Both p and q of a block of foreground classes, each (case, class, voxel)."""

    def margins(self, block: Block) -> tuple[Tensor, Tensor]:
        """Margins log p - log q, and their softplus, -log q; the second is the caller's to write into."""

    def pull_back(self, of_margin: Tensor) -> None:
        """Turn the gradient to the margins (case, head, voxel) into that to the logits, in place."""


class SigmoidTile:
    """Independent classes, one head each."""

    def __init__(self, logits: Tensor, precision: torch.dtype) -> None:
        self.logits, self.precision = logits, precision

    def probabilities(self, block: Block) -> tuple[Tensor, Tensor]:
        margin = self.logits[:, block].to(self.precision)
        return torch.sigmoid(margin), torch.sigmoid(-margin)

    def margins(self, block: Block) -> tuple[Tensor, Tensor]:
        margin = self.logits[:, block].to(self.precision)
        softplus = torch.sigmoid(-margin).clamp_min_(_smallest(self.precision)).log_().neg_()
        return margin, torch.maximum(softplus, margin, out=softplus)

    def pull_back(self, of_margin: Tensor) -> None:
        """Nothing is to be done: margins are logits."""


class SoftmaxTile:
    """Exclusive classes, the first head being background.

    A class with p > 1/2 is called dominant; there is one at most. Its q is the sum of the others' terms, since 1 - p
    would have no digits left. "Is dominant" is a number, 0 or 1, to multiply by: on a CPU masks take most of the time.
    """

    def __init__(self, logits: Tensor, blocks: Sequence[Block], precision: torch.dtype) -> None:
        self.logits, self.blocks = logits, blocks
        self.largest = logits.amax(1, keepdim=True).to(precision)  # half less float is float, block by block
        total = rest = self.largest.new_zeros(())
        for heads in self._heads():
            terms = (logits[:, heads] - self.largest).exp_()
            total = total + terms.sum(1, keepdim=True)
            rest = rest + terms.frac().sum(1, keepdim=True)  # without the largest, whose terms are 1
        self.inverse_total = total.reciprocal()
        # Where several are the largest none is dominant, and this q is not used.
        self.dominant_q = (rest * self.inverse_total).clamp_min_(_smallest(precision))
        self.shift = self.largest + total.log_()
        # Where all heads are one block, what is known of them is kept.
        self._whole = self._of_terms(terms) if len(blocks) == 1 else None

    def probabilities(self, block: Block) -> tuple[Tensor, Tensor]:
        p, _, q = self._of(slice(block.start + 1, block.stop + 1))
        return p, q

    def margins(self, block: Block) -> tuple[Tensor, Tensor]:
        heads = slice(block.start + 1, block.stop + 1)
        softplus = self._of(heads)[2].log().neg_()
        return (self.logits[:, heads] - self.shift).add_(softplus), softplus

    def pull_back(self, of_margin: Tensor) -> None:
        """With g the gradient to margins, that to logit j is `g_j / q_j - p_j sum over c of g_c / q_c`.

        It is `g_j - p_j sum over c != j of g_c / q_c` written so that one sum serves every j. For a dominant class
        g / q could cancel or overflow: it stands apart, in the second form.
        """
        of_others = of_dominant = self.shift.new_zeros(())
        for heads in self._heads():
            _, dominant, q = self._of(heads)
            gradient = of_margin[:, heads].div_(torch.maximum(q, dominant))  # q >= 1/2, or 1 where dominant
            from_dominant = torch.linalg.vecdot(gradient, dominant, dim=1).unsqueeze_(1)
            of_dominant = of_dominant + from_dominant
            of_others = of_others + gradient.sum(1, keepdim=True) - from_dominant
        of_dominant = of_dominant / self.dominant_q
        for heads in self._heads():
            p, dominant, _ = self._of(heads)
            gradient = of_margin[:, heads].addcmul_(p, of_others, value=-1)
            gradient.addcmul_(torch.addcmul(p, p, dominant, value=-1), of_dominant, value=-1)

    def _heads(self) -> Sequence[slice]:
        """The blocks in numbers of heads, background with the first one."""
        return [slice(block.start + bool(block.start), block.stop + 1) for block in self.blocks]

    def _of(self, heads: slice) -> tuple[Tensor, Tensor, Tensor]:
        """p, whether it is dominant, and q of some heads."""
        if self._whole is None:
            return self._of_terms((self.logits[:, heads] - self.largest).exp_())
        p, dominant, q = self._whole
        return p[:, heads], dominant[:, heads], q[:, heads]

    def _of_terms(self, terms: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        p = terms.mul_(self.inverse_total)
        dominant = p.round()
        return p, dominant, (1 - p).lerp_(self.dominant_q, dominant)


def _smallest(precision: torch.dtype) -> float:
    """The least q told from 0; its inverse can be multiplied by a gradient."""
    return float(torch.finfo(precision).tiny ** 0.8)
