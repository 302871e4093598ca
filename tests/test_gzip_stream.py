import gzip
import subprocess
import sys
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from auvtool import gzip_stream
from auvtool.gzip_stream import GzipStream

INFLATERS = {"isal": gzip_stream.new_inflater, "zlib": zlib.decompressobj}
DATA = np.random.default_rng(0).integers(0, 5, 300_000, dtype=np.uint8).tobytes()
WHOLE = gzip.compress(DATA)


@pytest.fixture(params=INFLATERS)
def inflater(request, monkeypatch):
    monkeypatch.setattr(gzip_stream, "new_inflater", INFLATERS[request.param])


@pytest.fixture
def opened(tmp_path, inflater):
    def write(content):
        (tmp_path / "x.gz").write_bytes(content)
        return GzipStream(tmp_path / "x.gz")

    return write


def test_isal_is_at_work_where_it_is_installed():
    isal_zlib = pytest.importorskip("isal.isal_zlib")
    assert gzip_stream.new_inflater is isal_zlib.decompressobj


def test_zlib_takes_its_place_where_it_is_not():
    code = "import sys; sys.modules['isal'] = None; import zlib; from auvtool import gzip_stream as it; "
    code += "assert it.new_inflater is zlib.decompressobj"
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize(
    "behind", [b"", bytes(700), b"\x1f", b"no member", bytes(3) + b"\x1f"], ids=["", "zeros", "1f", "text", "zeros, 1f"]
)
def test_members_are_joined_and_what_stands_behind_is_passed_over(opened, behind):
    content = gzip.compress(DATA[:1000]) + bytes(5) + gzip.compress(b"") + gzip.compress(DATA[1000:]) + behind
    with opened(content) as stream:
        assert stream.read(len(DATA)) == DATA
        stream.finish()
        assert stream.read(10) == b""
        assert stream.tell() == len(DATA)


def test_seeks_forwards_only(opened):
    with opened(WHOLE) as stream:
        assert stream.seek(280_000) == 280_000
        assert stream.read(5) == DATA[280_000:280_005]
        with pytest.raises(OSError, match="forwards"):
            stream.seek(0)
        assert stream.seek(len(DATA) + 1) == len(DATA)
        assert stream.readall() == b""


def test_fills_a_buffer(opened):
    with opened(WHOLE) as stream:
        buffer = np.zeros(len(DATA) // 4 + 9, dtype=np.uint32)
        assert stream.readinto(buffer) == len(DATA)
        assert buffer.tobytes()[: len(DATA)] == DATA


@pytest.mark.parametrize(
    ("content", "error"),
    [
        (b"", EOFError),
        (WHOLE[:-1], EOFError),
        (WHOLE[:-8], EOFError),
        (WHOLE[:5000], EOFError),
        (DATA, zlib.error),
        (WHOLE[:-8] + bytes(4) + WHOLE[-4:], zlib.error),
        (WHOLE[:-4] + bytes(4), zlib.error),
        (WHOLE[:-8] + bytes(4) + WHOLE[-4:] + WHOLE, zlib.error),
        (WHOLE + WHOLE[:100], EOFError),
    ],
    ids=["empty", "a byte", "trailer", "cut", "no gzip", "checksum", "length", "checksum of the first", "second cut"],
)
def test_damage_is_noticed(opened, content, error):
    with opened(content) as stream, pytest.raises(error):
        stream.finish()


def test_no_flipped_bit_changes_the_data_unnoticed(opened):
    small = gzip.compress(DATA[:300])
    n_noticed = 0
    for position in range(10, len(small)):
        damaged = bytearray(small)
        damaged[position] ^= 0x10
        try:
            with opened(bytes(damaged)) as stream:
                found = stream.readall()
                assert found == DATA[:300]  # a bit between the last block and the trailer means nothing
        except (zlib.error, EOFError):
            n_noticed += 1
    assert n_noticed >= len(small) - 11


@pytest.mark.parametrize("name", INFLATERS)
@settings(max_examples=60)
@given(st.data())
def test_pieces_of_any_size_make_the_data(name, tmp_path_factory, data):
    parts = data.draw(st.lists(st.binary(max_size=600).map(lambda part: part * 7), max_size=3))
    level = data.draw(st.sampled_from([0, 1, 6, 9]))
    path = tmp_path_factory.mktemp("gzip") / "x.gz"
    path.write_bytes(b"".join(gzip.compress(part, level) for part in [b"", *parts]))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(gzip_stream, "new_inflater", INFLATERS[name])
        patch.setattr(gzip_stream, "_INPUT_BYTES", data.draw(st.sampled_from([1, 2, 17, 1 << 17])))
        size = data.draw(st.sampled_from([1, 3, 250, 1 << 18]))
        with GzipStream(path) as stream:
            pieces = list(iter(lambda: stream.read(size), b""))
    assert b"".join(pieces) == b"".join(parts)
    assert {len(piece) for piece in pieces[:-1]} <= {size}
