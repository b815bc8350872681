"""From messages to the vote that the parameters follow: decode → filters → rule."""

from typing import Any, NamedTuple

import numpy as np

from mpicoded.algorithms import ordering
from mpicoded.algorithms.arrays import namespace, rows
from mpicoded.algorithms.chain import Chain
from mpicoded.algorithms.processors import Processor, Twin
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

    Messages, or what is decoded of them, go to the processor once, if they are not there; of what it computes the vote
    alone comes back. Codes are decoded on the CPU.

    Where the transport does not wait for everyone, messages that do not come are left out; else they count as zero, and
    as lies.
    """

    def __init__(
        self,
        experiment: Experiment,
        coding: Coding,
        clock: Clock,
        columns: int,
        processor: Processor,
        sums: Sums = WHOLE,
    ) -> None:
        self._experiment, self._coding, self._clock = experiment, coding, clock
        self._processor, self._sums = processor, processor.sums if sums is WHOLE else sums
        self.leaves_out, self._decodes = experiment.transport.incomplete, experiment.encoder.decodes
        self.fewest = coding.fewest() if self.leaves_out else 0  # devices
        self._everyone = np.ones(experiment.devices, bool)
        dtype = np.dtype(experiment.compute.dtype)
        self._vote, self._previous = Twin(processor, columns, dtype), Twin(processor, columns, dtype)
        self.suspicion = Suspicion(experiment.devices)
        self.tolerance = Tolerance(experiment, coding, self._sums)
        # Of what is estimated, each number that comes out would be a loop of its own.
        ordering.expect(coding.decoder(0).votes, 0 if experiment.estimates else experiment.rounds * columns)

    @property
    def vote(self) -> Float[Array, " columns"]:
        """The last one."""
        return self._vote.host

    @property
    def previous(self) -> Float[Array, " columns"]:
        """The same, or what a run goes on from."""
        return self._previous.host

    def combine(
        self,
        messages: Float[Array, "messages columns"],
        usable: Bool[Array, " messages"],
        arrived: Bool[Array, " devices"],
        round: int,
    ) -> Outcome:
        """Turn messages, those that are not usable being zero, into ``vote``."""
        experiment, clock, sums, processor = self._experiment, self._clock, self._sums, self._processor
        clock.enter("decode")
        if not self._decodes:
            messages = processor.put(messages)
        decoder = self._coding.decoder(round)
        stream = generator(experiment.seed, "code", round) if self._decodes else _UNUSED
        decoded = decoder.decode(messages, usable, stream)
        undecoded = self._decodes and decoded.accused is None
        there = slice(None)
        if self.leaves_out and not arrived.all() and not self._decodes:
            there = self._coding.messages(arrived)
            decoded = decoded._replace(votes=self._coding.come(decoded.votes, round, arrived))
        votes = processor.put(decoded.votes)
        if votes is not decoded.votes:
            decoded = decoded._replace(votes=votes)
        if self.fewest and np.count_nonzero(arrived) < self.fewest:
            self.tolerance.skip(decoded)
            clock.leave()
            return Outcome(False, undecoded)
        clock.enter("estimate")
        filters, aggregator = self.tolerance.parts(decoded, usable[there])
        clock.enter("filter")
        chain = Chain(filters, aggregator, sums)
        stream = generator(experiment.seed, "filters", round) if filters else _UNUSED
        votes, chosen = chain.filtered(votes, stream)
        processor.wait()
        clock.enter("aggregate")
        if aggregator.told:
            votes = _those(votes, (usable & ~lying(experiment, round))[there])
        chain.aggregate(votes, chosen, self._previous.there, self._vote.there)
        self._vote.computed()
        self._previous.follow(self._vote)
        clock.enter("suspect")
        scored = arrived if self.leaves_out else self._everyone
        self.suspicion.note(messages, self._vote.beside(messages), usable, decoded.accused, scored, sums)
        clock.leave()
        return Outcome(True, undecoded)

    def state(self) -> dict[str, Any]:
        """All that the next rounds depend on, for a checkpoint."""
        return {name: getattr(self, name).state() for name in _PARTS}

    def restore(self, state: dict[str, Any], previous: Float[Array, " columns"]) -> None:
        """Go on from a checkpoint, and from the vote before it."""
        self._previous.set(previous)
        for name in _PARTS:
            getattr(self, name).restore(state[name])


def _those(votes: Float[Array, "votes columns"], honest: Bool[Array, " votes"]) -> Float[Array, "honest columns"]:
    """The honest votes; where there are none, a zero one."""
    return rows(votes, np.flatnonzero(honest)) if honest.any() else namespace(votes).zeros_like(votes[:1, :])
