"""A run of `auvtool check`: which rules, what stops a case, workers, order and memory."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from check_phantoms import GEOMETRY, ODD, image_path, label_path, write_clean_dataset
from phantoms import truncate, write_volume
from planted_faults import check, on_image, on_label, put, same_image

from auvtool.checking import check_dataset
from auvtool.checks import RULES, chosen_codes
from auvtool.checks.files import survey
from auvtool.errors import InputError, UsageError
from auvtool.workplace import Workplace


@pytest.fixture
def folder(clean_dataset: Path, tmp_path: Path) -> Path:
    return shutil.copytree(clean_dataset, tmp_path / "Dataset001_Clean")


def test_every_case_that_an_error_stops_is_a_finding(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> str:
        raise MemoryError("no room")

    monkeypatch.setattr("auvtool.checks.one_case.label_key", fail)
    found = check(folder)
    assert [one.code for one in found] == ["F011"] * 8
    assert "MemoryError: no room" in found[0].what


def test_a_killed_worker_is_a_finding() -> None:
    from auvtool.cases import Case
    from auvtool.checking import _killed

    assert [one.code for one in _killed(Case("a", (), None)).findings] == ["F011"]


def test_workers_change_nothing(folder: Path) -> None:
    for plant in (same_image, on_label(put((5, 3, 4), 9))):
        plant(folder)
    truncate(label_path(folder, "case_06"))
    alone = check(folder)
    assert len(alone) == 3
    assert check(folder, workplace=Workplace(2)) == alone


def test_findings_come_before_the_last_case_is_read(folder: Path) -> None:
    label_path(folder, "case_00").unlink()
    on_label(put((5, 3, 4), 9))(folder)
    done: list[str] = []
    findings = check_dataset(survey(folder), codes=chosen_codes(), on_case=done.append)
    assert (next(findings).code, done) == ("F005", [])
    assert (next(findings).code, done[-1]) == ("L002", ODD)
    assert list(findings) == []
    assert len(done) == 8


@pytest.mark.parametrize(
    ("select", "ignore", "expected"),
    [
        ([], ["L"], {code for code in RULES if code[0] != "L"}),
        (["f005", "G00"], [], {"F005", *(code for code in RULES if code[0] == "G")}),
        (["empty-label", "D"], ["D001"], {"L003", "D002", "D003", "D004", "D005", "D006"}),
    ],
)
def test_rules_are_chosen_like_a_linters(select: list[str], ignore: list[str], expected: set[str]) -> None:
    assert chosen_codes(select, ignore) == expected


def test_a_rule_that_is_not_there_is_refused() -> None:
    with pytest.raises(UsageError, match=r"--select: expected codes like F005, .* got X1"):
        chosen_codes(["X1"])
    with pytest.raises(UsageError, match="all of them ignored"):
        chosen_codes(["L003"], ["L"])


def test_what_is_no_data_set_is_refused(tmp_path: Path) -> None:
    for folder in (tmp_path, tmp_path / "nothing"):
        with pytest.raises(InputError):
            survey(folder)


def test_only_what_is_chosen_is_measured(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    on_image(lambda image: image[:, 1:])(folder)
    for name in ("measure", "label_map"):
        monkeypatch.setattr(f"auvtool.checks.one_case.{name}", None)
    found = list(check_dataset(survey(folder), codes=chosen_codes(["F", "G"])))
    assert [one.code for one in found] == ["G001"]


def test_memory_is_that_of_the_files(tmp_path: Path) -> None:
    """What is made beside the voxels of image and label stays a small part of them."""
    import tracemalloc

    folder = write_clean_dataset(tmp_path / "Dataset004_Large", n_cases=1)
    shape = (120, 256, 256)
    image = np.random.default_rng(0).integers(-1000, 1000, shape).astype(np.int16)
    label = np.zeros(shape, np.uint8)
    label[40:80, 60:120, 60:120], label[40:80, 60:120, 140:200], label[20:100, 150:180, 100:140] = 2, 1, 3
    write_volume(image_path(folder, "case_00"), image, **GEOMETRY)
    write_volume(label_path(folder, "case_00"), label, **GEOMETRY)
    check(folder)  # what is imported and cached
    tracemalloc.start()
    assert {one.code for one in check(folder)} <= {"L009"}
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    # int16 image, uint8 label and its int16 copy are 5 bytes a voxel; gzip's buffers come and go.
    assert peak < 9 * image.size
