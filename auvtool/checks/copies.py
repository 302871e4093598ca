"""Rules of what stands in a data set twice, or in the place of another."""

from collections import defaultdict
from collections.abc import Iterator, Sequence

import numpy as np

from auvtool.checks import Finding
from auvtool.checks.case_facts import CaseFacts, Grid

_SHOWN = 3


def duplicate_images(cases: Sequence[CaseFacts]) -> Iterator[Finding]:
    """Cases with the same image, voxel for voxel, as one before them; whatever their channels' order."""
    first: dict[str, CaseFacts] = {}
    for case in cases:
        for number, key in enumerate(case.image_keys):
            other = first.setdefault(key, case)
            if other is not case:
                same = case.label_key == other.label_key
                what = (
                    f"expected an image of its own, got that of {other.case_id}, "
                    f"{'with the same label' if same else 'with another label'}"
                )
                file = case.image_files[min(number, len(case.image_files) - 1)]
                yield Finding("D001", what, case.case_id, file=file)
                break


def equal_channels(cases: Sequence[CaseFacts]) -> Iterator[Finding]:
    """Cases in which two channels hold the same voxels."""
    for case in cases:
        if len(set(case.image_keys)) < len(case.image_keys):
            what = f"expected {len(case.image_keys)} different channels, got {len(set(case.image_keys))}"
            yield Finding("D006", what, case.case_id, file=case.image_files[-1])


def duplicate_labels(cases: Sequence[CaseFacts]) -> Iterator[Finding]:
    """Cases with the same label on another image as one before them."""
    first: dict[str, CaseFacts] = {}
    for case in cases:
        if case.label_key is None:
            continue
        other = first.setdefault(case.label_key, case)
        if other is not case and not set(other.image_keys) & set(case.image_keys):
            what = f"expected a label of its own, got that of {other.case_id}, voxel for voxel"
            yield Finding("D002", what, case.case_id, file=case.label_file)


def labels_of_others(cases: Sequence[CaseFacts]) -> Iterator[Finding]:
    """Labels that do not fit their image, and fit that of another case whose own label does not fit it either."""
    wanting: dict[tuple[object, ...], list[str]] = defaultdict(list)
    for case in cases:
        if case.image_grid is not None and (case.label_grid is None or _misfit(case)):
            wanting[_key(case.image_grid)].append(case.case_id)
    for case in cases:
        fitting = [] if case.label_grid is None or not _misfit(case) else wanting[_key(case.label_grid)]
        if fitting:
            shown = ", ".join(fitting[:_SHOWN]) + (", ..." if len(fitting) > _SHOWN else "")
            what = f"expected the label of this case, got one that fits the image of {shown}, which lacks its own"
            yield Finding("D003", what, case.case_id, file=case.label_file)


def _misfit(case: CaseFacts) -> bool:
    """Whether image and label can be read, and lie on different grids."""
    if case.image_grid is None or case.label_grid is None:
        return False
    return _key(case.image_grid) != _key(case.label_grid)


def _key(grid: Grid) -> tuple[object, ...]:
    return (grid.shape, tuple(np.round(np.asarray(grid.affine)[:3].ravel(), 2).tolist()))
