"""Files from a stranger: a value or an error of one line, whatever their bytes are; no other file is opened for them.

`reader_targets` has the readers. Longer runs, by hand: tests/fuzz/fuzz_readers.py.
"""

import gzip
import io
import json
import os
import struct
import tempfile
import zipfile
from pathlib import Path

import h5py
import nibabel
import numpy as np
import pytest
from features import case_features, random_maps, write_features
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from phantoms import edit_dataset_json, write_raw_dataset
from reader_targets import TARGETS, VOXELS, strike

from auvtool.errors import InputError
from auvtool.feature_store import FeatureFile
from auvtool.feature_writer import assemble
from auvtool.json_text import parse_json
from auvtool.visible_text import visible

EXTREMES = [bytes(size) for size in (1, 2, 4, 8)] + [b"\xff" * size for size in (1, 2, 4, 8)]
EXTREMES += [struct.pack(kind, value) for kind in ("<i", ">i", "<q", ">q") for value in (-(2**31), -1, 2**31 - 1)]
EXTREMES += [struct.pack(kind, value) for kind in ("<f", ">f", "<d", ">d") for value in (np.nan, np.inf, -1e30, 1e30)]
EXTREMES += [b"-1", b"1e999", b"99999999999999999999", b"60000 60000 60000", b"null", b"[" * 2000, b'"\\ud800"', b"../"]


@st.composite
def damaged(draw, seeds):
    """One of the files with bytes changed, cut off, put in or repeated, mostly near its beginning."""
    content = bytearray(draw(st.sampled_from(seeds)))
    for _ in range(draw(st.integers(1, 4))):
        near = draw(st.booleans())
        place = draw(st.integers(0, min(len(content), 400) if near else len(content)))
        how = draw(st.sampled_from(("set", "set", "set", "put in", "cut", "take out", "repeat")))
        length = draw(st.integers(1, 16))
        value = draw(st.sampled_from(EXTREMES) | st.binary(min_size=1, max_size=8))
        if how == "set":
            content[place : place + len(value)] = value
        elif how == "put in":
            content[place:place] = value
        elif how == "cut":
            del content[place:]
        elif how == "take out":
            del content[place : place + length]
        else:
            content[place:place] = content[place : place + length] * 20
    return bytes(content)


@pytest.mark.parametrize("name", TARGETS)
def test_a_damaged_file_is_read_or_refused(name):
    target = TARGETS[name]

    # The same files each time, so that a change is judged by what it changes.
    @settings(max_examples=40, derandomize=True, deadline=None, suppress_health_check=list(HealthCheck), database=None)
    @given(damaged(target.seeds()))
    def check(content):
        with tempfile.TemporaryDirectory() as folder:
            strike(target, content, Path(folder))

    check()


@pytest.mark.parametrize("name", TARGETS)
def test_the_valid_files_are_read(name, tmp_path):
    read = [not isinstance(strike(TARGETS[name], seed, tmp_path), InputError) for seed in TARGETS[name].seeds()]
    assert any(read)
    assert all(read) or name in {"checkpoint", "state"}  # of which each takes the one kind of checkpoint


def refused(name, content, folder, message):
    found = strike(TARGETS[name], content, folder)
    assert isinstance(found, InputError), found
    assert message in str(found)


def nifti(**fields):
    """A NIfTI file with fields of its header set to anything."""
    header = nibabel.Nifti1Image(VOXELS, np.eye(4)).header
    header["magic"], header["vox_offset"] = b"n+1", 352
    for name, value in fields.items():
        header[name] = value
    return header.binaryblock + bytes(4) + VOXELS.tobytes(order="F")


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"datatype": 4096}, "data code 4096"),
        ({"dim": [3, 32767, 32767, 32767, 1, 1, 1, 1]}, "400 bytes instead of"),
        ({"dim": [3, -4, 3, 2, 1, 1, 1, 1]}, "a header with shape"),
        ({"dim": [0, 1, 1, 1, 1, 1, 1, 1]}, "a header with shape"),
        ({"vox_offset": 1e30}, "voxels from byte"),
        ({"vox_offset": np.nan}, ""),
        ({"sform_code": 1, "srow_x": [np.inf, 0, 0, 0]}, "affine"),
        ({"sform_code": 1, "srow_x": [np.nan, 0, 0, 0]}, "affine"),
    ],
)
def test_nifti_headers_at_their_extremes(fields, message, tmp_path):
    refused("nii", nifti(**fields), tmp_path, message)


def test_axes_too_long_to_be_told_apart(tmp_path):
    """Their squares are beyond float64."""
    header = nibabel.Nifti2Header()
    header.set_data_shape(VOXELS.shape)
    header.set_data_dtype(np.int16)
    header["magic"], header["vox_offset"], header["sform_code"] = b"n+2", 544, 1
    header["srow_x"], header["srow_y"], header["srow_z"] = [1, 0, 0, 0], [0, -3e231, 0, 0], [0, 0, -3e231, 0]
    content = header.binaryblock + bytes(4) + VOXELS.tobytes()
    refused("nii", content, tmp_path, "an affine with three axes")


def test_notes_behind_a_nifti_header_are_not_read(tmp_path):
    """A note of negative length makes nibabel read all that a packed stream unpacks to."""
    note = bytes([1, 0, 0, 0]) + struct.pack("<ii", -16, 4)
    header = nifti(vox_offset=384)[:348]
    content = header + note.ljust(36, b"\0") + VOXELS.tobytes(order="F")
    assert not isinstance(strike(TARGETS["nii.gz"], gzip.compress(content), tmp_path), InputError)


def test_a_name_of_nifti_is_no_other_format(tmp_path):
    """nibabel.load goes by content: this one is a surface with matrices (CIFTI), whose header has no unit."""
    axes = (nibabel.cifti2.ScalarAxis(["a"]), nibabel.cifti2.SeriesAxis(0, 1, 4))
    nibabel.Cifti2Image(np.zeros((1, 4), np.float32), nibabel.Cifti2Header.from_axes(axes)).to_filename(
        tmp_path / "b.dscalar.nii"
    )
    refused("nii", (tmp_path / "b.dscalar.nii").read_bytes(), tmp_path, "dimensions")


META = b"NDims = 3\nDimSize = 4 3 2\nElementType = MET_SHORT\nElementDataFile = "
NRRD = b"NRRD0004\ntype: double\ndimension: 3\nendian: little\nsizes: "


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("mhd", META.replace(b"3", b"-4", 1).replace(b"File", b"FilRe") + b"a.raw\n", "end of the header"),
        ("mhd", META + b"../b.raw\n", "no file beside the header"),
        ("mhd", META + b"/etc/passwd\n", "no file beside the header"),
        ("mhd", META + b"LIST\na.raw\n../b.raw\n", "no file beside the header"),
        ("mhd", META + b"a%02d.raw 1 2 1\n", "no file beside the header"),
        ("mha", META.replace(b"3", b"7" * 99, 1) + b"LOCAL\n", "number of axes"),
        (
            "mha",
            b"CompressedData = True\nCompressedDataSize = 9223372036854775807\n"
            + META.replace(b"4 3 2", b"60000 60000 60000")
            + b"LOCAL\n\x78\x9c",
            "can unpack to 432000000000000",
        ),
        ("nrrd", NRRD + b"4 3 2\nencoding: raw\ndata file: ../b.raw\n\n", "no file beside the header"),
        ("nrrd", NRRD + b"60000 60000 60000\nencoding: gzip\n\n\x1f\x8b", "can unpack to 1728000000000000"),
        ("nrrd", NRRD + b"60000 60000 60000\nencoding: bzip2\n\nBZh9", "at most 8 GiB"),
        ("nrrd", b"NRRD0004\n" + b"# more\n" * 200_000, "end of the header"),
        ("gipl", struct.pack(">4HH", 9999, 9999, 9999, 1, 64).ljust(252, b"\0") + b"\xef\xff\xe9\xb0", "instead of"),
        ("png", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\nshowpage\n", "cannot identify"),
        ("bmp", b"BM", "cannot identify"),
    ],
    ids=str,
)
def test_headers_that_claim_too_much_or_name_other_files(name, content, message, tmp_path):
    (tmp_path.parent / "b.raw").write_bytes(bytes(999))
    refused(name, content, tmp_path, message)


def tiff_page(*tags):
    """A page of tags (number, type, value), each of one value."""
    return struct.pack("<H", len(tags)) + b"".join(struct.pack("<HHII", *tag[:2], 1, tag[2]) for tag in tags)


def test_more_strips_than_bytes(tmp_path):
    page = tiff_page((256, 3, 1), (257, 4, 2**20), (258, 3, 8), (262, 3, 1), (273, 4, 8), (278, 4, 1), (279, 4, 1))
    refused("tiff", struct.pack("<2sHI", b"II", 42, 8) + page + bytes(4), tmp_path, "1048576 strips or tiles")


def test_more_voxels_than_a_packed_page_can_hold(tmp_path):
    page = tiff_page(
        (256, 4, 2**15), (257, 4, 2**15), (258, 3, 8), (259, 3, 8), (273, 4, 8), (278, 4, 2**15), (279, 4, 9)
    )
    refused("tiff", struct.pack("<2sHI", b"II", 42, 8) + page + bytes(4), tmp_path, "98 bytes instead of 65536")


def test_a_circle_of_tiff_pages_ends(tmp_path):
    page = tiff_page((256, 3, 4), (257, 3, 3), (258, 3, 8), (262, 3, 1), (273, 4, 8), (278, 4, 3), (279, 4, 12))
    at = 8 + len(page) + 4
    content = struct.pack("<2sHI", b"II", 42, 8) + page + struct.pack("<I", at) + page + struct.pack("<I", at)
    for name in ("tif", "tiff"):
        assert strike(TARGETS[name], content, tmp_path) is not None  # it comes back, whatever with


def test_ome_metadata_open_no_other_file(tmp_path):
    import tifffile

    tifffile.imwrite(tmp_path / "other.tiff", np.full((3, 4), 77, np.uint8), ome=True)
    text = (
        '<?xml version="1.0"?><OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06"><Image ID="Image:0">'
        '<Pixels ID="Pixels:0" DimensionOrder="XYZCT" Type="uint8" SizeX="4" SizeY="3" SizeZ="2" SizeC="1" SizeT="1">'
        '<TiffData IFD="0" FirstZ="0" PlaneCount="1"/><TiffData IFD="0" FirstZ="1" PlaneCount="1">'
        f'<UUID FileName="{tmp_path}/other.tiff">urn:uuid:0</UUID></TiffData></Pixels></Image></OME>'
    )
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, np.zeros((3, 4), np.uint8), description=text, metadata=None)
    (tmp_path / "in").mkdir()
    found = strike(TARGETS["tiff"], buffer.getvalue(), tmp_path / "in")
    assert isinstance(found, InputError) or 77 not in found[0][0]


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes here")
@pytest.mark.parametrize("ending", [".nii", ".nii.gz", ".mha", ".nrrd", ".tif", ".png"])
def test_a_pipe_in_place_of_a_volume_is_not_waited_for(ending, tmp_path):
    from auvtool.volume import read_image

    os.mkfifo(tmp_path / f"a{ending}")
    with pytest.raises(InputError, match="no regular file"):
        read_image([tmp_path / f"a{ending}"])


DEEP = b"[" * 100_000 + b"]" * 100_000


@pytest.mark.parametrize("name", ["dataset", "scores", "splits", "plans", "weights", "msd", "log", "manifest"])
@pytest.mark.parametrize(
    "content",
    [DEEP, b'{"case":' * 100_000, b'{"a": ' + b"9" * 5000 + b"}", b'{"epoch": "\\ud800"}', b'"\xff"', b"", b"null"],
    ids=["nested", "nested objects", "digits", "half a character", "no text", "empty", "null"],
)
def test_json_that_no_reader_can_take(name, content, tmp_path):
    found = strike(TARGETS[name], content, tmp_path)
    assert isinstance(found, InputError) or name == "manifest"  # which is left out then


def test_parse_json_keeps_what_is_valid():
    assert parse_json('{"a": ["\\ud83d\\ude00", 1]}') == {"a": ["😀", 1]}
    assert parse_json(b"[1]") == [1]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"configurations": {"3d_fullres": {"inherits_from": "3d_fullres"}}}, "inherits from itself"),
        ({"configurations": {"a": {"inherits_from": "b"}, "b": {"inherits_from": "a"}}}, "inherits from itself"),
        ({"configurations": {"a": {"inherits_from": "c"}}}, "inherits from c"),
        ({"configurations": [1]}, "no configurations"),
        ({"dataset_name": None}, "no dataset_name"),
        ({"data_identifier": "../../elsewhere"}, "data_identifier that can be the name of a folder"),
        ({"patch_size": "16"}, "no patch_size"),
        ({"batch_size": -1}, "no batch_size"),
    ],
)
def test_plans_that_no_network_can_be_made_of(change, message, tmp_path):
    plans = json.loads(TARGETS["plans"].seeds()[0])
    own = {key: value for key, value in change.items() if key in plans}
    plans["configurations"]["3d_fullres"] |= {key: value for key, value in change.items() if key not in plans}
    refused("plans", json.dumps(plans | own).encode(), tmp_path, message)


@pytest.mark.parametrize(
    "content", [b'[["train", "val"]]', b'[{"train": "ab", "val": ["c"]}]', b'[{"train": [1], "val": []}]']
)
def test_splits_that_are_none(content, tmp_path):
    refused("splits", content, tmp_path, "a list of folds")


@pytest.mark.parametrize("content", [b"PAR1", b"PAR1" + bytes(100) + b"PAR1", b"PAR1" + b"\xff" * 100 + b"PAR1"])
def test_a_broken_parquet_file_is_one_clear_line(content, tmp_path):
    refused("scores", content, tmp_path, "expected a table (auvtool.scores)")


def test_a_cell_that_is_a_list_is_no_name(tmp_path):
    refused("scores", b'[{"case": ["a"], "class_name": "b"}]', tmp_path, "none named")
    from auvtool.schema import FAILURES
    from auvtool.tables import read_table

    (tmp_path / "f.json").write_text('[{"case": ["a"], "step": "read", "error": "x"}]')
    with pytest.raises(InputError, match="expected str in column case"):
        read_table(tmp_path / "f.json", FAILURES)


@pytest.mark.parametrize("name", ["checkpoint", "state"])
def test_a_packed_checkpoint_is_not_unpacked(name, tmp_path):
    """Torch takes an archive with packed members: here 50 MB in 50 kB."""
    import torch

    nnunet = {"network_weights": {}, "init_args": {}, "trainer_name": "nnUNetTrainer", "a": torch.zeros(12_500_000)}
    torch.save(nnunet["a"] if name == "state" else nnunet, tmp_path / "stored.pth")
    with (
        zipfile.ZipFile(tmp_path / "stored.pth") as stored,
        zipfile.ZipFile(tmp_path / "packed.pth", "w", zipfile.ZIP_DEFLATED) as packed,
    ):
        for member in stored.namelist():
            packed.writestr(member, stored.read(member))
    content = (tmp_path / "packed.pth").read_bytes()
    assert len(content) < 200_000
    refused(name, content, tmp_path, "bytes that unpack to 500")


def test_an_error_shows_what_cannot_be_seen(tmp_path):
    name = "a\x1b[2J\x1b[31m\u202egnp\r\udc80"
    text = str(InputError(name, expected="a", found=name, cure="c"))
    assert text == visible(text)
    assert "\\u202e" in text
    assert "\x1b" not in text


class Features:
    """A features file to do harm to."""

    def __init__(self, folder):
        self.path = write_features(folder / "F.h5", [case_features("a", random_maps(0))])
        self.other = write_features(folder / "other.h5", [case_features("a", random_maps(1))])

    def replace(self, name, make):
        """Put another object in the place of one in the group of the case."""
        with h5py.File(self.path, "r+") as file:
            group = file["cases/a"]
            old = group[name][()]
            columns = dict(group[name].attrs)
            del group[name]
            made = make(group, name, old)
            for key, value in columns.items() if isinstance(made, h5py.Dataset) else ():
                made.attrs[key] = value


def soft(group, name, old):
    group["elsewhere"] = old
    group[name] = h5py.SoftLink("/cases/a/elsewhere")


def external_link(group, name, old):
    group[name] = h5py.ExternalLink("other.h5", f"/cases/a/{name}")


def virtual(group, name, old):
    layout = h5py.VirtualLayout(shape=old.shape, dtype=old.dtype)
    layout[...] = h5py.VirtualSource("other.h5", f"/cases/a/{name}", shape=old.shape)
    return group.create_virtual_dataset(name, layout)


def external_storage(group, name, old):
    return group.create_dataset(name, shape=old.shape, dtype=old.dtype, external=[("/etc/passwd", 0, old.nbytes)])


def packed(group, name, old):
    return group.create_dataset(name, data=old, compression="gzip")


def plugin(group, name, old):
    """Filter 32008 (bitshuffle), which HDF5 would look for a library for; optional, so that it can be written."""
    creation = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    creation.set_chunk(old.shape)
    creation.set_filter(32008, h5py.h5z.FLAG_OPTIONAL, ())
    space = h5py.h5s.create_simple(old.shape)
    return h5py.Dataset(h5py.h5d.create(group.id, name.encode(), h5py.h5t.py_create(old.dtype), space, creation))


def references(group, name, old):
    made = group.create_dataset(name, shape=old.shape, dtype=h5py.ref_dtype)
    made[0] = group.ref
    return made


def regions(group, name, old):
    return group.create_dataset(name, shape=old.shape, dtype=h5py.regionref_dtype)


def texts(group, name, old):
    return group.create_dataset(name, shape=old.shape, dtype=h5py.string_dtype())


def absurd(group, name, old):
    return group.create_dataset(name, shape=(len(old), 2**40), chunks=(1, 1024), dtype=old.dtype)


def large(group, name, old):
    """8 GB of a fill value, in no byte of the file."""
    return group.create_dataset(name, shape=(len(old), 2**29), chunks=(1, 1024), dtype=old.dtype, fillvalue=1.0)


HARM = [
    (soft, "is a link to elsewhere"),
    (external_link, "is a link to elsewhere"),
    (virtual, "lies in another file"),
    (external_storage, "lies in another file"),
    (packed, "is packed (filter 1"),
    (plugin, "is packed (filter 32008"),
    (references, "is not an array of kind 'f'"),
    (regions, "is not an array of kind 'f'"),
    (texts, "is not an array of kind 'f'"),
    (absurd, "claims float64 of shape"),
    (large, "claims float64 of shape"),
]


@pytest.mark.parametrize(("make", "message"), HARM, ids=[make.__name__ for make, _ in HARM])
def test_hdf5_is_read_from_the_file_itself(make, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # where HDF5 would look for the other file as well
    features = Features(tmp_path)
    features.replace("agreement", make)
    with FeatureFile(features.path) as file, pytest.raises(InputError) as caught:
        file.case("a")
    assert message in str(caught.value)


@pytest.mark.parametrize(
    "name", ["spectra/channels_centered", "evidence/label_shape", "class_features", "voxel_statistics"]
)
def test_no_array_of_hdf5_is_an_exception(name, tmp_path):
    features = Features(tmp_path)
    features.replace(name, external_link)
    with FeatureFile(features.path) as file, pytest.raises(InputError, match="link to elsewhere"):
        file.case("a")


@pytest.mark.parametrize("make", [make for make, _ in HARM if make not in (references, regions, texts)])
def test_a_copy_takes_nothing_of_a_stranger_along(make, tmp_path):
    """Beside what the layout names, where reading a case does not look."""
    features = Features(tmp_path)
    with h5py.File(features.path, "r+") as file:
        make(file["cases/a"], "more", np.zeros((2, 3)))
    with FeatureFile(features.path) as file:
        file.case("a")
        header = file.header
    with pytest.raises(InputError, match="expected features in the layout"):
        assemble({"a": features.path}, tmp_path / "G.h5", header, force=False)
    assert not (tmp_path / "G.h5").exists()


def test_groups_within_themselves_end(tmp_path):
    features = Features(tmp_path)
    with h5py.File(features.path, "r+") as file:
        file["cases/a/evidence/again"] = file["cases/a"]
    with FeatureFile(features.path) as file:
        header = file.header
    with pytest.raises(InputError, match="group in a group"):
        assemble({"a": features.path}, tmp_path / "G.h5", header, force=False)


@pytest.mark.parametrize("name", ["a%2fb", "%zz/", "b%"])
def test_hdf5_names_that_are_no_case_ids(name, tmp_path):
    features = Features(tmp_path)
    with h5py.File(features.path, "r+") as file:
        file.move("cases/a", f"cases/{name.strip('/')}")
    with pytest.raises(InputError, match="no case id"):
        FeatureFile(features.path)


@pytest.mark.parametrize("value", [[3, 3], "three", h5py.Reference()], ids=["list", "text", "reference"])
def test_a_version_that_is_no_number(value, tmp_path):
    features = Features(tmp_path)
    with h5py.File(features.path, "r+") as file:
        del file.attrs["schema_version"]
        kind = h5py.ref_dtype if isinstance(value, h5py.Reference) else None
        file.attrs.create("schema_version", value, dtype=kind)
    with pytest.raises(InputError, match=r"F\.h5"):
        FeatureFile(features.path)


def test_a_data_set_of_another_ending_or_count(tmp_path):
    folder = write_raw_dataset(tmp_path / "d", n_cases=1)
    for ending in ("", "/", "../x.nii.gz", 3, None, [".nii"]):
        edit_dataset_json(folder, file_ending=ending if ending is not None else {})
        refused("dataset", (folder / "dataset.json").read_bytes(), tmp_path, "file_ending")
