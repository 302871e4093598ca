"""Class probabilities of a tile of logits and the way back from them, for blocks of classes.

Both activations give p, q = 1 - p to full relative precision, and the margin m with p = sigmoid(m), so that binary
cross entropy is `softplus(m) - y m` of either. A tile is (case, head, voxel); its blocks of classes are worked on one
after the other, so that what stands in memory at once is a block.
"""

from collections.abc import Sequence
from typing import NamedTuple, Protocol, TypeAlias

import torch
from torch import Tensor

Block: TypeAlias = slice  # of foreground classes


class Probabilities(NamedTuple):
    """Of a block of classes, each (case, class, voxel).

    Attributes:
        p, q: probability, and one less it.
        margin: log p - log q.
        softplus: of the margin, -log q.
    """

    p: Tensor
    q: Tensor
    margin: Tensor
    softplus: Tensor


class Activation(Protocol):
    """What turns the logits of a tile into probabilities."""

    def probabilities(self, block: Block) -> Probabilities:
        """Of a block of foreground classes."""

    def pull_back(self, of_margin: Tensor) -> None:
        """Turn the gradient to the margins (case, head, voxel) into that to the logits, in place."""


class SigmoidTile:
    """Independent classes, one head each."""

    def __init__(self, logits: Tensor, precision: torch.dtype) -> None:
        self.logits, self.precision = logits, precision

    def probabilities(self, block: Block) -> Probabilities:
        margin = self.logits[:, block].to(self.precision)
        q = torch.sigmoid(-margin)
        softplus = q.clamp_min(torch.finfo(self.precision).tiny).log_().neg_()
        return Probabilities(torch.sigmoid(margin), q, margin, torch.maximum(softplus, margin, out=softplus))

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
        self.total = rest = self.largest.new_zeros(())
        for heads in self._heads():
            terms = self._terms(heads)
            self.total = self.total + terms.sum(1, keepdim=True)
            rest = rest + terms.frac_().sum(1, keepdim=True)  # without the largest, whose terms are 1
        # Where several are the largest none is dominant, and this is not used.
        self.rest = torch.where(self.total < 2, rest.clamp_min(torch.finfo(precision).tiny), self.total)
        self.shift = self.largest + self.total.log()
        self._whole: tuple[Tensor, Tensor, Tensor] | None = None  # of all heads, where they are one block

    def probabilities(self, block: Block) -> Probabilities:
        heads = slice(block.start + 1, block.stop + 1)
        p, q, _ = self._of(heads)
        softplus = q.log().neg_()
        margin = (self.logits[:, heads] - self.shift).add_(softplus)
        return Probabilities(p, q, margin, softplus)

    def pull_back(self, of_margin: Tensor) -> None:
        """With g the gradient to margins, that to logit j is `g_j / q_j - p_j sum over c of g_c / q_c`.

        It is `g_j - p_j sum over c != j of g_c / q_c` written so that one sum serves every j. For a dominant class
        g / q could cancel or overflow: it stands apart, in the second form.
        """
        of_others = of_dominant = self.total.new_zeros(())
        for heads in self._heads():
            p, q, dominant = self._of(heads)
            gradient = of_margin[:, heads].div_(torch.addcmul(q, p, dominant))  # q + p = 1 where dominant
            from_dominant = (gradient * dominant).sum(1, keepdim=True)
            of_dominant = of_dominant + from_dominant
            of_others = of_others + gradient.sum(1, keepdim=True) - from_dominant
        for heads in self._heads():
            p, _, dominant = self._of(heads)
            share = (p * (self.total / self.rest)).mul_(1 - dominant)  # of the rest
            of_margin[:, heads].sub_(share.mul_(of_dominant).addcmul_(p, of_others))

    def _heads(self) -> Sequence[slice]:
        """The blocks in numbers of heads, background with the first one."""
        return [slice(block.start + bool(block.start), block.stop + 1) for block in self.blocks]

    def _terms(self, heads: slice) -> Tensor:
        return (self.logits[:, heads] - self.largest).exp_()

    def _of(self, heads: slice) -> tuple[Tensor, Tensor, Tensor]:
        """p, q and whether it is dominant, of some heads."""
        if self._whole is not None:
            p, q, dominant = self._whole
            return p[:, heads], q[:, heads], dominant[:, heads]
        whole = len(self.blocks) == 1
        p = self._terms(slice(0, None) if whole else heads).div_(self.total)
        dominant = p.round()
        q = (1 - p).mul_(1 - dominant).addcmul_(dominant, self.rest / self.total)
        if not whole:
            return p, q, dominant
        self._whole = p, q, dominant
        return self._of(heads)
