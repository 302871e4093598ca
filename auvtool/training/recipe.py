"""What decides the result of a training: every number of the recipe, in one record that a run keeps and compares."""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal, TypeAlias

from auvtool.backbones import BackboneName
from auvtool.errors import UsageError
from auvtool.training.class_table import ClassTable

Loss: TypeAlias = Literal["duo", "plain"]
DenoiseForm: TypeAlias = Literal["paper", "official"]
Precision: TypeAlias = Literal["bf16", "fp16", "off"]


@dataclass(frozen=True)
class Recipe:
    """Configuration of nnU-Net, loss, length and size of a training.

    Attributes:
        configuration: 2d, 3d_fullres, ... of the plans.
        plans_name: which plans file.
        backbone: "nnunet", what the plans say, or another network (`auvtool.backbones`).
        loss: "duo" (eqs. 10, 11) or "plain" (nnU-Net's own, untouched).
        reweight: weights 1 / (1 + alpha S) of eq. 11.
        denoise: the noise head of eq. 10.
        alpha: strength of the weights.
        beta: share of Dice in the DUO loss.
        denoise_form: "paper": `clamp(y - e n, 0, 1)` (eq. 10); "official": `y (1 - n)`.
        scale_gradient: let the gradient through S.
        static_scales: mean scale of each class for `1 / (1 + alpha S)`, instead of that of the logits.
        class_weights: of each class, times what it weighs otherwise.
        amp: precision of the network's forward pass; None: nnU-Net's own, fp16 on a GPU and none on a CPU.
        epochs: passes of `iterations` batches, each followed by `val_iterations` validation batches.
        batch_size, patch_size, features: None: what nnU-Net planned; `features`: channels of the first stage.
        lr: initial learning rate, which falls polynomially to 0.
        seed: of weights, batches and augmentation.
    """

    configuration: str = "3d_fullres"
    plans_name: str = "nnUNetPlans"
    backbone: BackboneName = "nnunet"
    loss: Loss = "duo"
    reweight: bool = True
    denoise: bool = True
    alpha: float = 0.5
    beta: float = 0.5
    epochs: int = 100
    iterations: int = 250
    val_iterations: int = 50
    batch_size: int | None = None
    patch_size: tuple[int, ...] | None = None
    features: int | None = None
    lr: float = 0.01
    seed: int = 0
    denoise_form: DenoiseForm = "paper"
    scale_gradient: bool = False
    static_scales: ClassTable | None = None
    class_weights: ClassTable | None = None
    amp: Precision | None = None

    def __post_init__(self) -> None:
        _require(0 <= self.alpha < math.inf, "--alpha", "a number >= 0", self.alpha)
        _require(0 <= self.beta <= 1, "--beta", "a number between 0 and 1", self.beta)
        _require(0 < self.lr < math.inf, "--lr", "a number > 0", self.lr)
        for name in ("epochs", "iterations", "val_iterations", "batch_size", "features"):
            value = getattr(self, name)
            _require(value is None or value >= 1, f"--{name.replace('_', '-')}", "a whole number >= 1", value)
        for side in self.patch_size or ():
            _require(side >= 8, "--patch-size", "sides of at least 8 voxels", side)
        if self.backbone == "swin-unetr" and self.features is not None:
            _require(self.features % 12 == 0, "--features", "a multiple of 12 for swin-unetr", self.features)
        weighs = self.loss == "duo" and self.reweight
        _require(self.static_scales is None or weighs, "--static-weights", "--loss duo with --reweight", "another loss")
        _require(self.class_weights is None or self.loss == "duo", "--class-weights", "--loss duo", self.loss)
        # Options that would change nothing.
        _require(
            not self.scale_gradient or (weighs and self.static_scales is None),
            "--scale-grad",
            "weights that follow the logits (--loss duo --reweight, no --static-weights)",
            "none",
        )
        _require(
            self.denoise_form == "paper" or self.uses_noise_head,
            "--denoise-form",
            "--loss duo --denoise",
            "no denoising",
        )

    @property
    def uses_noise_head(self) -> bool:
        """Whether labels are denoised."""
        return self.loss == "duo" and self.denoise

    @property
    def uses_noise_levels(self) -> bool:
        """Whether there is a table e: the official form has none."""
        return self.uses_noise_head and self.denoise_form == "paper"

    def to_dict(self) -> dict[str, Any]:
        """Plain values that JSON and a checkpoint can hold."""
        values = asdict(self)
        return {**values, "patch_size": list(self.patch_size) if self.patch_size else None}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "Recipe":
        """The inverse of `to_dict`; keys that this version does not know are left out."""
        known = {field.name: values[field.name] for field in fields(cls) if field.name in values}
        patch_size = known.get("patch_size")
        tables = {name: ClassTable.from_dict(known.get(name)) for name in ("static_scales", "class_weights")}
        return cls(**{**known, **tables, "patch_size": tuple(patch_size) if patch_size else None})


def _require(holds: bool, option: str, expected: str, found: object) -> None:
    if not holds:
        raise UsageError(f"{option}: expected {expected}, got {found}; correct it")
