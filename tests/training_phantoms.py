"""A small data set that a small network starts to learn at once: a ball (organ) with a ball in it (lesion)."""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from phantoms import truncate, write_volume

from auvtool.dataset import open_dataset, require_labels
from auvtool.training.recipe import Recipe
from auvtool.training.session import Outcome, Request, train

SHAPE = (32, 40, 40)
KEPT = ("case_00", "case_01", "case_02", "case_04")
RECIPE = Recipe(epochs=2, iterations=2, val_iterations=1, batch_size=2, features=8, patch_size=(32, 32, 32), seed=7)


@dataclass(frozen=True)
class Trained:
    """A finished training, and what it was asked for."""

    folder: Path
    request: Request
    outcome: Outcome
    rows: list

    @property
    def fold(self) -> Path:
        return self.outcome.checkpoint.parent


def train_on_balls(folder: Path) -> Trained:
    """Five good cases and a broken one; a keep list drops one; 2 epochs of 2 batches with DUO."""
    dataset = write_balls(folder / "Dataset900_Balls", n_cases=6, broken=(5,))
    request = Request(
        dataset=require_labels(open_dataset(dataset)),
        run=folder / "RUN",
        recipe=RECIPE,
        kept=[*KEPT, "case_05"],
        workspace=folder / "work",
        intensity_samples=10_000,
    )
    rows: list = []
    outcome = train(request, on_epoch=rows.append)
    return Trained(folder, request, outcome, rows)


def write_balls(folder: Path, *, n_cases: int, broken: tuple[int, ...] = ()) -> Path:
    """An nnU-Net raw data set `case_00`, ...; the images of cases `broken` are cut off."""
    for number in range(n_cases):
        image, label = ball(number)
        path = write_volume(folder / "imagesTr" / f"case_{number:02d}_0000.nii.gz", image)
        write_volume(folder / "labelsTr" / f"case_{number:02d}.nii.gz", label)
        if number in broken:
            truncate(path)
    record = {
        "channel_names": {"0": "CT"},
        "labels": {"background": 0, "organ": 1, "lesion": 2},
        "numTraining": n_cases,
        "file_ending": ".nii.gz",
    }
    (folder / "dataset.json").write_text(json.dumps(record))
    return folder


def ball(number: int):
    """Image and label (d, h, w) of one case."""
    generator = np.random.default_rng(number)
    grid = np.moveaxis(np.indices(SHAPE).astype(float), 0, -1)
    centre = np.array(SHAPE) / 2 + generator.uniform(-3, 3, 3)
    label = np.zeros(SHAPE, dtype=np.uint8)
    label[np.linalg.norm((grid - centre) / (9, 11, 11), axis=-1) < 1] = 1
    label[np.linalg.norm(grid - centre - 3, axis=-1) < 4] = 2
    image = 100.0 * (label == 1) + 200.0 * (label == 2) + generator.normal(0, 15, SHAPE)
    return image.astype(np.float32), label


def assert_equal(found, expected):
    """Equality of nested containers with tensors in them, bit for bit."""
    assert type(found) is type(expected)
    if isinstance(expected, dict):
        assert found.keys() == expected.keys()
        for key, value in expected.items():
            assert_equal(found[key], value)
    elif isinstance(expected, list | tuple):
        assert len(found) == len(expected)
        for left, right in zip(found, expected, strict=True):
            assert_equal(left, right)
    elif isinstance(expected, torch.Tensor):
        assert torch.equal(found, expected)
    else:
        assert found == expected
