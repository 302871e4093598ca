"""Faults put into cases as they are read, so that a corrupt copy of a case needs no files."""

import zlib
from dataclasses import dataclass, replace
from typing import get_args

import numpy as np

from auvtool.arrays import LabelMap
from auvtool.cases import Case, Dataset, Fault
from auvtool.corruption.cases import CleanCase, Level, Parameters
from auvtool.corruption.images import peak_signal_to_noise
from auvtool.corruption.kinds import KINDS, corrupt_arrays
from auvtool.corruption.labels import severity_dice
from auvtool.errors import InputError, one_line
from auvtool.volume import CaseVolume, read_case, read_label

_SEPARATOR = "~"


@dataclass(frozen=True)
class FaultyVolume:
    """A case with a fault in it.

    Attributes:
        volume: the corrupt case, with the case id and geometry of the clean one.
        parameters: what the level and the seed came to.
        dice: mean Dice of the corrupt with the clean label, 1 = unchanged (`severity_dice`).
        psnr: peak signal-to-noise ratio of the corrupt image over the range of the clean one, in dB; None where the
            image is as it was, or flat.
    """

    volume: CaseVolume
    parameters: Parameters
    dice: float
    psnr: float | None


def copy_id(case_id: str, kind: str, level: str) -> str:
    """The case id of a corrupt copy: `case~kind~level`."""
    return _SEPARATOR.join((case_id, kind, level))


def split_copy_id(text: str) -> tuple[str, str, str] | None:
    """Case id, kind and level of the id of a corrupt copy; None of any other id."""
    parts = text.rsplit(_SEPARATOR, 2)
    is_copy = len(parts) == 3 and bool(parts[0]) and parts[1] in KINDS and parts[2] in KINDS[parts[1]].levels
    return (parts[0], parts[1], parts[2]) if is_copy else None


def read_case_with_fault(case: Case, dataset: Dataset) -> CaseVolume:
    """The case as `read_case` gives it, with its fault put in if it has one.

    Raises:
        InputError: see `read_case` and `put_fault`.
    """
    volume = read_case(case, dataset)
    return volume if case.fault is None else put_fault(volume, case.fault, dataset).volume


def put_fault(volume: CaseVolume, fault: Fault, dataset: Dataset) -> FaultyVolume:
    """A corrupt copy of a case in memory.

    What is drawn depends on the seed, the id of the clean case, the kind and the level, and on nothing else: a copy
    (`copy_id`) and the case itself get the same voxels, whatever other cases there are.

    Raises:
        InputError: the fault is unknown or would change nothing in this case, it needs a label and there is none, or
            the donor cannot be read.
    """
    if fault.kind not in KINDS or fault.level not in KINDS[fault.kind].levels:
        raise InputError(
            f"{fault.kind} ({fault.level})",
            expected="a known fault at one of its levels",
            found="another",
            cure=f"take one of {', '.join(KINDS)}",
        )
    level = next(one for one in get_args(Level) if one == fault.level)
    if KINDS[fault.kind].of == "label" and volume.label is None:
        raise InputError(
            volume.case_id,
            expected=f"a label to put {fault.kind} into",
            found="none",
            cure="add labels, or take faults of images",
        )
    case_id = volume.case_id.removesuffix(copy_id("", fault.kind, fault.level))
    words = (zlib.crc32(text.encode()) for text in (case_id, fault.kind, fault.level))
    clean = _clean_case(volume, fault, dataset)
    try:
        corrupt = corrupt_arrays(clean, fault.kind, level, np.random.default_rng([fault.seed, *words]))
    except ValueError as error:
        raise InputError(
            case_id,
            expected=f"a case that {fault.kind} ({fault.level}) can be put into",
            found=f"'{one_line(error)}'",
            cure="leave out the fault or the case",
        ) from error
    return FaultyVolume(
        volume=replace(volume, image=corrupt.image, label=None if volume.label is None else corrupt.label),
        parameters=corrupt.parameters,
        dice=severity_dice(_of_classes(corrupt.label, clean), _of_classes(clean.label, clean)),
        psnr=peak_signal_to_noise(corrupt.image, clean.image),
    )


def _clean_case(volume: CaseVolume, fault: Fault, dataset: Dataset) -> CleanCase:
    label = np.zeros(volume.image.shape[1:], dtype=np.int16) if volume.label is None else volume.label
    # A plain folder without classes takes its values from the label itself.
    class_ids = dataset.label_values() - {0, dataset.ignore_label} or {int(value) for value in np.unique(label)} - {0}
    return CleanCase(
        image=volume.image,
        label=label,
        spacing_mm=volume.geometry.spacing_mm,
        class_ids=tuple(sorted(value for value in class_ids if value is not None)),
        donor=None if fault.donor is None else read_label(fault.donor)[0],
        # nnU-Net too tells CT by the channel's name.
        is_ct=all(name.lower() == "ct" for name in dataset.channel_names),
    )


def _of_classes(label: LabelMap, clean: CleanCase) -> LabelMap:
    return np.where(np.isin(label, clean.class_ids), label, 0)
