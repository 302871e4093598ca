from pathlib import Path

import pytest

from auvtool.dataset_json import SemanticClass
from auvtool.errors import InputError, UsageError
from auvtool.extractors.class_prompts import prompts_of_classes, read_class_prompts

CLASSES = (SemanticClass(1, "liver", (1,)), SemanticClass(2, "Right_Kidney", (2,)), SemanticClass(3, "thing", (3,)))
KNOWN = ("Liver", "Right Kidney", "Spleen")


def test_without_a_table_a_class_is_asked_for_by_its_name() -> None:
    assert prompts_of_classes(CLASSES, {}, None) == (
        ("liver", "liver"),
        ("Right_Kidney", "Right Kidney"),
        ("thing", "thing"),
    )


def test_names_that_a_model_knows_are_found_however_they_are_written() -> None:
    given = {"thing": "SPLEEN"}
    assert prompts_of_classes(CLASSES, given, KNOWN) == (
        ("liver", "Liver"),
        ("Right_Kidney", "Right Kidney"),
        ("thing", "Spleen"),
    )


def test_other_names_of_what_a_model_knows_are_found_too() -> None:
    aliases = (("milt", "Spleen"), ("liver", "Spleen"))
    given = {"thing": "Milt"}
    prompts = dict(prompts_of_classes(CLASSES, given, KNOWN, aliases))
    assert prompts == {"liver": "Liver", "Right_Kidney": "Right Kidney", "thing": "Spleen"}  # its own name comes first


def test_an_empty_prompt_leaves_a_class_out() -> None:
    assert dict(prompts_of_classes(CLASSES, {"thing": ""}, KNOWN)) == {"liver": "Liver", "Right_Kidney": "Right Kidney"}
    with pytest.raises(UsageError, match="at least one class"):
        prompts_of_classes(CLASSES, dict.fromkeys(("liver", "Right_Kidney", "thing"), ""), None)


def test_what_a_model_does_not_know_is_named() -> None:
    with pytest.raises(UsageError, match="none for thing"):
        prompts_of_classes(CLASSES, {}, KNOWN)
    with pytest.raises(UsageError, match="got bone"):
        prompts_of_classes(CLASSES, {"bone": "x"}, None)


def test_a_table_is_read(tmp_path: Path) -> None:
    table = tmp_path / "prompts.csv"
    table.write_text("class_name,prompt\nliver,the liver\nthing,\n")
    assert read_class_prompts(table) == {"liver": "the liver", "thing": ""}
    table.write_text("class_name,prompt\nliver,a\nliver,b\n")
    with pytest.raises(InputError, match="liver twice"):
        read_class_prompts(table)
