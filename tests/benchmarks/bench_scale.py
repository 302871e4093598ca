"""Seconds and peak memory of extract, score, filter, eval and report by number of cases, and of merge by shards.

By hand, an hour with 10,000 cases: pytest -s tests/benchmarks/bench_scale.py [-k 1000]
"""

import json
import os
import resource
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813  # its usual name

SHAPE, N_CLASSES = (12, 16, 16), 2


def write_cases(folder: Path, n_cases: int) -> Path:
    """A raw data set of small cases with a blob a class, and predictions: each the label of the case before it."""
    for part in ("imagesTr", "labelsTr", "predicted"):
        (folder / part).mkdir(parents=True)
    record = {"channel_names": {"0": "CT"}, "labels": {"background": 0, "one": 1, "two": 2}, "file_ending": ".nii.gz"}
    (folder / "dataset.json").write_text(json.dumps(record | {"numTraining": n_cases}))
    d, h, w = np.indices(SHAPE)
    for number in range(n_cases):
        rng = np.random.default_rng(number)
        label = np.zeros(SHAPE, dtype=np.uint8)
        for value, centre in ((1, (5, 5, 5)), (2, (6, 10, 10))):
            place, radius = np.array(centre) + rng.uniform(-1, 1, 3), rng.uniform(2, 3.5)
            label[(d - place[0]) ** 2 + (h - place[1]) ** 2 + (w - place[2]) ** 2 < radius**2] = value
        image = (40 * label + 10 * rng.normal(size=SHAPE)).astype(np.int16)
        name = f"case_{number:05d}"
        sitk.WriteImage(sitk.GetImageFromArray(image), str(folder / "imagesTr" / f"{name}_0000.nii.gz"), True)
        sitk.WriteImage(sitk.GetImageFromArray(label), str(folder / "labelsTr" / f"{name}.nii.gz"), True)
        other = f"case_{(number - 1) % n_cases:05d}.nii.gz"
        (folder / "predicted" / f"{name}.nii.gz").symlink_to(folder / "labelsTr" / other)
    return folder


def run(step: str, n: int, *arguments: object) -> None:
    """Run `auvtool ARGUMENTS`; print its seconds by the clock and of CPU, and the most memory it had at once."""
    started, cpu = time.monotonic(), _cpu_seconds()
    process = subprocess.Popen(
        [sys.executable, "-m", "auvtool", *map(str, arguments)], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    )
    peak = [0]
    watch = threading.Thread(target=_watch, args=(process, peak))
    watch.start()
    _, stderr = process.communicate()
    watch.join()
    took, used = time.monotonic() - started, _cpu_seconds() - cpu
    print(f"{n:6d} {step:12s} {took:8.1f} s {used:8.1f} s of CPU {peak[0] / 2**20:6.0f} MiB", flush=True)
    assert process.returncode == 0, stderr.decode()


def _cpu_seconds() -> float:
    """Of all processes that have ended, those that they started among them."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def _watch(process: subprocess.Popen[bytes], peak: list[int]) -> None:
    while process.poll() is None:
        peak[0] = max(peak[0], sum(map(_resident_bytes, _family(process.pid))))
        time.sleep(0.2)


def _family(pid: int) -> list[int]:
    """A process and its descendants."""
    parents = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            try:
                parents[int(entry.name)] = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
            except OSError:
                continue
    family = [pid]
    for member in family:
        family += [child for child, parent in parents.items() if parent == member]
    return family


def _resident_bytes(pid: int) -> int:
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, IndexError):
        return 0


@pytest.mark.parametrize("n_cases", [100, 1000, 10000])
def test_the_chain_of_many_cases(n_cases, tmp_path):
    data = write_cases(tmp_path / "Dataset900_Small", n_cases)
    print()
    features, scores = tmp_path / "F.h5", tmp_path / "S.csv"
    run("extract -j 2", n_cases, "extract", data, "-o", features, "--extractor", "identity", "-j", 2)
    run("score", n_cases, "score", features, "-o", scores)
    run("score paper", n_cases, "score", features, "-o", tmp_path / "P.csv", "--preset", "paper")
    run("filter", n_cases, "filter", scores, "-o", tmp_path / "K.csv")
    run("eval", n_cases, "eval", data / "predicted", data, "-o", tmp_path / "M.csv")
    run("report", n_cases, "report", scores, "-o", tmp_path / "R.html", "--features", features, "--dataset", data)
    for path in (features, scores, tmp_path / "R.html"):
        print(f"{n_cases:6d} {path.name:12s} {path.stat().st_size / 1e6:8.1f} MB")


@pytest.mark.parametrize("n_shards", [10, 100, 1000])
def test_merge_of_many_shards(n_shards, tmp_path):
    from auvtool.case_extraction import ExtractionSettings
    from auvtool.dataset import open_dataset
    from auvtool.extraction import run_extraction
    from auvtool.extraction_plan import plan_extraction

    dataset = open_dataset(write_cases(tmp_path / "Dataset900_Small", 2 * n_shards))
    shards = [tmp_path / f"F.{index}.h5" for index in range(1, n_shards + 1)]
    for index, path in enumerate(shards, start=1):
        run_extraction(
            plan_extraction(dataset, ExtractionSettings(extractor="identity"), path, shard=(index, n_shards))
        )
    print()
    run("merge", n_shards, "merge", *shards, "-o", tmp_path / "F.h5")
