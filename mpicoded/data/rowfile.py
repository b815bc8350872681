"""The training rows of a dataset as they lie in its file, for who reads them again and again.

h5py reads under a lock of the whole process. Rows that are plain numbers one after another, as ``layout`` writes them,
are read here past it, so that a thread that reads keeps none that computes waiting.
"""

import os
import weakref
from collections.abc import Sequence
from typing import Any, NamedTuple

import h5py
import numpy as np

from mpicoded.algorithms.shapes import Array, Float, Shaped
from mpicoded.data.layout import Description, check_unchanged
from mpicoded.data.whole import opened
from mpicoded.errors import InputError, one_line

_NAMES = "x", "y"
_CONVERTED = 1 << 18  # bytes that are converted to another type at once, in the cache


class Run(NamedTuple):
    """Rows that lie side by side, and where they are to be."""

    start: int
    stop: int
    at: int


class _Place(NamedTuple):
    """Where a dataset's numbers lie, and of which type they are."""

    file: int  # of its own: the system reads ahead of the last read of each
    offset: int
    dtype: np.dtype[Any]


class RowFile:
    """The rows of a training split. Raises InputError where its file is no longer as it was described."""

    def __init__(self, description: Description) -> None:
        self._description = description
        try:
            self._files = [os.open(description.path, os.O_RDONLY | os.O_CLOEXEC) for _ in _NAMES]
            weakref.finalize(self, _close, self._files).atexit = False  # a thread may still read
        except OSError as error:
            raise self._unread(error) from None
        self._check()
        with opened(description.path, "data file", scanned=0) as file:
            self._places = [_place(file[name], number) for name, number in zip(_NAMES, self._files, strict=True)]
            self._slow = None if all(self._places) else h5py.File(description.path, "r", locking=False)

    def read(self, runs: Sequence[Run], x: Float[Array, "rows features"], y: Shaped[Array, " rows"]) -> None:
        """Read runs of rows into their places in x and y, whatever these hold elsewhere. Values are not checked."""
        try:
            for name, place, out in zip(_NAMES, self._places, (x, y), strict=True):
                for start, stop, at in runs:
                    here = out[at : at + stop - start]
                    if self._slow is not None:
                        self._slow[name].read_direct(here, np.s_[start:stop])
                    elif place is not None:
                        self._fill(here.reshape(-1), place, start * (here.size // len(here)))
            self._check()
        except InputError:
            raise
        except Exception as error:  # of HDF5's, any
            raise self._unread(error) from None

    def _fill(self, out: Shaped[Array, " numbers"], place: _Place, first: int) -> None:
        """Read numbers, from the first one on."""
        stored, offset = place.dtype, place.offset + first * place.dtype.itemsize
        if stored == out.dtype:
            self._take(out, place.file, offset)
            return
        some = np.empty(min(_CONVERTED // stored.itemsize, out.size), stored)
        for at in range(0, out.size, some.size):
            part = some[: out.size - at]
            self._take(part, place.file, offset + at * stored.itemsize)
            with np.errstate(over="ignore", invalid="ignore"):  # what is too large is infinite, and found to be
                out[at : at + part.size] = part

    def _take(self, out: Shaped[Array, " numbers"], file: int, offset: int) -> None:
        """Read bytes, all of them: the system may give fewer than it is asked for."""
        here, done = memoryview(out).cast("B"), 0
        while done < here.nbytes:
            got = os.preadv(file, [here[done:]], offset + done)
            if not got:
                raise InputError(f"data file {self._description.path} is shorter than it was")
            done += got

    def _check(self) -> None:
        check_unchanged(self._description, os.fstat(self._files[0]))

    def _unread(self, error: Exception) -> InputError:
        why = error.strerror if isinstance(error, OSError) and error.strerror else one_line(error)
        return InputError(f"data file {self._description.path} cannot be read: {why}")


def _close(files: list[int]) -> None:
    for file in files:
        os.close(file)


def _place(dataset: h5py.Dataset, file: int) -> _Place | None:
    """Where a dataset lies, if its numbers are in one piece and NumPy has their type."""
    offset, dtype = dataset.id.get_offset(), dataset.dtype
    if offset is None or not dataset.id.get_type().equal(h5py.h5t.py_create(dtype)):
        return None
    return _Place(file, int(offset), dtype)
