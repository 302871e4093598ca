"""The evidence of a case again, plainly: whole volumes at once, in float64, importing nothing of auvtool."""

from itertools import pairwise

import numpy as np
from scipy import ndimage

PAIRS = ((0, 0, "dd"), (1, 1, "hh"), (2, 2, "ww"), (0, 1, "dh"), (0, 2, "dw"), (1, 2, "hw"))
EDGES = (-5.0, -3.5, -2.5, -1.5, 0.0, 1.5, 2.5, 3.5, 5.0)
BINS = ("in4", "in3", "in2", "in1", "out1", "out2", "out3", "out4")


def whole_image_quality(image):
    """Those numbers of image quality that depend on all voxels, or on a mean over slices; absent where undefined."""
    image = image.astype(np.float64)
    scaled = (image - image.mean()) / image.std()
    values = {"log_spread": np.log(image.std()), "log_level": np.log(np.abs(image).mean())}
    for axis, name in enumerate("dhw"):
        if image.shape[axis] > 1:
            values[f"gradient_{name}"] = np.abs(np.diff(scaled, axis=axis)).mean()
    if len(image) > 2:
        values["noise_d"] = np.abs(scaled[2:] - 2 * scaled[1:-1] + scaled[:-2]).mean() / np.sqrt(6)
    rows = [row for row in scaled.reshape(len(scaled), -1) if np.ptp(row) > 0]
    if len(rows) > 2:
        likeness = [np.corrcoef(one, other)[0, 1] for one, other in pairwise(rows)]
        step = [np.sqrt(((one - other) ** 2).sum()) for one, other in pairwise(rows)]
        values |= {"slice_likeness": np.mean(likeness), "slice_likeness_least": min(likeness)}
        values |= {
            "slice_step_variation": np.std(step) / np.mean(step),
            "slice_step_least": min(step) / np.median(step),
        }
    if len(image) >= 8:
        window = np.hanning(len(image) + 2)[1:-1]
        along = np.fft.rfft((scaled - scaled.mean(axis=0)) * window[:, None, None], axis=0)
        energy, frequency = (np.abs(along) ** 2).sum(axis=(1, 2)), np.fft.rfftfreq(len(image))
        for band in range(4):
            inside = (frequency >= band / 8) & ((frequency < (band + 1) / 8) | (band == 3))
            values[f"band_d_{band}"] = np.log(energy[inside].sum() / energy.sum())
    if len(image) <= 24:  # otherwise only some slices count
        energy = (np.abs(np.fft.fft2(scaled)) ** 2).mean(axis=0)
        for axis, name in enumerate("hw"):
            lines = np.log(energy.sum(axis=1 - axis) + 1e-6)
            running = [np.median(np.take(lines, range(k - 2, k + 3), mode="wrap")) for k in range(len(lines))]
            values[f"lines_{name}"] = (lines - running).std()
        if min(image.shape[1:]) > 2:
            kernel = np.array([[1, -2, 1], [-2, 4, -2], [1, -2, 1]])
            views = np.lib.stride_tricks.sliding_window_view(scaled, (3, 3), axis=(1, 2))
            residual = np.abs((views * kernel).sum(axis=(3, 4)))
            values["noise"] = np.sqrt(np.pi / 2) / 6 * residual.mean()
            values["noise_median"] = np.median(residual) / (6 * 0.6745)
    values["share_lowest"] = (image == image.min()).mean()
    values["share_highest"] = (image == image.max()).mean()
    for axis, name in enumerate(("slices", "rows", "columns")):
        values[f"constant_{name}"] = np.mean([np.ptp(image.take(k, axis)) == 0 for k in range(image.shape[axis])])
    return values


def whole_label_shape(label, labels, foreground, spacing):
    """All numbers of the shape of a class from the positions of its voxels and its mask in the whole volume."""
    mask, unit = np.isin(label, labels), np.prod(spacing)
    places = np.argwhere(mask)
    volume = len(places) * unit
    others = np.argwhere(np.isin(label, foreground))
    pieces, n = ndimage.label(mask, structure=np.ones((3, 3, 3)))
    sizes = [(pieces == k).sum() for k in range(1, n + 1)]
    filled = np.stack([ndimage.binary_fill_holes(one) for one in mask])
    first, last = places.min(axis=0), places.max(axis=0) + 1
    cut = np.pad(mask[tuple(map(slice, first, last))], 1)
    smooth = ndimage.gaussian_filter(cut.astype(float), (0, 1, 1)) > 0.5
    faces = [np.abs(np.diff(cut.astype(int), axis=axis)).sum(axis=(1, 2)) for axis in range(3)]
    area = cut.sum(axis=(1, 2)).astype(float)
    edges = (faces[1] + faces[2])[area > 0]
    area_within = area[1:-1]
    both = [2 * (a & b).sum() / (a.sum() + b.sum()) for a, b in pairwise(cut[1:-1]) if (a | b).any()]
    centroid = (places * spacing).mean(axis=0)
    spread = (places * spacing - centroid) / volume ** (1 / 3)
    on_border = [p for p in places if p[1] in (0, label.shape[1] - 1) or p[2] in (0, label.shape[2] - 1)]
    values = {
        "log_volume_mm3": np.log(volume),
        "n_components": n,
        "minor_component_share": 1 - max(sizes) / sum(sizes),
        "hole_share": (filled & ~mask).sum() / len(places),
        "surface_ratio": sum(faces[k].sum() * unit / spacing[k] for k in range(3)) / volume ** (2 / 3),
        "roughness": 1 - 2 * (smooth & cut).sum() / (smooth.sum() + cut.sum()),
        "outline_ratio": (edges / np.sqrt(area[area > 0])).mean(),
        "slice_overlap": np.mean(both) if both else np.nan,
        "slice_overlap_least": min(both, default=np.nan),
        "area_jump": np.abs(np.diff(area_within)).max(initial=0) / area.max() if len(area_within) > 1 else np.nan,
        "gap_share": (area_within == 0).mean(),
        "end_area_first": area_within[0] / area.max(),
        "end_area_last": area_within[-1] / area.max(),
        "border_share": len(on_border) / len(places),
    }
    for k, axis in enumerate("dhw"):
        values[f"centre_{axis}"] = (first[k] + last[k]) / 2 / label.shape[k]
        values[f"extent_{axis}"] = (last[k] - first[k]) / label.shape[k]
        offset = centroid[k] - (others * spacing).mean(axis=0)[k]
        values[f"offset_{axis}"] = offset / (len(others) * unit) ** (1 / 3)
    return values | {f"moment_{name}": (spread[:, a] * spread[:, b]).mean() for a, b, name in PAIRS}


def whole_label_boundary(image, label, labels):
    """All numbers of the outline of a class; every distance is the least of those to all voxels of the slice."""
    low, middle, high = np.percentile(image, (5, 50, 95))
    scaled = (image.astype(np.float64) - middle) / (high - low)
    voxels = []
    for picture, numbers in zip(scaled, label, strict=True):
        mask = np.isin(numbers, labels)
        if not mask.any():
            continue
        steps = [np.gradient(picture, axis=k) if picture.shape[k] > 1 else np.zeros(picture.shape) for k in (0, 1)]
        inside, outside = np.argwhere(mask), np.argwhere(~np.pad(mask, 1)) - 1  # beyond the image nothing is labelled
        for place in np.argwhere(mask | (numbers <= 0)):
            within = mask[tuple(place)]
            distance = np.sqrt((((outside if within else inside) - place) ** 2).sum(axis=1).min())
            if distance < 5:
                slope = np.hypot(*(step[tuple(place)] for step in steps))
                voxels.append((-distance if within else distance, picture[tuple(place)], slope))
    distance, intensity, slope = np.array(voxels).T
    bins = [(distance >= low) & (distance < high) for low, high in pairwise(EDGES)]
    level = [intensity[one].mean() if one.any() else np.nan for one in bins]
    near, within = (distance > 0) & (distance <= 3.5), distance < 0
    pairs = np.sign(intensity[within][:, None] - intensity[near][None])
    above = np.maximum(slope - np.median(slope), 0)
    values = {f"step_{name}": level[k] - level[3] for k, name in enumerate(BINS) if name != "in1"}
    for name, one in zip(BINS, bins, strict=True):
        values[f"gradient_{name}"] = slope[one].mean() / slope.mean() if one.any() and slope.any() else np.nan
    return values | {
        "level_inside": intensity[within].mean(),
        "spread_inside": intensity[within].std(),
        "spread_outside": intensity[near].std() if near.any() else np.nan,
        "separation": abs(pairs.mean()) if pairs.size else np.nan,
        "edge_offset": (above * distance).sum() / above.sum() if above.any() else np.nan,
        "edge_share": above[np.abs(distance) <= 1.5].sum() / above.sum() if above.any() else np.nan,
    }
