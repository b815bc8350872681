"""What the server makes of a round's messages: a vote, and a step of the parameters."""

from typing import Any, NamedTuple

import numpy as np

from mpicoded.algorithms.arrays import replace_unusable
from mpicoded.algorithms.component import works_on_gpu
from mpicoded.algorithms.compressors import receive
from mpicoded.algorithms.memories import Turn
from mpicoded.algorithms.processors import Processor
from mpicoded.algorithms.randomness import Streams
from mpicoded.algorithms.shapes import Array, Bool, Float, Int
from mpicoded.experiment import Experiment
from mpicoded.training.clock import Clock
from mpicoded.training.coding import Coding
from mpicoded.training.combiner import Combiner, Outcome
from mpicoded.training.faults import Faults
from mpicoded.training.suspicion import Suspicion
from mpicoded.training.tolerance import Tolerance
from mpicoded.transport.base import Gathered


class Received(NamedTuple):
    """What records turned out to be."""

    messages: Float[Array, "messages dim"]  # zero where they are missing or bad
    usable: Bool[Array, " messages"]
    bad: Bool[Array, " messages"]  # and not missing
    saturated: Int[Array, " messages"]  # numbers at the limit of the wire's type


class Receiver:
    """Turns records of contiguous devices into messages. Trusts none.

    They go to the processor before they are looked at, and what the server remembers of them is there; unless they are
    decoded, or are a plug-in's memory, that does not know of it: then both are the CPU's.
    """

    def __init__(
        self, experiment: Experiment, coding: Coding, first: int, stop: int, dim: int, processor: Processor
    ) -> None:
        self._experiment, self._coding = experiment, coding
        if experiment.encoder.decodes or not works_on_gpu(experiment.memory, "votes"):
            processor = Processor()
        self._put = processor.put
        self._mine = slice(coding.each * first, coding.each * stop)
        count, dtype, part = coding.each * (stop - first), np.dtype(experiment.compute.dtype), experiment.compressor
        there = processor.xp if works_on_gpu(part, "decompress") else np
        self._messages = None if experiment.sends_vectors else there.empty((count, dim), dtype=dtype)
        self.memory = processor.xp.zeros((experiment.memory.server_slots, count, dim), dtype=dtype)
        self._dim = dim

    def receive(self, gathered: Gathered, previous: Float[Array, " dim"], turn: Turn, nonce: int) -> Received:
        """What the devices said. ``previous``: the last vote, all of it, on which some memories build."""
        experiment, coding, compressor = self._experiment, self._coding, turn.compressor
        records, arrived = coding.by_message(gathered.records), coding.messages(gathered.arrived)
        if isinstance(records, np.ndarray):
            streams = Streams(experiment.seed, turn.round, coding.decoder(turn.round).keys[self._mine], nonce)
            saturated = compressor.saturated(records)
            about = streams, arrived, turn.total, self._messages, self._put
            messages, bad = receive(compressor, records, self._dim, *about)
        else:  # vectors that have come from GPU to GPU
            saturated = np.zeros(len(arrived), np.int64)
            messages, bad = replace_unusable(records, arrived, turn.total)
        usable = arrived & ~bad if np.count_nonzero(bad) else arrived
        experiment.memory.votes(messages, self.memory, previous, usable, turn)
        return Received(messages, usable, bad, saturated)


class Server:
    """Counts what is wrong with messages, and steps."""

    def __init__(
        self, experiment: Experiment, parameters: Float[Array, " dim"], coding: Coding, combiner: Combiner, clock: Clock
    ) -> None:
        self.parameters, self._combiner = parameters, combiner
        self.faults = Faults(experiment.devices, coding.tolerated(), combiner.leaves_out)
        self._experiment, self._coding, self._clock = experiment, coding, clock
        self._state = experiment.optimizer.initial(parameters)

    @property
    def suspicion(self) -> Suspicion:
        """Of the devices, by what they have said."""
        return self._combiner.suspicion

    @property
    def tolerance(self) -> Tolerance:
        """How many liars were reckoned with."""
        return self._combiner.tolerance

    @property
    def fewest(self) -> int:
        """Devices without whose messages there is no step."""
        return self._combiner.fewest

    def note(
        self,
        round: int,
        arrived: Bool[Array, " devices"],
        bad: Bool[Array, " messages"],
        saturated: Int[Array, " messages"],
    ) -> None:
        """Take in what was wrong with the messages of a round."""
        self.faults.note(round, arrived, self._coding.any_of(bad), self._coding.total(saturated))

    def step(self, outcome: Outcome, vote: Float[Array, " dim"], round: int) -> None:
        """Change the parameters in place, if there is a vote."""
        if outcome.undecoded:
            self.faults.give_up(round)
        if not outcome.stepped:
            self.faults.skip(round)
            return
        with self._clock.phase("step"):
            self._experiment.optimizer.step(self.parameters, vote, self._state, round)

    def state(self) -> dict[str, Any]:
        """What the next rounds depend on beside the parameters, for a checkpoint."""
        return {"state": self._state, "faults": self.faults.state()}

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from a checkpoint."""
        self._state[...] = state["state"]
        self.faults.restore(state["faults"])
