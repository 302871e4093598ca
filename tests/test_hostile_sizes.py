"""Files that ask for more memory than they are worth: refused before it is taken, and no clinical scan is."""

import gzip
import json
import os
import struct
import subprocess
import sys
import zlib
from functools import partial
from pathlib import Path

import nibabel
import numpy as np
import pytest
from phantoms import edit_dataset_json, write_raw_dataset
from reader_targets import TARGETS

from auvtool.converters.totalsegmentator import find_cases
from auvtool.dataset import open_dataset
from auvtool.dataset_json import read_dataset_json
from auvtool.errors import InputError, UsageError
from auvtool.extractors.facts import EXTRACTORS
from auvtool.extractors.weights import find_weights
from auvtool.file_limits import require_table_size, require_volume_size
from auvtool.keep_list import KeepList
from auvtool.split_fold import filtered_fold
from auvtool.volume_file import read_nifti_grid

ZEROS = bytes(2**20)
MIB = 2**20

# Reads each file in a process that may take 6 GiB of address space, and tells how much its memory grew for it.
CHILD = """
import json, resource, sys
from pathlib import Path
from auvtool.errors import AuvtoolError
from reader_targets import TARGETS
resource.setrlimit(resource.RLIMIT_AS, (6 * 2**30, 6 * 2**30))
def peak():  # in MiB; ru_maxrss would begin at that of the process that started this one
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) // 1024 for line in file if line.startswith("VmHWM"))
for name, folder in (argument.split("=") for argument in sys.argv[1:]):
    read = TARGETS[name].read
    small, path = (Path(folder) / part / TARGETS[name].name for part in ("small", "hostile"))
    try:
        read(small)  # what is imported for this kind of file is not for this file
    except AuvtoolError:
        pass
    before = peak()
    try:
        read(path)
        said = "read"
    except AuvtoolError as error:
        said = str(error)
    print(json.dumps([name, said, peak() - before]), flush=True)
"""


def strike_alone(folder: Path, *, limits: dict[str, str], **files: tuple[str, bytes, bytes]):
    """(what was said, MiB that the memory grew by) of each file; files: key -> (target, small, hostile)."""
    arguments = []
    for key, (name, small, hostile) in files.items():
        for part, content in (("small", small), ("hostile", hostile)):
            (folder / key / part).mkdir(parents=True)
            (folder / key / part / TARGETS[name].name).write_bytes(content)
        arguments.append(f"{name}={folder / key}")
    paths = os.pathsep.join([str(Path(__file__).parent.parent), str(Path(__file__).parent)])
    done = subprocess.run(
        [sys.executable, "-c", CHILD, *arguments],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | limits | {"PYTHONPATH": paths},
    )
    assert done.returncode == 0, done.stderr
    found = [json.loads(line) for line in done.stdout.splitlines()]
    return {key: (said, grown) for key, (_, said, grown) in zip(files, found, strict=True)}


def zeros_gzipped(mib: int) -> bytes:
    """A stream that unpacks to so many MiB of zeros, a thousandth of that long."""
    packer = zlib.compressobj(9, zlib.DEFLATED, 31)
    return b"".join(packer.compress(ZEROS) for _ in range(mib)) + packer.flush()


def nifti(shape, dtype="<f8", note=b"") -> bytes:
    header = nibabel.Nifti1Header()
    header.set_data_shape(shape)
    header.set_data_dtype(dtype)
    header["magic"], header["vox_offset"] = b"n+1", 352
    header["sform_code"] = 1
    header["srow_x"], header["srow_y"], header["srow_z"] = [1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0]
    return header.binaryblock + (note or bytes(4))


META = "NDims = 3\nElementType = MET_UCHAR\nCompressedData = True\nCompressedDataSize = {size}\nDimSize = {n} {n} {n}\n"
META += "ElementDataFile = LOCAL\n"
NRRD = "NRRD0004\ntype: uint8\ndimension: 3\nsizes: {n} {n} {n}\nencoding: {encoding}\n\n"


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="the peak of memory is read there")
def test_bombs_are_refused_before_memory_is_taken(tmp_path):
    small = nifti((2, 2, 2)) + bytes(64)
    packed = gzip.compress(small)
    bomb = zeros_gzipped(600)
    stream = zlib.compress(bytes(8))
    mha, claiming, lying = (
        META.format(size=size, n=n).encode() + stream
        for size, n in ((len(stream), 2), (9 * 10**18, 60000), (4 * 10**9, 2))
    )
    large = zlib.compress(bytes(800**3), 1)
    reads_notes = nifti((2, 2, 2), note=bytes([1, 0, 0, 0]) + struct.pack("<ii", -16, 4))
    reads_on = nifti((2, 2, 2)).replace(struct.pack("<f", 352), struct.pack("<f", 5e8))
    nrrd = NRRD.format(n=2, encoding="gzip").encode() + gzip.compress(bytes(8))
    png = b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in (
            (b"IHDR", struct.pack(">IIBBBBB", 10000, 10000, 8, 0, 0, 0, 0)),
            (b"IDAT", zlib.compress(bytes(10001) * 10000, 9)),
            (b"IEND", b""),
        )
    )
    found = strike_alone(
        tmp_path,
        limits={"AUVTOOL_MAX_VOLUME_GIB": "0.25", "AUVTOOL_MAX_TABLE_GIB": "0.01"},
        # A header of 8 voxels and a body of 600 MiB; a body as long as the header says; headers that lie.
        long_body=("nii.gz", packed, gzip.compress(small) + bomb),
        true_bomb=("nii.gz", packed, gzip.compress(nifti((512, 512, 300))) + bomb),
        notes=("nii.gz", packed, gzip.compress(reads_notes) + bomb),
        offset=("nii.gz", packed, gzip.compress(reads_on) + bomb),
        absurd=("nii.gz", packed, gzip.compress(nifti((32767, 32767, 32767)))),
        plain=("nii", small, nifti((32767, 32767, 32767))),
        scaled=("nii", small, scaled_nifti()),
        mha=("mha", mha, META.format(size=len(large), n=800).encode() + large),
        mha_size=("mha", mha, claiming),
        mha_claim=("mha", mha, lying),
        nrrd=("nrrd", nrrd, NRRD.format(n=800, encoding="gzip").encode() + bomb),
        nrrd_body=("nrrd", nrrd, NRRD.format(n=2, encoding="gzip").encode() + bomb),
        nrrd_claim=("nrrd", nrrd, NRRD.format(n=60000, encoding="bzip2").encode() + b"BZh9"),
        png=("png", TARGETS["png"].seeds()[0], png),
        table=("scores", b"case\n", b"case,class_name\n" + b"a" * 20 * MIB),
        keep=("keep", b"case\n", b"a\n" * 10 * MIB),
        nested=("dataset", b"{}", b"[" * 100_000 + b"]" * 100_000),
        cells=("scores", b"case\n", b"case,class_name\n" + b"a" * 5 * MIB),
    )
    for key, (said, grown) in found.items():
        print(f"{key:<12} {grown:>5} MiB  {said[:150]}")
    # Of these only as many voxels are read as the header says, which are few.
    assert {key for key, (said, _) in found.items() if said == "read"} == {"long_body", "notes", "nrrd_body"}
    assert {key: grown for key, (_, grown) in found.items() if grown > 100} == {}


def scaled_nifti() -> bytes:
    """Bytes of one voxel each, that are 8 bytes in memory once they are scaled; the file holds them all."""
    header = nibabel.Nifti1Header(nifti((512, 512, 200), "<u1")[:348])
    header["scl_slope"], header["scl_inter"] = 2, 1
    return header.binaryblock + bytes(4) + bytes(512 * 512 * 200)


def test_a_whole_body_ct_is_within_the_limits(tmp_path):
    """512 x 512 x 2000 voxels of float64; the file is as long as it says, without taking place on the disk."""
    path = tmp_path / "ct.nii"
    with path.open("wb") as file:
        file.write(nifti((512, 512, 2000)))
        file.truncate(352 + 512 * 512 * 2000 * 8)
    assert read_nifti_grid(path).shape == (512, 512, 2000)
    require_volume_size(path, 512 * 512 * 2000 * 8)
    require_volume_size(path, 1024**3 * 8)
    with pytest.raises(InputError, match=r"8 GiB in memory, got 9\.31 GiB; if that is right, set AUVTOOL_MAX_VOL"):
        require_volume_size(path, 10**10)


def test_an_empty_label_map_packs_as_well_as_a_bomb(tmp_path):
    """512 x 512 x 400 zeros in 100 kB: nothing but the size in memory tells the one from the other."""
    from auvtool.volume import read_label

    path = tmp_path / "empty.nii.gz"
    path.write_bytes(gzip.compress(nifti((512, 512, 400), "<u1") + bytes(512 * 512 * 400)))
    assert path.stat().st_size * 900 < 512 * 512 * 400
    label, _ = read_label(path)
    assert label.shape == (400, 512, 512)
    assert not label.any()


def test_limits_are_numbers(monkeypatch, tmp_path):
    monkeypatch.setenv("AUVTOOL_MAX_VOLUME_GIB", "100")
    require_volume_size(tmp_path, 10**11)
    for text in ("much", "0", "-1", "nan", "inf", ""):
        monkeypatch.setenv("AUVTOOL_MAX_TABLE_GIB", text)
        with pytest.raises(UsageError, match="AUVTOOL_MAX_TABLE_GIB: expected a number of GiB above 0"):
            require_table_size("S.csv", 1)


def test_a_table_of_many_equal_rows_in_few_bytes(tmp_path):
    pa = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    from auvtool.schema import FAILURES
    from auvtool.tables import read_table

    n = 20_000_000
    column = pa.DictionaryArray.from_arrays(pa.array(np.zeros(n, np.int32)), pa.array(["a"]))
    table = pa.table({"case": column, "step": column, "error": column})
    parquet.write_table(table, tmp_path / "f.parquet")
    assert (tmp_path / "f.parquet").stat().st_size < MIB
    with pytest.raises(InputError, match="a table of at most 1 GiB in memory"):
        read_table(tmp_path / "f.parquet", FAILURES)


def test_a_long_text_of_many_rows_in_few_bytes(tmp_path):
    pa = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    from auvtool.schema import FAILURES
    from auvtool.tables import read_table

    path = tmp_path / "f.parquet"
    for n in (2, 2000):  # of 1 MB each
        column = pa.DictionaryArray.from_arrays(pa.array(np.zeros(n, np.int32)), pa.array(["a" * 10**6]))
        table = pa.table({"case": column, "step": column, "error": column})
        for kept in (True, False):  # as a dictionary, or told as plain text
            options = {"store_schema": kept, "dictionary_pagesize_limit": 2**30, "compression": "zstd"}
            parquet.write_table(table, path, **options)
            assert path.stat().st_size < MIB
            if n == 2:
                assert read_table(path, FAILURES)[1]["error"] == "a" * 10**6
                continue
            with pytest.raises(InputError, match=r"a table of at most 1 GiB in memory, got 5\.59 GiB"):
                read_table(path, FAILURES)


@pytest.mark.parametrize("name", ["dataset.json", "splits.json"])
def test_json_without_end(name, tmp_path):
    path = tmp_path / name
    read = read_dataset_json if name == "dataset.json" else partial(filtered_fold, keep=KeepList(frozenset("a"), ()))
    with path.open("wb") as file:
        file.truncate(100 * 2**30)  # takes no disk
    with pytest.raises(InputError, match="102400 MiB of JSON, where 64 are the most"):
        read(path)
    path.unlink()
    os.mkfifo(path)
    with pytest.raises(InputError, match="no file but a pipe or a device"):
        read(path)


def test_a_table_of_a_download_without_end(tmp_path):
    masks = tmp_path / "s0000" / "segmentations"
    masks.mkdir(parents=True)
    for path in (masks / "liver.nii.gz", tmp_path / "s0000" / "ct.nii.gz"):
        path.touch()
    with (tmp_path / "meta.csv").open("wb") as file:
        file.truncate(100 * 2**30)
    with pytest.raises(InputError, match="a table of at most 1 GiB in memory, got 100 GiB"):
        find_cases(tmp_path)


def test_weights_in_a_pipe_are_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "w.pth")
    with pytest.raises(InputError, match="expected a weights file, got a pipe or a device"):
        find_weights(EXTRACTORS["anatomix"], tmp_path / "w.pth")


def test_labels_without_end(tmp_path):
    folder = write_raw_dataset(tmp_path / "d", n_cases=1)
    edit_dataset_json(folder, labels={"background": 0, "a": list(range(1, 60000))}, regions_class_order=[1])
    with pytest.raises(InputError, match="expected at most 4096 labels, got 60000"):
        open_dataset(folder)
