"""Faults of images: each function models one, at one level, and leaves its input as it is.

What is drawn at random (a direction, a frequency) is an argument, or comes from the generator given; equal arguments
give equal voxels. Faults that scale what a scanner measured act on the distance from the volume's minimum, so that they
mean the same for CT, whose air is negative.
"""

import itertools
import math
from collections.abc import Sequence
from typing import Literal, TypeAlias

import numpy as np
from jaxtyping import Float
from scipy import ndimage

from auvtool.arrays import Volume

Channels: TypeAlias = Float[np.ndarray, "channel d h w"]
InPlaneAxis: TypeAlias = Literal[1, 2]
Side: TypeAlias = Literal["first", "last"]

# Share of k-space lines on each side of the centre that a ghost leaves as they are (TorchIO restores 2 % as well).
_RESTORED_CENTRE = 0.02
# The lowest frequency of a spike in cycles a voxel; below it a spike is shading and no stripes.
_LOWEST_SPIKE = 0.1
_FIELD_ORDER = 3
# Exponents (d, h, w) of the polynomial of a bias field; the constant, which is gain, is left out.
FIELD_TERMS = tuple(
    powers for powers in itertools.product(range(_FIELD_ORDER + 1), repeat=3) if 1 <= sum(powers) <= _FIELD_ORDER
)


def body_deviation(image: Volume) -> float:
    """Standard deviation of the voxels brighter than the volume's mean, which parts body from air in CT and MRI."""
    return float(image[image > image.mean()].std()) if image.max() > image.min() else 0.0


def peak_signal_to_noise(corrupt: Channels, clean: Channels) -> float | None:
    """Of a corrupt image over the range of the clean one, in dB: 10 log10(range^2 / mean squared error).

    The graded severity of a fault of an image; lower is worse. Of several channels, the squared error over the squared
    range is averaged. None where the image is as it was; a channel that was flat counts for nothing.
    """
    shares = []
    for after, before in zip(corrupt, clean, strict=True):
        extent = float(before.max()) - float(before.min())
        if extent > 0.0:
            shares.append(float(np.mean((after.astype(np.float64) - before) ** 2)) / extent**2)
    share = float(np.mean(shares)) if shares else 0.0
    return -10.0 * math.log10(share) if share > 0.0 else None


def add_noise(image: Volume, *, level: float, generator: np.random.Generator) -> Volume:
    """White Gaussian noise of `level` body standard deviations: too low a dose, too short a scan.

    Low, medium, high: 0.1, 0.25, 0.5. A flat image stays as it is.
    """
    noise = generator.standard_normal(image.shape) * (level * body_deviation(image))
    return np.asarray(image + noise, dtype=np.float32)


def add_rician_noise(image: Volume, *, level: float, generator: np.random.Generator) -> Volume:
    """The magnitude of the image with complex Gaussian noise: MRI with too little signal, whose air turns grey.

    With a the distance from the minimum, the result is sqrt((a + n1)^2 + n2^2) above it; n1 and n2 have a standard
    deviation of `level` times the 99th percentile of a in the body (the voxels brighter than the mean). Low, medium,
    high: 0.05, 0.1, 0.2. A flat image stays as it is.
    """
    lowest = float(image.min())
    signal = image.astype(np.float32) - np.float32(lowest)
    body = signal[signal > signal.mean()]
    scale = level * float(np.percentile(body, 99)) if body.size else 0.0
    real = signal + scale * generator.standard_normal(image.shape, dtype=np.float32)
    imaginary = scale * generator.standard_normal(image.shape, dtype=np.float32)
    return np.asarray(np.hypot(real, imaginary) + lowest, dtype=np.float32)


def blur(image: Volume, *, level: float) -> Volume:
    """In-plane Gaussian blur of `level` voxels (standard deviation): a smooth kernel, or slow motion.

    Low, medium, high: 1, 2, 3.
    """
    return np.asarray(ndimage.gaussian_filter(image.astype(np.float32), (0.0, level, level)), dtype=np.float32)


def thicken_slices(image: Volume, *, level: float) -> Volume:
    """Each `level` neighbouring slices replaced by their mean: a thick-slice series stored on a fine grid.

    With 3.5, groups of three and four slices alternate. A last group may hold fewer slices; a single slice stays as it
    is. Low, medium, high: 2, 3.5, 5.
    """
    thick = image.astype(np.float32)
    n_slices = image.shape[0]
    starts = [math.floor(number * level) for number in range(math.ceil(n_slices / level))]
    for start, end in itertools.pairwise([*starts, n_slices]):
        thick[start:end] = thick[start:end].mean(axis=0)
    return thick


def add_ghosts(image: Volume, *, level: float, n_ghosts: int, axis: InPlaneAxis) -> Volume:
    """Copies of the body beside it along an in-plane axis: breathing or pulsation during an MRI scan.

    Every `n_ghosts`-th line of k-space along `axis` keeps 1 - `level` of its magnitude, but for the centre, which keeps
    all (as TorchIO's Ghosting, made symmetric so that the image stays real). Low, medium, high: 0.3, 0.6, 0.9. An axis
    shorter than twice `n_ghosts` stays as it is.
    """
    size = image.shape[axis]
    line = np.abs(np.rint(np.fft.fftfreq(size) * size)).astype(int)
    weak = (line % n_ghosts == 0) & (line > round(_RESTORED_CENTRE * size))
    gain = np.where(weak, 1.0 - level, 1.0).reshape([-1 if place == axis else 1 for place in range(3)])
    return np.asarray(np.fft.ifft(np.fft.fft(image, axis=axis) * gain, axis=axis).real, dtype=np.float32)


def shade(image: Volume, *, coefficients: Sequence[float]) -> Volume:
    """A smooth multiplicative field: an uneven coil in MRI, beam hardening and scatter in CT.

    The field is exp(sum c x^i y^j z^k) with x, y, z in [-1, 1] over the volume and the exponents of FIELD_TERMS (order
    up to 3, as TorchIO's BiasField), divided by its geometric mean; it multiplies the distance from the minimum. The
    coefficients of low, medium and high lie within 0.2, 0.6 and 0.8.
    """
    d, h, w = (np.linspace(-1.0, 1.0, size) if size > 1 else np.zeros(1) for size in image.shape)
    log_field = np.zeros(image.shape, dtype=np.float32)
    for (i, j, k), coefficient in zip(FIELD_TERMS, coefficients, strict=True):
        log_field += coefficient * (d**i)[:, None, None] * (h**j)[:, None] * w**k
    lowest = image.min()
    return np.asarray((image - lowest) * np.exp(log_field - log_field.mean()) + lowest, dtype=np.float32)


def add_spike(image: Volume, *, level: float, frequency: tuple[int, int], phase: float) -> Volume:
    """Stripes over all slices: a spark in the scanner room that hits one point of k-space.

    The point (`frequency`, cycles over h and w) gains `level` times the largest magnitude of the spectrum. That is the
    mean of the distance from the minimum, so the stripes are a cosine of that amplitude. Low, medium, high: 0.15, 0.4,
    0.8. A flat image stays as it is.
    """
    _, height, width = image.shape
    rows, columns = np.arange(height)[:, None] / height, np.arange(width) / width
    stripes = np.cos(2.0 * math.pi * (frequency[0] * rows + frequency[1] * columns) + phase)
    amplitude = level * float((image - image.min()).mean())
    return np.asarray(image + (amplitude * stripes).astype(np.float32), dtype=np.float32)


def spike_frequencies(shape: tuple[int, int, int]) -> list[tuple[int, int]]:
    """Frequencies (cycles over h and w) that a spike may hit: 0.1 cycles a voxel or more along one of them."""
    _, height, width = shape
    return [
        (row, column)
        for row in range(-(height // 2), height // 2 + 1)
        for column in range(width // 2 + 1)
        if max(abs(row) / height, column / width) >= _LOWEST_SPIKE
    ]


def move(
    image: Volume,
    *,
    degrees: float,
    shift_mm: tuple[float, float],
    share: float,
    axis: InPlaneAxis,
    spacing_mm: tuple[float, float, float],
) -> Volume:
    """A patient who turned and moved in plane before the scan was over: doubled edges and smear along an axis.

    The last `share` of the k-space lines along `axis` come from a copy turned by `degrees` about the centre and shifted
    by `shift_mm` (h, w); below one half, the centre of k-space, and with it the anatomy, stays in its place. The result
    is the magnitude of the distance from the minimum. Low, medium, high: 2, 5, 10 degrees and mm.
    """
    lowest = image.min()
    still = image.astype(np.float32) - lowest
    spectrum = np.fft.fftshift(np.fft.fft(still, axis=axis), axes=axis)
    moved = _turned(still, degrees=degrees, shift_mm=shift_mm, spacing_mm=spacing_mm)
    late = [slice(None)] * 3
    late[axis] = slice(image.shape[axis] - round(share * image.shape[axis]), None)
    spectrum[tuple(late)] = np.fft.fftshift(np.fft.fft(moved, axis=axis), axes=axis)[tuple(late)]
    mixed = np.abs(np.fft.ifft(np.fft.ifftshift(spectrum, axes=axis), axis=axis))
    return np.asarray(mixed + lowest, dtype=np.float32)


def change_gamma(image: Volume, *, log_gamma: float) -> Volume:
    """The grey values between minimum and maximum raised to exp(`log_gamma`): a display curve burnt into the file.

    Low, medium, high: a log of 0.15, 0.3, 0.6, up or down. A flat image stays as it is.
    """
    lowest, highest = float(image.min()), float(image.max())
    if highest == lowest:
        return image.astype(np.float32)
    scaled = np.clip((image - np.float32(lowest)) / np.float32(highest - lowest), 0.0, 1.0)
    return np.asarray(scaled ** math.exp(log_gamma) * (highest - lowest) + lowest, dtype=np.float32)


def lower_contrast(image: Volume, *, level: float) -> Volume:
    """The distance of each voxel from the mean times `level`: a null test, for only gain and offset change.

    Low, medium, high: 0.8, 0.65, 0.5.
    """
    mean = float(image.mean())
    return np.asarray(mean + level * (image - mean), dtype=np.float32)


def truncate_view(image: Volume, *, level: float, axis: InPlaneAxis, side: Side) -> Volume:
    """A share `level` of an in-plane axis, from one side, set to the minimum: a field of view that was too small.

    Rounded to voxels, at least one. The label stays, as of a patient larger than the view. Low, medium, high: 0.1,
    0.25, 0.5.
    """
    size = image.shape[axis]
    width = max(1, round(level * size))
    outside = [slice(None)] * 3
    outside[axis] = slice(0, width) if side == "first" else slice(size - width, None)
    truncated = image.astype(np.float32)
    truncated[tuple(outside)] = image.min()
    return truncated


def mistake_units(image: Volume, *, is_ct: bool) -> Volume:
    """Grey values in another unit than the other cases': a null test, for only gain and offset change.

    CT loses its intercept as raw scanner values do: 1024 more, and what is still negative (padding outside the round
    field of view) becomes 0, the only change that is not affine. Others: ten times the value, plus 1000.
    """
    changed = np.maximum(image + 1024.0, 0.0) if is_ct else 10.0 * image + 1000.0
    return np.asarray(changed, dtype=np.float32)


def flip_axis(image: Volume, *, axis: int) -> Volume:
    """The image mirrored along an axis (0: d, 1: h, 2: w): saved under another orientation than its label."""
    return np.flip(image, axis=axis).astype(np.float32)


def _turned(
    image: Volume, *, degrees: float, shift_mm: tuple[float, float], spacing_mm: tuple[float, float, float]
) -> Volume:
    """`image` turned about the centre of each slice, then shifted, both in mm; its border is continued outwards."""
    angle = math.radians(degrees)
    in_mm = np.diag([spacing_mm[1], spacing_mm[2]])
    turn = np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
    back = np.eye(3)
    back[1:, 1:] = np.linalg.inv(in_mm) @ turn.T @ in_mm
    centre = (np.array(image.shape) - 1) / 2.0
    steps = np.array([0.0, shift_mm[0] / spacing_mm[1], shift_mm[1] / spacing_mm[2]])
    offset = centre - back @ (centre + steps)
    return np.asarray(ndimage.affine_transform(image, back, offset, order=1, mode="nearest"), dtype=np.float32)
