import json
import math
import multiprocessing
import multiprocessing.pool
import shutil
import warnings

import numpy as np
import oracles
import phantoms
import pytest

from auvtool.errors import InputError
from auvtool.evaluation import class_means, evaluate, metrics_rows
from auvtool.evaluation_pairs import find_pairs
from auvtool.metrics import Overlap
from auvtool.nnunet_summary import render_summary
from auvtool.schema import METRICS
from auvtool.surface_distances import SurfaceMeasures, surface_agreement
from auvtool.tables import read_table, write_table
from auvtool.workplace import Workplace


def disturbed(label, seed, *, values=(0, 1, 2)):
    """A prediction: the label shifted by a voxel, with a few voxels at random."""
    moved = np.roll(label, 1, axis=seed % 3)
    rng = np.random.default_rng(seed)
    chosen = rng.random(label.shape) < 0.02
    moved[chosen] = rng.choice(values, size=int(chosen.sum()))
    return moved.astype(np.uint8)


def make(folder, **options):
    """A data set of 5 cases and predictions of them; class 2 is absent in case 1, only predicted in 2, missed in 3."""
    dataset = phantoms.write_raw_dataset(folder / "Dataset001_Box", n_cases=5, prefix="c-", **options)
    predictions = folder / "P"
    for number in range(5):
        label = phantoms.box_label()
        if number in {1, 2}:
            label[label == 2] = 0
        prediction = disturbed(label, number, values=(0, 1))
        if number == 2:
            prediction[6, 6, 6:8] = 2
        if number == 3:
            prediction[prediction == 2] = 0
        if options.get("ignore"):
            label[-1] = 3
        name = f"c-{number:02d}.nii.gz"
        phantoms.write_volume(dataset / "labelsTr" / name, label)
        phantoms.write_volume(predictions / name, prediction)
    return dataset, predictions


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    return make(tmp_path_factory.mktemp("evaluation"))


def by_case(rows, class_name, column):
    return [row[column] for row in rows if row["class_name"] == class_name]


# --- by hand and against boolean masks ---


def test_empty_case_rule_and_means(pair):
    dataset, predictions = pair
    result = evaluate(find_pairs(predictions, dataset))
    rows = metrics_rows(result)
    assert by_case(rows, "small", "status") == ["ok", "absent", "false_alarm", "missed", "ok"]
    dice = by_case(rows, "small", "dice")
    assert dice[1:4] == [None, 0.0, 0.0]
    means = {row["class"]: row for row in class_means(result)}
    assert means["small"]["dice"] == pytest.approx((dice[0] + dice[4]) / 4)
    assert [means["small"][name] for name in ("n_defined", "n_absent", "n_false_alarm", "n_missed")] == [4, 1, 1, 1]
    assert means["all"]["dice"] == pytest.approx((means["large"]["dice"] + means["small"]["dice"]) / 2)
    assert by_case(rows, "all", "dice")[1] == by_case(rows, "large", "dice")[1]


@pytest.mark.parametrize("options", [{}, {"ignore": True}, {"regions": True}], ids=["labels", "ignore", "regions"])
def test_equals_boolean_masks(tmp_path, options):
    dataset, predictions = make(tmp_path, **options)
    comparison = find_pairs(predictions, dataset)
    for case in evaluate(comparison).cases:
        arrays = [
            phantoms.sitk.GetArrayFromImage(phantoms.sitk.ReadImage(str(path)))
            for path in (case.pair.reference, case.pair.prediction)
        ]
        for item, found in zip(comparison.classes, case.overlaps, strict=True):
            dice, iou, tp, fp, fn, tn = oracles.masks_dice(*arrays, item.labels, comparison.ignore_label)
            assert found == Overlap(tp=tp, fp=fp, fn=fn, tn=tn)
            assert (found.dice is None) == math.isnan(dice)
            assert found.dice is None or (found.dice, found.iou) == pytest.approx((dice, iou))


def test_perfect_prediction_has_dice_one_and_metrics_survive_writing(tmp_path):
    dataset = phantoms.write_raw_dataset(tmp_path / "Dataset001_Box", n_cases=2)
    rows = metrics_rows(evaluate(find_pairs(dataset / "labelsTr", dataset)))
    assert {row["dice"] for row in rows} == {1.0}
    assert by_case(rows, "large", "n_reference") == [phantoms.VOXELS[1]] * 2
    write_table(rows, METRICS, tmp_path / "M.csv")
    assert [row["tp"] for row in read_table(tmp_path / "M.csv", METRICS)] == [row.get("tp") for row in rows]


def test_workers_change_nothing(tmp_path):
    """Nor where a case is bad that is not the last one."""
    dataset, predictions = make(tmp_path)
    first = sorted(predictions.glob("*.nii.gz"))[0]
    first.write_bytes(first.read_bytes()[:100])
    comparison = find_pairs(predictions, dataset)
    here, seen = evaluate(comparison), []
    there = evaluate(comparison, workplace=Workplace(2), on_case=seen.append)
    assert metrics_rows(there) == metrics_rows(here)
    assert there.failures == here.failures
    assert [row["case"] for row in there.failures] == [comparison.pairs[0].case_id]
    assert seen == [one.case_id for one in comparison.pairs]


def test_surfaces_equal_whole_masks_and_leave_out_what_is_ignored(tmp_path):
    dataset, predictions = make(tmp_path, ignore=True)
    comparison = find_pairs(predictions, dataset)
    measures = SurfaceMeasures(hd95=True, nsd_tolerance_mm=0.5)
    result = evaluate(comparison, surfaces=measures)
    assert [case.overlaps for case in result.cases] == [case.overlaps for case in evaluate(comparison).cases]
    for case in result.cases:
        reference, prediction = (
            phantoms.sitk.GetArrayFromImage(phantoms.sitk.ReadImage(str(path)))
            for path in (case.pair.reference, case.pair.prediction)
        )
        prediction[reference == 3] = 0
        for item, found in zip(comparison.classes, case.surfaces, strict=True):
            masks = [np.isin(label, item.labels) for label in (reference, prediction)]
            assert found == surface_agreement(*masks, spacing_mm=(1, 1, 1), measures=measures)
    rows = metrics_rows(result)
    assert [value is None for value in by_case(rows, "small", "hd95_mm")] == [False, True, True, True, False]
    assert by_case(rows, "small", "nsd")[1:4] == [None, 0.0, 0.0]
    means = {row["class"]: row for row in class_means(result)}
    hd95 = by_case(rows, "small", "hd95_mm")
    assert means["small"]["hd95_mm"] == pytest.approx((hd95[0] + hd95[4]) / 2)
    assert means["all"]["nsd"] == pytest.approx((means["large"]["nsd"] + means["small"]["nsd"]) / 2)


def test_distances_are_in_mm_along_the_axis_of_the_voxel_size(tmp_path):
    spacing = (4.0, 2.0, 1.0)
    dataset = phantoms.write_raw_dataset(tmp_path / "Dataset001_Box", n_cases=3, spacing_mm=spacing)
    for axis, path in enumerate(sorted((dataset / "labelsTr").iterdir())):
        moved = np.roll(phantoms.box_label(), 1, axis=axis)
        phantoms.write_volume(tmp_path / "P" / path.name, moved, spacing_mm=spacing)
    result = evaluate(find_pairs(tmp_path / "P", dataset), surfaces=SurfaceMeasures(hd95=True))
    assert [case.surfaces[0].hd95_mm for case in result.cases] == list(spacing)


# --- finding what belongs together ---


def test_dataset_json_is_found_in_beside_or_with_the_predictions(pair, tmp_path):
    dataset, predictions = pair
    for labels in (dataset, dataset / "labelsTr"):
        assert find_pairs(predictions, labels).dataset_json == dataset / "dataset.json"
    alone = shutil.copytree(dataset / "labelsTr", tmp_path / "alone" / "L")
    with pytest.raises(InputError, match="-d"):
        find_pairs(predictions, alone)
    assert len(find_pairs(predictions, alone, dataset_json=dataset / "dataset.json").pairs) == 5
    own = shutil.copytree(predictions, tmp_path / "P")
    shutil.copy(dataset / "dataset.json", own)
    assert len(find_pairs(own, alone).pairs) == 5


def test_test_labels_are_taken_when_the_predictions_are_those_cases(pair, tmp_path):
    dataset = shutil.copytree(pair[0], tmp_path / "Dataset001_Box")
    shutil.copytree(dataset / "labelsTr", dataset / "labelsTs")
    for path in (dataset / "labelsTs").iterdir():
        path.rename(path.with_name("test" + path.name))
    predictions = shutil.copytree(dataset / "labelsTs", tmp_path / "P")
    pairs = find_pairs(predictions, dataset).pairs
    assert {item.reference.parent.name for item in pairs} == {"labelsTs"}
    assert find_pairs(pair[1], dataset).pairs[0].reference.parent.name == "labelsTr"


def test_data_set_by_reference(tmp_path):
    dataset = phantoms.write_raw_dataset(tmp_path / "Dataset001_Box", n_cases=2, as_map=True)
    pairs = find_pairs(dataset / "elsewhere" / "labels", dataset).pairs
    assert [item.case_id for item in pairs] == ["case_00", "case_01"]


def test_missing_and_extra_predictions_are_named(pair, tmp_path):
    predictions = shutil.copytree(pair[1], tmp_path / "P")
    (predictions / "c-03.nii.gz").rename(predictions / "x.nii.gz")
    (predictions / "._c-03.nii.gz").write_bytes(b"")
    comparison = find_pairs(predictions, pair[0])
    assert (comparison.missing, comparison.extra) == (("c-03",), ("x",))
    assert len(comparison.pairs) == 4
    for path in predictions.iterdir():
        path.unlink()
    with pytest.raises(InputError, match="0 predictions"):
        find_pairs(predictions, pair[0])
    with pytest.raises(InputError, match="readable folder"):
        find_pairs(tmp_path / "none", pair[0])


# --- faults of one case ---


def replace_prediction(pair, tmp_path, **changes):
    predictions = shutil.copytree(pair[1], tmp_path / "P")
    label = changes.pop("label", phantoms.box_label())
    phantoms.write_volume(predictions / "c-01.nii.gz", label, **changes)
    return find_pairs(predictions, pair[0])


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"label": phantoms.box_label((8, 10, 11))}, "shape"),
        ({"spacing_mm": (1.0, 1.0, 2.0)}, "spacing"),
        ({"direction": [-1, 0, 0, 0, 1, 0, 0, 0, 1]}, "orientation"),
        ({"label": phantoms.box_label() * np.float32(0.5)}, "whole numbers"),
    ],
    ids=["shape", "spacing", "orientation", "probabilities"],
)
def test_a_bad_case_is_a_failure_and_the_others_are_finished(pair, tmp_path, changes, words):
    comparison = replace_prediction(pair, tmp_path, **changes)
    result = evaluate(comparison)
    assert [row["case"] for row in result.failures] == ["c-01"]
    assert words in result.failures[0]["error"]
    assert len(result.cases) == 4
    with pytest.raises(InputError, match="c-01"):
        evaluate(comparison, keep_going=False)


def test_truncated_file_is_a_failure(pair, tmp_path):
    comparison = replace_prediction(pair, tmp_path)
    phantoms.truncate(comparison.pairs[1].prediction)
    assert [row["case"] for row in evaluate(comparison).failures] == ["c-01"]


def test_another_origin_is_a_warning(pair, tmp_path):
    result = evaluate(replace_prediction(pair, tmp_path, origin_mm=(5.0, 0.0, 0.0)))
    assert not result.failures
    assert [len(case.warnings) for case in result.cases] == [0, 1, 0, 0, 0]


def test_unknown_labels_are_counted_as_no_class_and_named(pair, tmp_path):
    label = phantoms.box_label()
    label[0, 0, :3] = 9
    case = evaluate(replace_prediction(pair, tmp_path, label=label)).cases[1]
    assert "3 voxels" in case.warnings[0]
    assert case.overlaps[0].fp == 0


# --- oracle: nnU-Net itself ---


@pytest.fixture
def nnunet(monkeypatch):
    """nnU-Net's own evaluation, its pool of processes replaced by a thread: each would import torch again."""
    from nnunetv2.evaluation import evaluate_predictions

    class Threads:
        @staticmethod
        def Pool(n_processes):  # noqa: N802  # multiprocessing's name
            return multiprocessing.pool.ThreadPool(n_processes)

    monkeypatch.setattr(multiprocessing, "get_context", lambda method=None: Threads)

    def write(dataset, predictions, output):
        plans = {"dataset_name": "x", "plans_name": "x", "label_manager": "LabelManager", "configurations": {}}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the mean of no case
            evaluate_predictions.compute_metrics_on_folder2(
                str(dataset / "labelsTr"),
                str(predictions),
                str(dataset / "dataset.json"),
                plans,
                str(output),
                num_processes=1,
                chill=True,
            )
        return output.read_text()

    return write


@pytest.mark.parametrize(
    "options",
    [{}, {"ignore": True}, {"regions": True}, {"regions": True, "ignore": True}],
    ids=["labels", "ignore label", "regions", "regions and ignore label"],
)
def test_summary_equals_nnunets_own(nnunet, tmp_path, options):
    dataset, predictions = make(tmp_path, **options)
    # File names sort otherwise than case ids, and the last digits of a mean depend on the order.
    for folder in (dataset / "labelsTr", predictions):
        (folder / "c-04.nii.gz").rename(folder / "c-00-b.nii.gz")
    ours = render_summary(evaluate(find_pairs(predictions, dataset)))
    theirs = nnunet(dataset, predictions, tmp_path / "summary.json")
    assert json.loads(ours)["mean"].keys() == json.loads(theirs)["mean"].keys()
    assert ours == theirs


def test_summary_of_a_class_that_no_case_has(nnunet, tmp_path):
    dataset, predictions = make(tmp_path)
    phantoms.edit_dataset_json(dataset, labels={"background": 0, "never": 3, "large": 1, "small": 2})
    ours = render_summary(evaluate(find_pairs(predictions, dataset)))
    assert math.isnan(json.loads(ours)["mean"]["3"]["Dice"])
    assert ours == nnunet(dataset, predictions, tmp_path / "summary.json")


def test_summary_of_nothing_is_refused(pair):
    result = evaluate(find_pairs(pair[1], pair[0]))
    result.cases.clear()
    with pytest.raises(ValueError, match="got none"):
        render_summary(result)
