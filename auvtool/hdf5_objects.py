"""Objects of an HDF5 file from a stranger: only what lies in the file itself, as it is.

HDF5 opens other files for a soft or external link, a virtual array or external storage, loads a library for a filter
that it does not know, and lets a few bytes claim or unpack to more than there is memory. None of it is followed.
References in attributes and arrays are values of a type that no reader here takes.
"""

from typing import Any

import h5py

HDF5_SIGNATURE = b"\x89HDF\r\n\x1a\n"
_MOST_ATTRIBUTE_BYTES = 2**20
_MOST_DEPTH = 2  # groups below the group of a case


def own_object(parent: h5py.Group, name: str) -> object:
    """The group or array of that name.

    Raises:
        KeyError: there is none.
        TypeError: it is a soft or external link.
    """
    if not isinstance(parent.get(name, getlink=True), h5py.HardLink):
        raise TypeError(f"{name} is a link to elsewhere")
    return parent[name]


def attribute(owner: h5py.Group | h5py.Dataset, name: str) -> Any:
    """The value of an attribute.

    Raises:
        KeyError: there is none.
        ValueError: it claims more than any of ours takes.
    """
    if owner.attrs.get_id(name).get_storage_size() > _MOST_ATTRIBUTE_BYTES:
        raise ValueError(f"attribute {name} of {owner.name} is too large")
    return owner.attrs[name]


def require_own_bytes(array: h5py.Dataset, n_bytes: int) -> None:
    """Refuse an array that is not wholly in its file of `n_bytes` bytes, plainly or with checksums.

    Raises:
        TypeError: as said.
    """
    if array.external or array.is_virtual:
        raise TypeError(f"{array.name} lies in another file")
    creation = array.id.get_create_plist()
    filters = {creation.get_filter(number)[0] for number in range(creation.get_nfilters())}
    packed = sorted(filters - {h5py.h5z.FILTER_FLETCHER32})
    if packed:
        raise TypeError(f"{array.name} is packed (filter {packed[0]}; h5repack -f NONE unpacks)")
    n_claimed = array.size * array.dtype.itemsize
    # What is not stored reads as zeros: each of a thousand arrays could claim as much as the file has.
    if array.dtype.hasobject or not n_claimed <= array.id.get_storage_size() <= n_bytes:
        raise TypeError(f"{array.name} claims {array.dtype} of shape {array.shape}")


def require_own_objects(group: h5py.Group, n_bytes: int, *, depth: int = 0) -> None:
    """Refuse anything below a group that a copy of the group would take along and that is not as above.

    Raises:
        TypeError: as said, or groups in groups without end.
    """
    if depth > _MOST_DEPTH:
        raise TypeError(f"{group.name} is a group in a group in a group")
    for name in group:
        child = own_object(group, name)
        if isinstance(child, h5py.Group):
            require_own_objects(child, n_bytes, depth=depth + 1)
        elif isinstance(child, h5py.Dataset):
            require_own_bytes(child, n_bytes)
        else:
            raise TypeError(f"{name} is no array")
