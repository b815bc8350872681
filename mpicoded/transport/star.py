"""The transport that does not wait for everyone: single messages between the server and each rank.

A rank that has not answered its last order gets no other one until it has; what it says too late is known by the number
of the order, and thrown away. With an MPI that survives the death of a process (ULFM: Open MPI's
``mpiexec --with-ft ulfm``), a rank that dies is left out from then on; where the server dies, the others make the
lowest of them the server.

Collective calls are not used here: some give wrong data without an error when a rank dies (Open MPI's coll/han).
"""

import os
import signal
import sys
import time
from typing import Any

import numpy as np
from mpi4py import MPI

from mpicoded.algorithms.processors import Processor
from mpicoded.algorithms.shapes import Array, Bool
from mpicoded.errors import InputError
from mpicoded.transport.base import (
    Gathered,
    Kind,
    Loss,
    Order,
    Patience,
    RanksMissing,
    Reach,
    ServerLost,
    Transport,
    answer_layout,
    block_sizes,
    block_starts,
    pack_bits,
    unpack_bits,
)
from mpicoded.transport.hub import Hub
from mpicoded.transport.line import Line, Tag
from mpicoded.transport.mpi import MpiTransport

_ENABLED = "OMPI_MCA_mpi_ft_enable"  # what mpiexec --with-ft ulfm sets
_FAREWELL = 0.3  # seconds for messages under way, before a process ends without MPI_Finalize


class StarTransport(MpiTransport):
    """Devices on the ranks of a communicator; only the server waits, and only as long as it was told to."""

    def __init__(self, comm: Any, devices: int, patience: Patience) -> None:
        """Use this communicator, which must be private, for nothing else from now on."""
        super().__init__(comm, private=True)
        self._patience = patience
        self._server = 0
        self._alive = np.ones(self.size, bool)
        self._place = np.arange(self.size)  # ranks in the present communicator
        self._starts, self._sizes = block_starts(devices, self.size), block_sizes(devices, self.size)
        self._header_type = answer_layout(int(self._sizes.max()))
        self._hub = self._new_hub()
        if patience.survives and not _fault_tolerant(self._comm):
            raise InputError(
                'transport on_rank_loss = "continue" needs an MPI that survives the death of a rank: start it with '
                f"Open MPI 5's mpiexec --with-ft ulfm (mpicoded run --ranks P does), this is {self.description} without"
            )

    # The server.

    def tell(self, order: Order) -> None:
        """Send the order to all ranks that are alive and owe no answer."""
        if order.kind is Kind.END:
            self._hub.settle()
        asked = self._hub.free()
        self.present = np.arange(self.size) == self.rank
        self.present[[line.rank for line in asked]] = True
        self._orders.write(order)
        self._orders.order["number"] += 1
        pack_bits(self.present, self._orders.order["present"][0])
        pack_bits(self._alive, self._orders.order["alive"][0])
        self._hub.begin(int(self._orders.order["number"][0]), asked)
        self._hub.post(self._orders.order.copy(), Tag.ORDER, answered=order.kind is not Kind.END)
        self.heard = max(self.heard, self._hub.wish)

    def beside_orders(self, layout: np.dtype[Any]) -> Array | None:
        """Each order goes by itself: what it says of ranks decides who gets the rest."""
        return None

    def broadcast(self, array: Array) -> None:
        """The server sends, the others receive."""
        if self.leads:
            self._hub.broadcast(array)
        else:
            self._receive(array, Tag.PAYLOAD)

    def gather(
        self,
        records: Array,
        round: int,
        devices: int,
        sent: Bool[Array, " records"] | None = None,
        out: Array | None = None,
    ) -> Gathered | None:
        """What arrives in time; the server waits as it was told to."""
        sent = np.ones(len(records), bool) if sent is None else sent
        if not self.leads:
            self._answer(records if sent.all() else records[sent], sent)
            return None
        everyone = self._room_for(devices, records.dtype)
        arrived = np.zeros(devices, bool)
        mine = self._block(self.rank)
        everyone[mine], arrived[mine] = records, sent
        for line in self._hub.answers(arrived):
            block = self._block(line.rank)
            told = unpack_bits(line.header["sent"][0], block.stop - block.start)
            everyone[block][told] = line.records.view(records.dtype)
            arrived[block] = told
            self.overhead_bytes += line.header.nbytes
        self.heard = max(self.heard, self._hub.wish)
        return Gathered(everyone, arrived)

    def share(self, rows: Array, counts: Array, out: Array) -> Array:
        """Everything by way of the server."""
        total = int(counts.sum())
        if not self.leads:
            self._answer(rows)
            self._receive(out[:total], Tag.RELAY)
            return out[:total]
        missing = self._put(rows, counts, out)
        for rank in missing:
            self._part(out, counts, rank)[...] = 0
        self._hub.post(out[:total].copy(), Tag.RELAY, answered=True)  # they owe another answer to the same order
        return out[:total]

    def collect(self, rows: Array, counts: Array, out: Array | None = None) -> Array | None:
        """The rows of all who take part."""
        if not self.leads:
            self._answer(rows)
            return None
        if out is None:
            out = np.empty((int(counts.sum()), *rows.shape[1:]), rows.dtype)
        if self._put(rows, counts, out):
            raise RanksMissing
        return out

    def patient(self, devices: int, patience: Patience) -> Transport:
        """Change how long to wait."""
        self._patience = self._hub.patience = patience
        return self

    def reach(self, processor: Processor) -> Reach:
        """What may come late is received into the CPU's memory."""
        return Reach(False, "messages may be late or lost")

    def _block(self, rank: int) -> slice:
        """The devices that a rank hosts."""
        return slice(int(self._starts[rank]), int(self._starts[rank] + self._sizes[rank]))

    def _put(self, rows: Array, counts: Array, out: Array) -> list[int]:
        """Put the rows of all who take part into ``out``; the ranks whose rows have not come."""
        self._part(out, counts, self.rank)[...] = rows
        come = {self.rank}
        for line in self._hub.answers():
            part = self._part(out, counts, line.rank)
            part[...] = line.records.view(rows.dtype).reshape(part.shape)
            come.add(line.rank)
        return [int(rank) for rank in np.flatnonzero(counts) if rank not in come]

    @staticmethod
    def _part(out: Array, counts: Array, rank: int) -> Array:
        first = int(counts[:rank].sum())
        part: Array = out[first : first + int(counts[rank])]
        return part

    def _lose(self, line: Line, error: MPI.Exception) -> None:
        if not self._patience.survives:
            raise error
        line.drop()  # it stays one of those ``present``, as the others were told that it is
        self._mourn(self._alive & (np.arange(self.size) != line.rank))

    # The others.

    def hear(self) -> Order:
        """Receive the next order."""
        self._receive(self._orders.order, Tag.ORDER)
        self.present = unpack_bits(self._orders.order["present"][0], self.size)
        alive = unpack_bits(self._orders.order["alive"][0], self.size)
        self._mourn(alive)
        return self._orders.read()

    def _answer(self, array: Array, sent: Bool[Array, " records"] | None = None) -> None:
        header = np.zeros(1, self._header_type)
        raw = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
        if sent is not None:
            pack_bits(sent, header["sent"][0])
        header["number"], header["nbytes"], header["wish"] = self._orders.order["number"], raw.size, self.wish
        server = int(self._place[self._server])
        try:
            self._comm.Send(self._items(header), server, Tag.HEADER)
            if raw.size:
                self._comm.Send(self._items(raw), server, Tag.RECORDS)
        except MPI.Exception as error:
            self._without_server(error)

    def _receive(self, array: Array, tag: int) -> None:
        flat = array.reshape(-1)
        try:
            self._comm.Recv(self._items(flat), int(self._place[self._server]), tag)
        except MPI.Exception as error:
            self._without_server(error)

    def _without_server(self, error: Exception) -> None:
        if self._patience.survives:
            raise ServerLost from error
        raise error

    # Both.

    def recover(self) -> None:
        """Shrink the communicator; the lowest rank that is left leads."""
        if not self._comm.Is_revoked():
            self._comm.Revoke()  # wakes those that wait for others than the server
        smaller = self._comm.Shrink()
        before = self._comm.group
        alive = np.zeros(self.size, bool)
        there = MPI.Group.Translate_ranks(smaller.group, None, before)
        old = {int(place): rank for rank, place in enumerate(self._place) if place >= 0}
        alive[[old[place] for place in there]] = True
        self._mourn(alive)
        self._place = np.where(alive, np.cumsum(alive) - 1, -1)
        self._comm, self.present = smaller, alive.copy()
        self._server = int(np.argmax(alive))
        self.leads = self.rank == self._server
        self.heard = max(self.heard, self.wish)
        self._hub = self._new_hub()

    def _mourn(self, alive: Bool[Array, " ranks"]) -> None:
        """Note who has died."""
        self.lost += [
            Loss(int(rank), int(self._orders.order["round"][0])) for rank in np.flatnonzero(self._alive & ~alive)
        ]
        self._alive = alive

    def close(self, code: int) -> None:
        """MPI_Finalize may hang after a loss, also after one that nobody has noticed yet: leave without it."""
        if stuck := self._hub.owing():
            print(f"mpicoded: warning: ranks {stuck} still owe an answer and are left behind", file=sys.stderr)
            self.abort(code)
        if self._patience.survives:
            self._say_it_all()
            os._exit(code)

    def fail(self, code: int) -> None:
        """The others notice a death by signal only."""
        if self.leads or not self._patience.survives:
            self.abort(code)
        self._say_it_all()
        os.kill(os.getpid(), signal.SIGKILL)

    def abort(self, code: int) -> None:
        """Where all others have died, MPI_Abort would end the job with code 0."""
        if self._alive.sum() > 1:
            super().abort(code)
        self._say_it_all()
        os._exit(code)

    def _say_it_all(self) -> None:
        sys.stdout.flush()
        sys.stderr.flush()
        time.sleep(_FAREWELL)

    def _new_hub(self) -> Hub:
        """Without lines where another rank is the server."""
        others = np.flatnonzero(self._alive).tolist() if self.leads else []
        places = {rank: int(self._place[rank]) for rank in others if rank != self.rank}
        lines = [Line(self._comm, rank, place, self._header_type, self._items) for rank, place in places.items()]
        return Hub(lines, self._patience, self._lose)


def _fault_tolerant(comm: Any) -> bool:
    """Whether this job goes on when a process dies."""
    try:
        comm.Get_failed()
    except (NotImplementedError, MPI.Exception):
        return False
    return os.environ.get(_ENABLED) in ("1", "true")
