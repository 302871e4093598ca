"""Worker processes that die: nothing finished is lost, only the item that kills is given up."""

import multiprocessing
import os
import time
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from worker_tasks import die_once, square, square_or_die

from auvtool.memory import peak_resident_bytes
from auvtool.worker_pool import MemoryLimit, WorkerDied, run_in_workers

pytestmark = pytest.mark.skipif(os.name != "posix", reason="kills processes with POSIX signals")


def hold(megabytes: int) -> tuple[int, float, float]:
    """The process, and when it began and ended to hold that much memory."""
    started = time.monotonic()
    held = np.ones(megabytes * 2**20 // 8)
    time.sleep(0.3)
    return os.getpid(), started, time.monotonic() + 0.0 * held[0]


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


def test_a_process_that_is_killed_while_it_waits_costs_nothing(tmp_path: Path) -> None:
    died: list[list[int]] = []
    results = run_in_workers(square, [1, 2, 3], jobs=1, on_worker_died=died.append)
    assert next(results) == (1, 1)
    waiting = multiprocessing.active_children()
    for process in waiting:
        process.kill()
        process.join()
    time.sleep(0.5)  # until the pool has seen it
    assert dict(results) == {2: 4, 3: 9}
    assert [] not in died


def test_workers_end_with_the_loop_that_used_them(tmp_path: Path) -> None:
    markers = [tmp_path / "a", tmp_path / "b"]
    with closing(run_in_workers(wait_or_return, markers, jobs=2, on_worker_died=pytest.fail)) as results:
        next(results)
        while not (markers[1].exists() and markers[1].read_text()):
            time.sleep(0.01)
    with pytest.raises(ProcessLookupError):
        os.kill(int(markers[1].read_text()), 0)


def wait_or_return(marker: Path) -> str:
    if marker.name == "b":
        sleep_long(marker)
    return "done"


def together(spans: list[tuple[int, float, float]]) -> int:
    """The most tasks that were at work at one time."""
    return max(sum(begin <= moment < end for _, begin, end in spans) for _, moment, _ in spans)


def held_within(max_megabytes: int, items: list[int]) -> tuple[list[int], list[tuple[int, float, float]], list[str]]:
    """Items in the order they began, when they were at work, and what was said; the workers' own 3 jobs."""
    said: list[str] = []
    limit = MemoryLimit(peak_resident_bytes() + max_megabytes * 2**20, size=lambda item: item, say=said.append)
    found = list(run_in_workers(hold, items, jobs=3, on_worker_died=pytest.fail, limit=limit))
    spans = sorted((span, item) for item, span in found if not isinstance(span, WorkerDied))
    spans.sort(key=lambda pair: pair[0][1])
    return [item for _, item in spans], [span for span, _ in spans], said


def test_the_largest_runs_first_and_alone_then_as_many_as_fit() -> None:
    order, spans, said = held_within(1300, [100, 101, 400, 102, 103, 104])
    assert order[0] == 400
    assert together(spans[:1]) == together([span for span in spans if span[1] < spans[0][2]]) == 1
    assert together(spans) <= 2  # 400 MB and what Python takes: three do not fit
    assert len(said) == 1
    assert ": of 3 jobs 2 fit in " in said[0]


def test_with_room_for_all_the_jobs_are_those_asked_for() -> None:
    _, _, said = held_within(100_000, [1, 2, 3, 4])
    assert [text.split(": ")[1].split(" fit")[0] for text in said] == ["of 3 jobs 3"]


def test_a_case_larger_than_the_limit_runs_alone() -> None:
    order, spans, said = held_within(50, [3, 200, 2, 1])
    assert sorted(order) == [1, 2, 3, 200]
    assert together(spans) == 1
    assert len(said) == 1
    assert "not even one job fits" in said[0]


def test_a_case_that_takes_more_than_the_first_lowers_the_number_of_workers() -> None:
    """The largest file is no sure sign: here the item of most memory is said to be small."""
    said: list[str] = []
    limit = MemoryLimit(peak_resident_bytes() + 900 * 2**20, size=lambda item: -item, say=said.append)
    items = [600, *range(10, 18)]
    found = dict(run_in_workers(hold, items, jobs=3, on_worker_died=pytest.fail, limit=limit))
    assert sorted(found) == sorted(items)
    assert [text.split(": ")[1].split(" fit")[0] for text in said] == ["of 3 jobs 3", "of 3 jobs 1"]
