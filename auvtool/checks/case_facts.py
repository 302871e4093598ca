"""What a worker tells of a case: its own findings, and the few numbers by which it is compared with the others."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from auvtool.checks import Finding
from auvtool.volume import Affine


@dataclass(frozen=True)
class Grid:
    """Where the voxels of a file lie; `has_geometry` is False for pictures and such, which have none in the file."""

    shape: tuple[int, int, int]
    affine: Affine
    has_geometry: bool = True


@dataclass(frozen=True)
class ClassFacts:
    """What the label of one class is like.

    Attributes:
        n_voxels: voxels of the class.
        volume_mm3: their volume.
        centroid_mm: in RAS+ coordinates.
        at_border: the class touches the border of the volume.
        n_pieces: 26-connected pieces.
        smallest_piece: voxels of the smallest one.
        smallest_piece_place: a slice of it, as the file counts.
        hole_share: voxels within outlines of slices, per voxel of the class.
        hole_place: the slice with the largest hole; None without one.
        ends: area of the first and of the last slice in units of the largest; None at the end of the volume.
        end_places: these slices, as the file counts.
        padding_share: of the voxels, those with the very value that the image is padded with.
        air_share: of the voxels, those darker than the image's threshold of Otsu.
    """

    n_voxels: int
    volume_mm3: float
    centroid_mm: tuple[float, float, float]
    at_border: bool
    n_pieces: int
    smallest_piece: int
    smallest_piece_place: int
    hole_share: float
    hole_place: int | None
    ends: tuple[float | None, float | None]
    end_places: tuple[int, int]
    padding_share: float | None
    air_share: float | None


@dataclass(frozen=True)
class CaseFacts:
    """Small enough to keep for every case of a data set.

    Attributes:
        case_id: the case.
        findings: what is wrong with the case by itself.
        image_files: as findings name them.
        label_file: as findings name it.
        image_grid: of the first image; None if it cannot be read.
        label_grid: of the label.
        image_keys: a hash of the voxels of each channel.
        label_key: a hash of the labels; None if there is no label, or nothing on it.
        ct_units: for each channel what its numbers look like: "HU", or something else in words; None: not like CT.
        refused: files with a header that SimpleITK refuses, and why.
        classes: by name, those that the label holds.
    """

    case_id: str
    findings: tuple[Finding, ...] = ()
    image_files: tuple[str, ...] = ()
    label_file: str | None = None
    image_grid: Grid | None = None
    label_grid: Grid | None = None
    image_keys: tuple[str, ...] = ()
    label_key: str | None = None
    ct_units: tuple[str | None, ...] = ()
    refused: tuple[tuple[str, str], ...] = ()
    classes: Mapping[str, ClassFacts] = field(default_factory=dict)
