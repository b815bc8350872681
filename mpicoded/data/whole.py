"""HDF5 files that appear whole or not at all, and whose files they are."""

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import h5py
import numpy as np


@contextmanager
def whole_file(path: str | os.PathLike[str]) -> Iterator[h5py.File]:
    """A new HDF5 file that takes the place of ``path`` when the block ends well.

    It is written beside it and synced before it is renamed: at every instant, also after a kill or a power failure,
    the old or the new file stands there complete.
    """
    target = Path(path)
    temporary = target.with_name(f".{target.name}.{os.getpid()}.part")
    try:
        # Version 1.8 of the format: the older one has no room for the names of more than 4095 hosts.
        with h5py.File(temporary, "w", libver=("v108", "v110")) as file:
            yield file
        with open(temporary, "rb") as written:
            os.fsync(written.fileno())
        os.replace(temporary, target)
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


def has_format(path: str | os.PathLike[str], name: str) -> bool:
    """Whether a file is HDF5 with this ``format`` attribute."""
    try:
        with h5py.File(path, "r", locking=False) as file:
            return bool(file.attrs.get("format") == name)
    except Exception:  # whatever it is, it is not that
        return False


def write_tree(group: h5py.Group, tree: Mapping[str, Any]) -> None:
    """Arrays as datasets, mappings as groups, single values as attributes."""
    for name, value in tree.items():
        if isinstance(value, Mapping):
            write_tree(group.create_group(name), value)
        elif np.ndim(value) == 0:
            group.attrs[name] = value
        elif np.asarray(value).dtype.kind in "UO":
            group.create_dataset(name, data=list(value), shape=(len(value),), dtype=h5py.string_dtype())
        else:
            group[name] = value


def read_tree(group: h5py.Group, rows: Mapping[str, slice] | None = None) -> dict[str, Any]:
    """What ``write_tree`` wrote; of the datasets in ``rows`` only these."""
    tree: dict[str, Any] = dict(group.attrs)
    for name, item in group.items():
        if isinstance(item, h5py.Group):
            tree[name] = read_tree(item)
        elif h5py.check_string_dtype(item.dtype):
            tree[name] = np.asarray(item.asstr()[()])
        else:
            tree[name] = item[rows[name] if rows and name in rows else ()]
    return tree
