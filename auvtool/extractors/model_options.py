"""What a user can tell a foundation model, beside what every extraction is told."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal, TypeAlias

from auvtool.errors import UsageError

Feature: TypeAlias = Literal["logits", "penultimate"]
Amp: TypeAlias = Literal["off", "bf16"]


@dataclass(frozen=True)
class ModelOptions:
    """Options of `auvtool extract` that only some extractors take; `ExtractorFacts.options` names those.

    Attributes:
        weights: a checkpoint, or what else holds a model's weights; None: those of its package.
        trust_checkpoint: unpickle the checkpoint whatever it holds.
        window: intensities that become the ends of the model's input range.
        propagate: prompt one slice a class, and let the model track the class through the others.
        amp: mixed precision: bf16 multiplies matrices in bfloat16, which is faster and coarser.
        feature: which maps of a trained network to take.
        class_prompts: for `--prompt class-name` what the model is asked for each class, by class name.
    """

    weights: Path | None = None
    trust_checkpoint: bool = False
    amp: Amp = "off"
    window: tuple[float, float] | None = None
    propagate: bool = False
    feature: Feature = "logits"
    class_prompts: tuple[tuple[str, str], ...] = ()

    def given(self) -> dict[str, Any]:
        """Options that are not at their default, but for where the weights lie: what a features file records."""
        return {
            field.name: getattr(self, field.name)
            for field in fields(self)
            if field.name not in ("weights", "trust_checkpoint") and getattr(self, field.name) != field.default
        }

    @classmethod
    def of_record(cls, record: Mapping[str, object], *, weights: Path | None) -> "ModelOptions":
        """The options that a features file records, with weights at `weights`."""
        window, prompts = record.get("window"), record.get("class_prompts", [])
        low_high = tuple(map(float, window)) if isinstance(window, list | tuple) else None
        return cls(
            weights=weights,
            amp="bf16" if record.get("amp") == "bf16" else "off",
            window=None if low_high is None else (low_high[0], low_high[1]),
            propagate=bool(record.get("propagate", False)),
            feature="penultimate" if record.get("feature") == "penultimate" else "logits",
            class_prompts=tuple((str(name), str(text)) for name, text in prompts)
            if isinstance(prompts, list | tuple)
            else (),
        )


def parse_window(text: str) -> tuple[float, float]:
    """(low, high) of "LO,HI".

    Raises:
        UsageError: it is not two numbers, the lower one first.
    """
    try:
        low, high = map(float, text.split(","))
    except ValueError:
        low = high = math.nan
    if not (low < high and math.isfinite(high - low)):
        raise UsageError(f"--window: expected LO,HI with LO < HI, got {text}; for example -160,240")
    return low, high
