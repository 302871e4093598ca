"""Small data sets made dirty by `auvtool corrupt`, and what stands in them."""

import hashlib
from pathlib import Path

from phantoms import write_raw_dataset
from typer.testing import CliRunner

from auvtool.cases import Dataset
from auvtool.cli.app import app
from auvtool.corrupting import ANSWER_KEY_NAME, CorruptionResult, plan_corruption, write_corrupt_dataset
from auvtool.dataset import open_dataset
from auvtool.experiment_schema import ANSWER_KEY
from auvtool.schema import Row
from auvtool.tables import read_table

SHAPE = (6, 16, 20)


def source_of(folder: Path, **options: object) -> Dataset:
    return open_dataset(write_raw_dataset(folder / "Dataset001_All", **{"shape": SHAPE, **options}))


def written(source: Dataset, **options: object) -> tuple[Dataset, CorruptionResult]:
    folder = source.folder.with_name("Dataset002_Dirty")
    result = write_corrupt_dataset(plan_corruption(source, folder, **options), options={})
    return open_dataset(folder), result


def key_of(dataset: Dataset) -> dict[str, Row]:
    return {str(row["case"]): row for row in read_table(dataset.folder / ANSWER_KEY_NAME, ANSWER_KEY)}


def digest(folder: Path) -> dict[str, str]:
    """What every file of a folder holds; the manifest, which has the time of day, apart."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and not path.name.endswith(".manifest.json")
    }


def run(*arguments: object) -> tuple[int, str]:
    done = CliRunner().invoke(app, ["corrupt", *map(str, arguments)])
    return done.exit_code, done.stderr
