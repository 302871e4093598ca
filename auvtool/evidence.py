"""Everything that is stored of a case, as numbers of one table: what `deviation` averages and `calibrate` weighs.

An item is a number of a class (or of the case, which then stands in the first class's place), a block a vector of a
class whose distance from the other cases becomes an item. Groups gather items that say the same kind of thing.
"""

import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from typing import NamedTuple, get_args

import numpy as np
from jaxtyping import Bool, Float, Integer

from auvtool.arrays import Spectrum
from auvtool.case_evidence import COLUMNS
from auvtool.case_features import AGREEMENT_COLUMNS, MAP_KINDS, ROIS, CaseFeatures
from auvtool.quantifiers.controls import effective_rank
from auvtool.quantifiers.semantic_scale import semantic_scale
from auvtool.quantifiers.variance import feature_variance
from auvtool.robust import left_out_distance, robust_z
from auvtool.scale import Energy, semantic_perception_scale
from auvtool.spectrum import CENTERINGS, UNFOLDINGS

LIMIT = 50.0  # of a z
MODEL_GROUPS = frozenset(("scale", "channels", "voxels", "agreement", "features"))  # what the extractor's model sees
_TINY = 1e-12
_LEAST_TO_FIT = 8
_ENERGIES: tuple[Energy, ...] = get_args(Energy)
_BLOCKS_OF_CASE = (
    "features: of the image",
    "features: of the image's spread",
    "template: image",
    "quality: all of it",
)
_LEAST_SAID = 2.0  # of a z in `reasons`


@dataclass(frozen=True)
class Evidence:
    """Items and blocks of a data set.

    Attributes:
        names: "group: item", the items first, then the blocks.
        items: nan where a class is absent or an item is not of it.
        blocks: block -> vectors; a block of the case has one row, which counts as the first class.
        sizes: log volume and log number of slices, which spectra are residualised by.
        of_size: the items that are.
        of_case: names that are of the case and stand in the first class's place.
    """

    names: tuple[str, ...]
    items: Float[np.ndarray, "case item class"]
    blocks: dict[str, Float[np.ndarray, "case class feature"]]
    sizes: Float[np.ndarray, "case class 2"]
    of_size: Integer[np.ndarray, " item_of_size"]
    of_case: Bool[np.ndarray, " name"]

    @property
    def groups(self) -> tuple[str, ...]:
        """The group of each name."""
        return tuple(name.split(":")[0] for name in self.names)

    def z(self, members: Integer[np.ndarray, " member"] | None = None) -> Float[np.ndarray, "member name class"]:
        """Robust z of each item and block among the members (all cases by default); nan where there is none."""
        chosen = np.arange(len(self.items)) if members is None else members
        items = self.items[chosen].copy()
        items[:, self.of_size] = _without_size(items[:, self.of_size], self.sizes[chosen])
        distances = np.full((len(chosen), len(self.blocks), items.shape[2]), np.nan)
        for row, whole in enumerate(self.blocks.values()):
            block = _filled(whole[chosen])
            for c in range(block.shape[1]):
                distances[:, row, c] = left_out_distance(block[:, c])
        z = robust_z(np.concatenate([items, np.log(distances + _TINY)], axis=1), limit=LIMIT)
        first = items.shape[1]
        z[:, first:] = np.maximum(z[:, first:], 0.0)  # nearer than usual is not suspect
        return z


def evidence_of(cases: Sequence[CaseFeatures]) -> Evidence:
    """The evidence in the features of one file.

    Raises:
        ValueError: a spectrum is not one, or the file holds maps only.
    """
    first = list(_items(cases[0]))
    names = [item.name for item in first]
    items = np.empty((len(cases), len(first), len(first[0].values)))
    for row, case in zip(items, cases, strict=True):  # no list of all: it would be larger than the features
        row[:] = [item.values for item in _items(case)]
    of_size = np.flatnonzero([item.of_size for item in first])
    presence = np.array([[status != "absent" for status in case.status] for case in cases])
    absence = np.where(presence, 0.0, 1.0)
    items = np.concatenate([items, absence[:, None]], axis=1)
    blocks = {
        "features: of the class": np.stack([case.class_features for case in cases]),
        "features: of the image": _of_case([case.evidence.image_features for case in cases]),
        "features: of the image's spread": _of_case(
            [np.log(np.abs(case.evidence.image_features) + 1e-6) for case in cases]
        ),
        "template: image": _of_case([case.evidence.image_thumbnail for case in cases]),
        "template: label": np.stack([case.evidence.label_thumbnail for case in cases]),
        "quality: all of it": _of_case([case.evidence.image_quality for case in cases]),
        "boundary: all of it": np.stack([case.evidence.label_boundary for case in cases]),
        "shape: all of it": np.stack([case.evidence.label_shape for case in cases]),
        "agreement: all of it": np.stack([case.agreement for case in cases]),
    }
    blocks = {name: block.astype(np.float64) for name, block in blocks.items() if block.shape[2]}
    volume = np.log(np.stack([case.volume_ml for case in cases]) + _TINY)
    depth = np.log(np.stack([case.n_slices for case in cases]) + _TINY)
    return Evidence(
        names=(*names, "presence: absent", *blocks),
        items=items,
        blocks=blocks,
        sizes=np.stack([np.where(presence, volume, np.nan), np.where(presence, depth, np.nan)], axis=2),
        of_size=of_size,
        of_case=np.array(
            [*(item.of_case for item in first), False, *(block in _BLOCKS_OF_CASE for block in blocks)], dtype=bool
        ),
    )


class _Item(NamedTuple):
    """A number of each class; `of_size`: residualised by size; `of_case`: of the case, in the first class's place."""

    name: str
    values: Sequence[float]
    of_size: bool = False
    of_case: bool = False


def _items(case: CaseFeatures) -> Iterator[_Item]:
    others = [np.nan] * (len(case.class_ids) - 1)
    yield from _of_maps(case)
    yield from _of_channels(case)
    for column, name in enumerate(case.statistic_names):
        if name in {"probability_entropy", "trigamma"}:
            yield _Item(f"voxels: {name}", case.voxel_statistics[:, column].tolist())
    yield _Item("voxels: residual probability", [case.log_residual_probability, *others], of_case=True)
    evidence = case.evidence
    for group, columns, table in (
        ("agreement", AGREEMENT_COLUMNS, case.agreement),
        ("shape", COLUMNS["label_shape"], evidence.label_shape),
        ("boundary", COLUMNS["label_boundary"], evidence.label_boundary),
    ):
        for column, name in enumerate(columns):
            yield _Item(f"{group}: {name}", table[:, column].tolist())
    for name, value in zip(COLUMNS["image_quality"], evidence.image_quality, strict=True):
        yield _Item(f"quality: {name}", [float(value), *others], of_case=True)


def _of_maps(case: CaseFeatures) -> Iterator[_Item]:
    for roi, kind, unfolding, centering in product(ROIS, MAP_KINDS, UNFOLDINGS, CENTERINGS):
        spectra = case.spectra[roi, kind, unfolding, centering]
        for energy in _ENERGIES:
            name = f"scale: {energy} {centering} {kind} {unfolding} {roi}"
            yield _Item(name, [_log_scale(spectrum, energy) for spectrum in spectra], of_size=True)


def _of_channels(case: CaseFeatures) -> Iterator[_Item]:
    for centering in CENTERINGS:
        spectra = [s if np.isfinite(s).all() else np.empty(0) for s in case.channel_spectra[centering]]
        ranks = [float(np.log(effective_rank(s))) if s.any() else np.nan for s in spectra]
        yield _Item(f"channels: effective rank {centering}", ranks, of_size=True)
        for energy in _ENERGIES:
            yield _Item(f"channels: {energy} {centering}", [_log_scale(s, energy) for s in spectra], of_size=True)
        if centering == "centered":
            measured = [(s, int(m)) for s, m in zip(spectra, case.n_feature_voxels, strict=True)]
            variances = [float(np.log(feature_variance(s, m) + _TINY)) if s.size and m else np.nan for s, m in measured]
            yield _Item("channels: variance", variances, of_size=True)
            volumes = [semantic_scale(s, m) if s.size and m else np.nan for s, m in measured]
            yield _Item("channels: semantic scale", volumes, of_size=True)


def _log_scale(spectrum: Spectrum, energy: Energy) -> float:
    """Log S; nan where no scale is defined: an absent class, or a single slice."""
    if len(spectrum) < 2:
        return float("nan")
    return float(np.log(semantic_perception_scale(spectrum, energy=energy, eps_rule="denominator") + _TINY))


def _of_case(vectors: Sequence[np.ndarray]) -> np.ndarray:
    length = max(len(vector) for vector in vectors)
    # The encoder saw nothing of a case whose label is empty.
    stacked = np.stack([vector if len(vector) else np.full(length, np.nan) for vector in vectors]).astype(np.float64)
    return stacked[:, None]


def _filled(block: np.ndarray) -> np.ndarray:
    """Single missing numbers of a vector replaced by their median, so that they do not cost the vector."""
    missing = np.isnan(block)
    whole = missing.all(axis=2, keepdims=True)
    if (missing & ~whole).any():
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)
            middle = np.nan_to_num(np.nanmedian(block, axis=0), nan=0.0)
        block = np.where(missing & ~whole, middle[None], block)
    return block


def _without_size(
    items: Float[np.ndarray, "case item class"], sizes: Float[np.ndarray, "case class 2"]
) -> Float[np.ndarray, "case item class"]:
    """Items less their least-squares fit by log volume and log slices, each on the cases that have it, class by class.

    An item that fewer than eight cases have stays as it is.
    """
    left = items.copy()
    for c in range(items.shape[2]):
        usable = np.isfinite(items[:, :, c]) & np.isfinite(sizes[:, c]).all(axis=1)[:, None]
        # Most items are defined in the same cases: one fit for each set of cases.
        for cases in np.unique(usable, axis=1).T:
            if cases.sum() < _LEAST_TO_FIT:
                continue
            same = (usable == cases[:, None]).all(axis=0)
            design = np.concatenate([np.ones((cases.sum(), 1)), sizes[cases, c]], axis=1)
            values = items[cases][:, same, c]
            fit, *_ = np.linalg.lstsq(design, values, rcond=None)
            of_class = left[:, :, c]
            of_class[np.outer(cases, same)] = (values - design @ fit).ravel()
    return left


def reasons(
    z: Float[np.ndarray, "case name class"], evidence: Evidence, class_names: Sequence[str], *, n: int = 3
) -> list[str]:
    """The most deviant evidence of each case in words, at most `n` of different groups; empty where none stands out.

    For example "boundary: edge_share of liver z -4.1; quality: noise z +3.0". No z below 2 in magnitude is told.
    """
    of_case = np.abs(np.where(np.isnan(z), 0.0, z))
    said = []
    for case, magnitudes in enumerate(of_case):
        parts: dict[str, str] = {}
        for flat in np.argsort(-magnitudes, axis=None, kind="stable"):
            row, class_index = divmod(int(flat), magnitudes.shape[1])
            if magnitudes[row, class_index] < _LEAST_SAID or len(parts) == n:
                break
            name = evidence.names[row]
            where = "" if evidence.of_case[row] else f" of {class_names[class_index]}"
            parts.setdefault(name.split(":")[0], f"{name}{where} z {z[case, row, class_index]:+.1f}")
        said.append("; ".join(parts.values()))
    return said
