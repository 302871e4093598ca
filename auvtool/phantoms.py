"""Procedural CT-like phantoms: an abdominal slab with organs, a liver lesion, bone, bowel, fat, air and a table.

Every case is drawn anew: body size, fat, organ sizes and places, shapes (a smooth random deformation), contrast phase,
noise level, in-plane voxel size. Shapes are ellipsoids and tubes with the Hounsfield values of portal-venous CT; they
look like an abdomen, but no scan was used to make them and none is claimed to be represented.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int16, UInt8
from scipy import ndimage
from scipy.interpolate import CubicSpline

from auvtool.arrays import Volume

CLASS_NAMES = ("liver", "spleen", "right_kidney", "left_kidney", "aorta", "lesion")
LIVER, SPLEEN, RIGHT_KIDNEY, LEFT_KIDNEY, AORTA, LESION = range(1, 7)
SLICE_THICKNESS_MM = 10.0
# Sub-samples of a voxel along d, h, w: their mean is the partial volume of a thick slice.
_OVERSAMPLING = (2, 2, 2)


@dataclass(frozen=True)
class Phantom:
    """One case.

    Attributes:
        image: Hounsfield units; d from inferior to superior, h from anterior to posterior, w from the patient's right
            to left (so that a slice is drawn as radiologists see it).
        label: 0 background, then the classes of `CLASS_NAMES` from 1 in order.
        spacing_mm: voxel size along d, h, w.
    """

    image: Int16[np.ndarray, "d h w"]
    label: UInt8[np.ndarray, "d h w"]
    spacing_mm: tuple[float, float, float]


@dataclass
class _Canvas:
    """Coordinates (mm, from the body's centre) and what has been painted on them so far."""

    z: Volume
    y: Volume
    x: Volume
    hounsfield: Volume
    label: UInt8[np.ndarray, "d h w"]
    generator: np.random.Generator

    def normal(self, mean: float, deviation: float) -> float:
        """One draw, cut at two deviations so that no organ leaves the body."""
        return mean + deviation * float(np.clip(self.generator.standard_normal(), -2.0, 2.0))

    def ellipsoid(
        self, center: tuple[float, float, float], radii: tuple[float, float, float], *, turn_degrees: float = 0.0
    ) -> Volume:
        """Distance-like level (mm): negative inside, 0 on the surface. `center`, `radii` are (z, y, x) in mm."""
        cosine, sine = math.cos(math.radians(turn_degrees)), math.sin(math.radians(turn_degrees))
        dz, dy, dx = self.z - center[0], self.y - center[1], self.x - center[2]
        ty, tx = cosine * dy - sine * dx, sine * dy + cosine * dx
        radius: Volume = np.sqrt((dz / radii[0]) ** 2 + (ty / radii[1]) ** 2 + (tx / radii[2]) ** 2)
        return (radius - 1.0) * min(radii)

    def tube(self, start: tuple[float, float, float], end: tuple[float, float, float], radius: float) -> Volume:
        """Level of a straight tube with round ends."""
        axis = [b - a for a, b in zip(start, end, strict=True)]
        offsets = [self.z - start[0], self.y - start[1], self.x - start[2]]
        length_squared = sum(a * a for a in axis)
        along = np.clip(sum(o * (a / length_squared) for o, a in zip(offsets, axis, strict=True)), 0.0, 1.0)
        distance: Volume = np.sqrt(sum((o - along * a) ** 2 for o, a in zip(offsets, axis, strict=True))) - radius
        return distance

    def paint(self, where: Bool[np.ndarray, "d h w"], hounsfield: float | Volume, *, class_id: int = 0) -> None:
        """Fill `where`; a class or background replaces what was there."""
        values = np.broadcast_to(np.asarray(hounsfield, dtype=np.float32), where.shape)
        self.hounsfield[where] = values[where]
        self.label[where] = class_id


def ct_phantom(generator: np.random.Generator, *, shape: tuple[int, int, int] = (8, 72, 96)) -> Phantom:
    """One phantom drawn from `generator`; equal generators give equal phantoms.

    The slab is `d` slices of 10 mm around the level of the kidneys; in-plane voxels are as large as the body needs
    (3.2 to 4.2 mm at w = 96). Each class has voxels in every case of the default shape.

    Raises:
        ValueError: fewer than 4 slices or 48 voxels in plane, where small organs would vanish, or h below 3/4 w, where
            the body is not all in view.
    """
    if shape[0] < 4 or min(shape[1:]) < 48 or 4 * shape[1] < 3 * shape[2]:
        raise ValueError(f"shape {shape}: a phantom needs at least (4, 48, 48) voxels, and h at least 3/4 of w")
    half_width = float(generator.uniform(138.0, 178.0))
    half_depth = half_width * float(generator.uniform(0.63, 0.72))
    in_plane_mm = round(2.25 * half_width / shape[2], 2)
    spacing_mm = (SLICE_THICKNESS_MM, in_plane_mm, in_plane_mm)
    canvas = _canvas(generator, shape, spacing_mm)

    cavity, spine_y = _paint_body(canvas, half_width=half_width, half_depth=half_depth)
    _paint_bowel(canvas, cavity, half_width=half_width, half_depth=half_depth)
    _paint_liver_and_spleen(canvas, cavity, half_width=half_width, half_depth=half_depth)
    _paint_retroperitoneum(canvas, cavity, spine_y)
    hounsfield, label = _to_voxels(canvas, shape)
    blurred = ndimage.gaussian_filter(hounsfield, (0.0, 0.55, 0.55))
    noisy = blurred + ct_noise(generator, shape, deviation=float(generator.uniform(7.0, 16.0)))
    return Phantom(np.rint(np.clip(noisy, -1024, 3071)).astype(np.int16), label, spacing_mm)


def ct_noise(generator: np.random.Generator, shape: tuple[int, int, int], *, deviation: float) -> Volume:
    """Noise with the in-plane texture of filtered back-projection: the power rises with frequency, then rolls off.

    White along d (slices are reconstructed apart), standard deviation `deviation` (HU) over the volume, mean 0 in each
    slice.
    """
    frequency = np.hypot(np.fft.fftfreq(shape[1])[:, None], np.fft.fftfreq(shape[2])[None, :])
    transfer = frequency * np.exp(-((frequency / 0.28) ** 2))
    white = generator.standard_normal(shape)
    noise = np.fft.ifft2(np.fft.fft2(white, axes=(1, 2)) * transfer, axes=(1, 2)).real
    return np.asarray(noise * (deviation / noise.std()), dtype=np.float32)


def smooth_field(generator: np.random.Generator, shape: tuple[int, int, int], *, knots: tuple[int, int, int]) -> Volume:
    """A smooth random field in about [-1, 1]: uniform draws on a coarse grid of `knots`, joined by cubic splines."""
    field = generator.uniform(-1.0, 1.0, knots)
    for axis, (n_knots, length) in enumerate(zip(knots, shape, strict=True)):
        # The spline is linear in its knots, so it is a matrix, and a volume takes one product an axis.
        spline = CubicSpline(np.arange(n_knots), np.eye(n_knots))(np.linspace(0.0, n_knots - 1.0, length))
        field = np.moveaxis(np.tensordot(spline, field, axes=(1, axis)), 0, axis)
    return np.asarray(field, dtype=np.float32)


def _canvas(
    generator: np.random.Generator, shape: tuple[int, int, int], spacing_mm: tuple[float, float, float]
) -> _Canvas:
    fine = (shape[0] * _OVERSAMPLING[0], shape[1] * _OVERSAMPLING[1], shape[2] * _OVERSAMPLING[2])
    step = [size / factor for size, factor in zip(spacing_mm, _OVERSAMPLING, strict=True)]
    axes = [(np.arange(length) - (length - 1) / 2) * size for length, size in zip(fine, step, strict=True)]
    z, y, x = (axis.astype(np.float32) for axis in np.meshgrid(*axes, indexing="ij"))
    y = y - 4.0  # the body lies a little above the middle: the table needs room
    z = z + np.float32(generator.uniform(-12.0, 12.0))
    # The same smooth deformation of all shapes keeps organs from running into one another.
    amplitude_mm = generator.uniform(4.0, 9.0)
    y = y + amplitude_mm * smooth_field(generator, fine, knots=(4, 6, 6))
    x = x + amplitude_mm * smooth_field(generator, fine, knots=(4, 6, 6))
    return _Canvas(z, y, x, np.full(fine, -1000.0, np.float32), np.zeros(fine, np.uint8), generator)


def _paint_body(canvas: _Canvas, *, half_width: float, half_depth: float) -> tuple[Bool[np.ndarray, "d h w"], float]:
    """Table, skin, fat, muscle wall, ribs and spine; returns the abdominal cavity and the spine's y (mm)."""
    c = canvas
    curve = half_depth + 9.0 - (c.x / half_width) ** 2 * 16.0
    table = (np.abs(c.y - curve) < 4.0) & (np.abs(c.x) < 0.9 * half_width)
    c.paint(table, -450.0)

    def ring(inset: float) -> Volume:
        wide, deep = half_width - inset, half_depth - inset
        radius: Volume = (np.abs(c.x / wide) ** 2.4 + np.abs(c.y / deep) ** 2.4) ** (1 / 2.4)
        return (radius - 1.0) * min(wide, deep)

    c.paint(ring(0.0) < 0, 20.0)
    fat = c.normal(-104.0, 4.0)
    c.paint(ring(2.0) < 0, fat + 8.0 * smooth_field(c.generator, c.x.shape, knots=(4, 12, 12)))
    fat_mm = float(c.generator.uniform(8.0, 24.0))
    muscle = c.normal(58.0, 5.0)
    # Less fat at the sides of the back, none between the wall's layers: one ring is enough at this voxel size.
    c.paint(ring(fat_mm) < 0, muscle)
    wall_mm = fat_mm + c.normal(11.0, 1.5)
    cavity = ring(wall_mm) < 0
    c.paint(cavity, fat + 12.0)

    spine_y = 0.36 * half_depth
    for side in (-1.0, 1.0):
        c.paint(c.ellipsoid((0, spine_y + 36, side * 30), (500, 24, 29)) < 0, muscle - 5.0)
        c.paint(c.ellipsoid((-70, spine_y + 4, side * 36), (90, 17, 15)) < 0, muscle)
    _paint_ribs(c, ring, fat_mm)
    c.paint(c.tube((-300, spine_y + 50, 0), (300, spine_y + 50, 0), 5.0) < 0, c.normal(420.0, 40.0))
    c.paint(c.ellipsoid((0, spine_y + 27, 0), (500, 16, 19)) < 0, c.normal(480.0, 50.0))
    c.paint(c.ellipsoid((0, spine_y + 26, 0), (500, 9, 10)) < 0, 25.0)
    vertebra = c.ellipsoid((0, spine_y, 0), (500, c.normal(17.0, 1.0), c.normal(23.0, 1.5)))
    marrow = c.normal(190.0, 35.0) + 40.0 * smooth_field(c.generator, c.x.shape, knots=(8, 30, 30))
    c.paint(vertebra < 0, c.normal(520.0, 60.0))
    c.paint(vertebra < -3.0, marrow)
    cavity &= (vertebra > 1.0) & (c.y < spine_y + 42)
    return cavity, spine_y


def _paint_ribs(canvas: _Canvas, ring: Callable[[float], Volume], fat_mm: float) -> None:
    """Oblique ribs in the wall: an ellipse in each slice that moves forward from slice to slice."""
    c = canvas
    in_wall = np.abs(ring(fat_mm + 5.5)) < 4.5
    angle = np.degrees(np.arctan2(np.abs(c.x), -c.y))  # 0 in front, 180 at the spine
    phase = float(c.generator.uniform(0.0, 30.0))
    # A rib drops by about 0.9 mm a degree; ribs are 26 degrees apart and end before the belly.
    along = np.mod(angle + c.z * 0.9 + phase, 26.0)
    rib = in_wall & (along < 9.0) & (angle > 62.0) & (angle < 150.0)
    c.paint(rib, c.normal(380.0, 40.0))
    c.paint(rib & (np.abs(ring(fat_mm + 5.5)) < 1.8) & (along > 2.5) & (along < 6.5), 180.0)


def _paint_bowel(canvas: _Canvas, cavity: Bool[np.ndarray, "d h w"], *, half_width: float, half_depth: float) -> None:
    """Loops of bowel (some with gas or oral contrast) and a stomach with a fluid level."""
    c = canvas
    for _ in range(26):
        place = c.generator.uniform(
            (-60, -0.75 * half_depth, -0.55 * half_width), (60, 0.2 * half_depth, 0.7 * half_width)
        )
        radii = c.generator.uniform((14, 9, 10), (32, 19, 24))
        loop = c.ellipsoid(_point(place), _point(radii), turn_degrees=float(c.generator.uniform(0, 180)))
        c.paint(cavity & (loop < 0), c.normal(48.0, 8.0))
        filling = c.generator.choice(["fluid", "gas", "contrast"], p=[0.6, 0.25, 0.15])
        if filling == "fluid":
            c.paint(cavity & (loop < -3.0), c.normal(18.0, 8.0))
        elif filling == "gas":
            c.paint(cavity & (loop < -3.0) & (c.y < place[1]), -850.0)
        else:
            c.paint(cavity & (loop < -3.0), c.normal(240.0, 40.0))
    center = (c.normal(30.0, 8.0), c.normal(-0.32, 0.05) * half_depth, c.normal(0.4, 0.04) * half_width)
    stomach = c.ellipsoid(center, (60.0, 0.34 * half_depth, 0.26 * half_width), turn_degrees=-25.0)
    c.paint(cavity & (stomach < 0), 55.0)
    c.paint(cavity & (stomach < -5.0), c.normal(22.0, 8.0))
    c.paint(cavity & (stomach < -5.0) & (c.y < center[1] - c.normal(12.0, 6.0)), -900.0)


def _paint_liver_and_spleen(
    canvas: _Canvas, cavity: Bool[np.ndarray, "d h w"], *, half_width: float, half_depth: float
) -> None:
    c = canvas
    size = c.normal(1.0, 0.06)
    right_center = (c.normal(26.0, 5.0), -0.04 * half_depth, -0.50 * half_width)
    right = c.ellipsoid(right_center, (95 * size, 0.66 * half_depth * size, 0.40 * half_width * size))
    left_center = (c.normal(38.0, 6.0), -0.40 * half_depth, c.normal(-0.10, 0.03) * half_width)
    left = c.ellipsoid(left_center, (52 * size, 0.30 * half_depth, 0.38 * half_width * size), turn_degrees=14.0)
    liver = cavity & ((right < 0) | (left < 0))
    parenchyma = c.normal(108.0, 11.0)
    c.paint(liver, parenchyma + 7.0 * smooth_field(c.generator, c.x.shape, knots=(5, 12, 12)), class_id=LIVER)

    hilum = (c.normal(15.0, 6.0), -0.12 * half_depth, -0.28 * half_width)
    vessels = c.normal(48.0, 8.0)
    for _ in range(7):
        direction = c.generator.uniform(
            (-25, -0.45 * half_depth, -0.42 * half_width), (60, 0.40 * half_depth, 0.10 * half_width)
        )
        branch = c.tube(hilum, _point(hilum + direction), c.normal(3.6, 0.8))
        inside = liver & (branch < 0)
        c.hounsfield[inside] = parenchyma + vessels  # a vessel is liver to the annotator
    bladder = c.ellipsoid((-15.0, -0.30 * half_depth, -0.22 * half_width), (24, 15, 12), turn_degrees=20.0)
    c.paint(cavity & (bladder < 0), c.normal(9.0, 4.0))
    _paint_lesions(c, liver & (bladder > 0), right_center, parenchyma)

    center = (c.normal(18.0, 6.0), c.normal(0.26, 0.03) * half_depth, c.normal(0.66, 0.02) * half_width)
    radii = (c.normal(54.0, 6.0), c.normal(40.0, 5.0), c.normal(25.0, 3.0))
    spleen = c.ellipsoid(center, radii, turn_degrees=c.normal(-22.0, 6.0))
    hollow = c.ellipsoid((center[0], center[1] - 14.0, center[2] - 30.0), (60, 24, 20))
    c.paint(cavity & (spleen < 0) & (hollow > 0), c.normal(122.0, 10.0), class_id=SPLEEN)


def _paint_lesions(
    canvas: _Canvas, liver: Bool[np.ndarray, "d h w"], center: tuple[float, float, float], parenchyma: float
) -> None:
    """One to three dark lesions with an uneven edge; the first is large enough to be seen in every case."""
    c = canvas
    contrast = float(c.generator.uniform(35.0, 70.0))
    edge = 4.0 * smooth_field(c.generator, c.x.shape, knots=(8, 20, 20))
    for number in range(int(c.generator.integers(1, 4))):
        offset = c.generator.uniform((-45, -32, -22), (15, 32, 28))
        radius = float(c.generator.uniform(13.0, 24.0) if number == 0 else c.generator.uniform(7.0, 14.0))
        lesion = c.ellipsoid(_point(center + offset), (radius, radius * c.normal(1.0, 0.12), radius)) + edge
        c.paint(liver & (lesion < 0), parenchyma - contrast, class_id=LESION)
        core = liver & (lesion < -0.45 * radius)
        c.hounsfield[core] -= 18.0


def _paint_retroperitoneum(canvas: _Canvas, cavity: Bool[np.ndarray, "d h w"], spine_y: float) -> None:
    """Kidneys in their fat, aorta and vena cava."""
    c = canvas
    cortex, medulla = c.normal(178.0, 14.0), c.normal(-32.0, 6.0)
    for side, class_id, level in ((-1.0, RIGHT_KIDNEY, -18.0), (1.0, LEFT_KIDNEY, -8.0)):
        center = (c.normal(level, 5.0), c.normal(spine_y + 4.0, 4.0), side * c.normal(66.0, 4.0))
        radii = (c.normal(54.0, 4.0), c.normal(27.0, 2.0), c.normal(24.0, 2.0))
        kidney = c.ellipsoid(center, radii, turn_degrees=side * 28.0)
        c.paint(cavity & (kidney < 4.5) & (c.label != SPLEEN), -98.0)
        inside = cavity & (kidney < 0)
        c.paint(inside, cortex, class_id=class_id)
        c.hounsfield[inside & (kidney < -7.0)] = cortex + medulla
        sinus = c.ellipsoid(
            (center[0], center[1] - 6.0, center[2] - side * 17.0), (22, 8, 15), turn_degrees=side * 28.0
        )
        c.paint(inside & (sinus < 0), -70.0)

    radius = c.normal(11.5, 1.3)
    aorta_y = spine_y - 18.0 - radius
    lean = c.normal(0.0, 3.0)
    cava = c.ellipsoid((0, spine_y - 26.0, -20.0 + lean), (900, c.normal(9.0, 1.5), c.normal(12.0, 1.5)))
    c.paint(cava < 0, c.normal(128.0, 12.0))
    aorta = c.tube((-200, aorta_y, 7.0 - lean), (200, aorta_y, 9.0 + lean), radius)
    c.paint(aorta < 0, c.normal(172.0, 15.0), class_id=AORTA)


def _point(values: Float[np.ndarray, "3"]) -> tuple[float, float, float]:
    z, y, x = (float(value) for value in values)  # a numpy scalar would make the canvas float64
    return z, y, x


def _to_voxels(
    canvas: _Canvas, shape: tuple[int, int, int]
) -> tuple[Float[np.ndarray, "d h w"], UInt8[np.ndarray, "d h w"]]:
    """Mean intensity and majority class of each voxel's sub-samples."""
    blocks = (shape[0], _OVERSAMPLING[0], shape[1], _OVERSAMPLING[1], shape[2], _OVERSAMPLING[2])
    hounsfield = canvas.hounsfield.reshape(blocks).mean(axis=(1, 3, 5))
    classes = np.arange(len(CLASS_NAMES) + 1, dtype=np.uint8)
    share = np.stack([(canvas.label.reshape(blocks) == value).mean(axis=(1, 3, 5)) for value in classes])
    return hounsfield, classes[share.argmax(axis=0)]
