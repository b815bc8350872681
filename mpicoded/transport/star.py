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
from collections.abc import Iterator
from typing import Any

import numpy as np
from mpi4py import MPI

from mpicoded.algorithms.shapes import Array, Bool
from mpicoded.errors import InputError
from mpicoded.transport.base import (
    Gathered,
    Kind,
    Loss,
    Order,
    Patience,
    RanksMissing,
    ServerLost,
    Transport,
    answer_layout,
    block_sizes,
    block_starts,
    pack_bits,
    unpack_bits,
)
from mpicoded.transport.line import Line, Tag
from mpicoded.transport.mpi import MpiTransport

_ENABLED = "OMPI_MCA_mpi_ft_enable"  # what mpiexec --with-ft ulfm sets
_NAP = 2e-5  # seconds between two looks
_FAREWELL = 0.3  # seconds for messages under way, before a process ends without MPI_Finalize
_LATE = 10.0  # times the deadline, or seconds where there is none: for answers that there is no round without


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
        self._lines = self._new_lines()
        self._since = 0.0
        self._told: Array | None = None  # what was broadcast last: stays as it is until all ranks have it
        self._answered = np.zeros(self.size, bool)
        if patience.survives and not _fault_tolerant(self._comm):
            raise InputError(
                'transport on_rank_loss = "continue" needs an MPI that survives the death of a rank: start it with '
                f"Open MPI 5's mpiexec --with-ft ulfm (mpicoded run --ranks P does), this is {self.description} without"
            )

    # The server.

    def tell(self, order: Order) -> None:
        """Send the order to all ranks that are alive and owe no answer."""
        if order.kind is Kind.END:
            self._settle()
        for line in self._owing():
            self._look(line)
        self._since = time.monotonic()
        self.present = self._alive.copy()
        self.present[[line.rank for line in self._owing()]] = False
        self._answered = np.zeros(self.size, bool)
        self._order["number"] += 1
        for name, value in zip(Order._fields, order, strict=True):
            self._order[name] = value
        pack_bits(self.present, self._order["present"][0])
        pack_bits(self._alive, self._order["alive"][0])
        for line in self._taking_part():
            self._order_to(line)

    def broadcast(self, array: Array) -> None:
        """The server sends, the others receive."""
        if not self.leads:
            self._receive(array, Tag.PAYLOAD)
            return
        told, pending = self._told, any(line.sends for line in self._lines)
        if told is None or pending or (told.shape, told.dtype) != (array.shape, array.dtype):
            told = np.empty_like(array)  # a slow rank may not have the last one yet
        told[...] = array
        self._told = told
        for line in self._taking_part():
            self._send(line, told, Tag.PAYLOAD)

    def gather(
        self, records: Array, round: int, devices: int, sent: Bool[Array, " records"] | None = None
    ) -> Gathered | None:
        """What arrives in time; the server waits as it was told to."""
        sent = np.ones(len(records), bool) if sent is None else sent
        if not self.leads:
            self._answer(records if sent.all() else records[sent], sent)
            return None
        if self._received.size < devices * records.itemsize:
            self._received = np.empty(devices * records.itemsize, np.uint8)
        everyone = self._received[: devices * records.itemsize].view(records.dtype)
        arrived = np.zeros(devices, bool)
        mine = self._block(self.rank)
        everyone[mine], arrived[mine] = records, sent
        for line in self._answers(arrived):
            block = self._block(line.rank)
            told = unpack_bits(line.header["sent"][0], block.stop - block.start)
            everyone[block][told] = line.records.view(records.dtype)
            arrived[block] = told
            self.overhead_bytes += line.header.nbytes
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
        relay = out[:total].copy()
        for line in self._taking_part():
            self._send(line, relay, Tag.RELAY)
            self._expect(line)
        self._answered[:] = False  # they owe another answer to the same order
        return out[:total]

    def collect(self, rows: Array, counts: Array) -> Array | None:
        """The rows of all who take part."""
        if not self.leads:
            self._answer(rows)
            return None
        out = np.empty((int(counts.sum()), *rows.shape[1:]), rows.dtype)
        if self._put(rows, counts, out):
            raise RanksMissing
        return out

    def patient(self, devices: int, patience: Patience) -> Transport:
        """Change how long to wait."""
        self._patience = patience
        return self

    def _block(self, rank: int) -> slice:
        """The devices that a rank hosts."""
        return slice(int(self._starts[rank]), int(self._starts[rank] + self._sizes[rank]))

    def _put(self, rows: Array, counts: Array, out: Array) -> list[int]:
        """Put the rows of all who take part into ``out``; the ranks whose rows have not come."""
        self._part(out, counts, self.rank)[...] = rows
        come = {self.rank}
        for line in self._answers(None):
            part = self._part(out, counts, line.rank)
            part[...] = line.records.view(rows.dtype).reshape(part.shape)
            come.add(line.rank)
        return [int(rank) for rank in np.flatnonzero(counts) if rank not in come]

    @staticmethod
    def _part(out: Array, counts: Array, rank: int) -> Array:
        first = int(counts[:rank].sum())
        part: Array = out[first : first + int(counts[rank])]
        return part

    def _answers(self, arrived: Bool[Array, " devices"] | None) -> Iterator[Line]:
        """The answers to the last order as they come.

        ``arrived``: which devices' messages have come, kept up to date by the caller, where not all are waited for.
        """
        limit = None
        if arrived is None and self._patience.deadline is not None:
            # What an order asks may take longer than a round: the server has just done its own part of it.
            limit = self._since + _LATE * max(self._patience.deadline, time.monotonic() - self._since)
        while True:
            news = False
            for line in self._owing():
                if not self._look(line):
                    continue
                news = True
                if line.header["number"][0] == self._order["number"][0]:  # else too late: free for the next order
                    self._answered[line.rank] = True
                    yield line
            awaited = [line for line in self._owing() if self.present[line.rank] and not self._answered[line.rank]]
            coming = any(line.in_records for line in awaited)
            if not awaited or (arrived is not None and self._enough(int(arrived.sum()), coming)):
                return
            if limit is not None and time.monotonic() >= limit:
                return
            if not news:
                time.sleep(_NAP)

    def _enough(self, arrived: int, coming: bool) -> bool:
        """Whether to wait no longer. ``coming``: records are on their way, which gives them some more time."""
        patience = self._patience
        if arrived < patience.fewest:
            return False
        if patience.quickest is not None and arrived >= patience.quickest:
            return True
        waited = time.monotonic() - self._since
        return patience.deadline is not None and waited >= (2 if coming else 1) * patience.deadline

    def _settle(self) -> None:
        """Wait for those who owe an answer, for a while; kill the run of those who give none."""
        limit = time.monotonic() + _LATE * (self._patience.deadline or 1.0)
        while self._owing() and time.monotonic() < limit:
            for line in self._owing():
                self._look(line)
            time.sleep(_NAP)

    def _owing(self) -> list[Line]:
        return [line for line in self._lines if line.owes]

    def _taking_part(self) -> list[Line]:
        return [line for line in self._lines if self.present[line.rank]]

    def _order_to(self, line: Line) -> None:
        self._send(line, self._order.copy(), Tag.ORDER)
        if self._order["kind"][0] != Kind.END:
            self._expect(line)

    def _send(self, line: Line, array: Array, tag: Tag) -> None:
        if self._alive[line.rank]:
            try:
                line.post(array, tag)
            except MPI.Exception:
                self._lose(line)

    def _expect(self, line: Line) -> None:
        if self._alive[line.rank]:
            line.expect()

    def _look(self, line: Line) -> bool:
        """Whether the answer of a rank is complete now."""
        try:
            if not line.look():
                return False
        except MPI.Exception:
            self._lose(line)
            return False
        self.heard = max(self.heard, int(line.header["wish"][0]))
        return True

    def _lose(self, line: Line) -> None:
        if not self._patience.survives:
            raise
        line.drop()  # it stays one of those ``present``, as the others were told that it is
        self._mourn(self._alive & (np.arange(self.size) != line.rank))

    # The others.

    def hear(self) -> Order:
        """Receive the next order."""
        self._receive(self._order, Tag.ORDER)
        self.present = unpack_bits(self._order["present"][0], self.size)
        alive = unpack_bits(self._order["alive"][0], self.size)
        self._mourn(alive)
        kind, round, value = (int(self._order[name][0]) for name in Order._fields)
        return Order(Kind(kind), round, value)

    def _answer(self, array: Array, sent: Bool[Array, " records"] | None = None) -> None:
        header = np.zeros(1, self._header_type)
        raw = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
        if sent is not None:
            pack_bits(sent, header["sent"][0])
        header["number"], header["nbytes"], header["wish"] = self._order["number"], raw.size, self.wish
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
        self._lines = self._new_lines()

    def _mourn(self, alive: Bool[Array, " ranks"]) -> None:
        """Note who has died."""
        self.lost += [Loss(int(rank), int(self._order["round"][0])) for rank in np.flatnonzero(self._alive & ~alive)]
        self._alive = alive

    def close(self, code: int) -> None:
        """MPI_Finalize may hang after a loss, also after one that nobody has noticed yet: leave without it."""
        stuck = [line.rank for line in self._owing()]
        if stuck:
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

    def _new_lines(self) -> list[Line]:
        others = np.flatnonzero(self._alive).tolist() if self.leads else []
        places = {rank: int(self._place[rank]) for rank in others if rank != self.rank}
        return [Line(self._comm, rank, place, self._header_type, self._items) for rank, place in places.items()]


def _fault_tolerant(comm: Any) -> bool:
    """Whether this job goes on when a process dies."""
    try:
        comm.Get_failed()
    except (NotImplementedError, MPI.Exception):
        return False
    return os.environ.get(_ENABLED) in ("1", "true")
