"""The log of a run, a row an epoch: training_log.jsonl, and its curves."""

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from auvtool.atomic import write_text
from auvtool.training.processes import summed_over_processes
from auvtool.training.training_curves import CURVES_NAME, LiveCurves

EpochRow = dict[str, Any]
LOG_NAME = "training_log.jsonl"


class RunLog:
    """Rows of the epochs done, and what the next one is made of.

    Args:
        folder: of the fold.
        class_names: foreground classes, in the order of the network's outputs.
    """

    def __init__(self, folder: Path, class_names: Sequence[str]) -> None:
        self.folder, self.class_names = folder, tuple(class_names)
        self.rows: list[EpochRow] = []
        self._curves = LiveCurves(folder / CURVES_NAME)
        self._batches: list[Tensor] = []  # (2, case, class): scales and weights

    def start_epoch(self) -> None:
        self._batches = []

    def add_batch(self, scale: Tensor, weight: Tensor) -> None:
        """Scales and weights of a batch, each (case, class); they stay on their device."""
        self._batches.append(torch.stack([scale, weight]))

    def end_epoch(self, row: EpochRow, *, pseudo_dice: Sequence[float]) -> EpochRow:
        """The row with what the batches said: means over their cases, of all processes."""
        row = {**row, "pseudo_dice": self._by_class(pseudo_dice)}
        if self._batches:
            values = torch.cat(self._batches, 1)
            n_cases = summed_over_processes(values.new_tensor(values.shape[1]))
            scale, weight = (summed_over_processes(values.sum(1)) / n_cases).tolist()
            row = {**row, "scale": self._by_class(scale), "class_weight": self._by_class(weight)}
        self.rows.append(row)
        return row

    def write(self, *, last: bool = False) -> None:
        """Write the log as far as the checkpoint goes, and draw it, if that is cheap or it is the `last` time."""
        text = "".join(json.dumps(row, ensure_ascii=False, allow_nan=False) + "\n" for row in self.rows)
        write_text(self.folder / LOG_NAME, text, force=True)
        self._curves.update(self.rows, last=last)

    def _by_class(self, values: Sequence[float]) -> dict[str, float | None]:
        return {
            name: None if math.isnan(value) else float(value)
            for name, value in zip(self.class_names, values, strict=True)
        }
