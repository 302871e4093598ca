"""The downstream experiment drawn: Dice of every arm, a panel a ratio, a point a seed."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from auvtool import plots
from auvtool.atomic import atomic_path
from auvtool.benchmark.downstream_plan import ABLATIONS, ALL, CLEAN, DUO, FIXED_ARMS, ORACLE
from auvtool.schema import ALL_CLASSES, Cell, Row

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_BLUE, _ORANGE, _INK, _GREY = "#0072B2", "#D55E00", "#1A1A1A", "#7F9DB0"


def write_plot(path: Path, rows: Sequence[Row]) -> None:
    """Write the figure of DOWNSTREAM rows as svg; the same rows give the same bytes."""
    figure = downstream_figure(rows)
    with atomic_path(path, force=True) as temporary, plots.fixed_style():
        figure.savefig(temporary, format="svg", metadata={"Date": None})


def downstream_figure(rows: Sequence[Row]) -> "Figure":
    """A panel a ratio and in it a row an arm: a point a seed, a bar at their mean, dashes at the mean of arm `all`.

    Arms without a ratio stand in every panel. Scores are orange diamonds, what needs the answer key blue squares, the
    rest grey circles, so that they can be told apart in a grey print.
    """
    from matplotlib.figure import Figure

    whole = [row for row in rows if row["class_name"] == ALL_CLASSES]
    arms = list(dict.fromkeys(str(row["arm"]) for row in whole))
    ratios: list[Cell] = list(dict.fromkeys(row["ratio"] for row in whole if row["ratio"] is not None))
    ratios = ratios or [None]
    with plots.fixed_style():
        width, height = 2.2 + 3.2 * len(ratios), 1.7 + 0.42 * len(arms)
        figure = Figure(figsize=(max(6.5, width), height), layout="constrained")
        panels = figure.subplots(1, len(ratios), squeeze=False, sharex=True, sharey=True)[0]
        for panel, ratio in zip(panels, ratios, strict=True):
            panel.set_title(f"ratio {ratio:.3g}" if isinstance(ratio, float) else "no ratio")
            for place, arm in enumerate(arms):
                values = [
                    float(row["dice"])
                    for row in whole
                    if row["arm"] == arm and row["ratio"] in {None, ratio} and isinstance(row["dice"], float)
                ]
                _draw_arm(panel, place, arm, values, n_arms=len(arms))
            panel.set_xlabel("mean Dice of the test cases")
        panels[0].set_ylim(len(arms) - 0.5, -0.5)
        panels[0].set_yticks(range(len(arms)), labels=[plots.printable(arm, 28) for arm in arms])
        text = "Each point is a training seed, each bar their mean. Dashes: the mean of arm all."
        figure.suptitle(plots.wrapped(text, max(6.5, width)), x=0.01, ha="left", fontsize=10)
    return figure


def _draw_arm(panel: "Axes", place: int, arm: str, values: Sequence[float], *, n_arms: int) -> None:
    if not values:
        return
    if arm in {ORACLE, CLEAN}:
        color, marker = _BLUE, "s"
    elif arm in FIXED_ARMS and arm not in {DUO, *ABLATIONS}:
        color, marker = _GREY, "o"
    else:
        color, marker = _ORANGE, "D"
    mean = sum(values) / len(values)
    if arm == ALL:
        panel.plot([mean, mean], [-0.5, n_arms - 0.5], color=_INK, linewidth=1.0, linestyle="--", zorder=0)
    panel.plot([mean, mean], [place - 0.28, place + 0.28], color=_INK, linewidth=2.2)
    points = panel.plot(values, [place] * len(values), marker, color=color, markersize=5.5)
    points[0].set(markeredgecolor="white", markeredgewidth=0.4)
