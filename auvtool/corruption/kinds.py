"""The kinds of fault by name, each with its levels, and what is drawn at random for it."""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from auvtool.arrays import LabelMap, Volume
from auvtool.corruption import images, labels
from auvtool.corruption.cases import LEVELS, CleanCase, Corrupted, Level, Parameters

_ONE: tuple[Level, ...] = ("high",)


@dataclass(frozen=True)
class CorruptionKind:
    """A fault that can be put into a case.

    Attributes:
        of: what it is put into.
        family: faults of one family do the same kind of harm.
        null_test: it only changes gain and offset, which a measure of image quality should ignore.
        levels: the levels it has; a fault that is there or not has "high" alone.
        describes: what it is, with its levels, on one line.
        apply: puts it into arrays; use `corrupt_arrays`.
    """

    of: Literal["image", "label"]
    family: str
    null_test: bool
    levels: tuple[Level, ...]
    describes: str
    apply: Callable[[CleanCase, Level, np.random.Generator], Corrupted]


def corrupt_arrays(clean: CleanCase, kind: str, level: Level, generator: np.random.Generator) -> Corrupted:
    """A corrupt copy of `clean`; equal generators give equal voxels.

    All channels of an image get the same fault with the same draw. Label values that are not of a class stay as they
    are, as does `clean` itself. The image is float32, the label of its own dtype.

    Raises:
        ValueError: there is no such kind or level, or the fault would change nothing in this case.
    """
    if kind not in KINDS:
        raise ValueError(f"no fault is called {kind}")
    if level not in KINDS[kind].levels:
        raise ValueError(f"{kind} has no level {level}")
    other_value = (clean.label != 0) & ~np.isin(clean.label, clean.class_ids)
    donor = clean.donor
    if donor is not None:
        donor = np.where(np.isin(donor, clean.class_ids), donor, 0)
    classes_only = replace(clean, label=np.where(other_value, 0, clean.label).astype(clean.label.dtype), donor=donor)
    corrupt = KINDS[kind].apply(classes_only, level, generator)
    label = np.where(other_value, clean.label, corrupt.label).astype(clean.label.dtype)
    if np.array_equal(corrupt.image, clean.image) and np.array_equal(label, clean.label):
        raise ValueError(f"{kind} ({level}) changes nothing in this case")
    return Corrupted(corrupt.image.astype(np.float32, copy=False), label, corrupt.parameters)


def _each_channel(clean: CleanCase, spoil: Callable[[Volume], Volume], parameters: Parameters) -> Corrupted:
    return Corrupted(np.stack([spoil(channel) for channel in clean.image]), clean.label, parameters)


def _relabelled(clean: CleanCase, label: LabelMap, parameters: Parameters) -> Corrupted:
    return Corrupted(clean.image, label, parameters)


def _by_level(level: Level, low: float, medium: float, high: float) -> float:
    return {"low": low, "medium": medium, "high": high}[level]


def _sign(generator: np.random.Generator) -> float:
    return float(generator.choice([-1.0, 1.0]))


def _in_plane_axis(generator: np.random.Generator) -> images.InPlaneAxis:
    return 1 if generator.random() < 0.5 else 2


def _axis_name(axis: int) -> str:
    return "dhw"[axis]


def _present(clean: CleanCase, *, at_least: int = 1) -> list[int]:
    present = [int(value) for value in np.unique(clean.label) if value]
    if len(present) < at_least:
        raise ValueError(f"needs {at_least} labelled class{'es' * (at_least > 1)}, this case has {len(present)}")
    return present


def _gaussian_noise(clean: CleanCase, level: Level, generator: np.random.Generator) -> Corrupted:
    deviations, seed = _by_level(level, 0.1, 0.25, 0.5), int(generator.integers(2**63))
    return _each_channel(
        clean,
        lambda channel: images.add_noise(channel, level=deviations, generator=np.random.default_rng(seed)),
        {"body_deviations": deviations},
    )


def _rician_noise(clean: CleanCase, level: Level, generator: np.random.Generator) -> Corrupted:
    share, seed = _by_level(level, 0.05, 0.1, 0.2), int(generator.integers(2**63))
    return _each_channel(
        clean,
        lambda channel: images.add_rician_noise(channel, level=share, generator=np.random.default_rng(seed)),
        {"share_of_body_p99": share},
    )


def _blur(clean: CleanCase, level: Level, _: np.random.Generator) -> Corrupted:
    voxels = _by_level(level, 1.0, 2.0, 3.0)
    return _each_channel(clean, lambda channel: images.blur(channel, level=voxels), {"sigma_voxels": voxels})


def _thick_slices(clean: CleanCase, level: Level, _: np.random.Generator) -> Corrupted:
    factor = _by_level(level, 2.0, 3.5, 5.0)
    return _each_channel(clean, lambda channel: images.thicken_slices(channel, level=factor), {"factor": factor})


def _ghosting(clean: CleanCase, level: Level, generator: np.random.Generator) -> Corrupted:
    intensity, n_ghosts, axis = (
        _by_level(level, 0.3, 0.6, 0.9),
        int(generator.integers(2, 7)),
        _in_plane_axis(generator),
    )
    return _each_channel(
        clean,
        lambda channel: images.add_ghosts(channel, level=intensity, n_ghosts=n_ghosts, axis=axis),
        {"intensity": intensity, "n_ghosts": n_ghosts, "axis": _axis_name(axis)},
    )


def _bias_field(clean: CleanCase, level: Level, generator: np.random.Generator) -> Corrupted:
    limit = _by_level(level, 0.2, 0.6, 0.8)
    coefficients = generator.uniform(-limit, limit, size=len(images.FIELD_TERMS)).tolist()
    return _each_channel(
        clean, lambda channel: images.shade(channel, coefficients=coefficients), {"largest_coefficient": limit}
    )


def _spike(clean: CleanCase, level: Level, generator: np.random.Generator) -> Corrupted:
    share = _by_level(level, 0.15, 0.4, 0.8)
    frequencies = images.spike_frequencies(clean.label.shape)
    if not frequencies:
        raise ValueError("an image of one voxel a slice has no frequencies")
    frequency = frequencies[int(generator.integers(len(frequencies)))]
    phase = float(generator.uniform(0.0, 2.0 * math.pi))
    return _each_channel(
        clean,
        lambda channel: images.add_spike(channel, level=share, frequency=frequency, phase=phase),
        {"share_of_maximum": share, "cycles_h": frequency[0], "cycles_w": frequency[1]},
    )


def _motion(clean: CleanCase, level: Level, generator: np.random.Generator) -> Corrupted:
    size, axis = _by_level(level, 2.0, 5.0, 10.0), _in_plane_axis(generator)
    degrees, angle = size * _sign(generator), float(generator.uniform(0.0, 2.0 * math.pi))
    share = float(generator.uniform(0.35, 0.48))
    return _each_channel(
        clean,
        lambda channel: images.move(
            channel,
            degrees=degrees,
            shift_mm=(size * math.sin(angle), size * math.cos(angle)),
            share=share,
            axis=axis,
            spacing_mm=clean.spacing_mm,
        ),
        {"degrees": degrees, "shift_mm": size, "share_of_lines": share, "axis": _axis_name(axis)},
    )


def _gamma(clean: CleanCase, level: Level, generator: np.random.Generator) -> Corrupted:
    log_gamma = _by_level(level, 0.15, 0.3, 0.6) * _sign(generator)
    return _each_channel(
        clean, lambda channel: images.change_gamma(channel, log_gamma=log_gamma), {"log_gamma": log_gamma}
    )


def _contrast(clean: CleanCase, level: Level, _: np.random.Generator) -> Corrupted:
    gain = _by_level(level, 0.8, 0.65, 0.5)
    return _each_channel(clean, lambda channel: images.lower_contrast(channel, level=gain), {"gain": gain})


def _truncated_view(clean: CleanCase, level: Level, generator: np.random.Generator) -> Corrupted:
    share, axis = _by_level(level, 0.1, 0.25, 0.5), _in_plane_axis(generator)
    side: images.Side = "first" if generator.random() < 0.5 else "last"
    return _each_channel(
        clean,
        lambda channel: images.truncate_view(channel, level=share, axis=axis, side=side),
        {"share": share, "axis": _axis_name(axis), "side": side},
    )


def _wrong_units(clean: CleanCase, _: Level, __: np.random.Generator) -> Corrupted:
    return _each_channel(
        clean,
        lambda channel: images.mistake_units(channel, is_ct=clean.is_ct),
        {"gain": 1 if clean.is_ct else 10, "offset": 1024 if clean.is_ct else 1000},
    )


def _flipped_axis(clean: CleanCase, _: Level, generator: np.random.Generator) -> Corrupted:
    axes = [axis for axis in range(3) if clean.label.shape[axis] > 1]
    if not axes:
        raise ValueError("one voxel cannot be mirrored")
    axis = axes[int(generator.integers(len(axes)))]
    return _each_channel(clean, lambda channel: images.flip_axis(channel, axis=axis), {"axis": _axis_name(axis)})


def _dilated(clean: CleanCase, level: Level, generator: np.random.Generator) -> Corrupted:
    voxels, share = _by_level(level, 1, 3, 7), _by_level(level, 0.1, 0.2, 0.4)
    label, n_small = labels.grow_structures(clean.label, voxels=voxels, share=share, generator=generator)
    return _relabelled(clean, label, {"voxels": voxels, "area_share": share, "n_structures_by_area": n_small})


def _eroded(clean: CleanCase, level: Level, generator: np.random.Generator) -> Corrupted:
    voxels, share = _by_level(level, 1, 3, 7), _by_level(level, 0.1, 0.2, 0.4)
    label, n_small = labels.shrink_structures(clean.label, voxels=voxels, share=share, generator=generator)
    return _relabelled(clean, label, {"voxels": voxels, "area_share": share, "n_structures_by_area": n_small})


def _rough_boundary(clean: CleanCase, level: Level, generator: np.random.Generator) -> Corrupted:
    voxels, share = _by_level(level, 1.0, 2.0, 4.0), _by_level(level, 1 / 6, 1 / 4, 1 / 3)
    label = labels.roughen_boundary(clean.label, level=voxels, share=share, generator=generator)
    return _relabelled(clean, label, {"voxels": voxels, "radius_share": round(share, 4)})


def _shifted(clean: CleanCase, level: Level, generator: np.random.Generator) -> Corrupted:
    distance_mm = _by_level(level, 2.0, 5.0, 10.0)
    steps = labels.shift_steps(level=distance_mm, spacing_mm=clean.spacing_mm, generator=generator)
    return _relabelled(
        clean,
        labels.shift_by(clean.label, steps=steps),
        {"distance_mm": distance_mm, "voxels_h": steps[0], "voxels_w": steps[1]},
    )


def _missing_slices(clean: CleanCase, level: Level, generator: np.random.Generator) -> Corrupted:
    share, n_labelled = _by_level(level, 0.1, 0.25, 0.5), int(clean.label.any(axis=(1, 2)).sum())
    if n_labelled < 2:
        raise ValueError(f"needs two labelled slices, this case has {n_labelled}")
    label = labels.drop_slices(clean.label, level=share, generator=generator)
    return _relabelled(clean, label, {"share": share, "n_slices": math.ceil(share * n_labelled)})


def _missing_component(clean: CleanCase, _: Level, generator: np.random.Generator) -> Corrupted:
    candidates = labels.removable_components(clean.label)
    if not candidates:
        raise ValueError("the label has no second component that would be left")
    class_id = candidates[int(generator.integers(len(candidates)))]
    return _relabelled(clean, labels.remove_component(clean.label, class_id=class_id), {"class_id": class_id})


def _swapped_classes(clean: CleanCase, _: Level, generator: np.random.Generator) -> Corrupted:
    first, second = (int(one) for one in generator.choice(_present(clean, at_least=2), size=2, replace=False))
    return _relabelled(
        clean,
        labels.swap_classes(clean.label, first=first, second=second),
        {"class_id": first, "other_class_id": second},
    )


def _extra_blob(clean: CleanCase, level: Level, generator: np.random.Generator) -> Corrupted:
    share, present = _by_level(level, 0.25, 0.5, 0.75), _present(clean)
    smallest_mm3 = min(np.count_nonzero(clean.label == one) for one in present) * math.prod(clean.spacing_mm)
    radius_mm = share * float(3.0 * smallest_mm3 / (4.0 * math.pi)) ** (1 / 3)
    body = clean.image[0] > clean.image[0].mean()
    class_id = present[int(generator.integers(len(present)))]
    label = labels.add_blob(
        clean.label,
        class_id=class_id,
        radius_mm=radius_mm,
        spacing_mm=clean.spacing_mm,
        allowed=body if (body & (clean.label == 0)).any() else np.ones_like(body),
        generator=generator,
    )
    return _relabelled(clean, label, {"class_id": class_id, "radius_mm": radius_mm})


def _holes(clean: CleanCase, level: Level, generator: np.random.Generator) -> Corrupted:
    n_holes = int(_by_level(level, 1, 3, 6))
    label = labels.punch_holes(
        clean.label, n_holes=n_holes, share=0.3, spacing_mm=clean.spacing_mm, generator=generator
    )
    return _relabelled(clean, label, {"n_holes": n_holes, "radius_share": 0.3})


def _mirrored_label(clean: CleanCase, _: Level, __: np.random.Generator) -> Corrupted:
    return _relabelled(clean, labels.flip(clean.label), {"axis": "w"})


def _other_label(clean: CleanCase, _: Level, __: np.random.Generator) -> Corrupted:
    if clean.donor is None:
        raise ValueError("needs the label of another case")
    return _relabelled(clean, labels.label_of_another_case(clean.label, other=clean.donor), {})


KINDS: dict[str, CorruptionKind] = {
    "gaussian-noise": CorruptionKind(
        "image", "noise", False, LEVELS, "white noise of 0.1 / 0.25 / 0.5 body standard deviations", _gaussian_noise
    ),
    "rician-noise": CorruptionKind(
        "image",
        "noise",
        False,
        LEVELS,
        "noise of a magnitude image, 0.05 / 0.1 / 0.2 of the body's 99th percentile",
        _rician_noise,
    ),
    "blur": CorruptionKind("image", "resolution", False, LEVELS, "in-plane blur of 1 / 2 / 3 voxels", _blur),
    "thick-slices": CorruptionKind(
        "image", "resolution", False, LEVELS, "slices averaged in groups of 2 / 3.5 / 5", _thick_slices
    ),
    "ghosting": CorruptionKind(
        "image", "artefact", False, LEVELS, "2 to 6 ghosts, k-space lines weaker by 0.3 / 0.6 / 0.9", _ghosting
    ),
    "bias-field": CorruptionKind(
        "image", "shading", False, LEVELS, "smooth shading, coefficients within 0.2 / 0.6 / 0.8", _bias_field
    ),
    "spike": CorruptionKind(
        "image", "artefact", False, LEVELS, "stripes of a k-space spike, 0.15 / 0.4 / 0.8 of the largest", _spike
    ),
    "motion": CorruptionKind(
        "image", "artefact", False, LEVELS, "turn and shift during the scan, 2 / 5 / 10 degrees and mm", _motion
    ),
    "gamma": CorruptionKind("image", "shading", False, LEVELS, "log gamma of 0.15 / 0.3 / 0.6, up or down", _gamma),
    "contrast": CorruptionKind("image", "null", True, LEVELS, "null test: contrast times 0.8 / 0.65 / 0.5", _contrast),
    "truncated-view": CorruptionKind(
        "image", "geometry", False, LEVELS, "one in-plane side lost, 10 / 25 / 50 %", _truncated_view
    ),
    "wrong-units": CorruptionKind(
        "image",
        "null",
        True,
        _ONE,
        "null test: CT without its intercept, other images times 10 plus 1000",
        _wrong_units,
    ),
    "flipped-axis": CorruptionKind(
        "image", "geometry", False, _ONE, "image mirrored along a random axis, label not", _flipped_axis
    ),
    "dilated": CorruptionKind(
        "label", "boundary", False, LEVELS, "drawn too large by 1 / 3 / 7 voxels, if small by 10 / 20 / 40 %", _dilated
    ),
    "eroded": CorruptionKind(
        "label", "boundary", False, LEVELS, "drawn too small by 1 / 3 / 7 voxels, if small by 10 / 20 / 40 %", _eroded
    ),
    "rough-boundary": CorruptionKind(
        "label", "boundary", False, LEVELS, "borders that waver by 1 / 2 / 4 voxels, if small by less", _rough_boundary
    ),
    "shifted": CorruptionKind("label", "position", False, LEVELS, "label moved in plane by 2 / 5 / 10 mm", _shifted),
    "missing-slices": CorruptionKind(
        "label", "incomplete", False, LEVELS, "10 / 25 / 50 % of the labelled slices emptied", _missing_slices
    ),
    "missing-component": CorruptionKind(
        "label", "incomplete", False, _ONE, "the largest piece of a class missing", _missing_component
    ),
    "swapped-classes": CorruptionKind("label", "naming", False, _ONE, "two classes exchanged", _swapped_classes),
    "extra-blob": CorruptionKind(
        "label",
        "topology",
        False,
        LEVELS,
        "a ball too much, 0.25 / 0.5 / 0.75 of the smallest class's radius",
        _extra_blob,
    ),
    "holes": CorruptionKind(
        "label", "topology", False, LEVELS, "1 / 3 / 6 holes in each structure, of 0.3 of its radius", _holes
    ),
    "mirrored-label": CorruptionKind("label", "position", False, _ONE, "label mirrored left to right", _mirrored_label),
    "other-label": CorruptionKind("label", "position", False, _ONE, "the label of another case", _other_label),
}
