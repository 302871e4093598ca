"""The images that `predict` is given: folders, raw data sets, files by name, and lists of them."""

import re
import sys
from collections import defaultdict
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path

from auvtool.cases import Case, CaseProblem
from auvtool.dataset import open_dataset
from auvtool.errors import InputError, UsageError, one_line
from auvtool.image_files import file_names, split_unnameable, strip_channel
from auvtool.tables import STANDARD_STREAM


def find_images(
    images: Sequence[Path], *, file_ending: str, n_channels: int, case_ids: Collection[str] | None = None
) -> tuple[list[Case], list[CaseProblem]]:
    """The cases of `images`, which may hold all of these, in any order.

    - A folder of images named as nnU-Net names them (`CASE_0000.nii.gz`); other files in it are left alone.
    - A raw data set: its training images.
    - An image file. For a network of one channel its name may lack the `_0000`: the case is then the name.
    - A list of such paths, one a line: a file `*.txt`, or '-' for standard input.

    A file that does not exist, or is not named as above, is a problem of its case and not an error.

    Returns:
        Cases sorted by id, and those that cannot be predicted.

    Raises:
        InputError: a folder or list cannot be read or holds nothing to predict, or two files are one channel of a case.
        UsageError: `case_ids` names a case that is not there, or '-' stands twice.
    """
    given = _Given(file_ending, n_channels)
    for path, is_listed in _paths(images):
        given.add(path, is_listed=is_listed)
    return _selected(*given.cases(), case_ids, of=images)


class _Given:
    """The files of each case, as path after path names them."""

    def __init__(self, file_ending: str, n_channels: int) -> None:
        self.file_ending, self.n_channels = file_ending, n_channels
        self._problems: list[CaseProblem] = []
        self._channels: defaultdict[str, dict[int, Path]] = defaultdict(dict)
        self._of_datasets: dict[str, Case] = {}

    def add(self, path: Path, *, is_listed: bool) -> None:
        if _is_file_or_missing(path):
            self._add_file(path, is_listed=is_listed)
        elif (path / "dataset.json").is_file():
            self._add_dataset(path)
        else:
            self._add_folder(path)

    def cases(self) -> tuple[list[Case], list[CaseProblem]]:
        """Those that can be predicted, and the others."""
        found, problems = [], list(self._problems)
        for case_id, files in self._channels.items():
            case = self._of_datasets.get(case_id)
            # A data set knows what makes its cases complete: one file may hold all channels.
            if case is not None and len(case.images) == len(files):
                found.append(case)
            elif (fault := self._fault(case_id, files)) is not None:
                problems.append(CaseProblem(case_id, str(fault)))
            else:
                found.append(Case(case_id, tuple(files[channel] for channel in sorted(files)), None))
        usable, unnameable = split_unnameable(found)
        return usable, [*problems, *unnameable]

    def _add_file(self, path: Path, *, is_listed: bool) -> None:
        split = _split_name(path.name, self.file_ending, needs_channel=self.n_channels > 1)
        if split is not None:
            self._add_channel(*split, path)
            return
        if not is_listed and (fault := _missing(path)) is not None:
            raise InputError(
                path,
                expected=f"a folder of images, an image (CASE_0000{self.file_ending}) or a list of them (.txt)",
                found=fault.found,
                cure=fault.cure,
            )
        form = f"CASE{self.file_ending}" if self.n_channels == 1 else f"CASE_0000{self.file_ending}"
        wrong = InputError(path, expected=f"an image named {form}", found=path.name, cure="rename or convert it")
        self._problems.append(CaseProblem(path.name, str(wrong)))

    def _add_dataset(self, folder: Path) -> None:
        dataset = open_dataset(folder)
        self._problems.extend(dataset.problems)
        for case in dataset.cases:
            self._of_datasets[case.case_id] = case
            for channel, file in enumerate(case.images):
                self._add_channel(case.case_id, channel, file)

    def _add_folder(self, folder: Path) -> None:
        # Labels may lie in it too: a channel must be named.
        names = file_names(folder)
        splits = [(_split_name(name, self.file_ending, needs_channel=True), name) for name in names]
        found = [(*split, folder / name) for split, name in splits if split is not None]
        if not found:
            raise InputError(
                folder,
                expected=f"images named CASE_0000{self.file_ending}",
                found=next(iter(names), "an empty folder"),
                cure="rename them, name them one by one, or name another folder",
            )
        for case_id, channel, path in found:
            self._add_channel(case_id, channel, path)

    def _add_channel(self, case_id: str, channel: int, path: Path) -> None:
        other = self._channels[case_id].setdefault(channel, path)
        if other.absolute() != path.absolute():  # the same file twice does no harm
            raise InputError(
                path,
                expected=f"one image for channel {channel:04d} of {case_id}",
                found=f"also {other}",
                cure="leave one out, or predict them into two folders",
            )

    def _fault(self, case_id: str, files: dict[int, Path]) -> InputError | None:
        for path in files.values():
            if (fault := _missing(path)) is not None:
                return fault
        if sorted(files) == list(range(self.n_channels)):
            return None
        numbers = [f"{channel:04d}" for channel in sorted(files)]
        cure = "add or remove files"
        if self.n_channels == len(files) == 1:
            cure += f", or rename it {case_id}_{numbers[0]}_0000{self.file_ending} if {numbers[0]} is part of the id"
        return InputError(
            next(iter(files.values())).parent / f"{case_id}_*{self.file_ending}",
            expected="channel 0000" if self.n_channels == 1 else f"channels 0000 to {self.n_channels - 1:04d}",
            found=", ".join(numbers),
            cure=cure,
        )


def _paths(images: Sequence[Path]) -> Iterator[tuple[Path, bool]]:
    """Each path, and whether it stands in a list."""
    if images.count(STANDARD_STREAM) > 1:
        raise UsageError("IMAGES: expected '-' once, got it twice; standard input holds one list")
    for path in images:
        if path == STANDARD_STREAM or (path.suffix.lower() == ".txt" and _is_file_or_missing(path)):
            for listed in _read_list(path):
                yield listed, True
        else:
            yield path, False


def _read_list(path: Path) -> list[Path]:
    where = "standard input" if path == STANDARD_STREAM else path
    expected = "paths of images, one a line"
    try:
        text = (sys.stdin.buffer.read() if path == STANDARD_STREAM else path.read_bytes()).decode("utf-8-sig")
    except OSError as error:
        raise InputError(where, expected=expected, found=f"'{error.strerror}'", cure="check the path") from error
    except UnicodeDecodeError as error:
        raise InputError(
            where, expected=expected, found="bytes that are not UTF-8 text", cure="check the list"
        ) from error
    if "\0" in text:
        raise InputError(where, expected=expected, found="NUL characters", cure="end lines with newlines (find -print)")
    # Not stripped, since a file name may end with a space; `find` also names the `._*` that macOS leaves.
    paths = [Path(line) for line in re.split(r"\r?\n", text) if line.strip()]
    paths = [path for path in paths if not path.name.startswith("._")]
    if not paths:
        raise InputError(where, expected=expected, found="none", cure="check the command that makes the list")
    return paths


def _is_file_or_missing(path: Path) -> bool:
    try:
        return not path.is_dir()
    except OSError:  # a name too long, a folder on the way that may not be searched: `_missing` says it
        return True


def _split_name(name: str, file_ending: str, *, needs_channel: bool) -> tuple[str, int] | None:
    """Case id and channel of an image file's name; None if it does not name them."""
    if not name.endswith(file_ending) or name == file_ending:
        return None
    stem = name.removesuffix(file_ending)
    return strip_channel(stem) or (None if needs_channel else (stem, 0))


def _missing(path: Path) -> InputError | None:
    try:
        path.stat()
    except OSError as error:
        reason = error.strerror or one_line(error)
        return InputError(path, expected="an image", found=f"'{reason}'", cure="check the path")
    return None


def _selected(
    cases: list[Case], problems: list[CaseProblem], case_ids: Collection[str] | None, *, of: Sequence[Path]
) -> tuple[list[Case], list[CaseProblem]]:
    if case_ids is not None:
        unknown = sorted(set(case_ids) - {case.case_id for case in cases} - {problem.case_id for problem in problems})
        if unknown:
            where = str(of[0]) if len(of) == 1 and of[0] != STANDARD_STREAM else "IMAGES"
            raise UsageError(f"--cases: expected cases of {where}, got {', '.join(unknown[:5])}; correct the ids")
        cases = [case for case in cases if case.case_id in case_ids]
        problems = [problem for problem in problems if problem.case_id in case_ids]
    return sorted(cases, key=lambda case: case.case_id), sorted(problems, key=lambda problem: problem.case_id)
