"""What was made of each case of a conversion, a file a case: how a run that was killed knows where to go on."""

import hashlib
import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

from auvtool.atomic import write_text
from auvtool.converters import Quirk, SourceCase
from auvtool.converters.case_files import CaseFiles, CaseTarget
from auvtool.json_text import json_text_of, parse_json
from auvtool.manifest import size_and_time

RECORDS = ".convert"  # folder of the records in a data set, and the mark of one that convert made
_REVISION = 1  # raised with every change that writes other files from the same source


def fingerprint(case: SourceCase, *, is_test: bool, target: CaseTarget) -> str:
    """Of all that decides how a case comes out: its files by name, size and time, its part, and the way of writing."""
    files = [case.image, *([case.label] if case.label else []), *(path for _, path in case.masks)]
    facts = [(str(path), *size_and_time(path)) for path in files]
    way = [is_test, target.link, target.relative, target.n_channels, target.file_ending, sorted(target.label_values)]
    values = [value for value, _ in case.masks]
    quirks = [asdict(quirk) for quirk in case.quirks]
    record = [_REVISION, str(target.final), facts, values, quirks, way, list(target.header_quirks)]
    return hashlib.sha256(json.dumps(record).encode()).hexdigest()


def write_record(folder: Path, case_id: str, made: CaseFiles, fingerprint_now: str) -> None:
    """Remember a case of the data set `folder` whose files are all written."""
    record = {"fingerprint": fingerprint_now, **asdict(made)}
    path = folder / RECORDS / f"{case_id}.json"
    write_text(path, json.dumps(record, ensure_ascii=False) + "\n", force=True)


def finished_cases(folder: Path, prints: Mapping[str, str]) -> dict[str, CaseFiles]:
    """The cases with a record of today's fingerprint whose own files are all in `folder`."""
    finished = {}
    for case_id, fingerprint_now in prints.items():
        try:
            record = parse_json(json_text_of(folder / RECORDS / f"{case_id}.json"))
            if record["fingerprint"] != fingerprint_now:
                continue
            quirks = tuple(Quirk(**quirk) for quirk in record["quirks"])
            made = CaseFiles(tuple(record["images"]), record["label"], tuple(record["own"]), quirks)
        except (OSError, ValueError, KeyError, TypeError):  # none, or not of this version: the case is made anew
            continue
        if all((folder / name).exists() for name in made.own):
            finished[case_id] = made
    return finished


def take_over(old: Path, folder: Path, prints: Mapping[str, str]) -> None:
    """Take the finished cases of the data set `old`, which is to be replaced, that `folder` has not yet."""
    there = finished_cases(folder, prints)
    for case_id, made in finished_cases(old, prints).items():
        if case_id in there:
            continue
        for name in made.own:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).unlink(missing_ok=True)
            try:
                os.link(old / name, folder / name, follow_symlinks=False)
            except OSError:  # a file system without hard links
                shutil.copy2(old / name, folder / name, follow_symlinks=False)
        write_record(folder, case_id, made, prints[case_id])


def remove_unfinished(folder: Path, finished: Mapping[str, CaseFiles]) -> None:
    """Remove what no finished case owns: nnU-Net would take it for a case."""
    own = {folder / name for made in finished.values() for name in made.own}
    own |= {folder / RECORDS / f"{case_id}.json" for case_id in finished}
    for path in sorted(folder.rglob("*")):
        if (path.is_symlink() or path.is_file()) and path not in own:
            path.unlink()
