"""The files of one case through the rules that need no other case, and the facts that the others need."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from auvtool.cases import Case, Dataset
from auvtool.checks import Finding, Source
from auvtool.checks.case_facts import CaseFacts, ClassFacts, Grid
from auvtool.checks.class_measures import measure_class, touches_border
from auvtool.checks.files import shown_path
from auvtool.checks.geometry import grid_findings, grid_of, header_findings, refused_by_itk
from auvtool.checks.intensities import Intensities, air_threshold, ct_unit, intensity_findings, measure
from auvtool.checks.labels import few_voxels, gaps, label_key, label_map, value_findings, whole_number_findings
from auvtool.class_box import class_boxes, class_mask
from auvtool.errors import InputError, one_line
from auvtool.volume import Geometry, view_as_slices
from auvtool.volume_file import FileVolume, read_volume_file

_NEED_INTENSITIES = ("I", "L010", "D001", "D002")
_NEED_LABELS = ("L", "D002", "D004", "D005")


@dataclass
class _Reading:
    """What is known of a case while its files are read; `voxels` is the first channel on `geometry`."""

    case: Case
    dataset: Dataset
    codes: frozenset[str]
    findings: list[Finding] = field(default_factory=list)
    refused: list[tuple[str, str]] = field(default_factory=list)
    grid: Grid | None = None
    geometry: Geometry | None = None
    voxels: np.ndarray | None = None
    intensities: list[Intensities] = field(default_factory=list)
    units: list[str | None] = field(default_factory=list)

    @property
    def own_axes(self) -> bool:
        # nnU-Net's readers *WithReorient bring each file to RAS by its own header; its others go by the index.
        return self._reader.endswith("WithReorient")

    @property
    def _reader(self) -> str:
        return str(self.dataset.raw.get("overwrite_image_reader_writer", ""))

    def shown(self, path: Path) -> str:
        return shown_path(path, self.dataset.folder)

    def source(self, path: Path) -> Source:
        return Source(self.case.case_id, self.shown(path))

    def needs(self, beginnings: Sequence[str]) -> bool:
        return any(code.startswith(tuple(beginnings)) for code in self.codes)

    def read(self, path: Path) -> FileVolume | None:
        """A file, or None and a finding."""
        try:
            volume = read_volume_file(path)
        except InputError as error:
            what = f"expected {error.expected}, got {error.found}"
            self.findings.append(Finding("F008", what, self.case.case_id, file=self.shown(path), cure=error.cure))
            return None
        why = None if self._reader.startswith("Nibabel") else refused_by_itk(path)
        if why is not None:
            self.refused.append((self.shown(path), why))
        return volume


def check_case(case: Case, *, dataset: Dataset, codes: frozenset[str]) -> CaseFacts:
    """A case in a worker; an error becomes a finding, so that one bad case never ends the run.

    At most one channel and the label are in memory at once, beside the first channel; what is made of them is made
    slab by slab, and of a class within its box.

    Args:
        case: the case.
        dataset: what its labels mean; the other cases are not needed.
        codes: rules that are looked for: what only others need is not measured.
    """
    reading = _Reading(case, dataset, codes)
    facts = CaseFacts(
        case.case_id,
        image_files=tuple(map(reading.shown, case.images)),
        label_file=None if case.label is None else reading.shown(case.label),
    )
    try:
        _read_images(reading)
        facts = replace(
            facts,
            image_grid=reading.grid,
            image_keys=tuple(one.key for one in reading.intensities if one.lowest < one.highest),
            ct_units=tuple(reading.units),
        )
        if case.label is not None:
            facts = _read_label(reading, case.label, facts)
    except Exception as error:  # becomes a finding of this case
        what = f"expected a case that can be checked, got '{type(error).__name__}: {one_line(error)}'"
        reading.findings.append(Finding("F011", what, case.case_id))
    return replace(facts, findings=tuple(reading.findings), refused=tuple(reading.refused))


def _read_images(reading: _Reading) -> None:
    n_channels, all_read = 0, True
    for path in reading.case.images:
        volume = reading.read(path)
        if volume is None:
            all_read = False
            continue
        n_channels += len(volume.voxels)
        of, grid = reading.source(path), grid_of(volume)
        views, geometry = view_as_slices(volume.voxels, volume.affine)
        if reading.grid is None:
            reading.grid, reading.geometry, reading.voxels = grid, geometry, views[0]
            reading.findings += header_findings(of, grid)
        else:
            reading.findings += grid_findings(of, grid, reading.grid, own_axes=reading.own_axes)
        if reading.needs(_NEED_INTENSITIES):
            for view in views:
                found = measure(view)
                reading.findings += intensity_findings(of, found, file_places(geometry))
                reading.intensities.append(found)
                reading.units.append(ct_unit(found))
    if not all_read:
        reading.units.clear()  # which channel is which is not known
    expected = reading.dataset.channel_names
    if all_read and n_channels != len(expected):
        what = f"expected {len(expected)} channels ({', '.join(expected)}), got {n_channels}"
        file = reading.shown(reading.case.images[0])
        reading.findings.append(Finding("F010", what, reading.case.case_id, file=file))


def _read_label(reading: _Reading, path: Path, facts: CaseFacts) -> CaseFacts:
    volume = reading.read(path)
    if volume is None:
        return facts
    of, grid = reading.source(path), grid_of(volume)
    if reading.grid is not None:
        reading.findings += grid_findings(of, grid, reading.grid, own_axes=reading.own_axes)
    facts = replace(facts, label_grid=grid)
    if len(volume.voxels) != 1:
        what = f"expected one label a voxel, got {len(volume.voxels)} channels"
        reading.findings.append(of.finding("F010", what, cure="save it as a label map"))
        return facts
    if not reading.needs(_NEED_LABELS):
        return facts
    view, geometry, fits = _on_image(volume, grid, reading)
    places = file_places(geometry)
    reading.findings += whole_number_findings(of, view, places)
    label = label_map(view)
    del volume, view
    reading.findings += value_findings(of, label, reading.dataset.label_values())
    classes = dict(_classes(reading, of, label, geometry, fits=fits))
    return replace(facts, label_key=label_key(label), classes=classes)


def _on_image(volume: FileVolume, grid: Grid, reading: _Reading) -> tuple[np.ndarray, Geometry, bool]:
    """The label as (d, h, w), its geometry, and whether its voxels are those of the image."""
    same_shape = reading.grid is not None and grid.shape == reading.grid.shape
    affine: np.ndarray = volume.affine
    if same_shape and reading.geometry is not None and not reading.own_axes:
        affine = np.asarray(reading.geometry.file_affine)
    axis = None if reading.geometry is None else reading.geometry.slice_axis
    views, geometry = view_as_slices(volume.voxels, affine, slice_axis=axis)
    fits = reading.voxels is not None and reading.voxels.shape == views[0].shape and (same_shape or reading.own_axes)
    return views[0], geometry, fits


def _classes(
    reading: _Reading, of: Source, label: np.ndarray, geometry: Geometry, *, fits: bool
) -> Iterator[tuple[str, ClassFacts]]:
    classes, places = reading.dataset.classes, file_places(geometry)
    first = reading.intensities[0] if reading.intensities else None
    padding, air = (None, None) if first is None else (first.padding, air_threshold(first))
    for one, box in zip(classes, class_boxes(label, [one.labels for one in classes]), strict=True):
        if box is None:
            continue
        mask = class_mask(label[box], one.labels)
        reading.findings += gaps(of, one, mask, places[box[0].start : box[0].stop])
        at_border = touches_border(box, geometry.shape)
        reading.findings += few_voxels(of, one, mask, places[box[0].start], at_border=at_border)
        image: Any = reading.voxels[box] if fits and reading.voxels is not None else None
        yield one.name, measure_class(mask, box, geometry, places, image=image, padding=padding, air=air)


def file_places(geometry: Geometry) -> Sequence[int]:
    """For each slice its index in the file, along the file's slice axis."""
    along = np.asarray(geometry.affine)[:3, 0]
    columns = np.asarray(geometry.file_affine)[:3, :3]
    likeness = along @ columns / (np.linalg.norm(columns, axis=0) * np.linalg.norm(along))
    n = geometry.shape[0]
    return range(n) if likeness[int(np.abs(likeness).argmax())] > 0 else range(n - 1, -1, -1)
