"""Between server and devices: what the broadcast tells, and what a rank's devices send back."""

import secrets

import numpy as np

from mpicoded.algorithms.compressors import receive, to_wire
from mpicoded.algorithms.randomness import Streams, generator
from mpicoded.algorithms.shapes import Array, Bool, Float, Int
from mpicoded.experiment import Experiment
from mpicoded.training.adversary import Adversary
from mpicoded.training.clock import Clock
from mpicoded.training.coding import Coding
from mpicoded.transport.base import Transport, block

NONCE_BITS = 64


class Downlink:
    """The parameters on their way to the devices, and the nonce where devices share randomness.

    The nonce is drawn just before it is told, so that nobody knows before the round what follows from it; devices know
    it when they send. By default it comes from the seed, so that the run can be repeated, and whoever knows the seed
    knows the nonces; ``nonces = "entropy"`` takes them from the operating system.
    """

    def __init__(self, experiment: Experiment, transport: Transport, dim: int) -> None:
        self._experiment, self._transport = experiment, transport
        self._record = np.zeros(1, experiment.broadcast_layout(dim))
        wired = self._record["parameters"][0]
        self._told = wired if wired.dtype == experiment.compute.dtype else np.empty(dim, experiment.compute.dtype)
        self.nbytes = self._record.nbytes

    def tell(self, parameters: Float[Array, " dim"], round: int) -> tuple[Float[Array, " dim"], int]:
        """Broadcast rank 0's parameters; what all devices got of them, and the nonce (0 without one). Collective."""
        record = self._record
        if self._transport.rank == 0:
            to_wire(parameters, record["parameters"][0])
            if "nonce" in record.dtype.names:
                record["nonce"] = self._nonce(round)
        self._transport.broadcast(record)
        if self._told.dtype != record["parameters"].dtype:
            self._told[...] = record["parameters"][0]
        return self._told, int(record["nonce"][0]) if "nonce" in record.dtype.names else 0

    @property
    def saturated(self) -> int:
        """How many of the parameters told last stand at the limit of a shorter type."""
        wired = self._record["parameters"][0]
        if wired is self._told or wired.dtype == self._told.dtype:
            return 0
        return int(np.count_nonzero(np.abs(wired) == np.finfo(wired.dtype).max))

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
        dim: int,
        clock: Clock,
    ) -> None:
        self._experiment, self._coding, self.adversary, self._clock = experiment, coding, adversary, clock
        first, stop = block(experiment.devices, transport.rank, transport.size)
        count = coding.each * (stop - first)
        dtype = np.dtype(experiment.compute.dtype)
        layout = experiment.compressor.layout(dim, dtype)
        self._records = None if experiment.sends_vectors else np.empty(count, layout)
        shape = (count if experiment.memory.remembers else 0, dim)
        self._state, self._received = np.zeros(shape, dtype), np.empty(shape, dtype)

    def pack(
        self, messages: Float[Array, "messages dim"], keys: Int[Array, " messages"], round: int, nonce: int
    ) -> tuple[Array, Bool[Array, " devices"] | None]:
        """What each device sends in this round, and which of them do (None: all). The messages are used up.

        ``keys``: what each message says; those of one key are compressed by the same random numbers.
        """
        experiment = self._experiment
        with self._clock.phase("attack"):
            self.adversary.act(messages, round)
        with self._clock.phase("compress"):
            streams = Streams(experiment.seed, round, keys, nonce)
            if experiment.memory.remembers:
                experiment.memory.residual(messages, self._state)
            records = experiment.compressor.compress(messages, streams, self._records)
        with self._clock.phase("attack"):
            sent = self.adversary.tamper(records, round)
        if experiment.memory.remembers:
            with self._clock.phase("compress"):
                self._remember(records, streams, sent)
        return self._coding.by_device(records), sent

    def _remember(self, records: Array, streams: Streams, sent: Bool[Array, " devices"] | None) -> None:
        """Do as the server will, so that both remember the same: also of what an attack made of a record."""
        experiment, dim = self._experiment, self._state.shape[1]
        every = self._coding.each * experiment.devices
        come = np.ones(len(records), bool) if sent is None else self._coding.messages(sent)
        receive(experiment.compressor, records, dim, streams, come, every, self._received)
        experiment.memory.update(self._state, self._received, experiment.compressor.damping(dim), every)
