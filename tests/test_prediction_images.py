"""Which images `predict` is given: folders, data sets, files by name, lists."""

import io
from types import SimpleNamespace

import pytest
from training_phantoms import write_balls

from auvtool.errors import InputError, UsageError
from auvtool.prediction_images import find_images
from auvtool.tables import STANDARD_STREAM


def find(*images, n_channels=1, file_ending=".nii.gz", **options):
    """Case ids with the names of their files, and the errors of the others by id."""
    cases, problems = find_images(images, file_ending=file_ending, n_channels=n_channels, **options)
    return (
        {case.case_id: [path.name for path in case.images] for case in cases},
        {problem.case_id: problem.error for problem in problems},
    )


@pytest.fixture
def folder(tmp_path):
    """Case a with two channels, b.c with one, and what is no image."""
    folder = tmp_path / "images"
    folder.mkdir()
    for name in ("a_0000.nii.gz", "a_0001.nii.gz", "b.c_0000.nii.gz", "notes.txt", "._a_0000.nii.gz", "plain.nii.gz"):
        (folder / name).touch()
    return folder


@pytest.fixture
def stdin(monkeypatch):
    def put(content: bytes):
        monkeypatch.setattr("sys.stdin", SimpleNamespace(buffer=io.BytesIO(content)))

    return put


def test_images_of_a_folder_are_grouped_by_case_and_incomplete_ones_said(folder):
    cases, problems = find(folder, n_channels=2)
    assert cases == {"a": ["a_0000.nii.gz", "a_0001.nii.gz"]}
    assert list(problems) == ["b.c"]
    assert "channels 0000 to 0001, got 0000" in problems["b.c"]
    cases, problems = find(folder)  # plain.nii.gz may be a label: a folder's names must name the channel
    assert (list(cases), list(problems)) == (["b.c"], ["a"])


def test_cases_that_are_asked_for_must_be_there(folder):
    assert list(find(folder, n_channels=2, case_ids=["a"])[0]) == ["a"]
    with pytest.raises(UsageError, match=r"images, got nobody"):
        find(folder, n_channels=2, case_ids=["a", "nobody"])
    with pytest.raises(UsageError, match=r"cases of IMAGES, got nobody"):
        find(folder, folder / "plain.nii.gz", case_ids=["nobody"])


def test_a_folder_without_images_is_refused(folder, tmp_path):
    with pytest.raises(InputError, match=r"CASE_0000\.mha"):
        find(folder, file_ending=".mha")
    with pytest.raises(InputError, match="a folder of images"):
        find(tmp_path / "none")
    with pytest.raises(InputError, match="a folder of images"):
        find(tmp_path / ("long" * 100))


def test_files_are_grouped_by_case_wherever_they_lie(folder, tmp_path):
    second = (folder / "a_0001.nii.gz").rename(tmp_path / "a_0001.nii.gz")
    cases, problems = find(second, folder / "a_0000.nii.gz", n_channels=2)
    assert (cases, problems) == ({"a": ["a_0000.nii.gz", "a_0001.nii.gz"]}, {})


def test_one_channel_needs_no_number_in_the_name_of_a_file(folder):
    cases, problems = find(folder / "plain.nii.gz", folder / "b.c_0000.nii.gz")
    assert (cases, problems) == ({"b.c": ["b.c_0000.nii.gz"], "plain": ["plain.nii.gz"]}, {})
    _, problems = find(folder / "plain.nii.gz", n_channels=2)
    assert "an image named CASE_0000.nii.gz" in problems["plain.nii.gz"]
    _, problems = find(folder / "a_0001.nii.gz")  # a second channel, or an id that ends so: not for us to guess
    assert "expected channel 0000, got 0001; add or remove files, or rename it a_0001_0000.nii.gz" in problems["a"]


def test_folders_files_and_data_sets_go_together(folder, tmp_path):
    (folder / "a_0001.nii.gz").unlink()
    dataset = write_balls(tmp_path / "Dataset900_Balls", n_cases=2)
    cases, problems = find(dataset, folder, folder / "plain.nii.gz", dataset / "imagesTr" / "case_00_0000.nii.gz")
    assert (list(cases), problems) == (["a", "b.c", "case_00", "case_01", "plain"], {})


def test_two_files_of_one_channel_are_one_error(folder, tmp_path):
    other = tmp_path / "b.c_0000.nii.gz"
    other.touch()
    with pytest.raises(InputError, match=r"one image for channel 0000 of b\.c, got also .*images/b\.c_0000"):
        find(folder, other)
    assert find(folder, n_channels=2)[0] == find(folder, folder / "a_0000.nii.gz", n_channels=2)[0]
    (folder / "b.c.nii.gz").touch()
    with pytest.raises(InputError, match="one image"):
        find(folder / "b.c.nii.gz", folder / "b.c_0000.nii.gz")


def test_a_file_that_is_not_there_is_the_problem_of_its_case(folder):
    cases, problems = find(folder / "b.c_0000.nii.gz", folder / "lost_0000.nii.gz", folder / "notes.txt" / "x.nii.gz")
    assert list(cases) == ["b.c"]
    assert "lost_0000.nii.gz: expected an image, got 'No such file or directory'" in problems["lost"]
    assert "Not a directory" in problems["x"]
    (folder / "a_0001.nii.gz").unlink()
    _, problems = find(folder / "a_0000.nii.gz", folder / "a_0001.nii.gz", n_channels=2)
    assert list(problems) == ["a"]
    assert "a_0001.nii.gz" in problems["a"]


@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_lists_come_from_a_file_or_standard_input(folder, tmp_path, stdin, end):
    (folder / " d .nii.gz").touch()
    lines = [folder / "b.c_0000.nii.gz", "", folder / " d .nii.gz", folder / "lost.nii.gz", folder / "notes.txt"]
    text = end.join([*map(str, lines), str(folder / "._a_0000.nii.gz"), "gone"]).encode()
    (tmp_path / "list.txt").write_bytes(text)
    expected = find(tmp_path / "list.txt")
    assert expected[0] == {" d ": [" d .nii.gz"], "b.c": ["b.c_0000.nii.gz"]}
    assert list(expected[1]) == ["gone", "lost", "notes.txt"]
    stdin(text)
    assert find(STANDARD_STREAM) == expected


@pytest.mark.parametrize(
    ("content", "found"),
    [(b"", "none"), (b"\n \n", "none"), (b"a.nii.gz\0b.nii.gz\0", "NUL"), ("ä".encode("utf-16"), "not UTF-8")],
)
def test_a_list_that_is_none_is_refused(tmp_path, content, found):
    (tmp_path / "list.txt").write_bytes(content)
    with pytest.raises(InputError, match=rf"list\.txt: expected paths of images, one a line, got .*{found}"):
        find(tmp_path / "list.txt")


def test_a_list_that_is_not_there_and_standard_input_twice(tmp_path):
    with pytest.raises(InputError, match="No such file"):
        find(tmp_path / "list.txt")
    with pytest.raises(UsageError, match="'-' once"):
        find(STANDARD_STREAM, STANDARD_STREAM)
