"""Plots as SVG text that takes its colours from the page: light, dark and print need no second picture.

Every text in them is escaped here. Sizes are in the pixels of a narrow screen; wide pages set plots side by side.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from xml.sax.saxutils import escape, quoteattr

import numpy as np

from auvtool.plots import spread
from auvtool.report.page import Distribution, EnergyPanel, Picture, Points, SizePlot, TrainingCurves
from auvtool.visible_text import visible

WIDTH = 380
_HEIGHT = 250
_LEFT, _RIGHT, _TOP, _BOTTOM = 46, 10, 10, 40
_ROW = 46  # of a distribution
N_DISTRIBUTIONS_DRAWN = 16
N_CURVES_DRAWN = 6  # colours that can be told apart


@dataclass(frozen=True)
class Axis:
    """Where numbers stand along one side: from `low` at `start` to `high` at `end`, in pixels; `whole`: counts."""

    low: float
    high: float
    start: float
    end: float
    logarithmic: bool = False
    whole: bool = False

    def at(self, value: float) -> float:
        low, high, here = (math.log(v) if self.logarithmic else v for v in (self.low, self.high, value))
        share = 0.5 if high == low else (here - low) / (high - low)
        return self.start + share * (self.end - self.start)

    def ticks(self) -> list[tuple[float, str]]:
        """Round numbers along it, from two to seven."""
        values = self._powers() if self.logarithmic else []
        if len(values) < 2:
            step = _round_step((self.high - self.low) / 4 or 1.0)
            first = math.ceil(self.low / step - 1e-9)
            values = [step * k for k in range(first, math.floor(self.high / step + 1e-9) + 1)]
            values = [value for value in values if value > 0] if self.logarithmic else values
        if self.whole:
            values = [value for value in values if value == round(value)]
        return [(value, f"{value:.6g}" if abs(value) > 1e-12 else "0") for value in values]

    def _powers(self) -> list[float]:
        powers = range(math.floor(math.log10(self.low)), math.ceil(math.log10(self.high)) + 1)
        for steps in ((1.0, 2.0, 5.0), (1.0, 3.0), (1.0,)):
            values = [step * 10.0**power for power in powers for step in steps]
            values = [value for value in values if self.low * 0.999 <= value <= self.high * 1.001]
            if len(values) <= 7:
                break
        return values


def strip_chart(distributions: Sequence[Distribution]) -> str:
    """AUVs of whole cases and classes, a row each: a point a case, wider where they are dense; quartiles below."""
    drawn = distributions[:N_DISTRIBUTIONS_DRAWN]
    height = _ROW * len(drawn) + 44
    x = Axis(min(0.0, *(min(d.auv) for d in drawn)), max(1.0, *(max(d.auv) for d in drawn)), 12, WIDTH - 12)
    parts = [_bottom_ticks(x, 4, height - 36, "AUV: 0 certain, 1 uncertain", height)]
    for row, one in enumerate(drawn):
        auv = np.array(one.auv)
        middle = _ROW * row + 31
        heights = middle - 18 * spread(auv)
        dots = "".join(f"M{x.at(a):.1f} {y:.1f}h0" for a, y in zip(one.auv, heights, strict=True))
        first, median, third = (x.at(float(q)) for q in np.quantile(auv, [0.25, 0.5, 0.75]))
        without = f", {one.n_without} without AUV" if one.n_without else ""
        said = f"{_cut(one.name, 30)}: {len(auv):,}{without}, median {np.median(auv):.2f}"
        parts.append(
            f'<text x="12" y="{middle - 15}" class="row-name">{_escaped(said)}</text>'
            f'<path class="dots{" small" if len(auv) > 300 else ""}" d="{dots}"/>'
            f'<path class="quartiles" d="M{first:.1f} {middle + 12}H{third:.1f}"/>'
            f'<path class="median" d="M{median:.1f} {middle + 8}v8"/>'
        )
        if one.highlighted is not None:
            parts.append(_diamond(x.at(one.highlighted), middle))
    names = ", ".join(one.name for one in drawn)
    return _svg(WIDTH, height, f"Distribution of the AUV of {names}", parts)


def size_chart(plot: SizePlot) -> str:
    """AUV against a size on a logarithmic axis."""
    x = Axis(min(plot.sizes), max(plot.sizes), _LEFT + 6, WIDTH - _RIGHT - 6, logarithmic=True, whole=not plot.unit)
    y = _upright(min(0.0, *plot.auv), max(1.0, *plot.auv))
    unit = f" ({plot.unit})" if plot.unit else ""
    parts = [_frame(x, y, f"{plot.quantity}{unit}", "AUV")]
    own = None
    for case_id, size, auv in zip(plot.case_ids, plot.sizes, plot.auv, strict=True):
        place = (x.at(size), y.at(auv))
        if case_id == plot.highlighted:
            own = place
        title = _escaped(f"{case_id}: AUV {auv:.3f}, {plot.quantity} {size:.4g}")
        parts.append(
            f'<circle class="dot" cx="{place[0]:.1f}" cy="{place[1]:.1f}" r="3"><title>{title}</title></circle>'
        )
    if own is not None:
        parts.append(_diamond(*own))
    return _svg(WIDTH, _HEIGHT, f"AUV of each case against its {plot.quantity}. {plot.correlation}", parts)


def energy_chart(panel: EnergyPanel, *, cumulative: bool) -> str:
    """Median and 10 to 90 % band of a class's energy shares, or of their running sums, by rank."""
    band = panel.sums if cumulative else panel.shares
    low, median, high = band.low, band.median, band.high
    own = tuple(float(v) for v in np.cumsum(panel.highlighted)) if cumulative else panel.highlighted
    x = Axis(1.0, max(2.0, len(median), len(own)), _LEFT, WIDTH - _RIGHT, logarithmic=True, whole=True)
    y = _upright(0.0, 1.0 if cumulative else max(*high, *own, *median, 1e-9))
    ranks = range(1, len(median) + 1)
    above = [(x.at(j), y.at(v)) for j, v in zip(ranks, high, strict=True)]
    below = [(x.at(j), y.at(v)) for j, v in zip(ranks, low, strict=True)]
    what = "cumulative energy" if cumulative else "energy share"
    parts = [
        _frame(x, y, "rank of the singular value", what),
        f'<path class="band" d="{_path([*above, *below[::-1]])}Z"/>',
        f'<path class="curve c0" d="{_path([(x.at(j), y.at(v)) for j, v in zip(ranks, median, strict=True)])}"/>',
    ]
    if own:
        points = [(x.at(j), y.at(v)) for j, v in enumerate(own, start=1)]
        parts.append(f'<path class="curve c1 dashed" d="{_path(points)}"/>')
    return _svg(WIDTH, _HEIGHT, f"{what} of {panel.class_name} by rank of the singular value", parts)


def training_charts(curves: TrainingCurves) -> tuple[str, str]:
    """Losses, and the pseudo Dice of each class with their mean, by epoch."""
    losses = [("training", curves.training_loss), ("validation", curves.validation_loss)]
    dice = list(curves.pseudo_dice[:N_CURVES_DRAWN])
    if len(curves.pseudo_dice) > N_CURVES_DRAWN:
        table = np.array([values for _, values in curves.pseudo_dice])
        counts = (~np.isnan(table)).sum(axis=0)
        means = np.where(counts > 0, np.nansum(table, axis=0) / np.maximum(counts, 1), np.nan)
        dice = [(f"mean of {len(table)} classes", tuple(float(value) for value in means))]
    return (
        _curves(curves.epochs, losses, "loss", f"Losses of {curves.name} by epoch"),
        _curves(curves.epochs, dice, "pseudo Dice", f"Pseudo Dice of {curves.name} by epoch"),
    )


def picture(one: Picture, *, as_uri: str) -> str:
    """A slice with the outline of its class, and thinner the others' outlines, over it."""
    outlines = [(one.others, "outline others"), (one.outline, "outline")]
    paths = [
        f'<path class="{kind}" d="{"".join(_path(p) + "Z" for p in lines)}"/>' for lines, kind in outlines if lines
    ]
    image = f'<image href="{as_uri}" width="{one.width}" height="{one.height}"/>'
    return _svg(one.width, one.height, f"{one.title}: {one.caption}", [image, *paths], kind="slice")


def _curves(epochs: Sequence[int], series: Sequence[tuple[str, Points]], y_label: str, title: str) -> str:
    known = [value for _, values in series for value in values if not math.isnan(value)]
    x = Axis(float(min(epochs)), float(max(epochs)), _LEFT, WIDTH - _RIGHT, whole=True)
    y = _upright(min(known, default=0.0), max(known, default=1.0))
    parts = [_frame(x, y, "epoch", y_label)]
    for position, (name, values) in enumerate(series):
        points = [(x.at(e), y.at(v)) for e, v in zip(epochs, values, strict=True) if not math.isnan(v)]
        parts.append(f'<path class="curve c{position}" d="{_path(points)}"/>' if points else "")
        line = _HEIGHT + 14 * position + 8
        parts.append(
            f'<path class="curve c{position}" d="M{_LEFT} {line - 4}h22"/>'
            f'<text x="{_LEFT + 28}" y="{line}">{_escaped(_cut(name, 44))}</text>'
        )
    return _svg(WIDTH, _HEIGHT + 14 * len(series) + 2, title, parts)


def _upright(low: float, high: float) -> Axis:
    margin = 0.04 * (high - low or 1.0)
    return Axis(low - margin, high + margin, _HEIGHT - _BOTTOM, _TOP)


def _frame(x: Axis, y: Axis, x_label: str, y_label: str) -> str:
    lines = [_bottom_ticks(x, _TOP, _HEIGHT - _BOTTOM, x_label, _HEIGHT)]
    for value, text in y.ticks():
        place = y.at(value)
        lines.append(
            f'<path class="grid" d="M{_LEFT} {place:.1f}H{WIDTH - _RIGHT}"/>'
            f'<text x="{_LEFT - 6}" y="{place + 4:.1f}" class="end">{text}</text>'
        )
    middle = (_TOP + _HEIGHT - _BOTTOM) / 2
    lines.append(f'<text class="middle" transform="translate(11 {middle}) rotate(-90)">{_escaped(y_label)}</text>')
    return "".join(lines)


def _bottom_ticks(x: Axis, top: float, bottom: float, label: str, height: float) -> str:
    lines = [
        f'<path class="grid" d="M{x.at(value):.1f} {top}V{bottom}"/>'
        f'<text x="{x.at(value):.1f}" y="{bottom + 15}" class="middle">{text}</text>'
        for value, text in x.ticks()
    ]
    place = f'x="{(x.start + x.end) / 2:.0f}" y="{height - 6}" class="middle"'
    return f"{''.join(lines)}<text {place}>{_escaped(label)}</text>"


def _path(points: Sequence[tuple[float, float]]) -> str:
    return "M" + "L".join(f"{a:.1f} {b:.1f}" for a, b in points)


def _diamond(x: float, y: float) -> str:
    return f'<path class="chosen" d="M{x:.1f} {y - 6:.1f}l6 6l-6 6l-6 -6Z"/>'


def _svg(width: float, height: float, title: str, parts: Sequence[str], kind: str = "chart") -> str:
    # A label and not a <title>, which browsers would show as a tooltip over all of it.
    return (
        f'<svg class="{kind}" role="img" aria-label={quoteattr(visible(title))} viewBox="0 0 {width} {height}" '
        f'width="{width}" height="{height}">{"".join(parts)}</svg>'
    )


def _round_step(step: float) -> float:
    power = 10.0 ** math.floor(math.log10(step))
    return next(power * k for k in (1.0, 2.0, 2.5, 5.0, 10.0) if step <= power * k * (1 + 1e-9))


def _cut(text: str, n_letters: int) -> str:
    return text if len(text) <= n_letters else f"{text[: n_letters - 1]}…"


def _escaped(text: str) -> str:
    return escape(visible(text))
