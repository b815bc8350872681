"""Between server and devices: what the broadcast tells, and what a rank's devices send back."""

import secrets

import numpy as np

from mpicoded.algorithms.arrays import assign, replace_unusable
from mpicoded.algorithms.compressors import receive, to_wire
from mpicoded.algorithms.memories import Turn
from mpicoded.algorithms.processors import Processor
from mpicoded.algorithms.randomness import Streams, generator
from mpicoded.algorithms.shapes import Array, Bool, Float, Int
from mpicoded.experiment import Experiment
from mpicoded.training.adversary import Adversary
from mpicoded.training.clock import Clock
from mpicoded.training.coding import Coding
from mpicoded.training.mishaps import Mishaps
from mpicoded.transport.base import Transport, block, block_sizes, devices_on

NONCE_BITS = 64


class Downlink:
    """The parameters on their way to the devices, and the nonce where devices share randomness.

    The nonce is drawn just before it is told, so that nobody knows before the round what follows from it; devices know
    it when they send. By default it comes from the seed, so that the run can be repeated, and whoever knows the seed
    knows the nonces; ``nonces = "entropy"`` takes them from the operating system.
    """

    def __init__(self, experiment: Experiment, transport: Transport, dim: int) -> None:
        self._experiment, self._transport = experiment, transport
        layout = experiment.broadcast_layout(dim)
        room = transport.beside_orders(layout)
        self._apart = room is None  # whether it does not go with the orders
        self._record = np.zeros(1, layout) if room is None else room
        self._wired = wired = self._record["parameters"][0]
        self._shortened = wired.dtype != experiment.compute.dtype
        self._told = np.empty(dim, experiment.compute.dtype) if self._shortened else wired
        self._nonces = self._record["nonce"] if "nonce" in (layout.names or ()) else None
        self.nbytes = self._record.nbytes

    def write(self, parameters: Float[Array, " dim"], round: int) -> None:
        """What the next order tells, at the server: it goes with the order where it is short."""
        to_wire(parameters, self._wired)
        if self._nonces is not None:
            self._nonces[0] = self._nonce(round)

    def told(self) -> tuple[Float[Array, " dim"], int]:
        """What all devices got of the server's parameters, and the nonce (0 without one). All ranks ask, at an order.

        Here it is broadcast where it has not come with the order.
        """
        if self._apart:
            self._transport.broadcast(self._record)
        if self._shortened:
            self._told[...] = self._wired
        return self._told, 0 if self._nonces is None else int(self._nonces[0])

    @property
    def saturated(self) -> int:
        """How many of the parameters told last stand at the limit of a shorter type."""
        if not self._shortened:
            return 0
        return int(np.count_nonzero(np.abs(self._wired) == np.finfo(self._wired.dtype).max))

    def _nonce(self, round: int) -> int:
        if self._experiment.transport.nonces == "entropy":
            return secrets.randbits(NONCE_BITS)
        return int(generator(self._experiment.seed, "nonce", round).integers(1 << NONCE_BITS, dtype=np.uint64))


class Uplink:
    """What a rank's devices send: attack → compress → attack on the packed record, and what they remember of it."""

    def __init__(
        self,
        experiment: Experiment,
        transport: Transport,
        coding: Coding,
        adversary: Adversary,
        mishaps: Mishaps,
        dim: int,
        clock: Clock,
        processor: Processor,
    ) -> None:
        self._experiment, self._coding, self.adversary, self._clock = experiment, coding, adversary, clock
        self._transport, self._mishaps, self._processor = transport, mishaps, processor
        self.direct = False  # whether dense messages are sent from the GPU where they are
        self._first, self._stop = block(experiment.devices, transport.rank, transport.size)
        count = coding.each * (self._stop - self._first)
        dtype = np.dtype(experiment.compute.dtype)
        layout = experiment.compressor.layout(dim, dtype)
        self._records = None if experiment.sends_vectors else np.empty(count, layout)
        slots = experiment.memory.device_slots
        self._remembers = slots > 0
        self._state = processor.xp.zeros((slots, count, dim), dtype=dtype)
        self._received = processor.xp.empty((count if slots else 0, dim), dtype=dtype)

    def state(self) -> Float[Array, "devices state"] | None:
        """What all devices remember, a row for each, at the server: zero for those of missing ranks."""
        rows = np.swapaxes(self._processor.fetch(self._state), 0, 1).reshape(self._stop - self._first, -1)
        devices, present = self._experiment.devices, self._transport.present
        sizes = block_sizes(devices, self._transport.size)
        found = self._transport.collect(np.ascontiguousarray(rows), sizes * present)
        if found is None or present.all():
            return found
        everyone = np.zeros((devices, found.shape[1]), found.dtype)
        everyone[devices_on(present, devices)] = found
        return everyone

    def restore(self, rows: Float[Array, "devices state"]) -> None:
        """Go on from a checkpoint: a row for each device of this rank."""
        slots, count, dim = self._state.shape
        assign(self._state, np.swapaxes(rows.reshape(count, slots, dim), 0, 1))

    def pack(
        self,
        messages: Float[Array, "messages dim"],
        before: Float[Array, "messages dim"] | None,
        keys: Int[Array, " messages"],
        turn: Turn,
        nonce: int,
    ) -> tuple[Array, Bool[Array, " devices"] | None]:
        """What each device sends in this round, and which of them do (None: all). The messages are used up.

        On a GPU they are attacked and compressed there; or sent from there as they are (``direct``, see ``route``).
        ``before``: the messages at the previous parameters, where the memory looks back. ``keys``: what each message
        says; those of one key are compressed by the same random numbers.
        """
        experiment, memory = self._experiment, self._experiment.memory
        enter = self._clock.enter
        enter("compress")
        memory.prepare(messages, before, self._state, turn)
        enter("attack")
        self.adversary.act(messages, turn.round)
        self._mishaps.corrupt(messages, turn.round, self._first * self._coding.each)
        self._processor.wait()
        enter("compress")
        streams = Streams(experiment.seed, turn.round, keys, nonce)
        memory.residual(messages, self._state, turn)
        records = messages  # what goes from GPU to GPU is no record
        if not self.direct:
            said = self._processor.fetch(messages) if self._records is None else messages
            records = turn.compressor.compress(said, streams, None if turn.dense else self._records)
        enter("attack")
        sent = self.adversary.tamper(records, turn.round)
        if self._mishaps.silence(turn.round):
            sent = np.zeros(self._stop - self._first, bool)
        if self._remembers:
            enter("compress")
            come = np.ones(len(records), bool) if sent is None else self._coding.messages(sent)
            self._remember(messages, records, streams, come, turn)
        self._clock.leave()
        return self._coding.by_device(records), sent

    def _remember(
        self,
        residuals: Float[Array, "messages dim"],
        records: Array,
        streams: Streams,
        come: Bool[Array, " messages"],
        turn: Turn,
    ) -> None:
        """Do as the server will, so that both remember the same: also of what an attack made of a record."""
        dim = residuals.shape[1]
        if self.direct:
            self._received[...] = records
            bad = replace_unusable(self._received, come, turn.total)[1]
        else:
            _, bad = receive(turn.compressor, records, dim, streams, come, turn.total, self._received)
        self._experiment.memory.update(self._state, residuals, self._received, come & ~bad, turn)
