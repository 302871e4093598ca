"""How an image looks by itself: noise, sharpness, artefacts in k-space, shading, intensities, geometry.

No reference is needed; a user's data set tells which values are usual in it. All but the last groups are free of gain
and offset of the intensities.
"""

from collections.abc import Mapping

import numpy as np
from jaxtyping import Float
from scipy import ndimage
from scipy.stats import kurtosis, skew

from auvtool.arrays import Volume

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
    spread = float(image.std(dtype=np.float64))
    if spread > 0:
        values |= {
            "log_spread": float(np.log(spread)),
            "log_level": float(np.log(np.abs(image, dtype=np.float64).mean())),
        }
        scaled = ((image - image.mean(dtype=np.float64)) / spread).astype(np.float32)
        chosen = ((np.arange(min(_N_SLICES, len(image))) + 0.5) * len(image) / min(_N_SLICES, len(image))).astype(int)
        values |= _noise_and_edges(scaled, scaled[chosen])
        values |= _neighbouring_slices(scaled)
        values |= _frequencies(scaled, scaled[chosen])
        values |= _histogram(image, scaled)
        values |= _shading(scaled)
    return np.array([values[name] for name in QUALITY_NAMES], dtype=np.float64)


def _noise_and_edges(image: Volume, slices: Volume) -> Mapping[str, float]:
    values: dict[str, float] = {}
    if min(slices.shape[1:]) >= 3:
        kernel = np.array([[1, -2, 1], [-2, 4, -2], [1, -2, 1]], dtype=np.float32)
        residual = np.abs(ndimage.convolve(slices, kernel[None])[:, 1:-1, 1:-1])
        values["noise"] = float(np.sqrt(np.pi / 2) / 6 * residual.mean())
        values["noise_median"] = float(np.median(residual) / (6 * 0.6745))
    if len(image) >= 3:
        values["noise_d"] = float(np.abs(np.diff(image, n=2, axis=0)).mean() / np.sqrt(6))
    steps = [float(np.abs(np.diff(image, axis=axis)).mean()) if image.shape[axis] > 1 else np.nan for axis in range(3)]
    values |= dict(zip(("gradient_d", "gradient_h", "gradient_w"), steps, strict=True))
    in_plane = (steps[1] + steps[2]) / 2
    values["gradient_ratio"] = steps[0] / in_plane if in_plane > 0 else np.nan
    return values


def _neighbouring_slices(image: Volume) -> Mapping[str, float]:
    flat = image.reshape(len(image), -1)
    varying = flat.std(axis=1) > 0
    flat = flat[varying]
    if len(flat) < 3:
        return {}
    centred = flat - flat.mean(axis=1, keepdims=True)
    centred /= np.linalg.norm(centred, axis=1, keepdims=True)
    likeness = (centred[1:] * centred[:-1]).sum(axis=1)
    step = np.linalg.norm(np.diff(flat, axis=0), axis=1)
    middle = float(np.median(step))
    return {
        "slice_likeness": float(likeness.mean()),
        "slice_likeness_least": float(likeness.min()),
        "slice_step_variation": float(step.std() / step.mean()) if step.mean() > 0 else np.nan,
        "slice_step_least": float(step.min() / middle) if middle > 0 else np.nan,
    }


def _frequencies(image: Volume, slices: Volume) -> Mapping[str, float]:
    _, h, w = slices.shape
    window = np.outer(np.hanning(h + 2)[1:-1], np.hanning(w + 2)[1:-1]).astype(np.float32)
    power = (np.abs(np.fft.fft2((slices - slices.mean(axis=(1, 2), keepdims=True)) * window)) ** 2).mean(axis=0)
    fh, fw = np.abs(np.fft.fftfreq(h)), np.abs(np.fft.fftfreq(w))
    radius = np.hypot(fh[:, None], fw[None, :])
    values = _band_shares("band_", radius.ravel(), power.ravel())
    values |= _band_shares("band_h_", fh, power.sum(axis=1)) | _band_shares("band_w_", fw, power.sum(axis=0))
    if len(image) >= 2 * _BANDS:
        across = (image - image.mean(axis=0)) * np.hanning(len(image) + 2)[1:-1, None, None].astype(np.float32)
        along_d = (np.abs(np.fft.rfft(across, axis=0)) ** 2).sum(axis=(1, 2))
        values |= _band_shares("band_d_", np.fft.rfftfreq(len(image)), along_d)
    magnitude = np.log(np.abs(np.fft.fftshift(np.fft.fft2(slices), axes=(1, 2))).mean(axis=0) + 1e-6)
    neighbourhood = ndimage.median_filter(magnitude, size=5, mode="wrap")
    values["peak"] = float((magnitude - neighbourhood).max())
    plain = (np.abs(np.fft.fft2(slices)) ** 2).mean(axis=0)
    for axis, energy in (("h", plain.sum(axis=1)), ("w", plain.sum(axis=0))):
        lines = np.log(energy + 1e-6)
        left = lines - ndimage.median_filter(lines, size=5, mode="wrap")
        values[f"lines_{axis}"] = float(left.std())
        values[f"comb_{axis}"] = max(abs(_comb(left, n)) for n in _COMBS)
    return values


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


def _histogram(image: Volume, scaled: Volume) -> Mapping[str, float]:
    flat = scaled.ravel()[:: max(1, scaled.size // _N_VOXELS)].astype(np.float64)
    low, middle, high = np.percentile(flat, (5, 50, 95))
    width = high - low if high > low else 1.0
    values = {
        "skewness": float(skew(flat)),
        "kurtosis": float(kurtosis(flat)),
        "share_lowest": float((image == image.min()).mean()),
        "share_highest": float((image == image.max()).mean()),
    }
    values |= {f"quantile_{q}": float((np.percentile(flat, q) - middle) / width) for q in _QUANTILES}
    for name, axes in (("slices", (1, 2)), ("rows", (0, 2)), ("columns", (0, 1))):
        values[f"constant_{name}"] = float((np.ptp(image, axis=axes) == 0).mean())
    return values


def _shading(scaled: Volume) -> Mapping[str, float]:
    every = max(1, scaled.size // _N_VOXELS)
    flat = scaled.ravel()[::every].astype(np.float64)
    places = np.unravel_index(np.arange(scaled.size)[::every], scaled.shape)
    bright = flat > np.median(flat)
    if bright.sum() < 30:
        return {}
    d, h, w = (
        2.0 * place[bright] / max(length - 1, 1) - 1.0 for place, length in zip(places, scaled.shape, strict=True)
    )
    terms = np.stack([np.ones_like(d), d, h, w, d * d, h * h, w * w, d * h, d * w, h * w], axis=1)
    values = flat[bright]
    total = ((values - values.mean()) ** 2).sum()
    fit, *_ = np.linalg.lstsq(terms, values, rcond=None)
    left = ((values - terms @ fit) ** 2).sum()
    return {
        "shading": float(1.0 - left / total) if total > 0 else np.nan,
        "shading_d": float(fit[1]),
        "shading_h": float(fit[2]),
        "shading_w": float(fit[3]),
    }
