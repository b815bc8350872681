"""Many results in one file: a group for each, named by the hash of its experiment, that is a result file in itself."""

import os
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import h5py
import numpy as np

from mpicoded.data.naming import experiment_hash, name_dimensions
from mpicoded.data.results import Results, load_results, read_result
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
    return [result for path in paths for result in _load(os.fspath(path))]


def _load(path: str) -> Iterator[Results]:
    if not is_merged(path):
        yield load_results(path)
        return
    with opened(path, "result file", scanned=1 << 30) as file:
        _check_version(file, path)
        for name, group in file.items():
            if not isinstance(group, h5py.Group):
                raise ValueError(f"{name} is no result")
            yield read_result(group, f"{path}:{name}")


def merge(paths: Sequence[str], target: str) -> Merged:
    """Copy the results of all files into one, bit for bit.

    Of several files of one experiment the first is kept where they have the same history and parameters (seconds
    apart). Raises InputError where they have not, and OSError where ``target`` cannot be written.
    """
    first: dict[str, tuple[str, str]] = {}
    repeated = []
    with whole_file(target) as made:
        made.attrs.update(format=FORMAT, version=VERSION)
        for path in paths:
            for result in _load(path):
                name = experiment_hash(result.toml)
                if name not in first:
                    first[name] = result.path, path
                    _copy(result.path, path, made.create_group(name))
                elif any(_same(one, result) for one in _load(first[name][1]) if one.path == first[name][0]):
                    repeated.append(result.path)
                else:
                    both = f"{first[name][0]} and {result.path}"
                    raise InputError(f"{both} are of the same experiment, but do not end with the same numbers")
    return Merged(list(first), repeated)


def _copy(place: str, path: str, target: h5py.Group) -> None:
    with opened(path, "result file", scanned=1 << 30) as file:
        _copy_group(file if place == path else file[place.rpartition(":")[2]], target)
        name_dimensions(target)


def _copy_group(source: h5py.Group, target: h5py.Group) -> None:
    target.attrs.update(source.attrs)
    for name, item in source.items():
        if isinstance(item, h5py.Group):
            _copy_group(item, target.create_group(name))
        elif not bytes(item.attrs.get("NAME", b"")).startswith(b"This is a netCDF dimension"):
            target.create_dataset(name, data=values(item), dtype=item.dtype)
            target[name].attrs.update({key: value for key, value in item.attrs.items() if key not in _SCALES})


def _same(one: Results, other: Results) -> bool:
    histories = [{name: values for name, values in r.history.items() if name not in _MEASURED} for r in (one, other)]
    same = histories[0].keys() == histories[1].keys() and all(
        np.array_equal(column, histories[1][name], equal_nan=True) for name, column in histories[0].items()
    )
    return same and np.array_equal(one.parameters, other.parameters, equal_nan=True)


def _check_version(file: h5py.File, path: str) -> None:
    if (version := file.attrs.get("version")) != VERSION:
        raise InputError(f"merged file {path} has version {version}, this program reads {VERSION}")
