"""Wall seconds of `eval --format nnunet` against nnU-Net's own evaluation of the same folders, by turns.

By hand, with real labels: AUVTOOL_TEST_DATA=FOLDER pytest -s tests/benchmarks/bench_evaluation.py
"""

import shutil
import statistics
import subprocess
import sys
import time
from pathlib import Path

N_CASES, N_RUNS = 20, 3


def seconds(command):
    start = time.perf_counter()
    subprocess.run([str(word) for word in command], check=True, capture_output=True)
    return time.perf_counter() - start


def test_evaluation_against_nnunet(real_data, tmp_path):
    source = real_data / "hippocampus" / "Dataset004_Hippocampus"
    labels = sorted((source / "labelsTr").glob("hippocampus_*.nii.gz"))[:N_CASES]
    for folder in ("references", "predictions"):
        (tmp_path / folder).mkdir()
    for label in labels:
        shutil.copy(label, tmp_path / "references")
        shutil.copy(label, tmp_path / "predictions")
    beside = Path(sys.executable).parent
    folders = [tmp_path / "predictions", tmp_path / "references"]
    ours = [beside / "auvtool", "eval", *folders, "-d", source / "dataset.json", "--format", "nnunet", "-f", "-o"]
    theirs = [beside / "nnUNetv2_evaluate_simple", folders[1], folders[0], "-l", 1, 2, "-o"]
    pairs = [
        (seconds([*ours, tmp_path / "ours.json"]), seconds([*theirs, tmp_path / "theirs.json"])) for _ in range(N_RUNS)
    ]
    a, b = (statistics.median(side) for side in zip(*pairs, strict=True))
    same = (tmp_path / "ours.json").read_bytes() == (tmp_path / "theirs.json").read_bytes()
    print(f"\neval of {N_CASES} cases, wall seconds (median of {N_RUNS}): {a:.2f}, nnU-Net {b:.2f}, ratio {a / b:.2f}")
    print(f"summary.json equal byte for byte: {same}")
    assert same
