"""Columns of everyone's rows on their way to the ranks that they belong to."""

from collections.abc import Callable
from typing import Any

import numpy as np
from mpi4py import MPI

from mpicoded.algorithms.shapes import Array
from mpicoded.transport.base import copy_unless_there

_LONG = 1 << 16  # bytes of columns in a row, from which on a message of their own is worth it: it is copied once, where
# Open MPI packs what has gaps piece by piece (100 MB each way between two ranks: 8 ms and 87 ms)
_ROW = 1  # tag


class Columns:
    """Strided columns, which nobody packs: an Alltoallw of them, or where they are long, a message for each row.

    A rank's own are copied, if they are elsewhere. Types and requests are kept, as one exchange is mostly as the last.
    ``item_type`` makes MPI's type for so many bytes.
    """

    def __init__(self, comm: Any, item_type: Callable[[int], Any]) -> None:
        self._comm, self._item_type = comm, item_type
        self.rank, self.size = comm.rank, comm.size
        self._types: tuple[Any, Any, Any, Any, Any] | None = None  # for an Alltoallw
        self._moving: tuple[Any, tuple[Array, Array]] | None = None  # where rows go one by one
        self._requests: list[Any] = []

    def exchange(self, rows: Array, counts: Array, edges: Array, out: Array) -> None:
        """See ``Transport.exchange``."""
        me, starts = self.rank, np.cumsum(counts) - counts
        fits = rows.flags.c_contiguous and rows.shape[1] == edges[-1] and rows.dtype == out.dtype
        if not (fits and out[:1].flags.c_contiguous and out.shape == (counts.sum(), edges[me + 1] - edges[me])):
            raise ValueError(f"{rows.shape} {rows.dtype} cannot be cut at {edges} into {out.shape} {out.dtype}")
        copy_unless_there(rows[:, edges[me] : edges[me + 1]], out[starts[me] : starts[me] + counts[me]])
        widths = np.diff(edges)
        if widths[widths > 0].min() * rows.itemsize >= _LONG:
            MPI.Prequest.Startall(self.row_messages(rows, counts, edges, out))
            MPI.Request.Waitall(self._requests)
            return
        key = rows.shape, rows.itemsize, out.strides, edges.tobytes(), counts.tobytes()
        if self._types is None or self._types[0] != key:
            self._types = key, *self._column_types(rows, counts, edges, out)
        _, sends, sent, takes, taken = self._types
        none = [0] * self.size
        numbers = (out.shape[0] - 1) * out.strides[0] // out.itemsize + out.shape[1]
        memory = np.lib.stride_tricks.as_strided(out, (numbers,), (out.itemsize,))  # with what lies between rows
        self._comm.Alltoallw([rows, (sends, none), sent], [memory, (takes, none), taken])

    def row_messages(self, rows: Array, counts: Array, edges: Array, out: Array) -> list[Any]:
        """What moves each row's columns, to be started in every round. Rows come in their order from each rank."""
        buffers = rows, out
        places = [(each.ctypes.data, each.strides, each.shape, each.itemsize) for each in buffers]
        key = places, edges.tobytes(), counts.tobytes()
        if self._moving is not None and self._moving[0] == key:
            return self._requests
        for request in self._requests:
            request.Free()
        me, starts = self.rank, np.cumsum(counts) - counts
        others = [rank for rank in range(self.size) if rank != me]
        takes = [(r, out[starts[r] + i]) for r in others if out.shape[1] for i in range(counts[r])]
        sends = [(r, row[edges[r] : edges[r + 1]]) for r in others if edges[r] < edges[r + 1] for row in rows]
        self._requests = [self._comm.Recv_init([row, row.nbytes, MPI.BYTE], r, _ROW) for r, row in takes]
        self._requests += [self._comm.Send_init([row, row.nbytes, MPI.BYTE], r, _ROW) for r, row in sends]
        self._moving = key, buffers  # which stay where they are as long as somebody knows them
        return self._requests

    def _column_types(self, rows: Array, counts: Array, edges: Array, out: Array) -> tuple[Any, Any, Any, Any]:
        """For each rank: whether it gets something, as what type, and whether something comes from it, as what type.

        Where that lies is part of the types, since a displacement of bytes would not fit MPI's int.
        """
        number, width, me = self._item_type(rows.itemsize), np.diff(edges), self.rank
        away = np.arange(self.size) != me
        sends, takes = away & (width > 0) & (counts[me] > 0), away & (counts > 0) & (width[me] > 0)
        sent = [
            _at(int(edges[r]) * rows.itemsize, number.Create_vector(len(rows), int(width[r]), rows.shape[1]))
            for r in range(self.size)
        ]
        apart, starts = out.strides[0], np.cumsum(counts) - counts
        taken = [
            _at(int(starts[r]) * apart, number.Create_vector(int(counts[r]), int(width[me]), apart // out.itemsize))
            for r in range(self.size)
        ]
        return sends.astype(int), sent, takes.astype(int), taken


def _at(displacement: int, item: Any) -> Any:
    """The item, so many bytes from where the buffer begins."""
    return MPI.Datatype.Create_struct([1], [displacement], [item]).Commit()
