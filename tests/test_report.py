"""What stands on a report's page, against the tables by hand."""

import math

import numpy as np
import pytest
from features import CLASSES, case_features, random_maps, write_features
from phantoms import truncate, write_raw_dataset
from report_inputs import METHOD, score_row, score_rows, write_keep, write_metrics, write_run, write_scores

from auvtool.errors import InputError, UsageError
from auvtool.report.content import Inputs, meaning, report
from auvtool.report.filter_tables import filter_tables
from auvtool.report.scored_cases import scored_cases
from auvtool.report.training_curves import read_trainings
from auvtool.scale import energy_shares


@pytest.fixture
def scores(tmp_path):
    return write_scores(tmp_path / "S.csv")


def page_of(scores, *, top=2, case_id=None, **others):
    return report(Inputs(scores, **others), top=top, case_id=case_id).page


def test_cases_stand_by_auv_and_equal_ones_share_a_place(tmp_path):
    rows = [score_row(case, auv) for case, auv in (("a", 0.5), ("b", None), ("c", 1.0), ("d", 0.5), ("e", 0.0))]
    cases = page_of(write_scores(tmp_path / "S.csv", rows)).cases
    assert [case.case_id for case in cases] == ["c", "a", "d", "e", "b"]
    assert [case.rank for case in cases] == [1, 2, 2, 4, None]
    assert cases[0].value == 3.0
    assert cases[0].third is None  # no volume is known


def test_thirds_are_those_of_the_filter(scores):
    page = page_of(scores)
    thirds = {case.case_id: case.third for case in page.cases}
    # Volumes 1 to 10: cuts at the 4th and the 7th.
    assert [thirds[f"case_{k:02d}"] for k in range(10)] == [0, 0, 0, 0, 1, 1, 1, 2, 2, 2]
    of_cases, of_classes = page.filters
    assert of_cases.columns[:4] == ("quantile", "keeps AUV up to", "kept", "dropped")
    assert of_cases.rows[2] == ("0.90", "0.889", "9", "1", "0 of 4", "0 of 3", "1 of 3")
    assert of_cases.rows[4] == ("0.70", "0.667", "7", "3", "0 of 4", "0 of 3", "3 of 3")
    assert of_classes.columns == ("class", "at 0.99", "at 0.95", "at 0.90", "at 0.80", "at 0.70")
    # Of class small the nine cases with it, of 2 to 10 ml, fall into threes.
    assert of_classes.rows == (
        ("large", "0 (0 / 0 / 0)", "0 (0 / 0 / 0)", "1 (0 / 0 / 1)", "2 (0 / 0 / 2)", "3 (0 / 0 / 3)"),
        ("small", "0 (0 / 0 / 0)", "0 (0 / 0 / 0)", "1 (0 / 0 / 1)", "2 (0 / 0 / 2)", "3 (0 / 0 / 3)"),
    )


def test_a_filter_of_scores_without_sizes_or_auv_says_what_it_can():
    rows = [score_row("a", None, status="absent"), score_row("b", None, status="absent")]
    (of_cases,) = filter_tables(rows, None)
    assert of_cases.rows[0] == ("0.99", "-", "2", "0", "-", "-", "-")


def test_classes_by_hand(scores):
    table = page_of(scores).classes
    assert table.columns[:4] == ("class", "most uncertain case", "cases", "without it")
    large, small = table.rows
    assert large == ("large", "case_09", "10", "0", "2.000", "0.250", "0.500", "0.750", "5.50")
    # AUV 0, 1/9, ..., 8/9; the whole case of AUV 1/9 has the most uncertain one.
    assert small == ("small", "case_01", "9", "1", "1.889", "0.222", "0.444", "0.667", "6.00")


def test_distributions_and_sizes(scores):
    page = page_of(scores)
    whole, large, small = page.distributions
    assert (whole.name, large.name, small.name) == ("whole cases", "large", "small")
    assert sorted(whole.auv) == pytest.approx(np.arange(10) / 9)
    assert (len(small.auv), small.n_without, small.highlighted) == (9, 0, None)
    volume, slices = page.sizes
    assert volume.correlation.startswith("Spearman +1.00, given slices +1.00")
    assert set(volume.sizes) == set(np.arange(1.0, 11.0))
    assert slices.quantity == "slices"
    assert set(slices.sizes) == {1.0, 2.0, 3.0, 4.0}


def test_facts_say_what_was_scored_and_how(scores, tmp_path):
    page = page_of(scores, keep=write_keep(tmp_path / "K.csv"))
    facts = dict(page.facts)
    assert facts["cases"] == "10"
    assert facts["classes"] == "2: large, small"
    assert facts["classes in cases"] == "1 absent, 19 ok"
    assert facts["quantifier"] == "deviation"
    assert facts["method"] == METHOD
    assert facts["keep list"] == "9 of 10 cases kept"
    assert "scored with" not in facts  # no manifest beside them
    assert [case.kept for case in page.cases] == [False] + [True] * 9
    assert len(page.notes) == 2  # neither --dataset nor --features was given
    assert "--dataset" in page.notes[0]
    assert "--features" in page.notes[1]


def test_what_a_score_means_is_said_of_each_quantifier():
    assert "A high value is uncertain" in meaning("deviation", "linear")[0]
    assert "A high value is certain" in meaning("auv", "log")[0]
    assert "probability" in meaning("calibrated", "linear")[0]
    assert "does not know" in meaning("something", "log")[0]


def test_metrics_of_the_scored_cases_and_of_others(scores, tmp_path):
    dice = {f"case_{k:02d}": (1 - k / 10, None if k == 0 else 0.5) for k in range(10)}
    means, worst = page_of(scores, metrics=write_metrics(tmp_path / "M.csv", dice)).metrics
    assert means.rows == (
        ("large", "0.550", "0.438", "10", "0", "0", "0"),
        ("small", "0.500", "0.333", "9", "1", "0", "0"),
    )
    assert "Spearman of AUV with mean Dice over the 10 cases that are scored too: -1.00" in means.note
    assert worst.rows[0] == ("case_09", "0.300", "1.000")
    others = page_of(scores, metrics=write_metrics(tmp_path / "M2.csv", {"test_1": (0.5, 0.5)})).metrics
    assert "None of these cases is scored" in others[0].note
    assert others[1].rows == (("test_1", "0.500", "-"),)


def test_training_curves_are_those_of_the_log(scores, tmp_path):
    (curves,) = page_of(scores, training=write_run(tmp_path / "RUN")).trainings
    assert (curves.name, curves.epochs) == ("fold_0", (0, 1))
    assert (curves.training_loss, curves.validation_loss) == ((1.0, 0.5), (0.5, 0.25))
    (_, large), (_, small) = curves.pseudo_dice
    assert large == (0.25, 0.75)
    assert math.isnan(small[0])
    assert read_trainings(tmp_path / "RUN" / "fold_0")[0].epochs == (0, 1)


@pytest.mark.parametrize("text", ["no json\n", "[1]\n", '{"epoch": 0}\n', ""])
def test_a_log_that_is_none_is_refused(text, tmp_path):
    log = write_run(tmp_path / "RUN") / "fold_0" / "training_log.jsonl"
    log.write_text(text)
    with pytest.raises(InputError, match=r"fold_0/training_log\.jsonl: expected"):
        read_trainings(tmp_path / "RUN")
    with pytest.raises(InputError, match="expected a folder that train wrote"):
        read_trainings(tmp_path)


def test_the_page_of_one_case(scores, tmp_path):
    features = write_features(
        tmp_path / "F.h5", [case_features(f"case_{k:02d}", random_maps(k), dice=(0.5, 0.9)) for k in range(10)]
    )
    page = page_of(scores, case_id="case_09", features=features, keep=write_keep(tmp_path / "K.csv"))
    assert page.title == "case_09 of Dataset999_Test"
    assert [case.case_id for case in page.cases] == ["case_09"]
    assert page.n_cases == 10
    large, small, whole = page.classes.rows
    assert large == ("large", "ok", "3.000", "2.000", "1.000", "1 of 10", "10.00", "2")
    assert small[:6] == ("small", "ok", "1.000", "1.889", "0.000", "9 of 9")
    assert whole == ("whole case", "ok", "3.000", "2.000", "1.000", "1 of 10", "10.00", "2")
    assert [d.highlighted for d in page.distributions] == [1.0, 1.0, 0.0]
    assert page.filters[0].columns[-1] == "case_09"
    assert [row[-1] for row in page.filters[0].rows] == ["kept", "kept", "dropped", "dropped", "dropped"]
    assert page.evidence is not None
    z = [abs(float(row[-1])) for row in page.evidence.rows]
    assert z == sorted(z, reverse=True)
    assert min(z) >= 2.0
    few = write_features(tmp_path / "few.h5", [case_features("case_00", random_maps(0))])
    assert page_of(scores, case_id="case_09", features=few).evidence is None
    assert "the features do not hold it" in page_of(scores, case_id="case_09", features=few).notes[-1]
    with pytest.raises(UsageError, match=r"--case: expected a case of .*S.csv, got nobody"):
        page_of(scores, case_id="nobody")


def test_energy_curves_are_quantiles_of_the_shares(scores, tmp_path):
    cases = [case_features(f"case_{k:02d}", random_maps(k)) for k in range(4)]
    cases.append(case_features("case_04", [random_maps(4)[0], None]))
    page = page_of(scores, case_id="case_00", features=write_features(tmp_path / "F.h5", cases))
    first, second = page.energies
    assert (first.class_name, first.n_maps, second.n_maps) == (CLASSES[0][1], 5, 4)
    shares = [energy_shares(case.spectra["volume", "logits", "d_hw", "uncentered"][0]) for case in cases]
    assert first.shares.median == pytest.approx(np.median(shares, axis=0))
    assert first.sums.high == pytest.approx(np.quantile(np.cumsum(shares, axis=1), 0.9, axis=0))
    assert first.highlighted == pytest.approx(shares[0])
    assert page.energies_note == "energy s squared, logits, unfolding d_hw, not centred, volume"


def test_slices_of_both_ends_and_a_case_that_cannot_be_read(scores, tmp_path):
    dataset = write_raw_dataset(tmp_path / "Dataset001_All", n_cases=10)
    truncate(dataset / "imagesTr" / "case_09_0000.nii.gz")
    (dataset / "labelsTr" / "case_08.nii.gz").unlink()
    told = []
    made = report(Inputs(scores, dataset=dataset), top=2, on_case=told.append)
    assert told == ["case_09", "case_08", "case_00", "case_01"]
    assert [(one.case.case_id, one.end) for one in made.page.figures] == [
        ("case_09", "uncertain"),
        ("case_08", "uncertain"),
        ("case_00", "certain"),
        ("case_01", "certain"),
    ]
    broken, unlabelled, *_ = made.page.figures
    assert broken.pictures == ()
    assert broken.note.startswith("No slices: ")
    assert [case_id for case_id, _ in made.failures] == ["case_09"]
    assert [picture.title for picture in unlabelled.pictures] == ["slice 5 of 8"]
    assert report(Inputs(scores, dataset=dataset), top=0).page.figures == ()
    every = report(Inputs(scores, dataset=dataset), top=50).page.figures
    assert len({one.case.case_id for one in every}) == len(every) == 10  # each case once


def test_tables_of_other_cases_are_refused(scores, tmp_path):
    features = write_features(tmp_path / "F.h5", [case_features("other", random_maps(0))])
    with pytest.raises(InputError, match=r"F\.h5: expected features of the scored cases, got none of them"):
        page_of(scores, features=features)
    dataset = write_raw_dataset(tmp_path / "Dataset002_Others", n_cases=1, prefix="other_")
    with pytest.raises(InputError, match="Dataset002_Others: expected images of the scored cases, got none of them"):
        page_of(scores, dataset=dataset)
    two = write_scores(tmp_path / "T.csv", [*score_rows(3), score_row("z", 0.5) | {"method": "another"}])
    with pytest.raises(InputError, match="expected scores of one run"):
        page_of(two)
    twice = write_scores(tmp_path / "U.csv", [*score_rows(3), score_row("case_00", 0.5)])
    with pytest.raises(InputError, match="expected one row for all, got two"):
        page_of(twice)


def test_scores_of_one_case_and_without_an_auv(tmp_path):
    page = page_of(write_scores(tmp_path / "S.csv", [score_row("only", None, status="absent")]))
    assert (page.distributions, page.sizes, page.classes) == ((), (), None)
    assert scored_cases([score_row("only", None)], None)[0].rank is None
    assert dict(page.facts)["cases"] == "1, 1 without an AUV"
