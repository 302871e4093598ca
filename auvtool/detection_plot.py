"""A picture of what finds which fault: AUROC of each kind and method as colours with numbers in them.

Blue is found, orange looks cleaner than clean, white is blind: colour-blind readers tell blue from orange, and the
numbers say the same in a grey print.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float

from auvtool import plots
from auvtool.atomic import atomic_path
from auvtool.corruption.kinds import KINDS
from auvtool.detection_report import areas_of, ranked_methods
from auvtool.schema import Row

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.collections import QuadMesh
    from matplotlib.figure import Figure
    from matplotlib.typing import ColorType

_MEAN = "mean of kinds"
N_METHODS_DRAWN = 30  # more would not be readable on a screen
_CELL_WIDTH, _CELL_HEIGHT, _GAP = 0.46, 0.27, 0.35  # inches, inches, cells
_INK, _EMPTY = "#1A1A1A", "#D9D9D9"
_EQUAL_CONTRAST = 0.2  # luminance on which white and dark letters read equally well
# From looks cleaner over blind to found; dark at both ends, of one lightness at equal distance from the middle.
_COLOURS = ("#8C3B00", "#D55E00", "#F2A76B", "#F7F7F7", "#7FB8DC", "#0072B2", "#00436B")


def plot_detection(
    path: Path,
    detection: Sequence[Row],
    summary: Sequence[Row],
    *,
    level: str,
    share: float,
    title: str = "",
    force: bool,
) -> None:
    """Draw `detection_figure` in a file: svg, png or pdf by its ending.

    Raises:
        UsageError: another ending, or see `refuse_existing`.
        OutputError: the file cannot be written.
        ValueError: see `detection_figure`.
    """
    plots.check_plot(path, force=force)
    figure = detection_figure(detection, summary, level=level, share=share, title=title)
    ending = path.suffix.lower()
    with atomic_path(path, force=force) as temporary, plots.fixed_style():
        figure.savefig(temporary, format=ending[1:], metadata=plots.METADATA[ending])


def detection_figure(
    detection: Sequence[Row], summary: Sequence[Row], *, level: str, share: float, title: str = ""
) -> "Figure":
    """AUROC at one level and share: a row a kind of fault, a column a method, the best mean over all kinds first.

    Faults of images stand above those of labels, mixed faults and the mean of the kinds that are no null test below. A
    grey cell has no AUROC. N_METHODS_DRAWN columns are drawn.

    Args:
        detection: DETECTION rows.
        summary: DETECTION_SUMMARY rows of the same.
        level: drawn.
        share: drawn.
        title: above the figure.

    Raises:
        ValueError: there is no DETECTION row of that level and share.
    """
    chosen = [row for row in detection if row["level"] == level and row["share"] == share]
    if not chosen:
        raise ValueError(f"expected rows of level {level} and share {share:g}, got none")
    means = [row for row in summary if row["level"] == level and row["share"] == share and row["kinds"] == "all"]
    ranked = ranked_methods(means, chosen)
    methods = ranked[:N_METHODS_DRAWN]
    areas = areas_of(chosen)
    areas |= {(_MEAN, str(row["method"])): _number(row) for row in means}
    of = {str(row["kind"]): row["of"] for row in chosen}
    groups = [[kind for kind in of if of[kind] == one] for one in ("image", "label", None)]
    groups[-1] += [_MEAN] * bool(means)
    rows = [kind for group in groups for kind in group]
    places = _places(groups)
    values = np.array([[areas.get((kind, method)) for method in methods] for kind in rows], dtype=np.float64)
    with plots.fixed_style():
        from matplotlib.figure import Figure

        width = max(7.0, _CELL_WIDTH * len(methods) + 3.3)
        figure = Figure(figsize=(width, _CELL_HEIGHT * places[-1] + 4.0), layout="constrained")
        axes = figure.subplots()
        cells = _draw_cells(axes, values, places)
        axes.set_yticks([place + 0.5 for place in places], labels=[_label(kind) for kind in rows])
        axes.set_xticks(np.arange(len(methods)) + 0.5, labels=[plots.printable(name, 44) for name in methods])
        axes.tick_params(length=0, labelbottom=False, labeltop=True)
        for label in axes.get_xticklabels():
            label.set(rotation=50, ha="left", rotation_mode="anchor")
        if means:
            axes.get_yticklabels()[-1].set_fontweight("bold")
        bar = figure.colorbar(cells, ax=axes, location="bottom", shrink=0.6, aspect=36, pad=0.02)
        bar.outline.set_visible(False)
        bar.set_ticks([0.0, 0.25, 0.5, 0.75, 1.0], labels=["0", "0.25", "0.5", "0.75", "1"])
        bar.set_label("AUROC: 0 looks cleaner than clean cases, 0.5 blind, 1 found")
        text = f"Level {level}, {share:.0%} of the cases dirty. Faults of images above, of labels below."
        if len(ranked) > len(methods):
            text += f" The best {len(methods)} of {len(ranked)} methods are drawn."
        text = plots.wrapped(text, width)
        if title:
            text = f"{plots.printable(title, int(8 * width))}\n{text}"
        figure.suptitle(text, x=0.01, ha="left", fontsize=11)
    return figure


def _label(kind: str) -> str:
    null_test = kind in KINDS and KINDS[kind].null_test
    return plots.printable(kind, 26) + " (null test)" * null_test


def _places(groups: Sequence[Sequence[str]]) -> list[float]:
    """Upper edge of each row, in rows from the top: a gap stands between groups."""
    places: list[float] = []
    for group in filter(None, groups):
        start = places[-1] + 1.0 + _GAP if places else 0.0
        places += [start + number for number in range(len(group))]
    return places


def _draw_cells(axes: "Axes", values: Float[np.ndarray, "kind method"], places: Sequence[float]) -> "QuadMesh":
    from matplotlib.colors import LinearSegmentedColormap, Normalize

    colours = LinearSegmentedColormap.from_list("found", _COLOURS).with_extremes(bad=_EMPTY)
    norm = Normalize(0.0, 1.0)
    edges = np.arange(values.shape[1] + 1)
    for place, row in zip(places, values, strict=True):
        cells = axes.pcolormesh(
            edges, [place, place + 1.0], row[None], cmap=colours, norm=norm, edgecolors="white", linewidth=0.8
        )
        for column, value in enumerate(row):
            text = "–" if np.isnan(value) else f"{value:.2f}"
            ink = _ink_on(_EMPTY if np.isnan(value) else colours(norm(value)))
            axes.text(column + 0.5, place + 0.52, text, color=ink, ha="center", va="center", fontsize=8)
    axes.set_xlim(0.0, values.shape[1])
    axes.set_ylim(places[-1] + 1.0, 0.0)
    for spine in axes.spines.values():
        spine.set_visible(False)
    return cells


def _ink_on(colour: "ColorType") -> str:
    """White or dark letters, whichever contrast more (relative luminance of WCAG 2)."""
    from matplotlib.colors import to_rgb

    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in to_rgb(colour)]
    luminance = float(np.dot((0.2126, 0.7152, 0.0722), linear))
    return "white" if luminance < _EQUAL_CONTRAST else _INK


def _number(row: Row) -> float | None:
    return float(row["auroc"]) if isinstance(row["auroc"], float) else None
