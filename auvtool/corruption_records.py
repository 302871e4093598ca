"""What was made of each dirty case of a data set, a file a case: how a killed `corrupt` knows where to go on.

While it runs, a folder `.NAME.parts` beside the data set NAME holds `dataset`, which becomes the data set, `records`
with a file for each finished case, and `work`, where a case is written before its files are moved.
"""

import hashlib
import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from auvtool.atomic import move_into_place, write_text
from auvtool.cases import Case, Fault
from auvtool.json_text import json_text_of, parse_json
from auvtool.manifest import size_and_time
from auvtool.schema import Row

_REVISION = 1  # raised with every change that writes other files from the same source


@dataclass(frozen=True)
class MadeCase:
    """A dirty case that is finished: its row of the answer key, and its entry of dataset.json."""

    row: Row
    entry: Mapping[str, object]
    is_substitute: bool


@dataclass(frozen=True)
class Parts:
    """The folder of an unfinished data set.

    Attributes:
        folder: `.NAME.parts`.
        final: the data set to be, whose place decides how files are named by reference.
    """

    folder: Path
    final: Path

    @property
    def dataset(self) -> Path:
        return self.folder / "dataset"

    def open(self) -> None:
        """Make the folders that are not there."""
        for path in (self.dataset / "imagesTr", self.dataset / "labelsTr", self.folder / "records", self._work):
            path.mkdir(parents=True, exist_ok=True)

    def work_folder(self, case_id: str) -> Path:
        """An empty folder, laid out as a data set, to write a case in."""
        folder = self._work / case_id
        shutil.rmtree(folder, ignore_errors=True)
        for part in ("imagesTr", "labelsTr"):
            (folder / part).mkdir(parents=True)
        return folder

    def take(self, case_id: str, made: MadeCase, fingerprint_now: str) -> None:
        """Move what was written for a case to the data set, and remember it."""
        work = self._work / case_id
        own = sorted(path.relative_to(work).as_posix() for path in work.rglob("*") if path.is_file())
        for name in own:
            move_into_place(work / name, self.dataset / name)
        record = {"fingerprint": fingerprint_now, "own": own, **vars(made)}
        write_text(self._record(case_id), json.dumps(record, ensure_ascii=False) + "\n", force=True)
        shutil.rmtree(work)

    def finished(self, prints: Mapping[str, str]) -> dict[str, MadeCase]:
        """The cases with a record of today's fingerprint whose files are all there; files of others go."""
        finished, own = {}, set()
        for case_id, fingerprint_now in prints.items():
            try:
                record = parse_json(json_text_of(self._record(case_id)))
                made = MadeCase(record["row"], record["entry"], record["is_substitute"])
                files = {self.dataset / name for name in record["own"]}
                is_todays = record["fingerprint"] == fingerprint_now
            except (OSError, ValueError, KeyError, TypeError):  # none, or not of this version: the case is made anew
                continue
            if is_todays and all(path.is_file() for path in files):
                finished[case_id] = made
                own |= files
        for path in self.dataset.rglob("*"):
            if path.is_file() and path not in own:
                path.unlink()
        return finished

    @property
    def _work(self) -> Path:
        return self.folder / "work"

    def _record(self, case_id: str) -> Path:
        return self.folder / "records" / f"{case_id}.json"


def parts_of(folder: Path) -> Parts:
    """Where the data set `folder` is while it is not finished."""
    final = folder.absolute()
    return Parts(final.with_name(f".{final.name}.parts"), final)


def fingerprint(case: Case, faults: Sequence[Fault], parts: Parts, *, meaning: str) -> str:
    """Of all that decides how a dirty case comes out: its files by name, size and time and what they mean (see
    `Dataset.meaning`), its faults, the place."""
    files = [*case.images, case.label, *(fault.donor for fault in faults)]
    states = [None if path is None else (str(path.absolute()), *size_and_time(path)) for path in files]
    dealt = [(fault.kind, fault.level, fault.seed) for fault in faults]
    record = [_REVISION, str(parts.final), case.case_id, states, dealt, meaning]
    return hashlib.sha256(json.dumps(record).encode()).hexdigest()
