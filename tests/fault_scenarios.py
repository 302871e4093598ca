"""Commands to disturb, on data so small that a run takes a second."""

import re
import shutil
from collections.abc import Callable
from pathlib import Path

import downloads
import phantoms
from command_line import auvtool
from fault_injection import Scenario
from training_phantoms import write_balls

TRAINING = (
    *("--epochs", "3", "--iterations", "2", "--val-iterations", "1", "--batch-size", "2", "--features", "4"),
    *("--patch-size", "32,32,32", "--lr", "0.001", "--seed", "7"),
)
_KINDS = "blur,gaussian-noise,dilated,holes"


def scenarios(folder: Path, *, n_cases: int, jobs: int = 1, trained: Path | None = None) -> dict[str, Scenario]:
    """By name; `folder` is filled with their inputs.

    Args:
        folder: an empty folder.
        n_cases: of the data sets.
        jobs: worker processes of the commands that have them.
        trained: a results folder of balls, for `predict` and `train`; without it these two are left out.
    """
    boxes = phantoms.write_raw_dataset(folder / "Dataset001_Box", n_cases=n_cases)
    predictions = folder / "P"
    shutil.copytree(boxes / "labelsTr", predictions)
    for number, path in enumerate(sorted(predictions.iterdir())):
        phantoms.write_volume(path, phantoms.box_label(boxes={1: (slice(1, 4), slice(1, 3 + number % 4), slice(1, 5))}))
    features, scores = folder / "F.h5", folder / "S.csv"
    _run("extract", boxes, "-o", features, "--extractor", "identity", "-j", 2)
    _run("score", features, "-o", scores)
    download = folder / "Totalsegmentator"
    parts = {f"s{number:04d}": "test" if number % 5 == 4 else "train" for number in range(n_cases)}
    downloads.totalsegmentator(download, ("spleen", "kidney_right"), parts)
    workers = ("-j", str(jobs))
    balls = folder / "Dataset900_Balls"
    write_balls(balls, n_cases=max(n_cases, 6))
    found = [
        extraction(boxes, jobs=jobs),
        Scenario("score", ("score", str(features), "-o", "{out}/S.csv"), "S.csv"),
        Scenario("filter", ("filter", str(scores), "-o", "{out}/K.csv", "--quantile", "0.8"), "K.csv"),
        Scenario("eval", ("eval", str(predictions), str(boxes), "-o", "{out}/M.csv", *workers), "M.csv"),
        Scenario(
            "corrupt",
            ("corrupt", str(boxes), "-o", "{out}/Dataset002_Dirty", "--share", "1", *workers),
            "Dataset002_Dirty",
            lambda out: len([*(out / ".Dataset002_Dirty.parts/records").glob("case_*.json")]),
            _number(r"(\d+) of them made before"),
        ),
        Scenario(
            "convert",
            ("convert", "totalsegmentator", str(download), "{out}/Dataset117_Tiny", *workers),
            "Dataset117_Tiny",
            lambda out: len([*(out / ".Dataset117_Tiny.parts/.convert").glob("s*.json")]),
            _number(r"(\d+) of them made before"),
        ),
        Scenario(
            "bench detect",
            (
                *("bench", "detect", str(boxes), "-o", "{out}/B", "--extractor", "identity", "--kinds", _KINDS),
                *("--cases", str(min(n_cases, 6)), "--copies", "2", "--draws", "2", "--shares", "0.25", *workers),
            ),
            "B",
            _bench_shards,
            _number(r"(\d+) done before"),
        ),
    ]
    if trained is not None:
        options = (*TRAINING, "--workspace", "{out}/work", "-c", "3d_fullres", *workers)
        found += [
            Scenario("predict", ("predict", str(trained), str(balls), "-o", "{out}/P"), "P", _maps, _predicted),
            Scenario("train", ("train", str(balls), "-o", "{out}/RUN", "-v", *options), "RUN", _epochs, _epochs_kept),
            # On a workspace that is there: all of its time is training.
            Scenario(
                "train, prepared",
                (
                    *("train", str(trained.parent / balls.name), "-o", "{out}/RUN", "-v", *TRAINING),
                    *("--workspace", str(trained.parent / "nnUNet_workspace")),
                ),
                "RUN",
                _epochs,
                _epochs_kept,
            ),
        ]
    return {scenario.name: scenario for scenario in found}


def extraction(dataset: Path, *, jobs: int) -> Scenario:
    return Scenario(
        "extract",
        ("extract", str(dataset), "-o", "{out}/F.h5", "--extractor", "identity", "-j", str(jobs)),
        "F.h5",
        lambda out: len([*(out / "F.h5.parts").glob("case_*.h5")]),
        _number(r"(\d+) done before"),
    )


def train_on_balls(folder: Path) -> Path:
    """A results folder for `predict`."""
    write_balls(folder / "Dataset900_Balls", n_cases=6)
    _run("train", folder / "Dataset900_Balls", "-o", folder / "RUN", *TRAINING)
    return folder / "RUN"


def _run(*arguments) -> None:
    done = auvtool(*arguments)
    assert done.returncode == 0, done.stderr


def _number(pattern: str) -> Callable[[str], int]:
    return lambda stderr: sum(map(int, re.findall(pattern, stderr)))


def _bench_shards(out: Path) -> int:
    features = out / "B/features.identity.raw.h5"
    if features.with_name(features.name + ".manifest.json").is_file():
        return 0  # the file is taken as a whole
    return len([*features.with_name(features.name + ".parts").glob("case_*.h5")])


def _maps(out: Path) -> int:
    return len([*(out / "P").glob("case_*.nii.gz")])


_predicted = _number(r"(\d+) cases? predicted before")


def _epochs(out: Path) -> int:
    from auvtool.nnunet_run import read_checkpoint

    for name in ("checkpoint_final.pth", "checkpoint_latest.pth"):
        for path in (out / "RUN").glob(f"fold_*/{name}"):
            return int(read_checkpoint(path)["current_epoch"])
    return 0


def _epochs_kept(stderr: str) -> int:
    return 3 - len(re.findall(r"^epoch \d+: loss", stderr, flags=re.MULTILINE))
