"""Many results in one file: a group for each, named by the hash of its experiment, that is a result file in itself."""

import hashlib
import os
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import h5py

from mpicoded.data.naming import experiment_hash, name_dimensions
from mpicoded.data.results import Results, read_result
from mpicoded.data.whole import has_format, opened, values, whole_file
from mpicoded.errors import InputError

FORMAT, VERSION = "mpicoded-results", 1
_SCALES = ("CLASS", "NAME", "DIMENSION_LIST", "REFERENCE_LIST")  # HDF5's own attributes of dimension scales
_MEASURED = ("seconds", "bytes_overhead")  # differ where the same experiment runs again, on other ranks


class Merged(NamedTuple):
    """What came of a merge."""

    names: list[str]  # the groups
    repeated: list[str]  # files whose experiment was there already, with the same end


def is_merged(path: str | os.PathLike[str]) -> bool:
    """Whether a file holds many results."""
    return has_format(path, FORMAT)


def load_all(paths: Sequence[str | os.PathLike[str]]) -> list[Results]:
    """The results of all files, of those that hold many all of them. Raises InputError."""
    return [result for path in paths for result, _ in _load(os.fspath(path))]


def _load(path: str) -> Iterator[tuple[Results, h5py.Group]]:
    """Results and where they are, in a file that is open meanwhile."""
    with opened(path, "result file", scanned=1 << 30) as file:
        if file.attrs.get("format") != FORMAT:
            yield read_result(file, path), file
            return
        if (version := file.attrs.get("version")) != VERSION:
            raise InputError(f"merged file {path} has version {version}, this program reads {VERSION}")
        if not len(file):
            raise ValueError("it holds no results")
        for name, group in file.items():
            result = read_result(group, f"{path}:{name}") if isinstance(group, h5py.Group) else None
            if result is None or name != experiment_hash(result.toml):  # also: no name leads elsewhere
                raise ValueError(f"{name!r} is not a result that is named by its experiment's hash")
            yield result, group


def merge(paths: Sequence[str], target: str) -> Merged:
    """Copy the results of all files into one, bit for bit.

    Of several files of one experiment the first is kept where they have the same history and parameters (seconds
    apart). Raises InputError where they have not, and OSError where ``target`` cannot be written.
    """
    first: dict[str, tuple[str, str]] = {}  # of each experiment: where it is, and what its numbers are
    repeated = []
    with whole_file(target) as made:
        made.attrs.update(format=FORMAT, version=VERSION)
        for path in paths:
            for result, source in _load(path):
                name, numbers = experiment_hash(result.toml), _numbers(result)
                if name not in first:
                    first[name] = result.path, numbers
                    _copy(source, made.create_group(name))
                    name_dimensions(made[name])
                elif first[name][1] == numbers:
                    repeated.append(result.path)
                else:
                    both = f"{first[name][0]} and {result.path}"
                    raise InputError(f"{both} are of the same experiment, but do not end with the same numbers")
    return Merged(list(first), repeated)


def _copy(source: h5py.Group, target: h5py.Group) -> None:
    target.attrs.update(source.attrs)
    for name, item in source.items():
        if isinstance(item, h5py.Group):
            _copy(item, target.create_group(name))
        elif not bytes(item.attrs.get("NAME", b"")).startswith(b"This is a netCDF dimension"):
            target.create_dataset(name, data=values(item), dtype=item.dtype)
            target[name].attrs.update({key: value for key, value in item.attrs.items() if key not in _SCALES})


def _numbers(result: Results) -> str:
    """A checksum of history and parameters."""
    found = hashlib.sha256(result.parameters.tobytes())
    for name, column in sorted(result.history.items()):
        if name not in _MEASURED:
            found.update(name.encode() + column.tobytes())
    return found.hexdigest()
