"""Image files of a folder by the case and channel that their names say."""

import os
import re
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path

from auvtool.case_id import case_id_fault, folded
from auvtool.cases import Case, CaseProblem, problem_of
from auvtool.errors import InputError


def strip_channel(name: str) -> tuple[str, int] | None:
    """`("case", 1)` of `"case_0001"`, the name of an image file without its ending; None if no channel is named."""
    match = re.fullmatch(r"(.+)_([0-9]{4})", name, re.DOTALL)
    return (match[1], int(match[2])) if match else None


def file_names(folder: Path) -> list[str]:
    """Names in `folder`, sorted, without dotfiles (among them the `._*` that macOS leaves on other file systems).

    Raises:
        InputError: it cannot be read.
    """
    try:
        return sorted(entry.name for entry in os.scandir(folder) if not entry.name.startswith("."))
    except OSError as error:
        raise InputError(
            folder, expected="a readable folder", found=f"'{error.strerror}'", cure="check the path and its rights"
        ) from error


def group_channels(
    folder: Path, names: Iterable[str], ending: str
) -> tuple[dict[str, tuple[Path, ...]], tuple[CaseProblem, ...]]:
    """Image files by case id, in channel order; a fault in the channel numbers is a problem of that case."""
    channels: dict[str, dict[int, Path]] = defaultdict(dict)
    problems = []
    for name in names:
        if not name.endswith(ending):
            continue
        stem = name.removesuffix(ending)
        split = strip_channel(stem)
        if split is None:
            problem = problem_of(
                stem,
                "name",
                folder / name,
                expected=f"a channel number in the name (CASE_0000{ending})",
                found="none",
                cure="rename it, nnU-Net skips it",
            )
            problems.append(problem)
        else:
            channels[split[0]][split[1]] = folder / name
    images = {}
    for case_id, files in channels.items():
        numbers = sorted(files)
        if numbers == list(range(len(numbers))):
            images[case_id] = tuple(files[number] for number in numbers)
        else:
            lacking = next(number for number in range(len(numbers)) if number not in files)
            problem = problem_of(
                case_id,
                "channels",
                folder / f"{case_id}_{lacking:04d}{ending}",
                expected="an image for every channel from 0000 on",
                found=f"only {', '.join(f'{number:04d}' for number in numbers)}",
                cure="add the missing file",
            )
            problems.append(problem)
    return images, tuple(problems)


def check_channel_files(cases: list[Case], n_channels: int) -> tuple[list[Case], tuple[CaseProblem, ...]]:
    """Cases with as many files as the fullest one; a lone file may hold all channels, which only reading it tells."""
    expected = min(max((len(case.images) for case in cases), default=0), n_channels)
    problems = tuple(
        problem_of(
            case.case_id,
            "channels",
            case.images[0],
            expected=f"{expected} channel files",
            found=len(case.images),
            cure="add or remove channel files",
        )
        for case in cases
        if len(case.images) != expected
    )
    return [case for case in cases if len(case.images) == expected], problems


def split_unnameable(cases: Iterable[Case]) -> tuple[list[Case], tuple[CaseProblem, ...]]:
    """Cases whose id can be part of a file name, and a problem for each other one (see `case_id_fault`).

    Of ids that some file systems take for one, the first is usable: a file of the second would replace one of its own.
    """
    usable, problems = [], []
    taken: dict[str, str] = {}
    for case in cases:
        fault = case_id_fault(case.case_id)
        first = taken.setdefault(folded(case.case_id), case.case_id)
        if fault is None and first != case.case_id:
            problem = problem_of(
                case.case_id,
                "name",
                case.images[0],
                expected="a case id that differs from others in more than letter case or the form of accents",
                found=f"{case.case_id!a:.80} beside {first!a:.80}",
                cure="rename one (on many disks a file of one would replace that of the other)",
            )
            problems.append(problem)
        elif fault is None:
            usable.append(case)
        else:
            problem = problem_of(
                case.case_id,
                "name",
                case.images[0],
                expected="a case id that can be part of a file name",
                found=f"{fault} in {case.case_id!r:.80}" if case.case_id else fault,
                cure="rename the case",
            )
            problems.append(problem)
    return usable, tuple(problems)
