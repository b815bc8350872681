"""Who aggregates: the server everything, or several ranks a slice of the coordinates each."""

from collections.abc import Iterable, Sequence
from typing import Any, Protocol

import numpy as np

from mpicoded.algorithms.arrays import assign, fetched, namespace
from mpicoded.algorithms.memories import Turn
from mpicoded.algorithms.processors import Processor
from mpicoded.algorithms.shapes import Array, Bool, Float
from mpicoded.algorithms.slices import WHOLE, Sums, part_edges
from mpicoded.experiment import Experiment
from mpicoded.training.clock import Clock
from mpicoded.training.coding import Coding
from mpicoded.training.combiner import Combiner
from mpicoded.training.server import Receiver, Server
from mpicoded.transport.base import Gathered, Transport, block, block_sizes, block_starts
from mpicoded.wiring import Sharded


class Aggregation(Protocol):
    """From the records of a round to a step of the parameters; all ranks take part."""

    server: Server | None
    """On rank 0, or the rank that has taken its place."""
    needs_state: bool
    """Whether other ranks than the server need what it remembers, to go on from a checkpoint."""
    room: Float[Array, "messages dim"] | None
    """Where this rank's messages are best computed, as nobody copies them there; None: anywhere."""

    def round(self, records: Array, sent: Bool[Array, " devices"] | None, turn: Turn, nonce: int) -> int:
        """Do it with this rank's records; the bytes of all messages that have come, at the server."""

    def state(self, there: Bool[Array, " devices"]) -> dict[str, Any]:
        """All that the next rounds depend on beside the parameters, at the server.

        ``there``: the devices that hand over what they remember. The others will begin anew when the run is resumed.
        """

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from that: the server, and ranks that aggregate with it."""


class AtRoot:
    """All records go to the server."""

    needs_state = False
    room = None

    def __init__(
        self,
        experiment: Experiment,
        transport: Transport,
        coding: Coding,
        parameters: Float[Array, " dim"],
        clock: Clock,
        processor: Processor,
    ) -> None:
        self._experiment, self._transport, self._coding, self._clock = experiment, transport, coding, clock
        self._processor, self._dim = processor, parameters.size
        self._rows: Array | None = None  # on a GPU, of all messages
        self._room: Array | None = None  # bytes, of records
        self.server: Server | None = None
        if transport.leads:
            self.receiver = Receiver(experiment, coding, 0, experiment.devices, parameters.size, processor)
            self._combiner = Combiner(experiment, coding, clock, parameters.size, processor)
            self.server = Server(experiment, parameters, coding, self._combiner, clock)

    def round(self, records: Array, sent: Bool[Array, " devices"] | None, turn: Turn, nonce: int) -> int:
        """Gather, receive, combine, step."""
        self._clock.enter("gather")
        self._processor.wait()  # what is sent from a GPU must be there
        gathered = self._transport.gather(records, turn.round, self._experiment.devices, sent, *self._where(records))
        if self.server is None or gathered is None:
            self._clock.leave()
            return 0
        combiner = self._combiner
        self._clock.enter("decompress")
        received = self.receiver.receive(gathered, combiner.previous, turn, nonce)
        self.server.note(turn.round, gathered.arrived, received.bad, received.saturated)
        outcome = combiner.combine(received.messages, received.usable, gathered.arrived, turn.round)
        self.server.step(outcome, combiner.vote, turn.round)
        return int(np.count_nonzero(gathered.arrived)) * (int(gathered.records.nbytes) // len(gathered.arrived))

    def _where(self, records: Array) -> tuple[()] | tuple[Array]:
        """Where the records of all devices are to go, which are as these; empty: anywhere."""
        devices = self._experiment.devices
        if self.server is None or self._transport.size == 1:
            return ()
        if not isinstance(records, np.ndarray):
            if self._rows is None:
                self._rows = self._processor.xp.empty((devices, self._dim), dtype=records.dtype)
            return (self._rows,)
        nbytes = devices * records.itemsize
        if self._room is None or self._room.size < nbytes:  # records of some rounds may be larger than of others
            self._room = self._processor.room(nbytes)
        return () if self._room is None else (self._room[:nbytes].view(records.dtype),)

    def state(self, there: Bool[Array, " devices"]) -> dict[str, Any]:
        """What server, receiver and combiner remember."""
        assert self.server is not None
        memory = self._processor.fetch(self.receiver.memory)
        if self._experiment.memory.device_slots and not there.all():  # both sides must remember the same
            memory = memory * self._coding.messages(there)[:, None]
        own = {"previous": self._combiner.previous, "memory": memory}
        return own | self.server.state() | self._combiner.state()

    def restore(self, state: dict[str, Any]) -> None:
        """The server's part alone."""
        if self.server is not None:
            self.server.restore(state)
            self._combiner.restore(state, state["previous"])
            assign(self.receiver.memory, state["memory"])


class SharedSums(Sums):
    """Sums over coordinates of which each of some ranks holds a slice, the parts firsts[r] … firsts[r + 1] - 1.

    Every rank gets the sums of all parts and adds them up in the same order. ``transport``, to be set before the first
    sum, is of these ranks alone. ``piece``: the most coordinates of a piece.
    """

    transport: Transport

    def __init__(self, rank: int, edges: tuple[int, ...], firsts: Sequence[int], piece: int = WHOLE.piece) -> None:
        self.piece = piece
        self.moved = 0  # bytes, to all of these ranks, until somebody has counted them
        self._counts = np.diff(firsts)
        self._own = edges[firsts[rank] : firsts[rank + 1] + 1]

    def edges(self, columns: int) -> tuple[int, ...]:
        """Of the parts of this rank."""
        return self._own

    def total(self, partials: Iterable[Array]) -> Array:
        """An Allgather of the parts' sums, then the same additions everywhere."""
        parts = list(partials)
        xp, mine = namespace(parts[0]), fetched(namespace(parts[0]).stack(parts))
        rows = mine.reshape(len(mine), -1)
        out = np.empty((int(self._counts.sum()), rows.shape[1]), rows.dtype)
        every = self.transport.share(rows, self._counts, out)
        self.moved += self.transport.size * out.nbytes
        return WHOLE.total(list(xp.asarray(every.reshape(-1, *mine.shape[1:]), device=parts[0].device)))


_STATUS = np.dtype([("bad", "?"), ("saturated", "<i8")])
_FEW = 2  # ranks: of more, each has less of its own slice to copy, and a matrix of all messages takes more memory


class InSlices:
    """Each of the servers, the lowest ranks, gets its slice of all messages; the first of them steps."""

    needs_state = True

    def __init__(
        self,
        experiment: Experiment,
        transport: Transport,
        coding: Coding,
        parameters: Float[Array, " dim"],
        clock: Clock,
        processor: Processor,
        servers: int | None,
    ) -> None:
        self._experiment, self._transport, self._clock = experiment, transport, clock
        devices, dim, size, rank = experiment.devices, parameters.size, transport.size, transport.rank
        edges = part_edges(dim)
        parts = len(edges) - 1
        self._servers = slice_servers(servers, dim, size)
        firsts = [*block_starts(parts, self._servers).tolist(), parts]
        self._columns = np.array([edges[first] for first in firsts] + [dim] * (size - self._servers))
        self._widths = np.diff(self._columns)
        self._mine = slice(int(self._columns[rank]), int(self._columns[rank + 1]))
        self._counts = block_sizes(devices, size)
        first, stop = block(devices, rank, size)
        self._receiver = Receiver(experiment, coding, first, stop, dim, Processor())  # slices travel from the CPU
        self._status = np.zeros(stop - first, _STATUS)
        self.room: Float[Array, "messages dim"] | None = None
        if rank < self._servers and size <= _FEW and experiment.sends_vectors and experiment.compute.device == "cpu":
            whole = np.empty((devices, dim), parameters.dtype)  # messages, and the slice in the others' rows
            self.room, self._slice = whole[first:stop], whole[:, self._mine]
        else:
            self._slice = np.empty((devices, int(self._widths[rank])), parameters.dtype)
        self._usable = np.empty(devices, bool)
        self._previous, self._vote = np.zeros((2, dim if transport.leads else 0), parameters.dtype)
        self._met = False
        self._sums: SharedSums | None = None
        self._combiner: Combiner | None = None
        self.server: Server | None = None
        if rank < self._servers:
            self._sums = SharedSums(rank, edges, firsts, processor.sums.piece)
            self._combiner = Combiner(experiment, coding, clock, int(self._widths[rank]), processor, self._sums)
            if transport.leads:
                self.server = Server(experiment, parameters, coding, self._combiner, clock)

    def round(self, records: Array, sent: Bool[Array, " devices"] | None, turn: Turn, nonce: int) -> int:
        """Receive own records, cut, exchange, combine, step."""
        self._meet()
        with self._clock.phase("decompress"):
            come = np.ones(len(records), bool) if sent is None else sent
            received = self._receiver.receive(Gathered(records, come), self._previous, turn, nonce)
            self._status["bad"], self._status["saturated"] = received.bad, received.saturated
        with self._clock.phase("gather"):
            told = self._transport.gather(self._status, turn.round, self._experiment.devices, sent)
            usable = self._transport.share(received.usable, self._counts, self._usable)
            self._transport.exchange(received.messages, self._counts, self._columns, self._slice)
        outcome = None
        if self._combiner is not None:  # that all messages have "arrived" makes no difference where all are waited for
            outcome = self._combiner.combine(self._slice, usable, usable, turn.round)
        with self._clock.phase("gather"):
            vote = self._transport.collect(self._own_vote(), self._widths, self._vote)
        if self.server is None or self._sums is None or outcome is None or told is None or vote is None:
            return 0
        arrived = told.arrived
        # What each of the ranks got beside messages, as far as rank 0 can know it: sums, who is usable, and the vote.
        beside = told.records.nbytes + self._transport.size * usable.nbytes + vote.nbytes
        self._transport.overhead_bytes += self._sums.moved + beside
        self._sums.moved = 0
        bad, saturated = told.records["bad"] & arrived, np.where(arrived, told.records["saturated"], 0)
        self.server.note(turn.round, arrived, bad, saturated)
        self._previous[...] = vote
        self.server.step(outcome, vote, turn.round)
        return int(arrived.sum()) * int(vote.nbytes)

    def state(self, there: Bool[Array, " devices"]) -> dict[str, Any]:
        """What server and combiner remember; the combiners of all ranks remember the same."""
        assert self.server is not None
        assert self._combiner is not None
        return {"previous": self._previous} | self.server.state() | self._combiner.state()

    def restore(self, state: dict[str, Any]) -> None:
        """On all ranks."""
        if self._combiner is not None:
            self._combiner.restore(state, state["previous"][self._mine])
        if self.server is not None:
            self.server.restore(state)
            self._previous[...] = state["previous"]

    def _meet(self) -> None:
        """Before the first round: the servers get a communicator of their own."""
        if self._met:
            return
        self._met, among = True, self._transport.lowest(self._servers)
        if self._sums is not None and among is not None:
            self._sums.transport = among

    def _own_vote(self) -> Float[Array, " columns"]:
        return self._slice[0, :0] if self._combiner is None else self._combiner.vote


def slice_servers(wanted: int | None, dim: int, ranks: int) -> int:
    """How many ranks get slices of so many coordinates: as many as wanted, or all, but no more than there are parts."""
    return min(wanted or ranks, ranks, len(part_edges(dim)) - 1)


def aggregation(
    experiment: Experiment,
    transport: Transport,
    coding: Coding,
    parameters: Float[Array, " dim"],
    clock: Clock,
    processor: Processor,
) -> Aggregation:
    """As the experiment's transport says; ``processor``: where filters and rule work."""
    words = experiment, transport, coding, parameters, clock, processor
    if isinstance(experiment.transport, Sharded):
        return InSlices(*words, experiment.transport.servers)
    return AtRoot(*words)
