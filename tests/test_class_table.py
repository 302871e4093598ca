"""Numbers by class from files: mean scales of a table of scores, and weights as given."""

import hashlib
import json

import pytest

from auvtool.dataset_json import SemanticClass
from auvtool.errors import InputError
from auvtool.schema import SCORES
from auvtool.tables import write_table
from auvtool.training.class_table import ClassTable, given_weights, mean_scales

CLASSES = (SemanticClass(1, "organ", (1,)), SemanticClass(2, "lesion", (2,)))


def scores(path, scales, *, quantifier="auv", methods=("paper",)):
    """A SCORES table of (case, class_name, S), and a row of a whole case, whose value counts for no class."""
    rows = [
        {
            "case": case,
            "class_id": {"organ": 1, "lesion": 2}.get(name, 3),
            "class_name": name,
            "status": "ok" if value is not None else "absent",
            "quantifier": quantifier,
            "method": methods[place % len(methods)],
            "value": value,
            "axis": "log",
        }
        for place, (case, name, value) in enumerate(scales)
    ]
    whole = {**rows[0], "class_id": None, "class_name": "all", "value": 0.99}
    write_table([whole, *rows], SCORES, path)
    return path


SOME = [("a", "organ", 0.2), ("a", "lesion", 0.5), ("b", "organ", 0.4), ("b", "lesion", None)]


def test_the_mean_scale_of_each_class_over_the_cases_that_have_it(tmp_path):
    path = scores(tmp_path / "S.csv", SOME)
    table = mean_scales(path, CLASSES)
    assert table.in_order(["lesion", "organ"]) == pytest.approx([0.5, 0.3])
    assert table.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert ClassTable.from_dict({"sha256": table.sha256, "values": dict(table.values)}) == table


@pytest.mark.parametrize(
    ("scales", "options", "message"),
    [
        (SOME, {"quantifier": "volume"}, "quantifier volume"),
        ([*SOME, ("c", "organ", 1.25)], {}, r"case c, class organ: expected a scale in \[0, 1\], got 1.25"),
        (SOME, {"methods": ("paper", "official")}, "expected one scoring, got 2"),
        (SOME[::2], {}, "a scale of class lesion, got none"),
        ([("a", "organ", 0.2), ("a", "lesion", None)], {}, "a scale of class lesion, got none"),
    ],
)
def test_what_is_no_scale_is_refused(tmp_path, scales, options, message):
    with pytest.raises(InputError, match=message):
        mean_scales(scores(tmp_path / "S.csv", scales, **options), CLASSES)


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        ("w.json", '{"lesion": 3, "1": 0.5}', [0.5, 3.0]),
        ("w.json", '[{"class_name": "lesion", "weight": 2}]', [1.0, 2.0]),
        ("w.csv", "class_name,weight\norgan,0\n", [0.0, 1.0]),
        ("w.csv", "class_id,class_name,weight\n1,,2\n,lesion,4\n", [2.0, 4.0]),
        ("w.tsv", "class_id\tweight\n2\t1.5\n", [1.0, 1.5]),
    ],
)
def test_weights_by_name_or_id(tmp_path, name, text, expected):
    (tmp_path / name).write_text(text)
    assert given_weights(tmp_path / name, CLASSES).in_order(["organ", "lesion"]) == expected


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"liver": 1}', "class liver: expected a class of organ, lesion"),
        ('{"organ": 1, "1": 2}', "expected one weight, got two"),
        ('{"organ": -1}', "expected a weight >= 0, got -1"),
        ('{"organ": "much"}', "expected a number, got much"),
        ('{"organ": NaN}', "expected a weight >= 0, got nan"),
        ('{"organ": 0, "lesion": 0}', "expected a weight above 0"),
        ("class_name,weight\n,2\n", "class_name or class_id, got none"),
        ("class_name,weight\norgan,\n", "a value in column weight"),
        ("class_name\norgan\n", "without weight"),
        ("", "weight"),
    ],
)
def test_senseless_weights_are_refused(tmp_path, text, message):
    (tmp_path / "w").write_text(text)
    with pytest.raises(InputError, match=message):
        given_weights(tmp_path / "w", CLASSES)


def test_a_file_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(InputError, match="No such file"):
        given_weights(tmp_path / "w.json", CLASSES)


def test_a_table_survives_json():
    table = ClassTable("ab", {"organ": 0.1})
    record = json.loads(json.dumps({"sha256": "ab", "values": {"organ": 0.1}}))
    assert ClassTable.from_dict(record) == table
    assert ClassTable.from_dict(None) is None
