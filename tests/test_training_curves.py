"""The curves of a training: the numbers drawn, gaps, many classes, and when they are drawn again."""

import math
from pathlib import Path

import numpy as np
import pytest

from auvtool.training import training_curves
from auvtool.training.training_curves import LiveCurves, draw_whole, training_figure


def some_rows(n_epochs, names=("organ", "lesion"), **changes):
    def of_classes(start):
        return {name: start + 0.01 * place for place, name in enumerate(names)}

    return [
        {
            "epoch": epoch,
            "lr": 0.01,
            "train_loss": 1.0 / (epoch + 1),
            "val_loss": 1.5 / (epoch + 1),
            "pseudo_dice": of_classes(0.1 * epoch),
            "scale": of_classes(0.3),
            "class_weight": of_classes(0.8),
            **changes,
        }
        for epoch in range(n_epochs)
    ]


def lines(panel):
    return {line.get_label(): np.asarray(line.get_ydata(), dtype=float).tolist() for line in panel.lines}


def test_what_the_log_says_is_drawn():
    figure = training_figure(some_rows(3))
    loss, dice, weight, scale = figure.axes
    assert lines(loss) == {
        "training": pytest.approx([1, 1 / 2, 1 / 3]),
        "validation": pytest.approx([1.5, 0.75, 0.5]),
    }
    assert lines(dice) == {"organ": pytest.approx([0, 0.1, 0.2]), "lesion": pytest.approx([0.01, 0.11, 0.21])}
    assert lines(weight)["lesion"] == pytest.approx([0.81] * 3)
    assert lines(scale)["organ"] == pytest.approx([0.3] * 3)
    assert scale.get_xlabel() == "epoch"
    figure.draw_without_rendering()


def test_the_plain_loss_has_neither_weights_nor_scales():
    rows = [{key: row[key] for key in row if key not in {"scale", "class_weight"}} for row in some_rows(2)]
    assert len(training_figure(rows).axes) == 2


def test_a_class_without_a_dice_is_a_gap():
    rows = some_rows(2, pseudo_dice={"organ": 0.5, "lesion": None})
    dice = training_figure(rows).axes[1]
    assert all(math.isnan(value) for value in lines(dice)["lesion"])


def test_many_classes_are_drawn_and_the_first_ones_named():
    names = [f"class $\\{number}" for number in range(30)]
    figure = training_figure(some_rows(1, names))
    figure.draw_without_rendering()
    labels = [text.get_text() for text in figure.legends[0].get_texts()]
    assert len(labels) == training_curves.N_CLASSES_NAMED + 1
    assert "22 others" in labels
    assert len(figure.axes[1].lines) == 30


def test_a_drawing_waits_until_it_is_cheap_and_the_last_one_does_not(tmp_path):
    curves = LiveCurves(tmp_path / "curves.svg")
    curves.update(some_rows(1))
    first = curves.path.read_bytes()
    assert first.startswith(b"<?xml")
    curves.update(some_rows(2))  # twenty times the time of the first drawing is not over
    assert curves.path.read_bytes() == first
    curves.update(some_rows(2), last=True)
    second = curves.path.read_bytes()
    assert second != first
    curves.update(some_rows(2), last=True)
    assert curves.path.read_bytes() == second


def test_nnunets_picture_is_never_half_drawn(tmp_path):
    """What stops it while it draws leaves the last one."""

    def draw(folder: str) -> None:
        (Path(folder) / "progress.png").write_bytes(b"whole")

    def draw_and_stop(folder: str) -> None:
        (Path(folder) / "progress.png").write_bytes(b"ha")
        raise KeyboardInterrupt

    draw_whole(draw, str(tmp_path))
    with pytest.raises(KeyboardInterrupt):
        draw_whole(draw_and_stop, str(tmp_path))
    assert [path.name for path in tmp_path.iterdir()] == ["progress.png"]
    assert (tmp_path / "progress.png").read_bytes() == b"whole"
