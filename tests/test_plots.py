"""Plots: the data drawn, whole files with the same bytes, and the edges (one case, one value, none, many)."""

import math

import matplotlib as mpl
import numpy as np
import pytest

from auvtool.errors import OutputError, UsageError
from auvtool.plots import (
    AuvDistributions,
    EnergyCurves,
    aligned_shares,
    check_plot,
    plot_scores,
    score_figure,
)
from auvtool.scale import energy_shares, semantic_perception_scale

ENDINGS = (".svg", ".png", ".pdf")
START_OF = {".svg": b"<?xml", ".png": b"\x89PNG", ".pdf": b"%PDF"}
END_OF = {".svg": b"</svg>\n", ".png": b"IEND\xaeB`\x82", ".pdf": b"%%EOF\n"}


TWO_CASES = AuvDistributions({"all": np.array([0.0, 1.0])})


def some_spectra(n_cases, seed=0, longest=40):
    rng = np.random.default_rng(seed)
    ranks = rng.integers(longest // 2, longest + 1, n_cases)
    return [np.sort(rng.random(rank) ** 4)[::-1] for rank in ranks]


def some_curves(**changes):
    given = {
        "spectra": {"liver": some_spectra(20), "tumour": [*some_spectra(5, seed=1), np.empty(0)]},
        "energy": "squared",
        "highlighted": {"liver": some_spectra(1, seed=2)[0]},
        "highlighted_case": "case_07",
    }
    return EnergyCurves(**{**given, **changes})


def some_distributions():
    auv = np.random.default_rng(3).random(50)
    return AuvDistributions({"all": auv, "liver": auv**2}, {"all": 0.9}, {"all": 0.95, "liver": math.nan}, "case_07")


def draw(curves=None, distributions=None):
    """A figure after a full layout, in which a warning would come up."""
    figure = score_figure(curves, distributions)
    figure.draw_without_rendering()
    return figure


def curve(panel, start_of_label):
    (line,) = [line for line in panel.lines if line.get_label().startswith(start_of_label)]
    return np.asarray(line.get_xdata()), np.asarray(line.get_ydata())


def texts(figure):
    """Everything written in a figure."""
    return " ".join(text.get_text() for text in figure.findobj(mpl.text.Text))


@pytest.mark.parametrize("ending", ENDINGS)
def test_a_plot_appears_whole_and_with_the_same_bytes(tmp_path, ending):
    for name in ("first", "second"):
        plot_scores(tmp_path / (name + ending), some_curves(), some_distributions(), title="Liver", force=False)
    written = (tmp_path / f"first{ending}").read_bytes()
    assert written.startswith(START_OF[ending])
    assert written.endswith(END_OF[ending])
    assert written == (tmp_path / f"second{ending}").read_bytes()
    assert b"CreationDate" not in written
    assert b"dc:date" not in written
    assert len(list(tmp_path.iterdir())) == 2


@pytest.mark.parametrize("ending", ENDINGS)
def test_a_users_settings_neither_change_the_bytes_nor_are_changed(tmp_path, ending):
    plot_scores(tmp_path / f"a{ending}", some_curves(), some_distributions(), force=False)
    with mpl.rc_context({"font.size": 30.0, "savefig.dpi": 50.0, "svg.hashsalt": "x", "axes.facecolor": "red"}):
        before = dict(mpl.rcParams)
        plot_scores(tmp_path / f"b{ending}", some_curves(), some_distributions(), force=False)
        assert dict(mpl.rcParams) == before
    assert (tmp_path / f"a{ending}").read_bytes() == (tmp_path / f"b{ending}").read_bytes()


def test_each_part_is_drawn_alone_as_in_the_figure_of_both(tmp_path):
    curves, distributions = some_curves(), some_distributions()
    plot_scores(tmp_path / "e.PNG", curves, None, force=False)
    plot_scores(tmp_path / "d.svg", None, distributions, force=False)
    assert len(draw(curves).findobj(mpl.axes.Axes)) == 4
    assert len(draw(None, distributions).findobj(mpl.axes.Axes)) == 1
    assert len(draw(curves, distributions).findobj(mpl.axes.Axes)) == 5


def test_an_unknown_ending_is_refused(tmp_path):
    with pytest.raises(UsageError, match=r"scores\.jpg: expected the ending \.svg, \.png or \.pdf, got '\.jpg'; name"):
        plot_scores(tmp_path / "scores.jpg", EnergyCurves({"liver": some_spectra(3)}, "squared"), None, force=False)
    with pytest.raises(UsageError, match="got none; name"):
        check_plot(tmp_path / "scores", force=True)
    assert list(tmp_path.iterdir()) == []


def test_an_existing_file_is_replaced_only_with_force(tmp_path):
    path = tmp_path / "scores.svg"
    path.write_text("old")
    with pytest.raises(UsageError, match="--force"):
        plot_scores(path, None, TWO_CASES, force=False)
    assert path.read_text() == "old"
    plot_scores(path, None, TWO_CASES, force=True)
    assert path.read_text().endswith("</svg>\n")


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch):
    path = tmp_path / "scores.svg"
    path.write_text("old")

    def fill_the_disk(*_arguments, **_options):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("matplotlib.figure.Figure.savefig", fill_the_disk)
    with pytest.raises(OutputError, match="No space left"):
        plot_scores(path, None, TWO_CASES, force=True)
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_curves_of_a_class_by_hand():
    spectra = [np.array([1.0, 1.0]), np.array([2.0, 1.0, 1.0]), np.array([8.0, 1.0, 1.0])]
    above, below = draw(EnergyCurves({"liver": spectra}, "linear")).findobj(mpl.axes.Axes)
    ranks, shares = curve(above, "median")
    assert ranks.tolist() == [1, 2, 3]
    assert np.allclose(shares, [0.5, 0.25, 0.1])  # past its rank the first case has share 0 ...
    _, cumulative = curve(below, "median")
    assert np.allclose(cumulative, [0.5, 0.9, 1.0])  # ... and cumulative energy 1
    assert len(above.lines) == 3 + 1  # few cases: each has its line, as long as its rank
    assert sorted(len(line.get_xdata()) for line in above.lines) == [2, 3, 3, 3]
    for case in above.lines:
        if case.get_linewidth() < 1:
            assert np.sum(case.get_ydata()) == pytest.approx(1.0)
    assert above.get_ylabel() == "energy share"
    assert below.get_ylabel() == "cumulative energy"
    assert below.get_xlabel() == "rank j of the singular value"
    assert above.get_xscale() == below.get_xscale() == "log"


def test_aligned_shares_leave_out_what_is_absent_or_flat():
    spectra = [np.array([2.0, 1.0, 1.0]), np.empty(0), np.zeros(2), np.array([3.0])]
    shares = aligned_shares(spectra, energy="linear", eps_rule="denominator")
    assert np.allclose(shares, [[0.5, 0.25, 0.25], [1.0, 0.0, 0.0]])
    assert aligned_shares([], energy="linear", eps_rule="denominator").shape == (0, 0)


def test_as_released_a_flat_map_has_equal_shares():
    above, below = draw(EnergyCurves({"liver": [np.zeros(4)]}, "linear", "added")).findobj(mpl.axes.Axes)
    assert np.allclose(curve(above, "the case\nS = 1.00")[1], 0.25)
    assert np.allclose(curve(below, "the case\nS = 1.00")[1], [0.25, 0.5, 0.75, 1.0])


def test_the_band_holds_the_middle_80_percent_of_many_cases():
    spectra = [np.array([first, 1.0 - first]) for first in np.linspace(0.5, 1.0, 101)]
    above, _ = draw(EnergyCurves({"liver": spectra}, "linear")).findobj(mpl.axes.Axes)
    assert len(above.lines) == 1  # many cases: no line each
    (band,) = above.collections
    at_first = band.get_paths()[0].vertices
    at_first = at_first[at_first[:, 0] == 1.0, 1]
    assert at_first.min() == pytest.approx(0.55)
    assert at_first.max() == pytest.approx(0.95)
    assert above.get_ylim()[1] > 0.95


def test_the_explained_case_stands_out_with_its_scale():
    curves = some_curves()
    figure = draw(curves)
    above, _, below, _ = figure.findobj(mpl.axes.Axes)  # row by row
    own = curves.highlighted["liver"]
    ranks, shares = curve(above, "case_07")
    assert np.allclose(shares, energy_shares(own, energy="squared"))
    assert len(ranks) == len(own)
    assert curve(below, "case_07")[1][-1] == pytest.approx(1.0)
    assert f"case_07\nS = {semantic_perception_scale(own):.2f}" in texts(figure)
    median = np.median([semantic_perception_scale(spectrum) for spectrum in curves.spectra["liver"]])
    assert f"median of cases\nmedian S = {median:.2f}" in texts(figure)
    assert "tumour\n5 cases, 1 without map" in texts(figure)


def test_one_case_one_singular_value_flat_and_absent_maps():
    spectra = {
        "one case": [np.array([3.0, 1.0])],
        "one value": [np.array([3.0])],
        "absent": [np.empty(0), np.empty(0)],
        "flat": [np.zeros(5)],
        "no cases": [],
    }
    figure = draw(EnergyCurves(spectra, "squared", highlighted={"flat": np.zeros(5), "absent": np.empty(0)}))
    written = texts(figure)
    assert "one case\n1 case " in written
    assert "the case\nS = 0.47" in written
    assert "the case\nS not defined" in written
    assert "absent\n0 cases, 2 without map" in written
    assert "flat\n0 cases, 1 without map" in written
    assert written.count("no case has a map") == 3
    for panel in figure.findobj(mpl.axes.Axes)[1:6:4]:  # both of the second class, four panels a row
        assert curve(panel, "the case")[1] == pytest.approx([1.0])
    draw(EnergyCurves({"absent": [np.empty(0)]}, "linear"))


def test_of_104_classes_the_first_that_have_cases_are_drawn_and_the_others_named():
    spectra = {f"class_{i:03d}": some_spectra(3, seed=i) if i >= 2 else [np.empty(0)] for i in range(104)}
    figure = draw(EnergyCurves(spectra, "linear"))
    panels = figure.findobj(mpl.axes.Axes)
    assert len(panels) == 2 * 8
    assert [panel.get_title(loc="left") for panel in panels[:2]] == ["class_002\n3 cases", "class_003\n3 cases"]
    note = texts(figure)
    assert "8 of 104 classes are drawn. Not drawn: class_010, class_011," in note
    assert " more." in note
    assert figure.get_size_inches()[0] < 12
    assert len(draw(EnergyCurves(dict(list(spectra.items())[2:7]), "linear")).findobj(mpl.axes.Axes)) == 2 * 5


def points(axes, marker):
    return np.concatenate([np.asarray(line.get_xdata()) for line in axes.lines if line.get_marker() == marker])


def test_a_distribution_by_hand():
    auv = np.array([0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 1.0, math.nan])
    figure = draw(None, AuvDistributions({"all": auv}, {"all": 0.6}, {"all": 0.25}, "case_07"))
    (axes,) = figure.findobj(mpl.axes.Axes)
    assert points(axes, "o").tolist() == [0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6]  # at the threshold a case is kept
    assert points(axes, "x").tolist() == [0.7, 1.0]
    assert points(axes, "D").tolist() == [0.25]
    stretches = [tuple(np.round(line.get_xdata(), 9)) for line in axes.lines if line.get_marker() == "None"]
    assert stretches == [(0.2, 0.6), (0.4, 0.4), (0.6, 0.6)]  # quartiles, median, threshold
    assert axes.get_xlabel() == "AUV (0 certain, 1 uncertain)"
    written = texts(figure)
    assert "all\n9 cases, 1 without AUV" in written
    assert "median 0.40\n2 above 0.60" in written
    assert "case_07: 0.25" in written


def test_equal_single_missing_and_outlying_auv():
    given = {
        "equal": np.full(40, 0.5),
        "one": np.array([0.25]),
        "nan": np.full(3, math.nan),
        "none": np.empty(0),
        "new cases": np.array([-0.5, 0.5, 1.5]),
    }
    figure = draw(None, AuvDistributions(given, dict.fromkeys(given, 0.5)))
    (axes,) = figure.findobj(mpl.axes.Axes)
    assert texts(figure).count("no case has an AUV") == 2
    assert "nan\n0 cases, 3 without AUV" in texts(figure)
    assert axes.get_xlim()[0] < -0.5
    assert axes.get_xlim()[1] > 1.5
    heights = np.asarray(axes.lines[0].get_ydata())
    assert len(set(np.round(heights, 6))) == 40  # equal cases stand beside each other, within their row
    assert np.abs(heights).max() < 0.5


def test_of_many_scorings_sixteen_are_drawn_and_the_others_named():
    figure = draw(None, AuvDistributions({f"scoring {i}": np.linspace(0, 1, 9) for i in range(18)}))
    assert "16 of 18 scorings are drawn. Not drawn: scoring 16, scoring 17." in texts(figure)


def test_nothing_to_draw_and_infinite_values_are_refused():
    for curves, distributions in ((None, None), (EnergyCurves({}, "linear"), AuvDistributions({}))):
        with pytest.raises(ValueError, match="got none"):
            score_figure(curves, distributions)
    with pytest.raises(ValueError, match="infinite one in all"):
        score_figure(None, AuvDistributions({"all": np.array([0.0, math.inf])}))
    with pytest.raises(ValueError, match="singular values >= 0"):
        score_figure(EnergyCurves({"liver": [np.array([1.0, math.nan])]}, "squared"))


def test_any_name_can_be_written(tmp_path):
    names = ["$\\frac{$", "腎臓 😀", "two\nlines", "x" * 200, "a_" * 60, "", "%s {} <&>"]
    curves = EnergyCurves({name: some_spectra(3) for name in names}, "squared", highlighted_case="腎$_$" * 20)
    distributions = AuvDistributions({name: np.array([0.0, 1.0]) for name in names}, {}, {"": 0.5}, "腎$_$" * 20)
    for ending in ENDINGS:
        plot_scores(tmp_path / f"a{ending}", curves, distributions, title="$ 腎 " * 50, force=False)
    assert "$\\frac{$" in texts(draw(curves, distributions))
