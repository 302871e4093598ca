"""Curves of a training over its epochs: loss, pseudo Dice, class weights and scales (the paper's Figure 7)."""

import math
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from auvtool.atomic import atomic_path
from auvtool.plots import METADATA, fixed_style, printable

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

CURVES_NAME = "training_curves.svg"
N_CLASSES_NAMED = 8
_REST_SHARE = 20  # a drawing may take a twentieth of the time

# Told apart by colour-blind readers; dashes tell the second half from the first in a grey print.
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#1A1A1A", "#A6761D")
_OTHERS = "#C8C8C8"


class LiveCurves:
    """The curves' file, drawn again as the training goes, unless drawing would take a twentieth of the time or more."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._next = 0.0

    def update(self, rows: Sequence[Mapping[str, Any]], *, last: bool = False) -> None:
        """Draw `rows` of the log; the last ones always."""
        start = time.monotonic()
        if start < self._next and not last:
            return
        with atomic_path(self.path, force=True) as temporary, fixed_style():
            training_figure(rows).savefig(temporary, format="svg", metadata=METADATA[".svg"])
        self._next = time.monotonic() + _REST_SHARE * (time.monotonic() - start)


def training_figure(rows: Sequence[Mapping[str, Any]]) -> "Figure":
    """A panel for each thing that the log has; a line a class, of which the first N_CLASSES_NAMED have colour and name.

    A value that is missing (a class that no validation patch has) is a gap.
    """
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    panels = [
        (title, key)
        for title, key in (
            ("pseudo Dice of validation patches", "pseudo_dice"),
            ("weight of the class in the loss", "class_weight"),
            ("scale S of the logits", "scale"),
        )
        if any(key in row for row in rows)
    ]
    with fixed_style():
        figure = Figure(figsize=(7.5, 1.0 + 2.2 * (1 + len(panels))), layout="constrained")
        first, *others = figure.subplots(1 + len(panels), 1, squeeze=False, sharex=True)[:, 0]
        epochs = [row["epoch"] for row in rows]
        for key, label, colour, dashes in (
            ("train_loss", "training", _COLOURS[0], "-"),
            ("val_loss", "validation", _COLOURS[1], "--"),
        ):
            first.plot(epochs, [row[key] for row in rows], color=colour, linestyle=dashes, label=label, **_marker(rows))
        first.set_title("loss")
        first.legend(loc="upper right")
        for panel, (title, key) in zip(others, panels, strict=True):
            panel.set_title(title)
            _draw_classes(panel, rows, key)
        figure.axes[-1].set_xlabel("epoch")
        figure.axes[-1].xaxis.set_major_locator(MaxNLocator(integer=True))
        if others:
            handles, labels = others[0].get_legend_handles_labels()
            figure.legend(handles[::-1], labels[::-1], loc="outside lower center", ncols=4)
    return figure


def _draw_classes(panel: "Axes", rows: Sequence[Mapping[str, Any]], key: str) -> None:
    drawn = [row for row in rows if key in row]
    names = list(drawn[0][key])
    for place, name in reversed(list(enumerate(names))):
        values = [math.nan if row[key][name] is None else row[key][name] for row in drawn]
        is_named = place < N_CLASSES_NAMED
        panel.plot(
            [row["epoch"] for row in drawn],
            values,
            color=_COLOURS[place] if is_named else _OTHERS,
            linestyle="-" if place < N_CLASSES_NAMED // 2 or not is_named else "--",
            linewidth=1.6 if is_named else 0.7,
            label=_label(place, names),
            **_marker(drawn),
        )
    if key != "class_weight":
        panel.set_ylim(-0.02, 1.02)


def _label(place: int, names: Sequence[str]) -> str | None:
    if place < N_CLASSES_NAMED:
        return printable(names[place], 24)
    return f"{len(names) - N_CLASSES_NAMED} others" if place == N_CLASSES_NAMED else None


def _marker(rows: Sequence[object]) -> dict[str, Any]:
    return {"marker": "o" if len(rows) == 1 else ""}  # one point alone makes no line


def draw_whole(draw: Callable[[str], None], folder: str) -> None:
    """Have nnU-Net draw its progress.png elsewhere, so that none stands half-drawn in `folder` after a kill."""
    with tempfile.TemporaryDirectory() as elsewhere:
        draw(elsewhere)
        with atomic_path(Path(folder) / "progress.png", force=True) as beside:
            beside.write_bytes((Path(elsewhere) / "progress.png").read_bytes())
