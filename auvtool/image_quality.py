"""How an image looks by itself: noise, sharpness, artefacts in k-space, shading, intensities, geometry.

No reference is needed; a user's data set tells which values are usual in it. All but the last groups are free of gain
and offset of the intensities.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float, Int64
from scipy import ndimage
from scipy.stats import kurtosis, skew

from auvtool.arrays import Volume
from auvtool.slabs import slabs

_N_SLICES = 24  # measured in plane; more would cost without telling more
_N_VOXELS = 100_000  # of histogram and shading
_BANDS = 4
_COMBS = (2, 3, 4, 5, 6)
_QUANTILES = (1, 10, 25, 75, 90, 99)
QUALITY_NAMES = (
    "noise",
    "noise_median",
    "noise_d",
    "gradient_d",
    "gradient_h",
    "gradient_w",
    "gradient_ratio",
    "slice_likeness",
    "slice_likeness_least",
    "slice_step_variation",
    "slice_step_least",
    *(f"band_{band}" for band in range(_BANDS)),
    *(f"band_h_{band}" for band in range(_BANDS)),
    *(f"band_w_{band}" for band in range(_BANDS)),
    *(f"band_d_{band}" for band in range(_BANDS)),
    "lines_h",
    "lines_w",
    "comb_h",
    "comb_w",
    "peak",
    "skewness",
    "kurtosis",
    *(f"quantile_{q}" for q in _QUANTILES),
    "share_lowest",
    "share_highest",
    "constant_rows",
    "constant_columns",
    "constant_slices",
    "shading",
    "shading_d",
    "shading_h",
    "shading_w",
    "log_spread",
    "log_level",
    "log_spacing_d",
    "log_spacing_h",
    "log_spacing_w",
    "log_extent_d",
    "log_extent_h",
    "log_extent_w",
)


def image_quality(image: Volume, spacing_mm: tuple[float, float, float]) -> Float[np.ndarray, " statistic"]:
    """`QUALITY_NAMES` of one image channel; nan where it cannot be measured (a constant image, a single slice).

    In-plane numbers are means over at most 24 slices. Lengths are in voxels, intensities in units of the standard
    deviation of the image.

    - noise: Immerkaer's estimate from a difference of Laplacians (mean, and from the median); noise_d: the same from
      second differences across slices;
    - gradient_*: mean absolute difference of neighbours; gradient_ratio: of d to the mean of h and w;
    - slice_likeness: correlation of neighbouring slices (mean, least); slice_step: norm of their difference
      (coefficient of variation, and the least in units of the median: slices stored twice or thicker than
      they say; nan where most of them are equal);
    - band_*: log share of the power (less the mean, Hann window) in four bands of frequency, radial and by axis;
    - lines_*: standard deviation of the log energy of k-space lines about their running median; comb_*: how far every
      n-th line stands out, n = 2 to 6 (ghosts); peak: the largest log magnitude above its neighbourhood (spikes);
    - skewness, kurtosis, quantiles from the median in units of the range from 5 to 95 %, shares at the extremes;
      constant rows, columns and slices (of the whole volume);
    - shading: R^2 of a quadratic in position fitted to the intensities above the median, and its linear terms;
    - logarithms of spread and level (mean magnitude of the unscaled intensities), of spacing and extent
      in mm.
    """
    values = dict.fromkeys(QUALITY_NAMES, float("nan"))
    for axis, spacing, length in zip("dhw", spacing_mm, image.shape, strict=True):
        values[f"log_spacing_{axis}"] = float(np.log(spacing))
        values[f"log_extent_{axis}"] = float(np.log(spacing * length))
    mean = float(image.mean(dtype=np.float64))
    level, variance = 0.0, 0.0
    for slab in slabs(image.shape):
        part = image[slab].astype(np.float64)
        level += float(np.abs(part).sum()) / image.size
        variance += float(np.square(part - mean).sum()) / image.size
    if variance > 0:
        values |= {"log_spread": float(np.log(np.sqrt(variance))), "log_level": float(np.log(level))}
        scaled = _Scaled(image, mean, float(np.sqrt(variance)))
        places, sample = scaled.sample()
        values |= _noise_and_edges(scaled)
        values |= _neighbouring_slices(scaled)
        values |= _frequencies(scaled)
        values |= _histogram(sample)
        values |= _extremes(image)
        values |= _shading(places, sample, image.shape)
    return np.array([values[name] for name in QUALITY_NAMES], dtype=np.float64)


@dataclass(frozen=True)
class _Scaled:
    """An image less its mean, in units of its standard deviation, as float32.

    Only the part that is asked for is made, so that no copy of a large image is held.
    """

    image: Volume
    mean: float
    spread: float

    def __getitem__(self, where: Any) -> Float[np.ndarray, "..."]:
        part = self.image[where].astype(np.float64)
        part -= self.mean
        part /= self.spread
        return np.asarray(part, dtype=np.float32)

    def chosen(self) -> Iterator[Float[np.ndarray, "1 h w"]]:
        """At most 24 slices, evenly spaced."""
        n = min(_N_SLICES, len(self.image))
        for start in ((np.arange(n) + 0.5) * len(self.image) / n).astype(int):
            yield self[start : start + 1]

    def sample(self) -> tuple[tuple[Int64[np.ndarray, " voxel"], ...], Float[np.ndarray, " voxel"]]:
        """Places (d, h, w) of some 100,000 voxels, evenly spaced in memory, and their values in float64."""
        every = max(1, self.image.size // _N_VOXELS)
        places = np.unravel_index(np.arange(0, self.image.size, every), self.image.shape)
        return places, self[places].astype(np.float64)


def _noise_and_edges(scaled: _Scaled) -> Mapping[str, float]:
    d, h, w = scaled.image.shape
    values: dict[str, float] = {}
    if min(h, w) >= 3:
        kernel = np.array([[[1, -2, 1], [-2, 4, -2], [1, -2, 1]]], dtype=np.float32)
        residual = np.stack([np.abs(ndimage.convolve(one, kernel)[0, 1:-1, 1:-1]) for one in scaled.chosen()])
        values["noise"] = float(np.sqrt(np.pi / 2) / 6 * residual.mean(dtype=np.float64))
        values["noise_median"] = float(np.median(residual, overwrite_input=True) / (6 * 0.6745))
    twice, sums = 0.0, np.zeros(3)
    before = np.empty((0, h, w), dtype=np.float32)
    for slab in slabs(scaled.image.shape):
        part = scaled[slab]
        joined = np.concatenate([before, part])
        twice += _magnitude(np.diff(joined, n=2, axis=0))
        sums[0] += _magnitude(np.diff(joined[max(0, len(before) - 1) :], axis=0))
        sums[1] += _magnitude(np.diff(part, axis=1))
        sums[2] += _magnitude(np.diff(part, axis=2))
        before = joined[-2:]
    if d >= 3:
        values["noise_d"] = twice / ((d - 2) * h * w) / float(np.sqrt(6))
    pairs = ((d - 1) * h * w, d * (h - 1) * w, d * h * (w - 1))
    steps = [float(total / n) if n else np.nan for total, n in zip(sums, pairs, strict=True)]
    values |= dict(zip(("gradient_d", "gradient_h", "gradient_w"), steps, strict=True))
    in_plane = (steps[1] + steps[2]) / 2
    values["gradient_ratio"] = steps[0] / in_plane if in_plane > 0 else np.nan
    return values


def _magnitude(part: Float[np.ndarray, "..."]) -> float:
    return float(np.abs(part).sum(dtype=np.float64))


def _neighbouring_slices(scaled: _Scaled) -> Mapping[str, float]:
    likenesses, steps = [], []
    before = np.empty((0, scaled.image[0].size), dtype=np.float32)
    for slab in slabs(scaled.image.shape):
        flat = scaled[slab].reshape(slab.stop - slab.start, -1)
        flat = np.concatenate([before, flat[flat.std(axis=1) > 0]])
        centred = flat - flat.mean(axis=1, keepdims=True)
        centred /= np.linalg.norm(centred, axis=1, keepdims=True)
        likenesses.append((centred[1:] * centred[:-1]).sum(axis=1))
        steps.append(np.linalg.norm(np.diff(flat, axis=0), axis=1))
        before = flat[-1:]
    likeness, step = np.concatenate(likenesses), np.concatenate(steps)
    if len(step) < 2:
        return {}
    middle = float(np.median(step))
    return {
        "slice_likeness": float(likeness.mean()),
        "slice_likeness_least": float(likeness.min()),
        "slice_step_variation": float(step.std() / step.mean()) if step.mean() > 0 else np.nan,
        "slice_step_least": float(step.min() / middle) if middle > 0 else np.nan,
    }


def _frequencies(scaled: _Scaled) -> Mapping[str, float]:
    d, h, w = scaled.image.shape
    window = np.outer(np.hanning(h + 2)[1:-1], np.hanning(w + 2)[1:-1]).astype(np.float32)
    # Windowed power, magnitude, and power as it is.
    power, magnitude, plain = np.zeros((3, h, w), dtype=np.float32)
    for one in scaled.chosen():
        power += np.abs(np.fft.fft2((one - one.mean(axis=(1, 2), keepdims=True)) * window)[0]) ** 2
        spectrum = np.abs(np.fft.fft2(one)[0])
        magnitude += spectrum
        plain += spectrum**2
    n = min(_N_SLICES, d)
    fh, fw = np.abs(np.fft.fftfreq(h)), np.abs(np.fft.fftfreq(w))
    radius = np.hypot(fh[:, None], fw[None, :])
    power /= n
    values = _band_shares("band_", radius.ravel(), power.ravel())
    values |= _band_shares("band_h_", fh, power.sum(axis=1)) | _band_shares("band_w_", fw, power.sum(axis=0))
    if d >= 2 * _BANDS:
        values |= _band_shares("band_d_", np.fft.rfftfreq(d), _power_across(scaled))
    logarithm = np.log(np.fft.fftshift(magnitude / n) + 1e-6)
    neighbourhood = ndimage.median_filter(logarithm, size=5, mode="wrap")
    values["peak"] = float((logarithm - neighbourhood).max())
    plain /= n
    for axis, energy in (("h", plain.sum(axis=1)), ("w", plain.sum(axis=0))):
        lines = np.log(energy + 1e-6)
        left = lines - ndimage.median_filter(lines, size=5, mode="wrap")
        values[f"lines_{axis}"] = float(left.std())
        values[f"comb_{axis}"] = max(abs(_comb(left, n)) for n in _COMBS)
    return values


def _power_across(scaled: _Scaled) -> Float[np.ndarray, " frequency"]:
    """Power along d less the mean slice, Hann window, summed over the voxels of a slice."""
    d, h, w = scaled.image.shape
    window = np.hanning(d + 2)[1:-1, None, None].astype(np.float32)
    power = np.zeros(d // 2 + 1)
    for rows in slabs((h, d, w)):
        part = scaled[:, rows]
        spectrum = np.fft.rfft((part - part.mean(axis=0)) * window, axis=0)
        power += (np.abs(spectrum) ** 2).sum(axis=(1, 2), dtype=np.float64)
    return power


def _comb(lines: Float[np.ndarray, " line"], n: int) -> float:
    every = np.arange(len(lines)) % n == 0
    every[0] = False  # the mean of the image
    return float(lines[every].mean() - lines[1:][~every[1:]].mean()) if every.sum() > 1 and not every[1:].all() else 0.0


def _band_shares(
    name: str, frequency: Float[np.ndarray, " sample"], power: Float[np.ndarray, " sample"]
) -> dict[str, float]:
    place = np.minimum((frequency * 2 * _BANDS).astype(int), _BANDS - 1)
    sums = np.bincount(place, power.astype(np.float64), minlength=_BANDS)
    return {f"{name}{band}": float(np.log((sums[band] + 1e-12) / (sums.sum() + 1e-12))) for band in range(_BANDS)}


def _histogram(sample: Float[np.ndarray, " voxel"]) -> Mapping[str, float]:
    low, middle, high = np.percentile(sample, (5, 50, 95))
    width = high - low if high > low else 1.0
    return {
        "skewness": float(skew(sample)),
        "kurtosis": float(kurtosis(sample)),
        **{f"quantile_{q}": float((np.percentile(sample, q) - middle) / width) for q in _QUANTILES},
    }


def _extremes(image: Volume) -> Mapping[str, float]:
    lowest, highest = image.min(), image.max()
    n_lowest, n_highest, n_constant = 0, 0, 0
    by_slab = []
    for slab in slabs(image.shape):
        part = image[slab]
        n_lowest += int(np.count_nonzero(part == lowest))
        n_highest += int(np.count_nonzero(part == highest))
        n_constant += int(np.count_nonzero(part.min(axis=(1, 2)) == part.max(axis=(1, 2))))
        by_slab.append([part.min(axis=(0, 2)), part.max(axis=(0, 2)), part.min(axis=(0, 1)), part.max(axis=(0, 1))])
    row_least, row_most, column_least, column_most = zip(*by_slab, strict=True)
    rows = np.min(row_least, axis=0) == np.max(row_most, axis=0)
    columns = np.min(column_least, axis=0) == np.max(column_most, axis=0)
    return {
        "share_lowest": n_lowest / image.size,
        "share_highest": n_highest / image.size,
        "constant_slices": n_constant / len(image),
        "constant_rows": float(rows.mean()),
        "constant_columns": float(columns.mean()),
    }


def _shading(
    places: Sequence[Int64[np.ndarray, " voxel"]], sample: Float[np.ndarray, " voxel"], shape: Sequence[int]
) -> Mapping[str, float]:
    bright = sample > np.median(sample)
    if bright.sum() < 30:
        return {}
    d, h, w = (2.0 * place[bright] / max(length - 1, 1) - 1.0 for place, length in zip(places, shape, strict=True))
    terms = np.stack([np.ones_like(d), d, h, w, d * d, h * h, w * w, d * h, d * w, h * w], axis=1)
    values = sample[bright]
    total = ((values - values.mean()) ** 2).sum()
    fit, *_ = np.linalg.lstsq(terms, values, rcond=None)
    left = ((values - terms @ fit) ** 2).sum()
    return {
        "shading": float(1.0 - left / total) if total > 0 else np.nan,
        "shading_d": float(fit[1]),
        "shading_h": float(fit[2]),
        "shading_w": float(fit[3]),
    }
