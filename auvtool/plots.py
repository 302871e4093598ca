"""Scores drawn in files: energy curves of class maps (the paper's Figure 2) and AUV distributions (its Figure 6).

A figure is drawn without pyplot and under one fixed style, so neither a display nor a user's settings of the drawing
library matter, and the same input gives the same bytes. Blue is the data set, orange the one case that is explained;
colour-blind readers tell them apart, and dashes, crosses and diamonds say the same in a grey print.
"""

import math
import textwrap
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float

from auvtool.atomic import atomic_path, refuse_existing
from auvtool.errors import UsageError
from auvtool.scale import Energy, EpsRule, energy_shares, semantic_perception_scale

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure, SubFigure

# What each format writes beside the picture: nothing that changes from run to run.
METADATA: dict[str, dict[str, str | None]] = {".svg": {"Date": None}, ".png": {}, ".pdf": {"CreationDate": None}}

N_COLUMNS = 4  # more would not be readable on a page
N_CLASSES_DRAWN = 2 * N_COLUMNS
N_DISTRIBUTIONS_DRAWN = 16
N_SINGLE_CURVES = 10  # up to here each case is a line of its own

_BLUE, _PALE, _ORANGE, _INK, _GREY = "#0072B2", "#C3DCEC", "#D55E00", "#1A1A1A", "#7F9DB0"
_STYLE = {
    "font.family": ["DejaVu Sans"],  # comes with matplotlib, so text is as wide on every machine
    "font.size": 10.0,
    "axes.titlesize": 10.5,
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "legend.fontsize": 9.0,
    "legend.frameon": False,
    "xtick.labelsize": 9.0,
    "ytick.labelsize": 9.0,
    "savefig.dpi": 200.0,
    "text.parse_math": False,  # a dollar in a name starts no formula
    "svg.hashsalt": "auvtool",  # otherwise the ids in an svg are random
    "pdf.fonttype": 42,  # text that journals and editors can read
}
_LETTERS_PER_INCH = 13.0  # of the text at 9 points, on average


@dataclass(frozen=True)
class EnergyCurves:
    """What Figure 2 is drawn from.

    Args:
        spectra: class -> singular values of its map in each case, largest first; empty where a case lacks the class.
        energy: what stands for the energy of a singular value.
        eps_rule: where the small constant stands, as in `semantic_perception_scale`.
        highlighted: class -> singular values of the one case that stands out.
        highlighted_case: its case id.
    """

    spectra: Mapping[str, Sequence[Float[np.ndarray, " rank"]]]
    energy: Energy
    eps_rule: EpsRule = "denominator"
    highlighted: Mapping[str, Float[np.ndarray, " rank"]] = field(default_factory=dict)
    highlighted_case: str = ""


@dataclass(frozen=True)
class AuvDistributions:
    """What Figure 6 is drawn from.

    Args:
        distributions: scoring -> AUV of each case; nan where a case has none.
        thresholds: scoring -> largest AUV that a filter keeps (eq. 8).
        highlighted: scoring -> AUV of the one case that stands out.
        highlighted_case: its case id.
    """

    distributions: Mapping[str, Float[np.ndarray, " case"]]
    thresholds: Mapping[str, float] = field(default_factory=dict)
    highlighted: Mapping[str, float] = field(default_factory=dict)
    highlighted_case: str = ""


def plot_scores(
    path: Path, curves: EnergyCurves | None, distributions: AuvDistributions | None, *, title: str = "", force: bool
) -> None:
    """Draw energy curves and, below them, AUV distributions in one file: svg, png or pdf by its ending.

    Raises:
        UsageError: another ending, or see `refuse_existing`.
        OutputError: the file cannot be written.
        ValueError: see `score_figure`.
    """
    check_plot(path, force=force)
    figure = score_figure(curves, distributions, title=title)
    ending = path.suffix.lower()
    with atomic_path(path, force=force) as temporary, fixed_style():
        figure.savefig(temporary, format=ending[1:], metadata=METADATA[ending])


def check_plot(path: Path, *, force: bool) -> None:
    """Raise before any work is done if `path` cannot become a plot.

    Raises:
        UsageError: its ending is not .svg, .png or .pdf, or see `refuse_existing`.
    """
    if path.suffix.lower() not in METADATA:
        found = f"'{path.suffix}'" if path.suffix else "none"
        raise UsageError(f"{path}: expected the ending .svg, .png or .pdf, got {found}; name the plot by its format")
    refuse_existing(path, force=force)


def score_figure(
    curves: EnergyCurves | None = None, distributions: AuvDistributions | None = None, *, title: str = ""
) -> "Figure":
    """The figure of what is given: energy curves above, AUV distributions below.

    Energy curves: a column a class, eq. 4's energy share of each rank j over its running sum. Cases of different rank
    are aligned on j, not on j / r: the first singular values hold the energy and are the same thing in every case,
    whereas j / r would smear them. Past its own rank a case has share 0 and cumulative energy 1, as its map has. The
    median and the 10 to 90 % band are taken at each j. Classes that no case has come last; of the rest
    N_CLASSES_DRAWN are drawn, in the order given, and a note names the others.

    Distributions: a row a scoring, a point a case, wider where cases are dense; the quartiles below; a cross is a case
    above the threshold. N_DISTRIBUTIONS_DRAWN rows are drawn, a note names the others.

    Raises:
        ValueError: there is nothing to draw, an AUV is infinite, or a singular value is negative or not finite.
    """
    if not (curves and curves.spectra) and not (distributions and distributions.distributions):
        raise ValueError("expected at least one class or one scoring to draw, got none")
    from matplotlib.figure import Figure

    n_classes = min(len(curves.spectra), N_CLASSES_DRAWN) if curves else 0
    n_rows = min(len(distributions.distributions), N_DISTRIBUTIONS_DRAWN) if distributions else 0
    n_banks = math.ceil(n_classes / N_COLUMNS)
    heights = [0.8 + 4.7 * n_banks] * bool(n_classes) + [1.5 + (0.85 if n_rows <= 6 else 0.7) * n_rows] * bool(n_rows)
    with fixed_style():
        width = max(7.5, 0.6 + 2.6 * min(n_classes, N_COLUMNS))
        figure = Figure(figsize=(width, sum(heights) + 0.4 * bool(title)), layout="constrained")
        if title:
            figure.suptitle(printable(title, int(8 * width)), x=0.01, ha="left", fontsize=13, fontweight="bold")
        parts = iter(figure.subfigures(len(heights), 1, squeeze=False, height_ratios=heights)[:, 0])
        if curves and n_classes:
            _draw_energies(next(parts), curves, width=width)
        if distributions and n_rows:
            _draw_distributions(next(parts), distributions, width=width)
    return figure


def fixed_style() -> AbstractContextManager[None]:
    """Draw by the settings above whatever the user's are, which stand again afterwards."""
    from matplotlib import style

    return style.context(["default", _STYLE])


def _draw_energies(figure: "SubFigure", curves: EnergyCurves, *, width: float) -> None:
    # Stable: only the classes that no case has lose their place.
    names = sorted(curves.spectra, key=lambda name: not any(np.any(values) for values in curves.spectra[name]))
    drawn, left_out = names[:N_CLASSES_DRAWN], names[N_CLASSES_DRAWN:]
    n_columns = min(len(drawn), N_COLUMNS)
    axes = figure.subplots(2 * math.ceil(len(drawn) / n_columns), n_columns, squeeze=False)
    panels = list(zip(axes[::2].ravel(), axes[1::2].ravel(), strict=True))
    for name, (above, below) in zip(drawn, panels, strict=False):
        _draw_class(above, below, name, curves)
    # One pair of axes for all classes, which can then be compared; an empty panel reaches to -inf.
    longest = int(max(2.0, *(above.dataLim.x1 for above, _ in panels)))
    highest = max(0.0, *(above.dataLim.y1 for above, _ in panels))
    for position, (above, below) in enumerate(panels):
        if position >= len(drawn):
            above.remove()
            below.remove()
            continue
        above.set_ylim(0.0, min(1.05, 1.8 * highest) or 1.05)  # room for the legend above a flat curve
        below.set_ylim(0.0, 1.05)
        for panel, label in ((above, "energy share"), (below, "cumulative energy")):
            panel.set_xscale("log")
            panel.set_xlim(0.9, 1.15 * longest)
            panel.set_xticks(ticks := _rank_ticks(longest), labels=[str(tick) for tick in ticks])
            panel.minorticks_off()
            panel.set_ylabel(label if position % n_columns == 0 else "")
            panel.tick_params(labelleft=position % n_columns == 0, labelbottom=panel is below)
        below.set_xlabel("rank j of the singular value")
    explanation = (
        f"Energy ({'s²' if curves.energy == 'squared' else 's'}) of the singular values of each class map. A steep "
        "curve: few patterns, low scale S, uncertain. A flat curve: many patterns, high S, certain."
    )
    _explain(figure, explanation, kind="classes", n_drawn=len(drawn), left_out=left_out, width=width)


def _draw_class(above: "Axes", below: "Axes", name: str, curves: EnergyCurves) -> None:
    shares = [_shares(values, curves) for values in curves.spectra[name]]
    present = [p for p in shares if p.size]
    above.set_title(f"{_on_two_lines(name)}\n{_counts(len(present), len(shares), 'map')}")
    if present:
        padded = aligned_shares(curves.spectra[name], energy=curves.energy, eps_rule=curves.eps_rule)
        longest = padded.shape[1]
        several = len(present) > 1
        of_whom, symbol = ("median of cases", "median S") if several else ("the case", "S")
        label = _with_scale(of_whom, symbol, curves.spectra[name], curves)
        for panel, values in ((above, padded), (below, np.cumsum(padded, axis=1))):
            low, median, high = np.quantile(values, [0.1, 0.5, 0.9], axis=0)
            if several:
                ranks = np.arange(1, longest + 1)
                panel.fill_between(ranks, low, high, color=_PALE, linewidth=0, label="10 to 90 % of cases")
            for curve, p in zip(values, present, strict=True) if 1 < len(present) <= N_SINGLE_CURVES else ():
                panel.plot(range(1, p.size + 1), curve[: p.size], color=_GREY, linewidth=0.7)
            _draw_curve(panel, median, color=_BLUE, label=label)
    own = curves.highlighted.get(name, np.empty(0))
    own_shares = _shares(own, curves)
    if own_shares.size:
        label = _with_scale(printable(curves.highlighted_case or "this case", 20), "S", [own], curves)
        _draw_curve(above, own_shares, color=_ORANGE, label=label)
        _draw_curve(below, np.cumsum(own_shares), color=_ORANGE, label=label)
    if above.has_data():
        above.legend(loc="upper right", borderaxespad=0.0, handlelength=1.7, reverse=True)  # strongest first
    else:
        above.text(0.5, 0.5, "no case has a map", transform=above.transAxes, ha="center", color=_INK)


def aligned_shares(
    spectra: Sequence[Float[np.ndarray, " rank"]], *, energy: Energy, eps_rule: EpsRule
) -> Float[np.ndarray, "map rank"]:
    """Energy shares (eq. 4) of the maps that are there and not flat, aligned on the rank; past its own a map has 0."""
    found = [energy_shares(values, energy=energy, eps_rule=eps_rule) for values in spectra]
    there = [shares for shares in found if shares.size and not np.isnan(shares).any()]
    longest = max((shares.size for shares in there), default=0)
    return np.array([np.pad(shares, (0, longest - shares.size)) for shares in there]).reshape(len(there), longest)


def _shares(spectrum: Float[np.ndarray, " rank"], curves: EnergyCurves) -> Float[np.ndarray, " rank"]:
    """Energy shares of one map (eq. 4); none where it is absent or flat."""
    shares = energy_shares(spectrum, energy=curves.energy, eps_rule=curves.eps_rule)
    return np.asarray(shares[~np.isnan(shares)])


def _draw_curve(panel: "Axes", values: Float[np.ndarray, " rank"], *, color: str, label: str) -> None:
    marker = "o" if values.size <= 12 else ""  # one point alone makes no line
    dashes = (0, (3.5, 1.0)) if color == _ORANGE else "-"  # in a grey print orange is too near to blue
    ranks = range(1, values.size + 1)
    panel.plot(ranks, values, color=color, linewidth=2.2, linestyle=dashes, marker=marker, label=label)


def _with_scale(label: str, symbol: str, spectra: Sequence[Float[np.ndarray, " rank"]], curves: EnergyCurves) -> str:
    """A label with the median S of maps; a flat map has none, nor one with a single singular value (log r = 0)."""
    measurable = [values for values in spectra if len(values) > 1]
    scales = [semantic_perception_scale(s, energy=curves.energy, eps_rule=curves.eps_rule) for s in measurable]
    defined = [float(scale) for scale in scales if not np.isnan(scale)]
    return f"{label}\n{symbol} = {np.median(defined):.2f}" if defined else f"{label}\nS not defined"


def _rank_ticks(longest: int) -> list[int]:
    if longest < 5:
        return list(range(1, longest + 1))
    steps = (1, 2, 5) if longest <= 60 else (1, 3)
    return [step * 10**power for power in range(len(str(longest))) for step in steps if step * 10**power <= longest]


def _draw_distributions(figure: "SubFigure", distributions: AuvDistributions, *, width: float) -> None:
    names = list(distributions.distributions)
    drawn, left_out = names[:N_DISTRIBUTIONS_DRAWN], names[N_DISTRIBUTIONS_DRAWN:]
    axes = figure.subplots()
    labels = []
    outermost = [0.0, 1.0]
    for row, name in enumerate(drawn):
        auv = np.asarray(distributions.distributions[name], dtype=np.float64)
        if np.isinf(auv).any():
            raise ValueError(f"expected finite AUV or nan, got an infinite one in {name}")
        placed = auv[~np.isnan(auv)]
        labels.append(f"{_on_two_lines(name)}\n{_counts(placed.size, auv.size, 'AUV')}")
        outermost += [*placed]
        _draw_row(axes, row, placed, threshold=distributions.thresholds.get(name))
        if not math.isnan(own := distributions.highlighted.get(name, math.nan)):
            outermost.append(own)
            axes.plot([own], [row], color=_ORANGE, marker="D", markersize=8, markeredgecolor="white", linestyle="")
            text = f"{printable(distributions.highlighted_case or 'this case', 20)}: {own:.2f}"
            axes.text(1.01, row + 0.2, text, transform=axes.get_yaxis_transform(), color=_ORANGE, va="center")
    margin = 0.02 * (max(outermost) - min(outermost))
    axes.set_xlim(min(outermost) - margin, max(outermost) + margin)
    axes.set_ylim(len(drawn) - 0.5, -0.5)
    axes.set_yticks(range(len(drawn)), labels=labels)
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)
    axes.set_xlabel("AUV (0 certain, 1 uncertain)")
    explanation = "Each point is a case. The bar below holds the middle half of the cases, its line is the median."
    if any(name in distributions.thresholds for name in drawn):
        explanation += " Crosses are cases above the filter's threshold."
    _explain(figure, explanation, kind="scorings", n_drawn=len(drawn), left_out=left_out, width=width)


def _draw_row(axes: "Axes", row: int, auv: Float[np.ndarray, " case"], *, threshold: float | None) -> None:
    beside = axes.get_yaxis_transform()  # x in widths of the panel, y in rows
    if auv.size == 0:
        axes.text(0.5, row, "no case has an AUV", transform=beside, ha="center", va="center", color=_INK)
        return
    heights = row - 0.08 + 0.54 * spread(auv)
    dropped = np.zeros(auv.size, dtype=bool) if threshold is None else auv > threshold
    size = 5.5 if auv.size <= 100 else 4.0 if auv.size <= 1000 else 2.5
    points = axes.plot(auv[~dropped], heights[~dropped], "o", color=_BLUE, markersize=size)
    points[0].set(markeredgecolor="white", markeredgewidth=0.4)
    axes.plot(auv[dropped], heights[dropped], "x", color=_INK, markersize=size, markeredgewidth=1.4)
    first, median, third = np.quantile(auv, [0.25, 0.5, 0.75])
    axes.plot([first, third], [row + 0.33] * 2, color=_PALE, linewidth=7, solid_capstyle="butt")
    axes.plot([median] * 2, [row + 0.26, row + 0.40], color=_INK, linewidth=2.2, solid_capstyle="butt")
    text = f"median {median:.2f}"
    if threshold is not None:
        axes.plot([threshold] * 2, [row - 0.4, row + 0.4], color=_INK, linewidth=1.2, linestyle="--")
        text += f"\n{dropped.sum()} above {threshold:.2f}"
    axes.text(1.01, row - 0.12, text, transform=beside, va="center", color=_INK)


def spread(values: Float[np.ndarray, " case"]) -> Float[np.ndarray, " case"]:
    """Height of each point in [-0.5, 0.5]: by a fixed rule, so that the same scores give the same picture.

    Neighbours in value stand golden-ratio steps apart, which never cluster; the row is as wide as it is dense.
    """
    order = np.argsort(values, kind="stable")
    ascending = values[order]
    n_near = np.searchsorted(ascending, ascending + 0.03, "right") - np.searchsorted(ascending, ascending - 0.03)
    steps = (np.arange(values.size) * (math.sqrt(5.0) - 1.0) / 2.0 + 0.5) % 1.0 - 0.5
    heights = np.empty(values.size)
    heights[order] = steps * np.sqrt(n_near / max(n_near.max(), 8))
    return heights


def _explain(
    figure: "SubFigure", explanation: str, *, kind: str, n_drawn: int, left_out: Sequence[str], width: float
) -> None:
    """Above the panels how to read them; below them what was not drawn, as many names as two lines hold."""
    figure.suptitle(wrapped(explanation, width), x=0.01, ha="left", fontsize=10)
    if not left_out:
        return
    note = f"{n_drawn} of {n_drawn + len(left_out)} {kind} are drawn. Not drawn: "
    room = int(2 * width * _LETTERS_PER_INCH) - len(note) - 16
    n_named = 1
    while n_named < len(left_out) and len(", ".join(left_out[: n_named + 1])) <= room:
        n_named += 1
    more = f" and {len(left_out) - n_named} more" if n_named < len(left_out) else ""
    figure.supxlabel(wrapped(f"{note}{', '.join(left_out[:n_named])}{more}.", width), x=0.01, ha="left", fontsize=9)


def wrapped(text: str, width: float) -> str:
    """Text in lines of at most `width` inches."""
    return "\n".join(textwrap.wrap(printable(text, len(text)), int(width * _LETTERS_PER_INCH)))


def _on_two_lines(name: str) -> str:
    lines = textwrap.wrap(printable(name, 52).replace("_", "_ "), 28)  # a name may break after its underscores
    return "\n".join(line.replace("_ ", "_") for line in lines)


def printable(text: str, n_letters: int) -> str:
    """A name on one line, cut in its middle to a length; a box for what the font lacks."""
    from matplotlib.font_manager import findfont, get_font

    if len(text) > n_letters:
        text = f"{text[: n_letters - n_letters // 3 - 1]}…{text[-(n_letters // 3) :]}"
    font = get_font(findfont("DejaVu Sans"))
    shown = (letter if letter.isprintable() and font.get_char_index(ord(letter)) else "□" for letter in text)
    return "".join(shown)


def _counts(n_present: int, n_all: int, what: str) -> str:
    without = f", {n_all - n_present} without {what}" if n_present < n_all else ""
    return f"{n_present} case{'s' * (n_present != 1)}{without}"
