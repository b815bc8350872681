"""The transport over MPI: upper-case, buffer-based calls on a communicator of our own.

Nothing that a device says is ever unpickled: every call moves a known number of typed items.
"""

import math
import os
import platform
import sys
import time
from pathlib import Path
from typing import Any

import mpi4py
import numpy as np

from mpicoded.algorithms.processors import Processor
from mpicoded.algorithms.shapes import Array, Bool
from mpicoded.errors import InputError
from mpicoded.transport.base import (
    BESIDE,
    Gathered,
    Loss,
    Node,
    Order,
    Patience,
    Reach,
    Transport,
    decode_text,
    encode_text,
)
from mpicoded.transport.headers import Headers
from mpicoded.transport.orders import OrderRoom

if Path(sys.prefix, "lib", "libmpi.so.40").exists():
    # Open MPI installed into this environment, as from PyPI: it probes for OFI networks for a second at every
    # start. A site's own Open MPI has its own settings, which an environment variable would override.
    os.environ.setdefault("OMPI_MCA_btl", "^ofi")
    os.environ.setdefault("OMPI_MCA_osc", "^ucx")  # without its network it calls itself an error, on every rank
mpi4py.rc.threads = False  # one thread calls MPI
try:
    from mpi4py import MPI
except RuntimeError as error:  # mpi4py is there, an MPI library is not
    raise InputError(f"no MPI library was found: {error}") from None


_LARGEST = 1 << 30  # bytes of one MPI item; larger ones are made of several


def library_version() -> str:
    """Name and version of the MPI library, short."""
    first_line = MPI.Get_library_version().split("\n")[0].rstrip("\x00")
    return " ".join(first_line.split(", package")[0].replace("Version:", "").split())


class MpiTransport:
    """Devices on the ranks of a communicator, all of which do the same at the same time."""

    def __init__(self, comm: Any = None, private: bool = False) -> None:
        """Use a private duplicate of the communicator (the world, unless another is given), or itself."""
        self._comm = comm if private else (comm or MPI.COMM_WORLD).Dup()
        self.rank: int = self._comm.rank
        self.size: int = self._comm.size
        self.leads = self.rank == 0
        self.description = library_version()
        self.overhead_bytes = 0
        self.present = np.ones(self.size, bool)
        self.lost: list[Loss] = []
        self.wish = self.heard = 0
        self._headers: Headers | None = None  # of the last gather
        self._of_headers: tuple[Any, Any] = None, None  # for MPI
        self._received = self._everyone = np.empty(0, np.uint8)
        self._dense = np.empty(0, np.uint8)  # as many records as were sent, where some devices were silent
        self._types: dict[int, Any] = {}
        self._orders = OrderRoom(self.size)
        self._told = self._items(self._orders.whole)
        self._columns: Any = None  # what exchanges them

    def tell(self, order: Order) -> None:
        """A Bcast of the order, and what is beside it."""
        self._orders.write(order)
        self._comm.Bcast(self._told)

    def hear(self) -> Order:
        """The other end of that Bcast."""
        self._comm.Bcast(self._told)
        return self._orders.read()

    def beside_orders(self, layout: np.dtype[Any]) -> Array | None:
        """Room in the same message: two short ones take twice as long as one."""
        if layout.itemsize > BESIDE or self._orders.accompanied:
            return None
        self._orders = OrderRoom(self.size, layout)
        self._told = self._items(self._orders.whole)
        return self._orders.beside

    def broadcast(self, array: Array) -> None:
        """One Bcast of the array's bytes."""
        self._comm.Bcast(self._items(array.reshape(-1)))

    def gather(
        self,
        records: Array,
        round: int,
        devices: int,
        sent: Bool[Array, " records"] | None = None,
        out: Array | None = None,
    ) -> Gathered | None:
        """A Gather of the headers, then a Gatherv of the records that are sent; straight into place where all are."""
        if sent is not None and sent.all():
            sent = None
        if self._headers is None or self._headers.devices != devices:
            self._headers = headers = Headers(devices, self.rank, self.size)
            one = self._item_type(headers.own.nbytes)
            self._of_headers = [headers.own, 1, one], [headers.everyone, 1, one] if self.rank == 0 else None
        headers = self._headers
        headers.write(round, self.wish, sent)
        self._comm.Gather(*self._of_headers)
        self.overhead_bytes += headers.nbytes
        if sent is not None:
            records = records[sent]
        if self.rank != 0:
            self._gatherv(records, None, None, None)
            return None
        counts, starts, arrived, wish = headers.read(round)
        self.heard = max(self.heard, wish)
        if out is None:
            out = self._room_for(devices, records.dtype)
        if arrived is None:
            self._gatherv(records, counts, starts, out)
            return Gathered(out, headers.everyone_sends)
        if not isinstance(out, np.ndarray):
            raise RuntimeError(f"in round {round} devices are silent, but messages go from GPU to GPU")
        if self._dense.size < out.nbytes:
            self._dense = np.empty(out.nbytes, np.uint8)
        dense = self._dense[: int(counts.sum()) * records.itemsize].view(records.dtype)
        self._gatherv(records, counts, starts, dense)
        out[arrived] = dense
        return Gathered(out, arrived)

    def share(self, rows: Array, counts: Array, out: Array) -> Array:
        """An Allgatherv of rows."""
        total = int(counts.sum())
        row = self._row_type(out)
        starts = np.cumsum(counts) - counts
        self._comm.Allgatherv([rows, len(rows), row], [out, (counts, starts), row])
        return out[:total]

    def exchange(self, rows: Array, counts: Array, edges: Array, out: Array) -> None:
        """See ``Columns``: few runs need it."""
        if self._columns is None:
            from mpicoded.transport.columns import Columns

            self._columns = Columns(self._comm, self._item_type)
        self._columns.exchange(rows, counts, edges, out)

    def reach(self, processor: Processor) -> Reach:
        """Tried where the libraries of all ranks say that they do: elsewhere it could end a process."""
        from mpicoded.transport.gpu import asked, tried

        info = MPI.COMM_WORLD.Get_info()
        yes, said = asked(info.Get("mpi_memory_alloc_kinds") or "")
        info.Free()
        if (no := self.agree(None if yes else said)) is not None:
            return Reach(False, no)
        if (wrong := self.agree(tried(self._comm, processor) or None)) is not None:
            return Reach(False, f"{said}, but {wrong}")
        return Reach(True, f"{said}, and a trial was right")

    def lowest(self, count: int) -> Transport | None:
        """A communicator of their own."""
        there = self.rank < count
        comm = self._comm.Split(0 if there else MPI.UNDEFINED, self.rank)
        return MpiTransport(comm, private=True) if there else None

    def node(self) -> Node | None:
        """A communicator of those that the MPI says share memory."""
        from mpicoded.transport.node import MpiNode

        comm = self._comm.Split_type(MPI.COMM_TYPE_SHARED, self.rank)
        return MpiNode(comm, self.rank) if comm.size > 1 else None

    def collect(self, rows: Array, counts: Array, out: Array | None = None) -> Array | None:
        """A Gatherv of rows."""
        if self.rank != 0:
            out = None
        elif out is None:
            out = np.empty((int(counts.sum()), *rows.shape[1:]), rows.dtype)
        self._gatherv(rows, counts, np.cumsum(counts) - counts, out)
        return out

    def patient(self, devices: int, patience: Patience) -> Transport:
        """The same ranks as a star of single messages, which need not all be there."""
        from mpicoded.transport.star import StarTransport

        return StarTransport(self._comm, devices, patience)

    def recover(self) -> None:
        """When a rank dies the launcher ends the others."""

    def close(self, code: int) -> None:
        """MPI is left when the process ends."""

    def agree(self, error: str | None) -> str | None:
        """The lowest rank with an error is found first; only its text travels."""
        good = np.empty(self.size, np.uint8)
        self._comm.Allgather(np.array([error is None], np.uint8), good)
        if good.all():
            return None
        lowest = int(np.argmin(good))
        some = f"rank {self.rank} on {platform.node()}: " if good.any() else ""
        text = encode_text(f"{some}{error}")
        self._comm.Bcast(text, lowest)
        return decode_text(text)

    def texts(self, text: str) -> list[str]:
        """An Allgather of fixed-size texts."""
        mine = encode_text(text)
        everyone = np.empty((self.size, mine.size), np.uint8)
        self._comm.Allgather(mine, everyone)
        return [decode_text(row) for row in everyone]

    def fail(self, code: int) -> None:
        """The others would wait for this rank."""
        self.abort(code)

    def abort(self, code: int) -> None:
        """MPI_Abort: the launcher ends all ranks."""
        sys.stdout.flush()
        sys.stderr.flush()
        time.sleep(0.5)  # launchers pass on what a rank has printed only while the job lives
        MPI.COMM_WORLD.Abort(code)

    def _room_for(self, devices: int, layout: np.dtype[Any]) -> Array:
        """Memory for records of all devices, the same as for the last ones where these are alike."""
        if self._everyone.dtype != layout or len(self._everyone) != devices:
            if self._received.size < devices * layout.itemsize:  # records of some rounds may be larger than of others
                self._received = np.empty(devices * layout.itemsize, np.uint8)
            self._everyone = self._received[: devices * layout.itemsize].view(layout)
        return self._everyone

    def _gatherv(self, rows: Array, counts: Array | None, starts: Array | None, out: Array | None) -> None:
        """``out``: at the root alone."""
        row = self._row_type(rows)
        self._comm.Gatherv([rows, len(rows), row], None if out is None else [out, (counts, starts), row])

    def _row_type(self, rows: Array) -> Any:
        """One row as one MPI item, so that counts are numbers of rows and stay below MPI's 2^31."""
        return self._item_type(rows.itemsize * math.prod(rows.shape[1:]))

    def _items(self, array: Array) -> list[Any]:
        if array.nbytes < 1 << 31:
            return [array, len(array), self._item_type(array.itemsize)]
        return [array, 1, self._item_type(array.nbytes)]

    def _item_type(self, nbytes: int) -> Any:
        if nbytes not in self._types:
            whole, rest = divmod(nbytes, _LARGEST)
            item = MPI.BYTE.Create_contiguous(rest)
            if whole:  # a count of bytes would not fit MPI's int
                large = MPI.BYTE.Create_contiguous(_LARGEST)
                item = MPI.Datatype.Create_struct([whole, 1], [0, whole * _LARGEST], [large, item])
            self._types[nbytes] = item.Commit()
        return self._types[nbytes]
