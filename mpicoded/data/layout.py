"""The HDF5 layout of a dataset, written and checked in this one place.

======================  ===================================  ==================================================
``x``                   (samples, features) float32/float64  rows of subset k: offsets[k] … offsets[k+1]-1
``y``                   (samples,) float64 or int64          targets (regression) or labels 0 … classes-1
``offsets``             (subsets + 1,) int64                 where each subset starts; a subset may be empty
``test/x``, ``test/y``  as above                             test split, optional
``optimum``             (features,) float64                  minimiser of the squared error, optional
======================  ===================================  ==================================================

Root attributes: ``format`` = "mpicoded-data", ``version`` = 1, ``task`` = "regression" or "classification",
``classes`` (0 for regression), ``made_by`` (how the file was made), ``content`` (a CRC-32 of the samples, by which
a resumed run sees that they were replaced; optional) and, with ``optimum``, ``optimum_loss``.
``x`` is stored contiguously (no chunks, no compression), so a run of subsets is one plain read.
"""

import os
import zlib
from collections.abc import Sequence
from typing import Any, NamedTuple

import h5py
import numpy as np

from mpicoded.algorithms.models import Task
from mpicoded.algorithms.shapes import Array, Float, Int, Shaped
from mpicoded.data.whole import check_stored, has_format, opened, values, whole_file
from mpicoded.errors import InputError, one_line

FORMAT, VERSION = "mpicoded-data", 1


class Description(NamedTuple):
    """What a dataset file holds, without the samples."""

    path: str
    task: Task
    features: int
    classes: int
    offsets: Int[Array, " subsets+1"]
    test_samples: int
    optimum_loss: float | None
    made_by: str
    content: str  # the checksum of the samples that is told in the file
    stamp: tuple[int, int, int]  # by which a file that changes is known

    def fingerprint(self) -> str:
        """Tells datasets apart, for ranks to see that they read the same one; it does not read the samples."""
        counts = np.array([self.features, self.classes, self.test_samples, *self.offsets], np.int64)
        return f"{self.made_by} {self.optimum_loss} {self.content} {counts.tobytes().hex()}"

    @property
    def subsets(self) -> int:
        """Number of subsets, M."""
        return len(self.offsets) - 1

    @property
    def samples(self) -> int:
        """Number of training samples in all subsets."""
        return int(self.offsets[-1])

    def target(self, dtype: Any) -> np.dtype[Any]:
        """The type of targets in memory, where ``dtype`` is that of the samples."""
        return np.dtype(np.int64 if self.task == "classification" else dtype)

    def __str__(self) -> str:
        classes = f", {self.classes} classes" if self.classes else ""
        test = f", {self.test_samples} test samples" if self.test_samples else ""
        return (
            f"{self.path}: {self.task}, {self.subsets} subsets, {self.samples} samples, "
            f"{self.features} features{classes}{test}"
        )


def write(
    path: str | os.PathLike[str],
    x: Float[Array, "samples features"],
    y: Shaped[Array, " samples"],
    offsets: Int[Array, " subsets+1"],
    *,
    made_by: str,
    classes: int = 0,
    test: tuple[Array, Array] | None = None,
    optimum: tuple[Array, float] | None = None,
) -> None:
    """Write a dataset; the rows of ``x`` are in the order of the subsets. The file appears whole or not at all."""
    if os.path.exists(path) and not has_format(path, FORMAT):
        raise InputError(f"{os.fspath(path)} exists and is not a dataset of mpicoded: it is left as it is")
    label = np.int64 if classes else np.float64
    arrays = {"x": x, "y": np.asarray(y, label)}
    if test is not None:
        arrays |= {"test/x": test[0], "test/y": np.asarray(test[1], label)}
    content = 0
    for array in arrays.values():
        content = zlib.crc32(np.ascontiguousarray(array).data, content)
    try:
        with whole_file(path) as file:
            file.attrs.update(
                format=FORMAT,
                version=VERSION,
                task="classification" if classes else "regression",
                classes=classes,
                made_by=made_by,
                content=f"{content:08x}",
            )
            file["offsets"] = np.asarray(offsets, np.int64)
            for name, array in arrays.items():
                file[name] = array
            if optimum is not None:
                file["optimum"] = optimum[0]
                file.attrs["optimum_loss"] = optimum[1]
    except (OSError, RuntimeError, ValueError) as error:  # h5py raises all three, for a full disk say
        raise InputError(f"cannot write {os.fspath(path)}: {one_line(error)}") from None


def _stamp(state: os.stat_result) -> tuple[int, int, int]:
    return state.st_ino, state.st_size, state.st_mtime_ns


def describe(path: str) -> Description:
    """Open a dataset read-only, check its layout, and return what it holds. Raises InputError."""
    if not os.path.isfile(path):
        raise InputError(f"data file {path} does not exist or is no file (make one with: mpicoded data NAME -o {path})")
    stamp = _stamp(os.stat(path))
    with opened(path, "data file") as file:
        return _describe(path, file, stamp)


def _describe(path: str, file: h5py.File, stamp: tuple[int, int, int]) -> Description:
    def need(holds: Any, text: str) -> None:
        if not holds:
            raise InputError(f"data file {path}: {text}")

    need(
        file.attrs.get("format") == FORMAT,
        "not a dataset of mpicoded (make or import one with: mpicoded data)",
    )
    need(file.attrs.get("version") == VERSION, f"layout version must be {VERSION}")
    task, classes = file.attrs["task"], file.attrs["classes"]
    need(int(classes) == classes, f"classes must be a whole number, is {classes}")
    classes = int(classes)
    need(task in ("regression", "classification"), f"unknown task {task!r}")
    need(classes >= 2 if task == "classification" else classes == 0, f"{classes} classes do not fit {task}")
    stored = file.get("offsets")
    need(isinstance(stored, h5py.Dataset), "dataset offsets is missing")
    need(
        stored.shape and stored.ndim == 1 and stored.dtype.kind == "i" and len(stored) >= 2,
        "offsets must be M + 1 integers",
    )
    offsets = values(stored).astype(np.int64)
    need(
        offsets[0] == 0 and (offsets[1:] >= offsets[:-1]).all() and offsets[-1] > 0,
        "offsets must rise from 0 to the samples",
    )
    need(classes < 2**31, f"{classes} classes are too many")
    test_samples = 0
    features = _check_samples(file, "", int(offsets[-1]), task, need)
    if "test" in file:
        labels = file.get("test/y")
        need(isinstance(labels, h5py.Dataset) and labels.shape, "test/y must be a dataset of one dimension")
        test_samples = int(labels.shape[0])
        need(
            _check_samples(file, "test/", test_samples, task, need) == features,
            "test/x has other features than x",
        )
    made_by, content = (str(file.attrs.get(name, "")) for name in ("made_by", "content"))
    f"{made_by}{content}".encode()  # HDF5 does not look whether a text is one
    optimum_loss = file.attrs.get("optimum_loss")
    need(optimum_loss is None or np.isfinite(optimum_loss), f"optimum_loss must be finite, is {optimum_loss}")
    return Description(
        path=path,
        task=task,
        features=features,
        classes=classes,
        offsets=offsets,
        test_samples=test_samples,
        optimum_loss=None if optimum_loss is None else float(optimum_loss),
        made_by=made_by,
        content=content,
        stamp=stamp,
    )


def _check_samples(file: h5py.File, group: str, samples: int, task: str, need: Any) -> int:
    x, y = file.get(f"{group}x"), file.get(f"{group}y")
    for name, dataset in (("x", x), ("y", y)):
        need(isinstance(dataset, h5py.Dataset), f"dataset {group}{name} is missing")
    need(
        x.shape is not None and x.ndim == 2 and x.dtype.kind == "f",
        f"{group}x must be a matrix of floats, is {x.shape} {x.dtype}",
    )
    need(x.shape[1] > 0, f"{group}x has no features")
    need(
        x.shape[0] == samples,
        f"{group}x must have {samples} rows, as offsets or {group}y say, has {x.shape[0]}",
    )
    need(y.shape == (samples,), f"{group}y must have shape ({samples},), has {y.shape}")
    check_stored(x)
    check_stored(y)
    kind = "i" if task == "classification" else "f"
    need(y.dtype.kind == kind, f"{group}y must be {'integers' if kind == 'i' else 'floats'}, is {y.dtype}")
    return int(x.shape[1])


def row_bytes(description: Description, dtype: Any) -> int:
    """What a sample and its target take in memory."""
    return int(description.features * np.dtype(dtype).itemsize + description.target(dtype).itemsize)


def read_rows(
    description: Description,
    group: str,
    runs: Sequence[tuple[int, int]],
    dtype: Any,
    into: tuple[Float[Array, "rows features"], Shaped[Array, " rows"]] | None = None,
) -> tuple[Float[Array, "rows features"], Shaped[Array, " rows"]]:
    """Read runs of rows [start, stop) of ``group`` ("" or "test/"), one after another, in one pass.

    Each run is one read straight into its place: of new arrays, or of x and y that are given. Raises InputError where
    the values are not usable.
    """
    rows = sum(stop - start for start, stop in runs)
    if into is None:
        into = np.empty((rows, description.features), dtype), np.empty(rows, description.target(dtype))
    x, y = into
    with opened(description.path, "data file", scanned=0) as file:  # no text is read
        at = 0
        for start, stop in runs:
            here = np.s_[at : at + stop - start]
            file[f"{group}x"].read_direct(x, np.s_[start:stop], here)
            file[f"{group}y"].read_direct(y, np.s_[start:stop], here)
            at += stop - start
        check_unchanged(description, os.stat(description.path))  # HDF5 reads zeros behind the end of one that was cut
    check_rows(description, group, x, y)
    return x, y


def check_rows(
    description: Description, group: str, x: Float[Array, "rows features"], y: Shaped[Array, " rows"]
) -> None:
    """Raise InputError where samples or targets that were read are not usable."""
    classification = description.task == "classification"
    if not (np.isfinite(np.min(x, initial=0)) and np.isfinite(np.max(x, initial=0))):  # NaN is both; makes no mask
        raise InputError(f"data file {description.path}: {group}x holds NaN or infinite values")
    if classification and y.size and not (y.min() >= 0 and y.max() < description.classes):
        raise InputError(
            f"data file {description.path}: labels must be 0 to {description.classes - 1}, found {y.min()} to {y.max()}"
        )
    if not classification and not np.isfinite(y).all():
        raise InputError(f"data file {description.path}: {group}y holds NaN or infinite values")


def check_unchanged(description: Description, state: os.stat_result) -> None:
    """Raise InputError where the file, or one that is still open, is no longer as it was described."""
    if _stamp(state) != description.stamp:
        raise InputError(f"data file {description.path} has changed while it was read")
