import gzip
import zlib

import nibabel
import numpy as np
import phantoms
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from auvtool import evaluation, gzip_stream, label_stream
from auvtool.errors import InputError
from auvtool.evaluation import evaluate, metrics_rows
from auvtool.evaluation_pairs import find_pairs
from auvtool.label_stream import label_blocks, read_label_grid
from auvtool.volume_file import read_volume_file

INFLATERS = [gzip_stream.new_inflater, zlib.decompressobj]


def write(path, label, *, dtype=None, slope=1.0, byte_order="<", unit="mm", **geometry):
    """A NIfTI file of `label` (i, j, k), as nibabel writes it."""
    header = nibabel.Nifti1Header(endianness=byte_order)
    header.set_data_dtype(np.dtype(dtype or label.dtype))
    header.set_xyzt_units(unit)
    image = nibabel.Nifti1Image(label, geometry.get("affine", np.diag([2.0, 1.0, 3.0, 1.0])), header)
    image.header.set_slope_inter(slope, 0.0)
    path.parent.mkdir(parents=True, exist_ok=True)
    nibabel.save(image, path)
    return path


def read_in_blocks(paths):
    blocks = list(label_blocks(*(read_label_grid(path) for path in paths)))
    return [np.concatenate(side) for side in zip(*blocks, strict=True)]


@pytest.mark.parametrize("ending", [".nii.gz", ".nii"])
@pytest.mark.parametrize("dtype", [np.uint8, np.int8, np.uint16, np.int16, np.int32])
def test_voxels_come_in_the_order_of_the_file(tmp_path, ending, dtype, monkeypatch):
    label = np.arange(60).reshape(3, 4, 5).astype(dtype)
    paths = [write(tmp_path / f"{name}{ending}", label + number) for number, name in enumerate("ab")]
    monkeypatch.setattr(label_stream, "BLOCK_VOXELS", 7)
    for number, (values, path) in enumerate(zip(read_in_blocks(paths), paths, strict=True)):
        assert values.tolist() == (label + number).ravel(order="F").tolist()
        assert values.tolist() == read_volume_file(path).voxels[0].ravel(order="F").tolist()
        assert values.dtype == dtype


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("x.nii.gz", {"dtype": np.float32}),
        ("x.nii.gz", {"dtype": np.uint32}),
        ("x.nii.gz", {"dtype": np.int64}),
        ("x.nii.gz", {"slope": 2.0}),
        ("x.nii.gz", {"byte_order": ">", "dtype": np.int16}),
        ("x.nrrd", {}),
    ],
    ids=["float", "uint32", "int64", "scaled", "byte order", "format"],
)
def test_other_files_are_to_be_read_whole(tmp_path, name, options):
    if name.endswith(".nrrd"):
        phantoms.write_volume(tmp_path / name, np.zeros((3, 4, 5), np.uint8))
    else:
        write(tmp_path / name, np.zeros((3, 4, 5), np.uint8), **options)
    assert read_label_grid(tmp_path / name) is None
    assert read_volume_file(tmp_path / name).shape == ((3, 4, 5) if "gz" in name else (5, 4, 3))


def test_one_channel_in_four_dimensions_is_a_label_map_and_two_are_not(tmp_path):
    assert read_label_grid(write(tmp_path / "1.nii", np.zeros((3, 4, 5, 1), np.uint8))).shape == (3, 4, 5)
    assert read_label_grid(write(tmp_path / "2.nii", np.zeros((3, 4, 5, 2), np.uint8))) is None


def test_no_grid_where_there_is_no_header(tmp_path):
    (tmp_path / "x.nii.gz").write_bytes(b"no gzip")
    assert read_label_grid(tmp_path / "x.nii.gz") is None
    assert read_label_grid(tmp_path / "none.nii.gz") is None


# --- the same as reading both files whole ---


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    return phantoms.write_raw_dataset(tmp_path_factory.mktemp("stream") / "Dataset001_Box", n_cases=1, ignore=True)


def outcome(comparison, *, in_blocks):
    """Rows, warnings and failures of an evaluation; with `in_blocks` it may read nothing whole."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(evaluation, "_read_whole" if in_blocks else "_count_in_blocks", lambda *given: None)
        result = evaluate(comparison)
    return metrics_rows(result), [case.warnings for case in result.cases], result.failures


values = st.one_of(st.integers(0, 4), st.sampled_from([-1, -100, 9, 127]))


@settings(max_examples=80, deadline=None)
@given(st.data())
def test_equals_reading_whole(dataset, tmp_path_factory, data):
    folder = tmp_path_factory.mktemp("pair")
    shape = data.draw(st.tuples(*[st.integers(1, 6)] * 3))
    ending = data.draw(st.sampled_from([".nii.gz", ".nii"]))
    for name in ("L", "P"):
        dtype = data.draw(st.sampled_from([np.uint8, np.int8, np.uint16, np.int16, np.int32]))
        palette = data.draw(st.lists(values, min_size=1, max_size=4))
        label = np.random.default_rng(data.draw(st.integers(0, 99))).choice(palette, shape)
        if data.draw(st.booleans()):
            label = np.sort(label, axis=0)  # long runs
        write(folder / name / f"c{ending}", label.astype(dtype))
    phantoms.edit_dataset_json(dataset, file_ending=ending)
    comparison = find_pairs(folder / "P", folder / "L", dataset_json=dataset)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(label_stream, "BLOCK_VOXELS", data.draw(st.sampled_from([1, 2, 7, 64, 1 << 19])))
        patch.setattr(gzip_stream, "new_inflater", data.draw(st.sampled_from(INFLATERS)))
        found = outcome(comparison, in_blocks=True)
    assert found == outcome(comparison, in_blocks=False)
    assert found[0]


BOX = phantoms.box_label().astype(np.uint8)


def damage(path, how):
    content = path.read_bytes()
    body = gzip.decompress(content)
    spoiled = {
        "cut": content[: len(content) // 2],
        "no trailer": content[:-8],
        "checksum": content[:-8] + bytes(4) + content[-4:],
        "length": content[:-4] + bytes(4),
        "short": gzip.compress(body[:-5]),
        "empty": b"",
        "no gzip": body,
        "two members": gzip.compress(body[:400]) + gzip.compress(body[400:]),
        "more behind": gzip.compress(body + b"more") + b"and more",
    }
    path.write_bytes(spoiled[how])


WRONG = ["cut", "no trailer", "checksum", "length", "short", "empty", "no gzip"]


@pytest.mark.parametrize("folder", ["L", "P"])
@pytest.mark.parametrize("how", [*WRONG, "two members", "more behind"])
def test_damage_is_told_alike(dataset, tmp_path, how, folder):
    noise = np.random.default_rng(0).integers(0, 3, (16, 16, 16), dtype=np.uint8)
    for name in ("L", "P"):
        write(tmp_path / name / "c.nii.gz", noise)
    damage(tmp_path / folder / "c.nii.gz", how)
    phantoms.edit_dataset_json(dataset, file_ending=".nii.gz")
    comparison = find_pairs(tmp_path / "P", tmp_path / "L", dataset_json=dataset)
    result = evaluate(comparison)
    assert (metrics_rows(result), [case.warnings for case in result.cases], result.failures) == outcome(
        comparison, in_blocks=False
    )
    assert [str(row["error"]).split(":")[0] for row in result.failures] == (
        [str(tmp_path / folder / "c.nii.gz")] if how in WRONG else []
    )


@pytest.mark.parametrize(
    "changes",
    [
        {"affine": np.diag([2.0, 1.0, 4.0, 1.0])},
        {"affine": np.diag([-2.0, 1.0, 3.0, 1.0])},
        {"affine": np.diag([2.0, 1.0, 3.0, 1.0]) + np.eye(4, k=3) * 5},
        {"unit": "micron"},
        {"dtype": np.float32, "label": BOX + np.float32(0.5)},
        {"dtype": np.float32, "label": np.full(BOX.shape, np.nan, np.float32)},
        {"label": BOX[:-1]},
        {"label": np.stack([BOX, BOX], axis=-1)},
        {"dtype": np.int16, "label": BOX.astype(np.int16) * 300},
        {"slope": 3.0},
        {"byte_order": ">", "dtype": np.int16},
        {"label": BOX[:, :, 0]},
    ],
    ids=[
        *("spacing", "orientation", "origin", "unit", "half", "nan", "shape", "channels", "unknown labels", "scaled"),
        *("byte order", "2D"),
    ],
)
def test_what_differs_is_told_alike(dataset, tmp_path, changes):
    label = changes.pop("label", BOX)
    write(tmp_path / "L" / "c.nii.gz", BOX)
    write(tmp_path / "P" / "c.nii.gz", label, **changes)
    phantoms.edit_dataset_json(dataset, file_ending=".nii.gz")
    comparison = find_pairs(tmp_path / "P", tmp_path / "L", dataset_json=dataset)
    result = evaluate(comparison)
    assert (metrics_rows(result), [case.warnings for case in result.cases], result.failures) == outcome(
        comparison, in_blocks=False
    )
    assert result.failures or result.cases


def test_a_fault_of_the_second_file_stops_the_blocks(tmp_path):
    paths = [write(tmp_path / f"{name}.nii.gz", BOX) for name in "ab"]
    damage(paths[1], "checksum")
    with pytest.raises(InputError, match=r"b\.nii\.gz"):
        read_in_blocks(paths)
    damaged_file = tmp_path / "c.nii"
    write(damaged_file, BOX)
    grid = read_label_grid(damaged_file)
    damaged_file.write_bytes(damaged_file.read_bytes()[:-1])  # after its header was read
    with pytest.raises(InputError, match="fewer voxels"):
        list(label_blocks(grid, grid))


def test_files_that_agree_are_never_read_whole(dataset, tmp_path, monkeypatch):
    for name in ("L", "P"):
        write(tmp_path / name / "c.nii.gz", BOX)
    phantoms.edit_dataset_json(dataset, file_ending=".nii.gz")
    monkeypatch.setattr(evaluation, "read_volume_file", None)
    result = evaluate(find_pairs(tmp_path / "P", tmp_path / "L", dataset_json=dataset))
    assert [found.dice for found in result.cases[0].overlaps] == [1.0, 1.0]
