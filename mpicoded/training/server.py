"""What the server computes: records → votes → filters → rule → step."""

from typing import Any

import numpy as np

from mpicoded.algorithms.compressors import receive
from mpicoded.algorithms.memories import Turn
from mpicoded.algorithms.randomness import Streams, generator
from mpicoded.algorithms.shapes import Array, Bool, Float
from mpicoded.experiment import Experiment
from mpicoded.training.adversary import lying
from mpicoded.training.clock import Clock
from mpicoded.training.coding import Coding
from mpicoded.training.faults import Faults
from mpicoded.training.suspicion import Suspicion
from mpicoded.training.tolerance import Tolerance
from mpicoded.transport.base import Gathered

_ARRAYS = ("state", "previous", "memory")  # what is kept from round to round beside the parameters
_PARTS = ("faults", "suspicion", "tolerance")


class Server:
    """Trusts no message.

    Where the transport does not wait for everyone, messages that do not come are left out; else they count as zero, and
    as lies.
    """

    def __init__(self, experiment: Experiment, parameters: Float[Array, " dim"], coding: Coding, clock: Clock) -> None:
        self.parameters = parameters
        self._leaves_out = experiment.transport.incomplete
        self.fewest = coding.fewest() if self._leaves_out else 0  # devices
        self.faults = Faults(experiment.devices, coding.tolerated(), self._leaves_out)
        self.suspicion = Suspicion(experiment.devices)
        self.tolerance = Tolerance(experiment, coding)
        self._experiment, self._coding, self._clock = experiment, coding, clock
        self._state = experiment.optimizer.initial(parameters)
        self._vote = np.zeros_like(parameters)
        self._previous = np.zeros_like(parameters)
        count, dim, dtype = coding.each * experiment.devices, parameters.size, parameters.dtype
        self._messages = None if experiment.sends_vectors else np.empty((count, dim), dtype)
        self._memory = np.zeros((experiment.memory.server_slots, count, dim), dtype)

    def step(self, gathered: Gathered, turn: Turn, nonce: int) -> None:
        """Aggregate one round's messages and change the parameters in place."""
        experiment, clock, round = self._experiment, self._clock, turn.round
        with clock.phase("decompress"):
            messages, usable = self._messages_of(gathered, turn, nonce)
        with clock.phase("decode"):
            decoder = self._coding.decoder(round)
            decoded = decoder.decode(messages, usable, generator(experiment.seed, "code", round))
            if experiment.encoder.decodes and decoded.accused is None:
                self.faults.give_up(round)
            there = slice(None)
            if self._leaves_out and not gathered.arrived.all() and not experiment.encoder.decodes:
                there = self._coding.messages(gathered.arrived)
                decoded = decoded._replace(votes=self._coding.come(decoded.votes, round, gathered.arrived))
            votes = decoded.votes
        if np.count_nonzero(gathered.arrived) < self.fewest:
            self.faults.skip(round)
            self.tolerance.skip(decoded)
            return
        with clock.phase("estimate"):
            filters, aggregator = self.tolerance.parts(decoded, usable[there])
        with clock.phase("filter"):
            stream = generator(experiment.seed, "filters", round)
            for item in filters:
                votes = item.apply(votes, stream=stream)
        with clock.phase("aggregate"):
            if aggregator.told:
                honest = (usable & ~lying(experiment, round))[there]
                votes = votes[honest] if honest.any() else np.zeros_like(votes[:1])
            aggregator.aggregate(votes, previous=self._previous, out=self._vote)
            self._previous[:] = self._vote
        with clock.phase("suspect"):
            scored = gathered.arrived if self._leaves_out else np.ones(experiment.devices, bool)
            self.suspicion.note(messages, self._vote, usable, decoded.accused, scored)
        with clock.phase("step"):
            experiment.optimizer.step(self.parameters, self._vote, self._state, round)

    def state(self, there: Bool[Array, " devices"]) -> dict[str, Any]:
        """All that the next rounds depend on beside the parameters, for a checkpoint.

        ``there``: the devices that hand over what they remember. The others will begin anew when the run is resumed.
        """
        arrays = {name: getattr(self, f"_{name}") for name in _ARRAYS}
        if self._experiment.memory.device_slots and not there.all():  # both sides must remember the same
            arrays["memory"] = self._memory * self._coding.messages(there)[:, None]
        parts = {name: getattr(self, name).state() for name in _PARTS}
        return arrays | parts

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from a checkpoint."""
        for name in _ARRAYS:
            getattr(self, f"_{name}")[...] = state[name]
        for name in _PARTS:
            getattr(self, name).restore(state[name])

    def _messages_of(
        self, gathered: Gathered, turn: Turn, nonce: int
    ) -> tuple[Float[Array, "messages dim"], Bool[Array, " messages"]]:
        """What the devices said, zero where records are missing or bad, and which are neither."""
        experiment, coding, compressor = self._experiment, self._coding, turn.compressor
        records, arrived = coding.by_message(gathered.records), coding.messages(gathered.arrived)
        streams = Streams(experiment.seed, turn.round, coding.decoder(turn.round).keys, nonce)
        saturated = compressor.saturated(records)
        messages, bad = receive(compressor, records, self.parameters.size, streams, arrived, turn.total, self._messages)
        usable = arrived & ~bad
        experiment.memory.votes(messages, self._memory, self._previous, usable, turn)
        self.faults.note(turn.round, gathered.arrived, ~coding.all_of(~bad), coding.total(saturated))
        return messages, usable
