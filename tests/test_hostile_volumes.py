"""Volumes from a stranger: what a header claims is held against its file, and no other file is opened for it."""

import gzip
import io
import os
import struct

import nibabel
import numpy as np
import pytest
from reader_targets import TARGETS, VOXELS, refused, strike

from auvtool.errors import InputError
from auvtool.volume_file import read_volume_file


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


def test_no_warning_of_numpy_stands_beside_the_refusal(tmp_path):
    (tmp_path / "a.nii").write_bytes(nifti(sform_code=0, qform_code=0, pixdim=[1, 1, np.nan, 3e38, 1, 1, 1, 1]))
    with pytest.raises(InputError, match=r"nan 0\.0"):  # in tests a warning is an error, and would be what is said
        read_volume_file(tmp_path / "a.nii")


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
