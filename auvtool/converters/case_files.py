"""The files of one case in a new data set: named where they lie, linked, or written where something must change."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from auvtool.atomic import as_output_error, atomic_path
from auvtool.converters import Quirk, SourceCase
from auvtool.converters.header_quirks import header_quirks
from auvtool.converters.label_grid import settle, to_axes_of
from auvtool.errors import InputError
from auvtool.nifti_file import open_nifti
from auvtool.reference_dataset import reference_to
from auvtool.volume import whole_numbers
from auvtool.volume_file import FileGrid, read_nifti_grid, read_volume_file

_OVERLAP = "masks overlap: the structure that comes later in the list has the voxel, as in TotalSegmentator's converter"
_MASK_GRID = "masks whose header is not the image's: taken voxel on voxel"
_NO_VOXEL = "no mask has a voxel: the label map is empty"


@dataclass(frozen=True)
class CaseTarget:
    """Where and how the files of cases are put.

    Attributes:
        folder: being written.
        final: the data set that `folder` becomes.
        relative: files are named by the way from there, since both lie in one folder.
        link: training cases are symbolic links named as nnU-Net names files; else dataset.json names the sources.
        n_channels: of an image.
        file_ending: of images and labels.
        label_values: what a label map may hold.
        header_quirks: names of those to look for.
    """

    folder: Path
    final: Path
    relative: bool
    link: bool
    n_channels: int
    file_ending: str
    label_values: frozenset[int]
    header_quirks: tuple[str, ...]


@dataclass(frozen=True)
class CaseFiles:
    """What was made of a case.

    Attributes:
        images: as dataset.json names them: relative to the data set, or absolute.
        label: likewise; None where there is none.
        own: those of them that lie in the data set, links among them.
        quirks: of the case, in the order of discovery.
    """

    images: tuple[str, ...]
    label: str | None
    own: tuple[str, ...]
    quirks: tuple[Quirk, ...]


def make_case_files(case: SourceCase, *, is_test: bool, target: CaseTarget) -> CaseFiles:
    """Put a case into the data set; a test case is linked, since nnU-Net and `predict` look for files in imagesTs.

    Raises:
        InputError: a file is missing or broken, or is not what the data set's description says.
        OutputError: the data set cannot be written.
    """
    image = read_nifti_grid(case.image)
    _check_image(image, target)
    quirks = list(case.quirks)
    placing = _Placing(case.case_id, "Ts" if is_test else "Tr", target, must_link=is_test or target.link)
    label: str | None = None
    header = image  # that the image will have
    if case.masks:
        voxels, more = _merge_masks(case, image)
        quirks += more
        label = placing.write_label(voxels, like=case.image)
    elif case.label is not None:
        grid = read_nifti_grid(case.label)
        settlement = settle(image, grid)
        quirks += [settlement.quirk] if settlement.quirk else []
        header = grid if settlement.rewrite == "image" else image
        if settlement.rewrite in {"label", "label-axes"}:
            voxels = _label_voxels(case.label, target.label_values)
            on_axes = to_axes_of(image, grid, voxels) if settlement.rewrite == "label-axes" else voxels
            label = placing.write_label(on_axes, like=case.image)
        else:
            _check_ending(case.label, target.file_ending)
            label = placing.place(case.label, "labels", case.case_id)
    quirks += header_quirks(header, target.header_quirks)
    if image.n_channels > 1 or header is not image:
        images = placing.write_channels(case.image, like=header.path)
    else:
        _check_ending(case.image, target.file_ending)
        images = (placing.place(case.image, "images", f"{case.case_id}_0000"),)
    return CaseFiles(images, label, tuple(placing.own), tuple(quirks))


class _Placing:
    """Puts the files of one case where they belong, and remembers which of them lie in the data set."""

    def __init__(self, case_id: str, part: str, target: CaseTarget, *, must_link: bool) -> None:
        self.case_id, self.part, self.target, self.must_link = case_id, part, target, must_link
        self.own: list[str] = []

    def place(self, source: Path, kind: str, stem: str) -> str:
        """`source` by reference or as a link; how dataset.json names it."""
        target = self.target
        if not self.must_link:
            return reference_to(source, target.final, relative=target.relative)
        name = self._own(kind, stem)
        link = target.folder / name
        with as_output_error(target.final):
            link.unlink(missing_ok=True)
            # The folder being written lies beside the one it becomes: a way from one is a way from the other.
            link.symlink_to(reference_to(source, target.final / f"{kind}{self.part}", relative=target.relative))
        return name

    def write_label(self, voxels: np.ndarray, *, like: Path) -> str:
        """Label voxels (i, j, k) with the header of `like`."""
        name = self._own("labels", self.case_id)
        _write(self.target.folder / name, voxels.astype(np.uint8 if voxels.max() < 256 else np.int16), like=like)
        return name

    def write_channels(self, source: Path, *, like: Path) -> tuple[str, ...]:
        """Each channel of an image as a file of its own, with the header of `like`."""
        names = []
        for channel, voxels in enumerate(_stored_channels(source)):
            name = self._own("images", f"{self.case_id}_{channel:04d}")
            _write(self.target.folder / name, voxels, like=like)
            names.append(name)
        return tuple(names)

    def _own(self, kind: str, stem: str) -> str:
        folder = f"{kind}{self.part}"
        with as_output_error(self.target.final):
            (self.target.folder / folder).mkdir(parents=True, exist_ok=True)
        self.own.append(f"{folder}/{stem}{self.target.file_ending}")
        return self.own[-1]


def _check_image(image: FileGrid, target: CaseTarget) -> None:
    if image.n_channels != target.n_channels:
        raise InputError(
            image.path,
            expected=f"{target.n_channels} channels",
            found=image.n_channels,
            cure="get the file anew, or leave the case out",
        )


def _check_ending(path: Path, ending: str) -> None:
    if not path.name.endswith(ending):
        raise InputError(
            path,
            expected=f"a name that ends in {ending}, as most files of this data set",
            found=path.name,
            cure="pack or unpack the file (gzip)",
        )


def _label_voxels(path: Path, known: frozenset[int]) -> np.ndarray:
    voxels = whole_numbers(read_volume_file(path))[0]
    strange = sorted(set(np.unique(voxels).tolist()) - known)
    if strange:
        raise InputError(
            path,
            expected=f"labels from 0 to {max(known)}",
            found=", ".join(map(str, strange[:5])),
            cure="get the file anew, or leave the case out",
        )
    return np.asarray(voxels)


def _merge_masks(case: SourceCase, image: FileGrid) -> tuple[np.ndarray, tuple[Quirk, ...]]:
    """One label map of the masks of a case; the image is read too, since some were published corrupt."""
    read_volume_file(case.image)
    label = np.zeros(image.shape, dtype=np.uint8, order="F")  # the order of the files: masks are laid on in one sweep
    n_overlapping, off_grid = 0, []
    for value, path in case.masks:
        volume = read_volume_file(path)
        mask = volume.voxels[0] if volume.voxels.dtype.kind in "iub" else whole_numbers(volume)[0]
        if mask.shape != image.shape:
            raise InputError(
                path,
                expected=f"the image's shape {'x'.join(map(str, image.shape))}",
                found="x".join(map(str, mask.shape)),
                cure="get the case anew, or leave it out",
            )
        if not np.allclose(volume.affine, image.affine, rtol=1e-4, atol=1e-2):
            off_grid.append(path.name)
        inside = np.flatnonzero(mask.ravel(order="F") > 0)
        voxels = label.reshape(-1, order="F")  # a view
        n_overlapping += int(np.count_nonzero(voxels[inside]))
        voxels[inside] = value
    found = (
        ("masks-overlap", _OVERLAP, f"{n_overlapping} voxels" if n_overlapping else ""),
        ("masks-off-grid", _MASK_GRID, " ".join(off_grid)),
        ("label-empty", _NO_VOXEL, "" if label.any() else f"{len(case.masks)} masks"),
    )
    return np.asarray(label), tuple(Quirk(name, text, detail) for name, text, detail in found if detail)


def _stored_channels(path: Path) -> Sequence[np.ndarray]:
    """The channels (i, j, k) of a file in the type that it stores; scaled ones as float32."""
    voxels = read_volume_file(path).voxels
    scaled = not np.can_cast(voxels.dtype, open_nifti(path).get_data_dtype(), "equiv")
    return [np.asarray(channel, dtype=np.float32) if scaled else np.asarray(channel) for channel in voxels]


def _write(path: Path, voxels: np.ndarray, *, like: Path) -> None:
    """A NIfTI file with the geometry of `like`, which may have more dimensions; the same voxels give the same bytes."""
    source = open_nifti(like)
    header = source.header.copy()
    header.extensions.clear()
    header.set_data_shape(voxels.shape)
    header.set_data_dtype(voxels.dtype)
    header.set_slope_inter(1, 0)
    with atomic_path(path, force=True) as temporary:
        type(source)(voxels, source.affine, header, dtype=voxels.dtype).to_filename(temporary)
