"""Feature files from a stranger: HDF5 that points elsewhere, claims or unpacks to more than it holds, or is no case."""

import h5py
import numpy as np
import pytest
from features import case_features, random_maps, write_features

from auvtool.errors import InputError
from auvtool.feature_store import FeatureFile
from auvtool.feature_writer import assemble


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


def not_stored(group, name, old):
    """As large as the file; in thousand places, thousand times as large."""
    width = group.file.id.get_filesize() // (2 * len(old) * old.itemsize)
    return group.create_dataset(name, shape=(len(old), width), dtype=old.dtype)


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
    (not_stored, "claims float64 of shape"),
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
