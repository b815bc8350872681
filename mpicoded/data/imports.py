"""Import samples from npz, HDF5, CSV and LIBSVM files."""

import bz2
import csv
import gzip
import os
import warnings
from collections.abc import Callable, Collection
from typing import Any, Literal

import h5py
import numpy as np

from mpicoded.algorithms.shapes import Array
from mpicoded.data.datasets import Samples, with_test
from mpicoded.data.whole import opened, values
from mpicoded.errors import InputError, one_line

_DENSE_LIMIT = 1 << 32  # values
_OPENERS: dict[str, Callable[..., Any]] = {".gz": gzip.open, ".bz2": bz2.open}


def read_source(
    source: str,
    *,
    target: str | None = None,
    task: Literal["auto", "regression", "classification"] = "auto",
    seed: int = 0,
    test_fraction: float = 0.2,
) -> Samples:
    """Samples from a file; its ending says what it is.

    npz and HDF5: arrays ``x`` and ``y``, and ``x_test`` and ``y_test`` for a test split; samples of several dimensions
    are stored flat, images of bytes (three dimensions and more) as float32 from 0 to 1. CSV: numbers, with or without a
    header; the target is the column of that name or number, else the last. LIBSVM: needs scikit-learn. With task
    ``auto``, whole numbers and words as targets are classes. Classes get ``test_fraction`` of the samples as test
    split where the file has none.
    """
    if not os.path.isfile(source):
        raise InputError(f"import: {source} does not exist or is no file")
    stem, packing = os.path.splitext(source.lower())
    ending = os.path.splitext(stem)[1] if packing in _OPENERS else packing
    readers: dict[str, Callable[[str], tuple[Any, Any, Any]]] = {
        ".npz": _read_npz,
        **dict.fromkeys((".h5", ".hdf5"), _read_hdf5),
        ".csv": lambda path: (*_read_csv(path, target), None),
    }
    readers |= dict.fromkeys((".libsvm", ".svm", ".svmlight", ".txt"), _read_libsvm)
    if ending not in readers or (packing in _OPENERS and readers[ending] in (_read_npz, _read_hdf5)):
        may = ".gz and .bz2 may follow, but for npz and HDF5"
        raise InputError(f"import: {source} must end in {', '.join(readers)} ({may})")
    if target is not None and ending != ".csv":
        raise InputError(f"import: --target names a column of a CSV file, which {source} is not")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # readers warn of what is an error here anyway
            x, y, test = readers[ending](source)
    except InputError:
        raise
    except Exception as error:  # zip, zlib, NumPy, scikit-learn: each raises errors of its own
        raise InputError(f"import: {source} cannot be read: {one_line(error)}") from None
    samples = _samples(f"import: {source}", x, y, test, task)
    return samples if samples.test or not samples.classes else with_test(samples, test_fraction, seed)


def _samples(what: str, x: Array, y: Array, test: tuple[Array, Array] | None, task: str) -> Samples:
    """Turn raw arrays into samples; classes are numbered in the order of their labels."""
    if test is not None and (np.asarray(x).dtype == np.uint8) != (np.asarray(test[0]).dtype == np.uint8):
        raise InputError(f"{what}: either both of x and x_test are bytes or none is")
    x, y = _checked(what, "", x, y)
    if test is not None:
        test = _checked(what, "_test", *test)
        if test[0].shape[1] != x.shape[1]:
            raise InputError(f"{what}: x_test has {test[0].shape[1]} features, x has {x.shape[1]}")
    whole = y.dtype.kind in "iubUS" or bool((y == np.rint(y)).all())
    if task == "regression" or (task == "auto" and not whole):
        if y.dtype.kind in "US" or (test is not None and test[1].dtype.kind in "US"):
            raise InputError(f"{what}: the targets are words, which only a classification can have")
        test = None if test is None else (test[0], test[1].astype(np.float64))
        return Samples(x, y.astype(np.float64), 0, test)
    if not whole:
        raise InputError(f"{what}: the targets are not whole numbers, as a classification needs")
    labels, numbers = np.unique(y, return_inverse=True)
    if len(labels) < 2:
        raise InputError(f"{what} has one target value only, {labels[0]}")
    if test is not None:
        if not np.isin(test[1], labels).all():
            raise InputError(f"{what}: y_test holds classes that y lacks")
        test = (test[0], np.searchsorted(labels, test[1]))
    return Samples(x, numbers.astype(np.int64), len(labels), test)


def _checked(what: str, suffix: str, x: Any, y: Any) -> tuple[Array, Array]:
    """Samples as a matrix of finite floats, with a target each."""
    x, y = np.asarray(x), np.asarray(y)
    if x.dtype.kind not in "fiub" or y.dtype.kind not in "fiubUS":
        raise InputError(f"{what}: x{suffix} must be numbers, and y{suffix} numbers or words; are {x.dtype}, {y.dtype}")
    if x.ndim < 2 or not x.size or y.shape != x.shape[:1]:
        raise InputError(
            f"{what} needs x{suffix} (samples, features) and y{suffix} (samples,), has {x.shape} and {y.shape}"
        )
    if x.dtype == np.uint8 and x.ndim > 2:
        x = x.astype(np.float32) / np.float32(255)
    x = x.reshape(len(x), -1).astype(x.dtype if x.dtype in (np.float32, np.float64) else np.float64)
    if not np.isfinite(x).all() or (y.dtype.kind == "f" and not np.isfinite(y).all()):
        raise InputError(f"{what} holds NaN or infinite values")
    return x, y


def _read_npz(source: str) -> tuple[Array, Array, tuple[Array, Array] | None]:
    with open(source, "rb") as file, np.load(file, allow_pickle=False) as arrays:
        return _named(source, arrays, lambda name: arrays[name])


def _read_hdf5(source: str) -> tuple[Array, Array, tuple[Array, Array] | None]:
    with opened(source, "import:") as file:
        arrays = {name: item for name, item in file.items() if isinstance(item, h5py.Dataset)}
        if isinstance(test := file.get("test"), h5py.Group):  # as our own datasets have it
            arrays |= {f"{name}_test": test[name] for name in ("x", "y") if isinstance(test.get(name), h5py.Dataset)}

        def read(name: str) -> Array:
            found = values(arrays[name])
            return found if found.dtype.kind != "O" else arrays[name].asstr()[()].astype(str)

        return _named(source, arrays, read)


def _named(
    source: str, names: Collection[str], read: Callable[[str], Array]
) -> tuple[Array, Array, tuple[Array, Array] | None]:
    """Samples, targets and the test split, where there is one."""
    for pair in (("x", "y"), ("x_test", "y_test")):
        found = [name for name in pair if name in names]
        if len(found) == 1 or (not found and pair == ("x", "y")):
            raise InputError(f"import: {source} needs arrays {' and '.join(pair)}, has {', '.join(names) or 'none'}")
    return read("x"), read("y"), (read("x_test"), read("y_test")) if "x_test" in names else None


def _read_csv(source: str, target: str | None) -> tuple[Array, Array]:
    opener = _OPENERS.get(os.path.splitext(source.lower())[1], open)
    with opener(source, "rt", encoding="utf-8-sig", newline="") as file:
        lines = csv.reader(file, skipinitialspace=True)
        rows = [(lines.line_num, [cell.strip() for cell in row]) for row in lines if any(map(str.strip, row))]
    if not rows:
        raise InputError(f"import: {source} is empty")
    header = rows[0][1] if not all(map(_is_number, rows[0][1])) else []
    if header and len(rows) > 1 and sum(map(_is_number, header)) >= sum(map(_is_number, rows[1][1])):
        header = []  # words as classes in a file without a header
    if "" in header and any(map(_is_number, header)):
        header = []  # a gap in the first line of the data
    columns = len(rows[0][1])
    cells = rows[1:] if header else rows
    for number, row in cells:
        if len(row) != columns or "" in row:
            raise InputError(f"import: {source}: line {number} has not {columns} values as the first has")
    column = _column(source, target, header, columns)
    x = [row[:column] + row[column + 1 :] for _, row in cells]
    y = [row[column] for _, row in cells]
    return np.array(x).astype(np.float64), np.array(y).astype(np.float64) if all(map(_is_number, y)) else np.array(y)


def _column(source: str, target: str | None, header: list[str], columns: int) -> int:
    if target is None:
        return columns - 1
    if target in header:
        return header.index(target)
    if target.lstrip("-").isdecimal() and -columns <= int(target) < columns:
        return int(target) % columns
    known = ", ".join(header) if header else f"0 to {columns - 1}"
    raise InputError(f"import: {source} has no column {target!r}; it has {known}")


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True


def _read_libsvm(source: str) -> tuple[Array, Array, None]:
    try:
        from sklearn.datasets import load_svmlight_file
    except ImportError:
        raise InputError(
            "LIBSVM files need scikit-learn: pip install 'mpicoded[datasets]', or pip install scikit-learn"
        ) from None
    x, y = load_svmlight_file(source)
    if x.shape[0] * x.shape[1] > _DENSE_LIMIT:
        raise InputError(f"import: {source} has {x.shape[0]} × {x.shape[1]} values: too many to store dense")
    return x.toarray(), y, None
