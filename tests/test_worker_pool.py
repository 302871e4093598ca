"""Worker processes that die: nothing finished is lost, only the item that kills is given up."""

import os
import signal
import time
from contextlib import closing
from pathlib import Path

import pytest

from auvtool.worker_pool import WorkerDied, run_in_workers

pytestmark = pytest.mark.skipif(os.name != "posix", reason="kills processes with POSIX signals")


def square(number: int) -> int:
    return number * number


def square_or_die(number: int) -> int:
    if number < 0:
        os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(0.05)
    return number * number


def die_once(folder: Path) -> str:
    """Kills its process the first time only, as a shortage of memory that passes."""
    marker = folder / "died"
    if not marker.exists():
        marker.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return "done"


def sleep_long(marker: Path) -> None:
    marker.write_text(str(os.getpid()))
    time.sleep(60)


def test_every_item_comes_with_its_result() -> None:
    results = dict(run_in_workers(square, [1, 2, 3, 4, 5], jobs=2, on_worker_died=pytest.fail))
    assert results == {1: 1, 2: 4, 3: 9, 4: 16, 5: 25}


def test_only_the_item_that_kills_its_process_is_lost() -> None:
    died: list[list[int]] = []
    results = dict(run_in_workers(square_or_die, [1, 2, -3, 4, 5], jobs=2, on_worker_died=died.append))
    assert isinstance(results.pop(-3), WorkerDied)
    assert results == {1: 1, 2: 4, 4: 16, 5: 25}
    assert len(died) == 2  # in company, then alone
    assert -3 in died[0]
    assert died[1] == [-3]


def test_a_process_killed_once_is_made_good(tmp_path: Path) -> None:
    died: list[list[Path]] = []
    (tmp_path / "other").mkdir()
    items = [tmp_path, tmp_path / "other"]
    (tmp_path / "other" / "died").touch()
    assert dict(run_in_workers(die_once, items, jobs=2, on_worker_died=died.append)) == dict.fromkeys(items, "done")
    assert len(died) == 1


def test_workers_end_with_the_loop_that_used_them(tmp_path: Path) -> None:
    markers = [tmp_path / "a", tmp_path / "b"]
    started = time.monotonic()
    with closing(run_in_workers(wait_or_return, markers, jobs=2, on_worker_died=pytest.fail)) as results:
        next(results)
        while not markers[1].exists():
            time.sleep(0.01)
    assert time.monotonic() - started < 30
    with pytest.raises(ProcessLookupError):
        os.kill(int(markers[1].read_text()), 0)


def wait_or_return(marker: Path) -> str:
    if marker.name == "b":
        sleep_long(marker)
    return "done"
