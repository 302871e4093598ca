"""What is kept of a case: numbers of each decoded channel, taken while its map is in memory."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Integer
from scipy.special import expit

from auvtool.arrays import LabelMap, Volume
from auvtool.case_evidence import CaseEvidence
from auvtool.case_features import AGREEMENT_COLUMNS, MAP_KINDS, ROIS, CaseFeatures, Roi, Status
from auvtool.class_box import Box, class_boxes, class_mask
from auvtool.dataset_json import SemanticClass
from auvtool.extractors import DecodedChannel
from auvtool.gram import map_spectra
from auvtool.quantifiers.controls import mean_entropy
from auvtool.quantifiers.eaoa import ResidualProbability
from auvtool.quantifiers.fisher import mean_trigamma
from auvtool.spectrum import CENTERINGS, UNFOLDINGS
from auvtool.volume import Geometry

STATISTIC_NAMES = ("n", "mean", "std", "min", "p01", "p50", "p99", "max", "probability_entropy", "trigamma")


@dataclass(frozen=True)
class ChannelRegion:
    """Where the input image is measured for a channel: the class region; None without prompts: the whole volume.

    With the `box` of the class only that is looked at, so that a hundred classes do not each take a whole volume.
    """

    image: Volume
    label: LabelMap | None
    semantic_class: SemanticClass | None
    box: Box | None = None

    def values(self) -> Float[np.ndarray, " voxel"]:
        if self.label is None or self.semantic_class is None:
            return self.image.ravel()
        part = (slice(None),) * 3 if self.box is None else self.box
        inside: np.ndarray = self.image[part][class_mask(self.label[part], self.semantic_class.labels)]
        return inside


def measure_case(
    case_id: str,
    channels: tuple[tuple[int, str], ...],
    decoded: Iterator[DecodedChannel],
    regions: Iterator[ChannelRegion],
    geometry: Geometry,
    *,
    n_foreground: int,
    n_features: int,
    with_spectra: bool,
    evidence: Callable[[Float[np.ndarray, " feature"]], CaseEvidence],
    keep_map: Callable[[int, DecodedChannel], None],
    device: str = "cpu",
) -> CaseFeatures:
    """The features of one case (see `CaseFeatures` for each of them).

    Args:
        case_id: the case.
        channels: (class id, name) in the order of `decoded` and `regions`.
        decoded: the extractor's channels; each is dropped before the next is asked for.
        regions: where the input image is measured for each channel.
        geometry: of the volume.
        n_foreground: voxels of any of the classes; without prompts of the volume.
        n_features: width of `class_features`.
        with_spectra: whether to compute singular values.
        evidence: gives what else the case shows, from the encoder's features.
        keep_map: called with the class id and each channel that has a map.
        device: where singular values are computed.

    Raises:
        ValueError: a map holds a NaN or an infinity.
    """
    n = len(channels)
    spectra = {
        (roi, kind, unfolding, centering): [np.empty(0)] * n
        for roi in ROIS
        for kind in MAP_KINDS
        for unfolding in UNFOLDINGS
        for centering in CENTERINGS
    }
    channel_spectra = {centering: np.full((n, n_features), np.nan) for centering in CENTERINGS}
    status: list[Status] = []
    n_slices, n_voxels, n_feature_voxels = (np.zeros(n, dtype=np.int64) for _ in range(3))
    class_features = np.full((n, n_features), np.nan, dtype=np.float32)
    statistics = np.full((n, len(STATISTIC_NAMES)), np.nan)
    agreement = np.full((n, len(AGREEMENT_COLUMNS)), np.nan)
    image_features = np.empty(0)
    residual = ResidualProbability()
    for index, ((class_id, name), channel, region) in enumerate(zip(channels, decoded, regions, strict=True)):
        values = region.values()
        n_voxels[index] = values.size
        statistics[index, :-2] = voxel_statistics(values)
        if channel.logits is None:
            status.append("absent")
            continue
        if not np.isfinite(channel.logits).all():
            raise ValueError(f"the decoded map of class {class_id} ({name}) holds a NaN or an infinity")
        status.append("flat" if np.ptp(channel.logits) == 0 else "ok")
        n_slices[index] = len(channel.slices)
        inside = channel.logits.ravel() if channel.region is None else channel.logits[channel.region]
        statistics[index, -2:] = mean_entropy(inside), mean_trigamma(inside)
        class_features[index] = channel.features.mean()
        n_feature_voxels[index] = channel.features.n_voxels
        agreement[index] = [getattr(channel.agreement, name) for name in AGREEMENT_COLUMNS]
        image_features = channel.image_features
        if channel.region is not None:
            residual.add(channel.logits, channel.region, channel.slices)
        keep_map(class_id, channel)
        if with_spectra:
            for roi, logits in _regions_of_interest(channel):
                for kind in MAP_KINDS:
                    volume = logits if kind == "logits" else expit(logits)
                    for (unfolding, centering), singular_values in map_spectra(volume, device=device).items():
                        spectra[roi, kind, unfolding, centering][index] = singular_values
            for centering in CENTERINGS:
                channel_spectra[centering][index] = channel.features.spectrum(centering)
    return CaseFeatures(
        case_id=case_id,
        class_ids=tuple(class_id for class_id, _ in channels),
        class_names=tuple(name for _, name in channels),
        status=tuple(status),
        n_slices=n_slices,
        n_voxels=n_voxels,
        n_feature_voxels=n_feature_voxels,
        volume_ml=n_voxels * geometry.voxel_ml,
        spectra=spectra if with_spectra else {},
        channel_spectra=channel_spectra if with_spectra else {},
        class_features=class_features,
        voxel_statistics=statistics,
        statistic_names=STATISTIC_NAMES,
        agreement=agreement,
        evidence=evidence(image_features),
        log_residual_probability=residual.mean_log(),
        foreground_ml=n_foreground * geometry.voxel_ml,
        shape=geometry.shape,
        spacing_mm=geometry.spacing_mm,
        slice_axis=geometry.slice_axis,
    )


def voxel_statistics(values: Float[np.ndarray, " voxel"]) -> Float[np.ndarray, " statistic"]:
    """Number, mean, population standard deviation, minimum, percentiles 1, 50, 99 and maximum; nan without voxels."""
    if not values.size:
        return np.array([0.0, *[np.nan] * 7])
    p01, p50, p99 = np.percentile(values, (1, 50, 99))
    mean, std = values.mean(dtype=np.float64), values.std(dtype=np.float64)
    return np.array([values.size, mean, std, values.min(), p01, p50, p99, values.max()], dtype=np.float64)


def _regions_of_interest(channel: DecodedChannel) -> Iterator[tuple[Roi, Volume]]:
    """The map of a channel on all of the grid, and in the box around its region."""
    if channel.logits is None:
        return
    yield "volume", channel.logits
    if channel.region is not None and channel.region.any():
        box = tuple(
            slice(found[0], found[-1] + 1)
            for found in (np.flatnonzero(channel.region.any(axis=axes)) for axes in ((1, 2), (0, 2), (0, 1)))
        )
        yield "class-box", channel.logits[box]


def choose_slices(
    label: LabelMap | None, classes: tuple[SemanticClass, ...], n_slices: int, *, stride: int, limit: int | None
) -> Integer[np.ndarray, " slice"]:
    """Slices to decode: those that carry a class (without a label: all), every `stride`-th, at most `limit`, evenly.

    A class that falls out of this choice gets its largest slice; `limit` may be exceeded by the number of such classes.
    """
    if label is None:
        return thin_out(np.arange(n_slices), stride=stride, limit=limit)
    areas = np.zeros((len(classes), n_slices), dtype=np.int64)
    for area, one, box in zip(areas, classes, class_boxes(label, [one.labels for one in classes]), strict=True):
        if box is not None:
            area[box[0]] = class_mask(label[box], one.labels).sum(axis=(1, 2))
    carrying = np.flatnonzero(areas.any(axis=0))
    chosen = set(thin_out(carrying, stride=stride, limit=limit).tolist())
    for area in areas:
        if area.any() and not any(area[index] for index in chosen):
            chosen.add(int(np.argmax(area)))
    return np.array(sorted(chosen), dtype=np.int64)


def thin_out(slices: Integer[np.ndarray, " slice"], *, stride: int, limit: int | None) -> Integer[np.ndarray, " kept"]:
    """Every `stride`-th of `slices`, of these at most `limit` at even distances, around the middle."""
    kept = slices[(len(slices) - 1) % stride // 2 :: stride]
    if limit is None or len(kept) <= limit:
        return kept
    return kept[((np.arange(limit) + 0.5) * len(kept) / limit).astype(np.int64)]
