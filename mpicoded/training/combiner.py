"""From messages to the vote that the parameters follow: decode → filters → rule."""

from typing import Any, NamedTuple

import numpy as np

from mpicoded.algorithms import ordering
from mpicoded.algorithms.chain import Chain
from mpicoded.algorithms.randomness import generator
from mpicoded.algorithms.shapes import Array, Bool, Float
from mpicoded.algorithms.slices import WHOLE, Sums
from mpicoded.experiment import Experiment
from mpicoded.training.adversary import lying
from mpicoded.training.clock import Clock
from mpicoded.training.coding import Coding
from mpicoded.training.suspicion import Suspicion
from mpicoded.training.tolerance import Tolerance

_PARTS = ("suspicion", "tolerance")
_UNUSED = generator(0, "nothing")  # to make one takes as long as to average a hundred short votes


class Outcome(NamedTuple):
    """What became of a round's messages."""

    stepped: bool  # else they were too few
    undecoded: bool  # the code found more lies than it corrects


class Combiner:
    """Works on all coordinates, or on those of a slice: ``sums`` says how to sum over all.

    Where the transport does not wait for everyone, messages that do not come are left out; else they count as zero, and
    as lies.
    """

    def __init__(self, experiment: Experiment, coding: Coding, clock: Clock, columns: int, sums: Sums = WHOLE) -> None:
        self._experiment, self._coding, self._clock, self._sums = experiment, coding, clock, sums
        self.leaves_out = experiment.transport.incomplete
        self.fewest = coding.fewest() if self.leaves_out else 0  # devices
        dtype = np.dtype(experiment.compute.dtype)
        self.vote, self.previous = np.zeros(columns, dtype), np.zeros(columns, dtype)
        self.suspicion = Suspicion(experiment.devices)
        self.tolerance = Tolerance(experiment, coding, sums)
        if experiment.aggregator.orders:
            ordering.expect(experiment.rounds * coding.decoder(0).votes * columns, dtype)

    def combine(
        self,
        messages: Float[Array, "messages columns"],
        usable: Bool[Array, " messages"],
        arrived: Bool[Array, " devices"],
        round: int,
    ) -> Outcome:
        """Turn messages, those that are not usable being zero, into ``vote``."""
        experiment, clock, sums = self._experiment, self._clock, self._sums
        with clock.phase("decode"):
            decoder = self._coding.decoder(round)
            stream = generator(experiment.seed, "code", round) if experiment.encoder.decodes else _UNUSED
            decoded = decoder.decode(messages, usable, stream)
            undecoded = experiment.encoder.decodes and decoded.accused is None
            there = slice(None)
            if self.leaves_out and not arrived.all() and not experiment.encoder.decodes:
                there = self._coding.messages(arrived)
                decoded = decoded._replace(votes=self._coding.come(decoded.votes, round, arrived))
            votes = decoded.votes
        if np.count_nonzero(arrived) < self.fewest:
            self.tolerance.skip(decoded)
            return Outcome(False, undecoded)
        with clock.phase("estimate"):
            filters, aggregator = self.tolerance.parts(decoded, usable[there])
        with clock.phase("filter"):
            chain = Chain(filters, aggregator, sums)
            stream = generator(experiment.seed, "filters", round) if filters else _UNUSED
            votes, chosen = chain.filtered(votes, stream)
        with clock.phase("aggregate"):
            if aggregator.told:
                honest = (usable & ~lying(experiment, round))[there]
                votes = votes[honest] if honest.any() else np.zeros_like(votes[:1])
            chain.aggregate(votes, chosen, self.previous, self.vote)
            self.previous[:] = self.vote
        with clock.phase("suspect"):
            scored = arrived if self.leaves_out else np.ones(experiment.devices, bool)
            self.suspicion.note(messages, self.vote, usable, decoded.accused, scored, sums)
        return Outcome(True, undecoded)

    def state(self) -> dict[str, Any]:
        """All that the next rounds depend on, for a checkpoint."""
        return {name: getattr(self, name).state() for name in _PARTS}

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from a checkpoint."""
        for name in _PARTS:
            getattr(self, name).restore(state[name])
