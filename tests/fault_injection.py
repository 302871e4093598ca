"""Commands that are killed and disturbed on purpose, and what has to be left of their outputs.

A trial is a folder of its own in which one command writes. A kill comes at a time (of a process as a user starts it),
or at a change of the disk (of a forked process, which costs no imports): just before the n-th file is opened for
writing, renamed or removed in the trial's folder.
"""

import csv
import gzip
import hashlib
import io
import json
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path

# Times, hosts and what nnU-Net prints: they differ from run to run, and nobody reads them but people.
_VOLATILE = (
    "*.manifest.json",
    "*.log",
    "logs/*",
    "training_log_*.txt",
    "progress.png",
    "debug.json",
    "training_summary.json",
    "*/auvtool_source.json",
    "*/.convert/*",
    # What a killed run leaves beside a finished output: at most hidden files, and shards that the output holds already.
    ".*",
    ".*/*",
    "*.h5.parts/*",
    "*.b2nd",  # blosc2 does not always pack alike; what is learnt from them is compared
)


@dataclass(frozen=True)
class Scenario:
    """A command whose runs can be compared.

    Attributes:
        words: what follows `auvtool`; {out} is the trial's folder.
        result: what stands in the trial's folder when all is done.
        units: finished cases that a killed run left in a trial's folder.
        said: how many of them a run says it took over, from its stderr.
    """

    name: str
    words: tuple[str, ...]
    result: str
    units: Callable[[Path], int] = lambda folder: 0
    said: Callable[[str], int] = lambda stderr: 0

    def arguments(self, folder: Path) -> list[str]:
        return [word.format(out=folder) for word in self.words]

    def command(self, folder: Path) -> list[str]:
        return [sys.executable, "-m", "auvtool", *self.arguments(folder)]


@dataclass
class Verdict:
    """What a disturbed run and the same command after it came to.

    Attributes:
        half_written: files under their final name that are not whole.
        n_lost: finished cases that were done again.
        differs: files that are not as after an undisturbed run.
        errors: tracebacks, orphans, exit codes that should not be.
    """

    half_written: list[str]
    n_lost: int = 0
    differs: tuple[str, ...] = ()
    errors: tuple[str, ...] = ()

    @property
    def is_good(self) -> bool:
        return not (self.half_written or self.n_lost or self.differs or self.errors)


def judge(scenario: Scenario, folder: Path, whole: dict[str, str], again: Callable[[], tuple[int, str]]) -> Verdict:
    """Look at what a disturbed run left, give the same command again, and compare with an undisturbed run."""
    half, units = half_written(folder, whole), scenario.units(folder)
    code, stderr = again()
    if code == 2 and "add --force to replace" in stderr:  # it had finished, but for its manifest
        units = scenario.said(stderr)
    elif code != 0:
        return Verdict(half, errors=(f"the same command again: exit {code}: {stderr[-300:]}",))
    found = digests(folder)
    differs = tuple(name for name in sorted(found.keys() | whole.keys()) if found.get(name) != whole.get(name))
    return Verdict(half, units - scenario.said(stderr), differs)


def digests(folder: Path) -> dict[str, str]:
    """SHA-256 of each file that is to be the same in every run, by its path in `folder`; of what a checkpoint holds."""
    found = {}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if path.is_dir() and not path.is_symlink():
            continue
        if any(fnmatch(name, pattern) or fnmatch(path.name, pattern) for pattern in _VOLATILE):
            continue
        found[name] = _digest(path)
    return found


def _digest(path: Path) -> str:
    if path.is_symlink():
        return f"link to {path.readlink()}"
    if path.suffix == ".pth":
        return hashlib.sha256(_tensors(path).encode()).hexdigest()
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _tensors(path: Path) -> str:
    """Weights, optimiser and history of a checkpoint as text; nnU-Net's own log in it has times."""
    from auvtool.nnunet_run import read_checkpoint
    from auvtool.training.export import NOISE_KEY, RUN_KEY

    checkpoint = read_checkpoint(path)
    keys = ("network_weights", "optimizer_state", NOISE_KEY, RUN_KEY, "current_epoch", "_best_ema")
    return json.dumps([_plain(checkpoint.get(key)) for key in keys], sort_keys=True, default=str)


def _plain(value):
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if hasattr(value, "numpy"):
        return hashlib.sha256(value.detach().cpu().numpy().tobytes()).hexdigest()
    return value


def half_written(folder: Path, whole: dict[str, str]) -> list[str]:
    """Files under their final name that are neither as in a finished run nor readable to their end.

    Hidden files are what is being written; a log or a checkpoint of an epoch in between only has to be readable.
    """
    found = []
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if (
            not path.is_file()
            or any(part.startswith(".") for part in Path(name).parts)
            or name.endswith((".log", ".txt"))
        ):
            continue
        if whole.get(name) != _try(_digest, path) and not _try(_read_whole, path):
            found.append(name)
    return found


def _try(function, path):
    try:
        return function(path)
    except Exception:
        return None


def _read_whole(path: Path) -> bool:
    content = path.read_bytes()
    if path.suffix == ".json":
        json.loads(content)
    elif path.suffix == ".jsonl":
        assert content.endswith(b"\n")
        [json.loads(line) for line in content.splitlines()]
    elif path.suffix == ".csv":
        assert content.endswith(b"\n")
        assert len({len(row) for row in csv.reader(io.StringIO(content.decode()))}) == 1
    elif path.suffix == ".gz":
        gzip.decompress(content)
    elif path.suffix == ".h5":
        from auvtool.feature_store import FeatureFile

        with FeatureFile(path) as file:
            [file.case(case_id) for case_id in file.case_ids]
    elif path.suffix == ".pth":
        _tensors(path)
    elif path.suffix == ".png":
        assert content.endswith(b"IEND\xaeB`\x82")
    elif path.suffix in {".svg", ".html"}:
        assert content.rstrip().endswith((b"</svg>", b"</html>"))
    elif path.suffix == ".b2nd":
        import blosc2

        blosc2.open(str(path))[:]
    elif path.suffix in {".pkl", ".npz"}:
        assert content.endswith(b".") or path.suffix == ".npz"
    else:
        raise ValueError(path.name)
    return True


# What is imported before the fork.
_PRELOADED = (
    "auvtool.cli.app",
    "auvtool.extraction",
    "auvtool.extraction_plan",
    "auvtool.case_extraction",
    "auvtool.measurement",
    "auvtool.extractors.identity",
    "auvtool.corrupting",
    "auvtool.conversion",
    "auvtool.evaluation",
    "auvtool.scoring",
    "auvtool.quantification",
    "auvtool.keep_list",
    "torch",
    "SimpleITK",
    "nibabel",
)
_CHANGES = {"os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.link", "os.symlink", "os.truncate"}


def fork(
    scenario: Scenario, folder: Path, *, kill_at: int | None = None, file_limit: int | None = None
) -> tuple[int, str]:
    """Run a scenario in a forked process; its exit code (negative: the signal that ended it) and its stderr.

    Args:
        scenario: the command.
        folder: the trial's.
        kill_at: change of the disk (from 0) before which it kills itself with -9; those that came are in `changes`.
        file_limit: bytes after which a file takes no more (the system's limit of a process, RLIMIT_FSIZE).
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([*_PRELOADED])
    given = (scenario.arguments(folder), str(folder), kill_at, file_limit)
    process = context.Process(target=_run_forked, args=given)
    process.start()
    process.join(timeout=300)
    if process.is_alive():
        process.kill()
        raise TimeoutError(scenario.name)
    code = process.exitcode
    assert code is not None
    return code, _beside(folder, "stderr").read_text(encoding="utf-8", errors="replace")


def changes(folder: Path) -> int:
    """Changes of the disk that the last forked run made in the trial's folder."""
    return _beside(folder, "changes").stat().st_size


def _beside(folder: Path, ending: str) -> Path:
    return folder.with_name(f"{folder.name}.{ending}")


def _run_forked(arguments: list[str], folder: str, kill_at: int | None, file_limit: int | None) -> None:
    for number, ending in ((1, "stdout"), (2, "stderr")):
        os.dup2(os.open(_beside(Path(folder), ending), os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
    if file_limit is not None:
        import resource

        resource.setrlimit(resource.RLIMIT_FSIZE, (file_limit, file_limit))
    count = os.open(_beside(Path(folder), "changes"), os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    seen = 0

    def watch(event: str, values: tuple) -> None:
        nonlocal seen
        if event == "open":
            changing = isinstance(values[2], int) and values[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)
        else:
            changing = event in _CHANGES
        if (
            not changing
            or not isinstance(values[0], str | os.PathLike)
            or folder not in str(Path(values[0]).absolute())
        ):
            return
        if seen == kill_at:
            os.kill(os.getpid(), signal.SIGKILL)
        seen += 1
        os.write(count, b".")

    from auvtool.cli.app import main

    sys.argv = ["auvtool", *arguments]
    sys.addaudithook(watch)
    main()


def wait_for(condition: Callable[[], object], process: subprocess.Popen, *, seconds: float = 300) -> bool:
    """Whether the condition came true before the process ended."""
    end = time.monotonic() + seconds
    while not condition():
        if process.poll() is not None:
            return False
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.001)
    return True


def group_is_gone(group: int, *, seconds: float = 60) -> bool:
    """Whether all processes of a group end in time."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        try:
            os.killpg(group, 0)
        except ProcessLookupError:
            return True
        time.sleep(0.01)
    return False


def children(process: int) -> list[int]:
    """Ids of the processes that a process started (Linux)."""
    return [int(one) for one in Path(f"/proc/{process}/task/{process}/children").read_text().split()]


def fresh(folder: Path) -> Path:
    """The folder, empty."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder


def start(command: Sequence[str], folder: Path, **options) -> subprocess.Popen:
    """A command as a user starts it, leader of a group of its own; stderr goes to a file beside the trial."""
    with _beside(folder, "stderr").open("wb") as stderr:
        return subprocess.Popen(command, start_new_session=True, stdout=subprocess.DEVNULL, stderr=stderr, **options)


def stderr_of(folder: Path) -> str:
    """What the last run of a trial said."""
    return _beside(folder, "stderr").read_text(encoding="utf-8", errors="replace")
