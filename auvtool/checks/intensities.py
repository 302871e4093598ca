"""Rules of intensities: what is wrong with the numbers of an image, whatever the label says."""

import hashlib
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from auvtool.checks import Finding, Source
from auvtool.checks.case_facts import CaseFacts
from auvtool.slabs import slabs

_N_SAMPLED = 200_000
_N_BINS = 256
_CELLS = 8  # by 8 of the coarse picture of a slice
_SECOND_SERIES_LIKENESS = 0.7
_SHORTEST_SERIES = 4  # slices
_PADDED = 0.02  # of the voxels with the lowest value, from which it counts as padding


@dataclass(frozen=True)
class Intensities:
    """One channel in numbers.

    Attributes:
        lowest, highest: of the finite voxels; nan if there are none.
        n_not_finite: NaN or infinite voxels.
        first_not_finite: the first slice with one.
        key: a hash of the voxels.
        slice_keys: a hash of each slice.
        flat: for each slice whether it is all one value.
        pictures: each slice as coarse means.
        sample: some of the finite voxels, sorted.
    """

    lowest: float
    highest: float
    n_not_finite: int
    first_not_finite: int | None
    key: str
    slice_keys: tuple[bytes, ...]
    flat: tuple[bool, ...]
    pictures: Float[np.ndarray, "d cell"]
    sample: Float[np.ndarray, " voxel"]

    @property
    def padding(self) -> float | None:
        """The value that the image is padded with: the lowest, if many voxels have exactly it."""
        varies = self.sample.size and self.lowest < self.highest
        share = float((self.sample == self.lowest).mean()) if varies else 0.0
        return self.lowest if share >= _PADDED else None


def measure(channel: np.ndarray) -> Intensities:
    """One pass over (d, h, w), some slices at a time."""
    whole, slice_keys, flat, pictures, samples = hashlib.blake2b(str(channel.shape).encode()), [], [], [], []
    lowest, highest, n_bad, first_bad = np.inf, -np.inf, 0, None
    step = max(1, round((channel.size / _N_SAMPLED) ** (1 / 3)))
    for slab in slabs(channel.shape):
        with np.errstate(over="ignore", invalid="ignore"):
            part = np.ascontiguousarray(channel[slab], dtype=np.float32)
        finite = np.isfinite(part)
        if not finite.all():
            bad = (~finite).sum(axis=(1, 2))
            first_bad = slab.start + int(np.flatnonzero(bad)[0]) if first_bad is None else first_bad
            n_bad += int(bad.sum())
            part = np.where(finite, part, np.float32(0.0))
        if finite.any():
            kept = part if finite.all() else part[finite]
            lowest, highest = min(lowest, float(kept.min())), max(highest, float(kept.max()))
        for offset, one in enumerate(part):
            digest = hashlib.blake2b(one + np.float32(0.0), digest_size=16).digest()  # -0 is 0
            whole.update(digest)
            slice_keys.append(digest)
            flat.append(bool(one.min() == one.max()))
            pictures.append(_coarse(one))
            if (slab.start + offset) % step == 0:
                samples.append(one[::step, ::step][finite[offset, ::step, ::step]])
    sample = np.sort(np.concatenate(samples)) if samples else np.empty(0, np.float32)
    return Intensities(
        lowest=lowest if np.isfinite(lowest) else float("nan"),
        highest=highest if np.isfinite(highest) else float("nan"),
        n_not_finite=n_bad,
        first_not_finite=first_bad,
        key=whole.hexdigest(),
        slice_keys=tuple(slice_keys),
        flat=tuple(flat),
        pictures=np.stack(pictures),
        sample=sample,
    )


def intensity_findings(of: Source, found: Intensities, places: Sequence[int]) -> Iterator[Finding]:
    """What is wrong with one channel.

    Args:
        of: the case and the file.
        found: from `measure`.
        places: for each slice its index in the file.
    """
    if found.n_not_finite and found.first_not_finite is not None:
        what = f"expected finite numbers, got {found.n_not_finite} voxels that are NaN or infinite"
        yield of.finding("I001", what, place=places[found.first_not_finite])
    if not found.lowest < found.highest:
        yield of.finding("I002", f"expected an image, got {found.lowest:g} in every voxel")
        return
    yield from _blank_slices(of, found, places)
    half = len(found.slice_keys) // 2
    if is_second_series(found):
        what = f"expected one series, got slices that come again {half} slices later, in the same order"
        yield of.finding("I005", what, place=places[half])
        return
    if is_like_first_half(found):
        what = f"expected one series, got slices that look like those {half} slices before"
        yield of.finding("I008", what, place=places[half])
    counts = Counter(key for key, flat in zip(found.slice_keys, found.flat, strict=True) if not flat)
    repeated = [key for key, n in counts.items() if n > 1]
    if repeated:
        n_more = sum(counts[key] - 1 for key in repeated)
        last = max(position for position, key in enumerate(found.slice_keys) if key == repeated[0])
        what = f"expected every slice once, got {n_more} that stand there already"
        yield of.finding("I004", what, place=places[last])


def is_second_series(found: Intensities) -> bool:
    """Whether the second half of the slices is the first half again, bit for bit."""
    n = len(found.slice_keys)
    first, second = found.slice_keys[: n // 2], found.slice_keys[n // 2 :]
    return n >= 2 * _SHORTEST_SERIES and first == second and len(set(first)) >= _SHORTEST_SERIES


def is_like_first_half(found: Intensities) -> bool:
    """Whether coarse pictures of the two halves correlate: median over the slices above 0.7.

    Each half is brought to mean 0 and deviation 1, since another series has other intensities, and the mean over all
    slices taken away: what is then left of two slices far from each other in one series is opposed rather than alike.
    """
    n = len(found.slice_keys)
    halves = [found.pictures[: n // 2], found.pictures[n // 2 :]]
    if n % 2 or n < 2 * _SHORTEST_SERIES or not all(half.std() > 0 for half in halves):
        return False
    left = np.concatenate([(half - half.mean()) / half.std() for half in halves])
    left -= left.mean(axis=0)
    left -= left.mean(axis=1, keepdims=True)
    length = np.sqrt((left**2).sum(axis=1))
    if (length == 0).any():
        return False
    likeness = (left[: n // 2] * left[n // 2 :]).sum(axis=1) / (length[: n // 2] * length[n // 2 :])
    return bool(np.median(likeness) > _SECOND_SERIES_LIKENESS)


def ct_unit(found: Intensities) -> str | None:
    """What the numbers of a CT seem to be: "HU", or another unit in words; None if they are like no unit of CT."""
    if not found.sample.size or found.lowest == found.highest:
        return None
    low, high = found.lowest, found.highest
    if low <= -500 and high > 100:
        return "HU"
    if low >= 0 and high <= 1:
        return "0 to 1"
    if low >= 0 and high <= 255:
        return "0 to 255"
    lower, middle, upper = np.quantile(found.sample, [0.25, 0.5, 0.75])
    # Resampling overshoots a little below what the scanner stores as 0.
    if low > -300 and high > 1100 and lower < 1300 and (800 < middle < 1300 or 800 < upper < 1300):
        return "HU with 1000 or 1024 added"
    return None


def air_threshold(found: Intensities) -> float | None:
    """Otsu's threshold of the sample; None where it has no two values."""
    if not found.sample.size or found.sample[0] == found.sample[-1]:
        return None
    low, high = np.quantile(found.sample, [0.001, 0.999])
    if not low < high:
        return None
    counts, edges = np.histogram(np.clip(found.sample, low, high), bins=_N_BINS)
    centres = (edges[1:] + edges[:-1]) / 2
    below = np.cumsum(counts)
    above = below[-1] - below
    mean_below = np.cumsum(counts * centres) / np.maximum(below, 1)
    mean_above = ((counts * centres).sum() - np.cumsum(counts * centres)) / np.maximum(above, 1)
    between = below * above * (mean_below - mean_above) ** 2
    return float(edges[1 + int(between.argmax())])


def ct_units(cases: Sequence[CaseFacts], channel_names: Sequence[str]) -> Iterator[Finding]:
    """CT in other units than Hounsfield's, case by case or, where all have the same, once; CT under another name."""
    for number, name in enumerate(channel_names):
        of_channel = [(case, case.ct_units[number]) for case in cases if number < len(case.ct_units)]
        is_ct = name.casefold() == "ct"
        n_hu = sum(unit == "HU" for _, unit in of_channel)
        if not is_ct:
            if of_channel and n_hu == len(of_channel) and "ct" not in map(str.casefold, channel_names):
                what = f'expected the name "CT" for a channel in Hounsfield units, got "{name}"'
                yield Finding("I007", what, file="dataset.json")
            continue
        others = [(case, unit) for case, unit in of_channel if unit not in {"HU", None}]
        if len(others) == len(of_channel) > 1 and len({unit for _, unit in others}) == 1:
            yield Finding("I006", f"expected Hounsfield units, got {others[0][1]} in all {len(others)} cases")
            continue
        for case, unit in others:
            file = case.image_files[min(number, len(case.image_files) - 1)]
            what = f"expected Hounsfield units, got {unit}" + (f" ({n_hu} cases have Hounsfield units)" if n_hu else "")
            yield Finding("I006", what, case.case_id, file=file)


def _blank_slices(of: Source, found: Intensities, places: Sequence[int]) -> Iterator[Finding]:
    shown = [position for position, flat in enumerate(found.flat) if not flat]
    blank = [position for position in range(shown[0], shown[-1]) if found.flat[position]] if shown else []
    if blank:
        what = f"expected an image in every slice between the first and the last, got {len(blank)} of one value"
        yield of.finding("I003", what, place=places[blank[0]])


def _coarse(one: Float[np.ndarray, "h w"]) -> Float[np.ndarray, " cell"]:
    """A slice as means of 8 by 8 cells; fewer where it has fewer voxels."""
    rows, columns = (np.unique(np.linspace(0, length, _CELLS, endpoint=False).astype(int)) for length in one.shape)
    sums = np.add.reduceat(np.add.reduceat(one, rows, axis=0, dtype=np.float64), columns, axis=1)
    sizes = np.outer(np.diff([*rows, one.shape[0]]), np.diff([*columns, one.shape[1]]))
    return np.asarray((sums / sizes).ravel())
