"""The report and the picture: numbers where they belong, bold, italics and missing ones, and the same bytes."""

import numpy as np
import pytest

from auvtool.corruption.kinds import KINDS
from auvtool.detection_plot import N_METHODS_DRAWN, detection_figure, plot_detection
from auvtool.detection_report import areas_of, detection_report, ranked_methods
from auvtool.errors import UsageError


def detection_row(kind, method, area, *, level="high", share=0.1):
    of = KINDS[kind].of if kind in KINDS else None
    return {
        "kind": kind, "of": of, "level": level, "share": share, "method": method,
        "auroc": area, "n_dirty": 6.0, "n_clean": 54.0,
    }  # fmt: skip


def summary_row(method, kinds, area, *, level="high", share=0.1, n_kinds=2, below=0):
    ends = {"auroc_low": area - 0.1, "auroc_high": area + 0.1} if area is not None else {}
    return {
        "method": method, "level": level, "share": share, "kinds": kinds, "n_kinds": n_kinds, "auroc": area,
        "auroc_low": None, "auroc_high": None, **ends, "raw": area, "raw_low": None, "raw_high": None,
        "n_below_half": below,
    }  # fmt: skip


DETECTION = [
    detection_row("blur", "auv paper", 0.41),
    detection_row("blur", "agreement", 0.95),
    detection_row("holes", "auv paper", 0.7),
    detection_row("holes", "agreement", None),
    detection_row("mixed", "auv paper", 0.6),
    detection_row("mixed", "agreement", 0.8),
    detection_row("blur", "auv paper", 0.55, level="low"),
    detection_row("blur", "auv paper", 0.11, share=0.2),
]
SUMMARY = [
    *(summary_row("auv paper", kinds, 0.555, below=1) for kinds in ("image", "label", "all")),
    summary_row("agreement", "image", 0.95),
    summary_row("agreement", "label", None, n_kinds=0),
    summary_row("agreement", "all", 0.95, n_kinds=1),
    summary_row("auv paper", "all", 0.5, level="low"),
    summary_row("auv paper", "all", 0.99, share=0.2),
]


def report(**changes):
    return detection_report(SUMMARY, DETECTION, **{"level": "high", "share": 0.1, **changes})


def figure(detection=DETECTION, summary=SUMMARY, **options):
    drawn = detection_figure(detection, summary, level="high", share=0.1, **options)
    drawn.draw_without_rendering()
    return drawn


def test_a_report_by_hand():
    lines = report().splitlines()
    assert "| method | all kinds (2) | image kinds (2) | label kinds (2) | sign known | below 0.5 |" in lines
    assert "| agreement | **0.95** [0.85, 1.05] | **0.95** [0.85, 1.05] | - | **0.95** | 0 of 1 (!) |" in lines
    assert "| kind | of | agreement | auv paper |" in lines  # the best mean first
    assert "| blur | image | **0.95** | *0.41* |" in lines
    assert "| holes | label | - | 0.70 |" in lines
    assert "| mixed | - | **0.80** | 0.60 |" in lines
    assert [line for line in lines if line.startswith("###")] == [
        "### Level high: mean over kinds",
        "### Level low: mean over kinds",
        "### Level high: each kind",
    ]
    assert "at most 6 beside 54 clean ones" in lines[0]
    assert "0.11" not in report()  # another share


@pytest.mark.parametrize(
    ("area", "shown"), [(0.795, "**0.80**"), (0.794, "0.79"), (0.4999, "*0.50*"), (0.5, "0.50"), (1.0, "**1.00**")]
)
def test_bold_and_italics(area, shown):
    text = detection_report([], [detection_row("blur", "m", area)], level="high", share=0.1)
    assert f"| blur | image | {shown} |" in text


def test_a_strange_name_does_not_break_the_table():
    text = detection_report([], [detection_row("blur", "a|b_c*\nd", 0.6)], level="high", share=0.1)
    assert "| kind | of | a\\|b\\_c\\* d |" in text


def test_methods_without_a_mean_come_last_and_ties_as_they_come():
    rows = [detection_row("blur", name, 0.5) for name in ("unknown", "b", "a", "best")]
    means = [summary_row(name, "all", area) for name, area in (("a", 0.5), ("b", 0.5), ("best", 0.6))]
    assert ranked_methods(means, rows) == ["best", "b", "a", "unknown"]
    assert areas_of(rows)["blur", "a"] == 0.5


def test_a_level_or_share_that_is_not_there_is_refused():
    with pytest.raises(ValueError, match="level medium"):
        report(level="medium")
    with pytest.raises(ValueError, match=r"share 0\.3"):
        detection_figure(DETECTION, SUMMARY, level="high", share=0.3)


@pytest.mark.parametrize("ending", [".svg", ".png", ".pdf"])
def test_a_picture_appears_whole_and_with_the_same_bytes(tmp_path, ending):
    for name in ("first", "second"):
        path = tmp_path / f"{name}{ending}"
        plot_detection(path, DETECTION, SUMMARY, level="high", share=0.1, title="Liver", force=False)
    assert (tmp_path / f"first{ending}").read_bytes() == (tmp_path / f"second{ending}").read_bytes()
    with pytest.raises(UsageError, match="existing"):
        plot_detection(path, DETECTION, SUMMARY, level="high", share=0.1, force=False)


def test_numbers_stand_in_their_cells():
    axes = figure().axes[0]
    rows, columns = (
        [label.get_text() for label in labels] for labels in (axes.get_yticklabels(), axes.get_xticklabels())
    )
    assert rows == ["blur", "holes", "mixed", "mean of kinds"]
    assert columns == ["agreement", "auv paper"]
    middles = list(axes.get_yticks())
    written = {
        (
            rows[int(np.argmin(np.abs(np.array(middles) - text.get_position()[1])))],
            columns[int(text.get_position()[0])],
        ): text.get_text()
        for text in axes.texts
    }
    assert written["blur", "auv paper"] == "0.41"
    assert written["holes", "agreement"] == "–"
    assert written["mean of kinds", "agreement"] == "0.95"
    assert len(written) == 8


def test_a_picture_of_one_cell_and_of_too_many_methods():
    figure([detection_row("blur", "one", 0.3)], [])
    names = [f"method {number} with a name that is long enough to be cut somewhere" for number in range(40)]
    drawn = figure([detection_row(kind, name, 0.5) for kind in KINDS for name in names], [], title="T" * 300)
    assert len(drawn.axes[0].get_xticklabels()) == N_METHODS_DRAWN
    assert f"The best {N_METHODS_DRAWN} of 40" in drawn._suptitle.get_text().replace("\n", " ")
    assert "contrast (null test)" in [label.get_text() for label in drawn.axes[0].get_yticklabels()]
