"""Faults of label maps: each function models one, at one level, and leaves its input as it is.

A structure is all voxels of one class. Distances that an annotator draws are in plane and in voxels, since he draws
slice by slice on the grid; those of a misplaced file are in mm.
"""

import math

import numpy as np
from scipy import ndimage

from auvtool.arrays import LabelMap

# A structure of a smaller mean in-plane radius changes by a share of its area at every level: three times the 7 voxels
# of "high". With a limit for each level, a structure between two of them would suffer less at the higher level.
SMALL_RADIUS = 21.0
_CORRELATION_VOXELS = 2.0
_WIDEST_WAVER = 2.5
_PLACES_TRIED = 2000


def shift(
    label: LabelMap, *, level: float, spacing_mm: tuple[float, float, float], generator: np.random.Generator
) -> LabelMap:
    """The whole label map moved in plane by `level` mm in a random direction: a wrong origin, a moved patient.

    Rounded to voxels, at least one; what leaves the volume is lost. Low, medium, high: 2, 5, 10 mm.
    """
    return shift_by(label, steps=shift_steps(level=level, spacing_mm=spacing_mm, generator=generator))


def shift_steps(
    *, level: float, spacing_mm: tuple[float, float, float], generator: np.random.Generator
) -> tuple[int, int]:
    """Voxels along h and w of a shift by `level` mm in a random direction in plane; never none."""
    angle = float(generator.uniform(0.0, 2.0 * math.pi))
    steps = (round(level * math.sin(angle) / spacing_mm[1]), round(level * math.cos(angle) / spacing_mm[2]))
    return steps if steps != (0, 0) else (0, 1)


def shift_by(label: LabelMap, *, steps: tuple[int, int]) -> LabelMap:
    """The label map moved by voxels along h and w; what leaves the volume is lost."""
    return np.asarray(ndimage.shift(label, (0, *steps), order=0, mode="constant", cval=0), dtype=label.dtype)


def dilate(label: LabelMap, *, level: float) -> LabelMap:
    """Every structure drawn too large by `level` voxels in plane; only background gives way.

    Low, medium, high: 1-2, 3-5, 7-9 voxels.
    """
    # Slices are made very far apart, because annotators draw slice by slice.
    distance, nearest = ndimage.distance_transform_edt(label == 0, sampling=(1e6, 1.0, 1.0), return_indices=True)
    return np.where((label == 0) & (distance <= level) & bool(label.any()), label[tuple(nearest)], label)


def erode(label: LabelMap, *, level: float) -> LabelMap:
    """Every structure drawn too small by `level` voxels in plane; what is given up becomes background.

    A structure thinner than twice the level vanishes. Low, medium, high: 1-2, 3-5, 7-9 voxels.
    """
    shrunk = np.zeros_like(label)
    for class_id in _classes(label):
        # A rim of outside, so that the border of the volume does not count as inside.
        inside = np.pad(label == class_id, ((0, 0), (1, 1), (1, 1)))
        depth = ndimage.distance_transform_edt(inside, sampling=(1e6, 1.0, 1.0))[:, 1:-1, 1:-1]
        shrunk[depth > level] = class_id
    return shrunk


def grow_structures(
    label: LabelMap, *, voxels: float, share: float, generator: np.random.Generator
) -> tuple[LabelMap, int]:
    """Every structure drawn too large, small ones in proportion; only background gives way, to the nearest structure.

    A structure grows by `voxels` in plane as in `dilate`. Where its mean in-plane radius is below SMALL_RADIUS, its
    area in each slice grows by `share` instead (rounded, at least one voxel), by the nearest voxels, drawn at random
    among equally near ones. Low, medium, high: 1, 3, 7 voxels and 0.1, 0.2, 0.4.

    Returns:
        The label map, and how many structures grew by their area.
    """
    best = np.full(label.shape, np.inf, dtype=np.float32)
    grown, n_small = label.copy(), 0
    for class_id in sorted(_classes(label)):
        small = mean_radius(label, class_id) < SMALL_RADIUS
        n_small += small
        reach = math.ceil(SMALL_RADIUS if small else voxels)
        box = _box(label == class_id, margin=reach)
        structure, free = label[box] == class_id, label[box] == 0
        distance = _distance_to(structure)
        if small:
            claimed = np.zeros_like(structure)
            for place in np.flatnonzero(structure.any(axis=(1, 2))):
                n_more = max(1, round(share * int(structure[place].sum())))
                order = _by_distance(distance[place], structure[place], generator)
                order = order[free[place].ravel()[order]][:n_more]
                claimed[place].flat[order] = True
        else:
            claimed = free & (distance <= voxels)
        claimed &= distance < best[box]
        best[box][claimed] = distance[claimed]
        grown[box][claimed] = class_id
    return grown, n_small


def shrink_structures(
    label: LabelMap, *, voxels: float, share: float, generator: np.random.Generator
) -> tuple[LabelMap, int]:
    """Every structure drawn too small, small ones in proportion; what is given up becomes background.

    A structure shrinks by `voxels` in plane as in `erode`. Where its mean in-plane radius is below SMALL_RADIUS, its
    area in each slice shrinks by `share` instead (rounded, at least one voxel, but a lone voxel stays), from its border
    inwards, at random among equally deep voxels. Low, medium, high: 1, 3, 7 voxels and 0.1, 0.2, 0.4.

    Returns:
        The label map, and how many structures shrank by their area.
    """
    shrunk, n_small = label.copy(), 0
    for class_id in sorted(_classes(label)):
        small = mean_radius(label, class_id) < SMALL_RADIUS
        n_small += small
        box = _box(label == class_id, margin=0)
        structure = label[box] == class_id
        depth = _depth_of(structure)
        if small:
            given_up = np.zeros_like(structure)
            for place in np.flatnonzero(structure.any(axis=(1, 2))):
                area = int(structure[place].sum())
                order = _by_distance(depth[place], ~structure[place], generator)
                order = order[structure[place].ravel()[order]][: min(area - 1, max(1, round(share * area)))]
                given_up[place].flat[order] = True
        else:
            given_up = structure & (depth <= voxels)
        shrunk[box][given_up] = 0
    return shrunk, n_small


def roughen_boundary(label: LabelMap, *, level: float, share: float, generator: np.random.Generator) -> LabelMap:
    """Borders that waver as under an unsteady hand: a smooth random field is added to the distance from the border.

    In plane, slice by slice, with a standard deviation of `level` voxels, or of `share` of the structure's mean
    in-plane radius where that is less, cut off at 2.5 of them, and a correlation length of about 2 voxels. Each
    structure has its own field; where two claim a voxel, the deeper one has it. Low, medium, high: 1, 2, 4 voxels and
    1/6, 1/4, 1/3.
    """
    best = np.zeros(label.shape, dtype=np.float32)
    rough = np.zeros_like(label)
    for class_id in sorted(_classes(label)):
        amplitude = min(level, share * mean_radius(label, class_id))
        box = _box(label == class_id, margin=math.ceil(_WIDEST_WAVER * amplitude) + 1)
        structure = label[box] == class_id
        # The border runs between two voxels, half a voxel from the centre of each.
        height = np.where(structure, _depth_of(structure) - 0.5, 0.5 - _distance_to(structure))
        noise = generator.standard_normal(structure.shape)
        field = ndimage.gaussian_filter(noise, (0.0, _CORRELATION_VOXELS, _CORRELATION_VOXELS), mode="wrap")
        field /= max(float(field.std()), 1e-12)
        height += amplitude * np.clip(field, -_WIDEST_WAVER, _WIDEST_WAVER)
        claimed = height > best[box]
        best[box][claimed] = height[claimed]
        rough[box][claimed] = class_id
    return rough


def flip(label: LabelMap) -> LabelMap:
    """The label map mirrored left to right: saved under another orientation than its image."""
    return label[:, :, ::-1].copy()


def drop_slices(label: LabelMap, *, level: float, generator: np.random.Generator) -> LabelMap:
    """A share `level` of the labelled slices emptied (rounded up): an annotator who did not finish.

    Low, medium, high: 0.1, 0.25, 0.5.
    """
    labelled = np.flatnonzero(label.any(axis=(1, 2)))
    emptied = generator.choice(labelled, size=math.ceil(level * len(labelled)), replace=False)
    incomplete = label.copy()
    incomplete[emptied] = 0
    return incomplete


def removable_components(label: LabelMap) -> list[int]:
    """The classes whose largest connected component can go with some label left elsewhere."""
    n_labelled = np.count_nonzero(label)
    return [
        class_id for class_id in sorted(_classes(label)) if 0 < largest_component(label, class_id).sum() < n_labelled
    ]


def largest_component(label: LabelMap, class_id: int) -> np.ndarray:
    """The largest piece of a class (voxels that touch, corners too, are of one piece), as a bool map."""
    pieces, _ = ndimage.label(label == class_id, structure=np.ones((3, 3, 3)))
    sizes = np.bincount(pieces.ravel())
    sizes[0] = 0
    return np.asarray((pieces == sizes.argmax()) & (pieces > 0))


def remove_component(label: LabelMap, *, class_id: int) -> LabelMap:
    """The largest connected component of a class emptied: an organ or a lesion that was overlooked."""
    incomplete = label.copy()
    incomplete[largest_component(label, class_id)] = 0
    return incomplete


def add_blob(
    label: LabelMap,
    *,
    class_id: int,
    radius_mm: float,
    spacing_mm: tuple[float, float, float],
    allowed: np.ndarray,
    generator: np.random.Generator,
) -> LabelMap:
    """A ball of a class where nothing is: a slip of the brush, or a false component that a model left.

    Its centre is drawn among `allowed` voxels (bool, d h w); ball and the voxels around it hold no label. The border of
    the volume may cut it; it has at least one voxel.

    Raises:
        ValueError: there is no room for it.
    """
    ball = _ball(radius_mm, spacing_mm)
    reach = np.array(ball.shape) // 2
    places = np.flatnonzero(allowed & (label == 0))
    for place in generator.permutation(places)[:_PLACES_TRIED]:
        centre = np.array(np.unravel_index(place, label.shape))
        around = tuple(slice(max(0, c - r - 1), c + r + 2) for c, r in zip(centre, reach, strict=True))
        if not label[around].any():
            blobbed = label.copy()
            region, part = _placed(centre, reach, label.shape)
            blobbed[region][ball[part]] = class_id
            return blobbed
    raise ValueError(f"no room for a ball of {radius_mm:.3g} mm off the structures")


def punch_holes(
    label: LabelMap,
    *,
    n_holes: int,
    share: float,
    spacing_mm: tuple[float, float, float],
    generator: np.random.Generator,
) -> LabelMap:
    """Balls of background inside each structure: a threshold that left out vessels, necrosis or gas.

    The centre of each is a random voxel of the structure as deep as the hole's radius, or one of the deepest where none
    is that deep. The radius is `share` of the structure's mean in-plane radius; the centre always goes. Holes may
    overlap. Low, medium, high: 1, 3, 6 holes a structure, of 0.3 of its radius. An empty label map stays as it is.
    """
    pierced = label.copy()
    for class_id in sorted(_classes(label)):
        radius = share * mean_radius(label, class_id)
        ball = _ball(radius * math.sqrt(spacing_mm[1] * spacing_mm[2]), spacing_mm)
        box = _box(label == class_id, margin=0)
        depth = _depth_of(label[box] == class_id)
        # A voxel of depth 1 touches the border.
        deep = np.argwhere(depth > min(radius + 0.5, float(depth.max()) - 0.5))
        for place in generator.integers(len(deep), size=n_holes):
            centre = deep[place] + [part.start for part in box]
            region, part = _placed(centre, np.array(ball.shape) // 2, label.shape)
            pierced[region][ball[part] & (label[region] == class_id)] = 0
    return pierced


def swap_classes(label: LabelMap, *, first: int, second: int) -> LabelMap:
    """Two class ids exchanged: left for right, or another label convention."""
    swapped = label.copy()
    swapped[label == first] = second
    swapped[label == second] = first
    return swapped


def label_of_another_case(label: LabelMap, *, other: LabelMap) -> LabelMap:
    """The label map of another case, stretched to this one's shape: files mixed up."""
    index = [
        np.minimum(((np.arange(size) + 0.5) * other_size / size).astype(np.intp), other_size - 1)
        for size, other_size in zip(label.shape, other.shape, strict=True)
    ]
    return other[np.ix_(*index)].astype(label.dtype)


def severity_dice(corrupt: LabelMap, clean: LabelMap) -> float:
    """Mean Dice of the corrupt label map with the clean one, over the classes in either; 1.0 where both are empty.

    The graded severity of a label fault: 1 = no harm, 0 = nothing left in its place.
    """
    dice = [
        2.0
        * np.count_nonzero((corrupt == class_id) & (clean == class_id))
        / (np.count_nonzero(corrupt == class_id) + np.count_nonzero(clean == class_id))
        for class_id in sorted(_classes(corrupt) | _classes(clean))
    ]
    return float(np.mean(dice)) if dice else 1.0


def mean_radius(label: LabelMap, class_id: int) -> float:
    """Mean in-plane radius in voxels of a class: that of a disc of its area, over the slices that hold it; else 0."""
    areas = np.count_nonzero(label == class_id, axis=(1, 2))
    return float(np.sqrt(areas[areas > 0] / math.pi).mean()) if areas.any() else 0.0


def _distance_to(structure: np.ndarray) -> np.ndarray:
    """Distance in plane in voxels to the structure; 0 in it, and far beyond any in slices without it."""
    # Slices are made very far apart, because annotators draw slice by slice.
    return np.asarray(ndimage.distance_transform_edt(~structure, sampling=(1e6, 1.0, 1.0)), dtype=np.float32)


def _depth_of(structure: np.ndarray) -> np.ndarray:
    """Distance in plane in voxels to the outside; 0 outside, 1 at the border, where the volume's border is one too."""
    inside = np.pad(structure, ((0, 0), (1, 1), (1, 1)))
    return np.asarray(ndimage.distance_transform_edt(inside, sampling=(1e6, 1.0, 1.0))[:, 1:-1, 1:-1], dtype=np.float32)


def _by_distance(distance: np.ndarray, near: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """Flat indices of a slice by distance, then by how much of `near` is around, then at random."""
    around = ndimage.gaussian_filter(near.astype(np.float32), 1.0)
    return np.lexsort((generator.random(distance.size), -np.round(around, 4).ravel(), distance.ravel()))


def _box(mask: np.ndarray, *, margin: int) -> tuple[slice, slice, slice]:
    """The bounding box of a map that is not empty, wider in plane by `margin` where the volume allows it."""
    found = [np.flatnonzero(mask.any(axis=tuple({0, 1, 2} - {axis}))) for axis in range(3)]
    wider = (0, margin, margin)
    d, h, w = (
        slice(max(0, int(at[0]) - more), min(size, int(at[-1]) + more + 1))
        for at, more, size in zip(found, wider, mask.shape, strict=True)
    )
    return d, h, w


def _ball(radius_mm: float, spacing_mm: tuple[float, float, float]) -> np.ndarray:
    """A bool map with a centre voxel, true where the centre of a voxel lies in the ball."""
    steps = [math.floor(radius_mm / spacing) for spacing in spacing_mm]
    d, h, w = np.ogrid[tuple(slice(-step, step + 1) for step in steps)]
    return np.asarray(
        (d * spacing_mm[0]) ** 2 + (h * spacing_mm[1]) ** 2 + (w * spacing_mm[2]) ** 2 <= radius_mm**2 + 1e-9
    )


def _placed(
    centre: np.ndarray, reach: np.ndarray, shape: tuple[int, ...]
) -> tuple[tuple[slice, ...], tuple[slice, ...]]:
    """Where a map of size 2 `reach` + 1 around `centre` lies in a volume, and the part of that map which does."""
    starts = [max(0, int(c - r)) for c, r in zip(centre, reach, strict=True)]
    ends = [min(size, int(c + r + 1)) for c, r, size in zip(centre, reach, shape, strict=True)]
    region = tuple(slice(start, end) for start, end in zip(starts, ends, strict=True))
    part = tuple(
        slice(start - int(c - r), end - int(c - r))
        for start, end, c, r in zip(starts, ends, centre, reach, strict=True)
    )
    return region, part


def _classes(label: LabelMap) -> set[int]:
    return {int(value) for value in np.unique(label)} - {0}
