"""The slices of a case that matter, as small pictures: image, outline of the label, decoded map beside it.

A class is shown on the slice where it is largest and, if its label falls apart, where its next piece is. The picture
is cut around the class and no larger than a screen needs, so that a page with many cases stays small.
"""

import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from jaxtyping import Bool, Float, Int64

from auvtool.cases import Dataset
from auvtool.class_box import class_mask, mask_box
from auvtool.dataset_json import SemanticClass
from auvtool.errors import InputError
from auvtool.feature_store import FeatureFile
from auvtool.report.page import Picture, ScoredCase
from auvtool.volume import CaseVolume, read_case

SIDES = (288, 192)  # pixels of a picture's longer side: where few cases are shown, and where many are
MANY = 24  # cases
N_PICTURES = 4  # of a case among others
N_PICTURES_OF_ONE = 24  # of the one case that a page is about
_QUALITY = 80  # of JPEG
_MARGIN_MM = 12.0  # around the class at least
_SMALLEST_MM = 40.0  # side of what is shown at least, where the scan is as large
_TOLERANCE = 0.15  # voxels that an outline may lie off for fewer points
_SHOWN = (0.5, 99.5)  # percentiles that are black and white

Polygon: TypeAlias = tuple[tuple[float, float], ...]
Window: TypeAlias = tuple[slice, slice]


@dataclass(frozen=True)
class Sources:
    """Where slices come from.

    Attributes:
        dataset: of the scored cases.
        features: file with maps; None: pictures without maps.
        channel: of the image that is shown.
        side: pixels of a picture's longer side.
    """

    dataset: Dataset
    features: FeatureFile | None
    channel: int
    side: int = SIDES[0]


def case_pictures(case: ScoredCase, sources: Sources, *, limit: int, certain: bool = False) -> tuple[Picture, ...]:
    """At most `limit` pictures: of the classes that the case's reason names, then of the most uncertain (certain) ones.

    A case without a label, or whose classes are all absent, is shown on its middle slice.

    Raises:
        InputError: it is not in the data set, or a file of it cannot be read.
    """
    entry = next((one for one in sources.dataset.cases if one.case_id == case.case_id), None)
    if entry is None:
        raise InputError(
            sources.dataset.folder,
            expected=f"the scored case {case.case_id}",
            found="none of that id that can be used",
            cure="check its files, or name the data set that was scored",
        )
    volume = read_case(entry, sources.dataset)
    if sources.channel >= len(volume.image):
        raise InputError(
            case.case_id,
            expected=f"the image channel {sources.channel} that was extracted",
            found=f"{len(volume.image)} channels",
            cure="name the data set that was scored",
        )
    pictures: list[Picture] = []
    for one in _chosen(case, sources.dataset.classes, certain=certain):
        if len(pictures) < limit:
            pictures += _class_pictures(volume, one, sources, case.case_id)
    return tuple(pictures[:limit]) or (_without_label(volume, sources),)


def _chosen(case: ScoredCase, classes: Sequence[SemanticClass], *, certain: bool) -> list[SemanticClass]:
    """Classes of a case in the order in which they matter."""
    auv = {one.class_name: one.auv for one in case.classes if one.status != "absent"}

    def order(one: SemanticClass) -> tuple[bool, bool, float]:
        value = auv.get(one.name)
        named = f" of {one.name} z " in case.reason
        return not named, value is None, (value or 0.0) if certain else -(value or 0.0)

    return sorted(classes, key=order)


def _class_pictures(volume: CaseVolume, one: SemanticClass, sources: Sources, case_id: str) -> list[Picture]:
    label = volume.label
    if label is None:
        return []
    mask = class_mask(label, one.labels)
    box = mask_box(mask)
    if box is None:
        return []
    decoded = _decoded(sources.features, case_id, one.class_id)
    all_classes = sorted({value for other in sources.dataset.classes for value in other.labels})
    pictures = []
    for position, why in _places(mask, None if decoded is None else decoded[1]):
        window = _window(mask[position], volume)
        others = class_mask(label[position : position + 1], all_classes)[0] & ~mask[position]
        width, height = _size(window, volume, sources.side)
        plane = volume.image[sources.channel, position]
        # Of the class's surroundings: air or bone farther off would leave no greys for it.
        image, low, high = grey_picture(plane[window], (width, height), like=plane[_near(mask[position])])
        shown_map = None if decoded is None else _map_picture(decoded, position, window, volume, (width, height))
        pictures.append(
            Picture(
                f"{one.name}, slice {position + 1} of {len(mask)}",
                f"{why}; {_greys(low, high)}",
                image,
                width,
                height,
                outlines(mask[position][window], (width, height)),
                outlines(others[window], (width, height)),
                *(shown_map or (None, "")),
            )
        )
    return pictures


def _without_label(volume: CaseVolume, sources: Sources) -> Picture:
    middle = volume.image.shape[1] // 2
    plane = volume.image[sources.channel, middle]
    window = (slice(0, plane.shape[0]), slice(0, plane.shape[1]))
    size = _size(window, volume, sources.side)
    image, low, high = grey_picture(plane, size)
    return Picture(
        f"slice {middle + 1} of {volume.image.shape[1]}",
        f"the middle of the scan, which has no label; {_greys(low, high)}",
        image,
        *size,
        (),
    )


def _places(mask: Bool[np.ndarray, "d h w"], decoded: Int64[np.ndarray, " d"] | None) -> list[tuple[int, str]]:
    """Slices and why they are shown: the largest area (of what was decoded), and the largest piece apart from it."""
    from scipy import ndimage

    areas = mask.sum(axis=(1, 2))
    choice = np.arange(len(areas)) if decoded is None else decoded[decoded < len(areas)]
    if not len(choice) or not areas[choice].any():
        choice = np.arange(len(areas))
    places = [(int(choice[np.argmax(areas[choice])]), "where the class is largest")]
    box = mask_box(mask)
    if box is None:
        return places
    pieces, n_pieces = ndimage.label(mask[box], structure=np.ones((3, 3, 3)))
    if n_pieces > 1:
        sizes = np.bincount(pieces.ravel())
        sizes[0] = 0
        second = int(np.argsort(-sizes, kind="stable")[1])
        position = int((pieces == second).sum(axis=(1, 2)).argmax()) + box[0].start
        why = f"a piece apart: {sizes[second]:,} of {sizes.sum():,} voxels, {n_pieces} pieces"
        if position == places[0][0]:
            places[0] = (position, f"{places[0][1]}; {why}")
        else:
            places.append((position, why))
    return places


def _window(mask: Bool[np.ndarray, "h w"], volume: CaseVolume) -> Window:
    """Rows and columns around a class, about as high as wide in millimetres, within the slice."""
    box = mask_box(mask[None])
    if box is None:
        raise ValueError("expected a slice with the class, got one without")
    spacing = volume.geometry.spacing_mm[1:]
    lengths = [(part.stop - part.start) * step for part, step in zip(box[1:], spacing, strict=True)]
    side = max(max(lengths) * 1.3, max(lengths) + 2 * _MARGIN_MM, _SMALLEST_MM)
    parts = []
    for part, step, n in zip(box[1:], spacing, mask.shape, strict=True):
        wanted = min(n, round(side / step))
        start = min(max(0, (part.start + part.stop - wanted) // 2), n - wanted)
        parts.append(slice(start, start + wanted))
    return parts[0], parts[1]


def _near(mask: Bool[np.ndarray, "h w"]) -> Window:
    """The box of a class, wider by a third on each side, by 3 voxels at least."""
    rows, columns = (np.flatnonzero(mask.any(axis=other)) for other in (1, 0))
    margins = [max(3, (int(found[-1]) - int(found[0]) + 1) // 3) for found in (rows, columns)]
    return (
        slice(max(0, int(rows[0]) - margins[0]), int(rows[-1]) + 1 + margins[0]),
        slice(max(0, int(columns[0]) - margins[1]), int(columns[-1]) + 1 + margins[1]),
    )


def _size(window: Window, volume: CaseVolume, side: int) -> tuple[int, int]:
    """Width and height in pixels, in the proportions of millimetres."""
    height, width = (
        (part.stop - part.start) * step for part, step in zip(window, volume.geometry.spacing_mm[1:], strict=True)
    )
    scale = side / max(height, width)
    return max(1, round(width * scale)), max(1, round(height * scale))


def grey_picture(
    plane: Float[np.ndarray, "h w"], size: tuple[int, int], *, like: Float[np.ndarray, "h w"] | None = None
) -> tuple[bytes, float, float]:
    """JPEG of (width, height) = `size` pixels, and the intensities that are black and white in it, those of `like`."""
    low, high = (float(value) for value in np.percentile(plane if like is None else like, _SHOWN))
    return _jpeg(_scaled(plane, low, high), size), low, high


def outlines(mask: Bool[np.ndarray, "h w"], size: tuple[int, int]) -> tuple[Polygon, ...]:
    """The border of a mask as polygons of (x, y) in a picture of (width, height) = `size` pixels."""
    from skimage.measure import approximate_polygon, find_contours

    height, width = mask.shape
    polygons = []
    # A border of zeros closes what touches the edge; a voxel's centre lies at its index and a half.
    for contour in find_contours(np.pad(mask, 1).astype(np.float32), 0.5):  # type: ignore[no-untyped-call]
        points = approximate_polygon(contour, _TOLERANCE) - 0.5  # type: ignore[no-untyped-call]
        x, y = points[:, 1] * size[0] / width, points[:, 0] * size[1] / height
        polygons.append(tuple((round(float(a), 1), round(float(b), 1)) for a, b in zip(x, y, strict=True)))
    return tuple(polygons)


def _decoded(
    features: FeatureFile | None, case_id: str, class_id: int
) -> tuple[Float[np.ndarray, "d h w"], Int64[np.ndarray, " d"]] | None:
    if features is None or case_id not in features.case_ids or class_id not in features.map_ids(case_id):
        return None
    return features.map(case_id, class_id)


def _map_picture(
    decoded: tuple[Float[np.ndarray, "d h w"], Int64[np.ndarray, " d"]],
    position: int,
    window: Window,
    volume: CaseVolume,
    size: tuple[int, int],
) -> tuple[bytes, str] | None:
    """The same region of a class's map, on its own grid, in the colours of viridis; None if it was not decoded here."""
    from matplotlib import colormaps

    logits, slices = decoded
    rows = np.flatnonzero(slices == position)
    if not len(rows):
        return None
    plane = logits[rows[0]]
    parts = []
    for part, n, whole in zip(window, plane.shape, volume.image.shape[2:], strict=True):
        parts.append(slice(part.start * n // whole, max(part.start * n // whole + 1, -(-part.stop * n // whole))))
    low, high = (float(value) for value in np.percentile(logits, _SHOWN))
    grey = _scaled(plane[tuple(parts)], low, high)
    coloured = np.asarray(colormaps["viridis"](grey, bytes=True))[..., :3]
    return _jpeg(coloured, size), f"decoded map (logits), dark {low:.3g} to bright {high:.3g}"


def _greys(low: float, high: float) -> str:
    digits = 0 if high - low >= 10 else 3
    return f"black at {low:,.{digits}f}, white at {high:,.{digits}f}"


def _scaled(plane: Float[np.ndarray, "h w"], low: float, high: float) -> np.ndarray:
    span = high - low or 1.0
    return np.rint(np.clip((plane.astype(np.float64) - low) / span, 0.0, 1.0) * 255.0).astype(np.uint8)


def _jpeg(pixels: np.ndarray, size: tuple[int, int]) -> bytes:
    from PIL import Image

    buffer = io.BytesIO()
    picture = Image.fromarray(np.ascontiguousarray(pixels)).resize(size, Image.Resampling.BICUBIC)
    picture.save(buffer, format="JPEG", quality=_QUALITY, optimize=True)
    return buffer.getvalue()
