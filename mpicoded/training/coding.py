"""The code of a run: how many messages a device sends in a round, and how they become votes."""

from typing import Any, NamedTuple

import numpy as np

from mpicoded.algorithms import theory
from mpicoded.algorithms.arrays import namespace, rows
from mpicoded.algorithms.component import known_with
from mpicoded.algorithms.encoders import Decoder, least_squares_factors
from mpicoded.algorithms.shapes import Array, Bool, Float, Int
from mpicoded.errors import InputError
from mpicoded.experiment import Experiment, check_votes

_NUMBERS = 1 << 18  # at most, that an allocation is asked for together


class Even(NamedTuple):
    """What some devices compute, each the mean of as many subsets as any other."""

    subsets: Int[Array, "devices held"]  # ascending, so that messages of the same ones have the same bits
    weight: float


class Coding:
    """Encoder and allocation together. Where devices send several messages, these are ordered by device.

    ``ahead``: of how many rounds the allocation is asked together, since several cost little more than one.
    """

    def __init__(self, experiment: Experiment, subsets: int, ahead: int = 1) -> None:
        self._experiment, self.subsets, self._most = experiment, subsets, ahead
        self.each = 1  # how many messages a device sends in a round
        self._decoder: Decoder | None = None
        self._round = -1
        self._corrupted: dict[int, int] = {}
        # Only devices ask otherwise, once: no reason to hold what may be as large as the data.
        self._keeps = experiment.encoder.decodes or (experiment.attacked and experiment.attack.spoils is not None)
        encoder, allocation = experiment.encoder, experiment.allocation
        self._even = known_with(encoder, "even_weight", "code") and encoder.even_weight(1) is not None
        self._knows_even = known_with(allocation, "even", "assignment")
        self._asked: tuple[tuple[int, int], range, Int[Array, "rounds devices held"] | None] | None = None
        self._last: tuple[int, Bool[Array, "devices subsets"]] | None = None
        self._weighed: tuple[tuple[int, bytes], Float[Array, " arrived"]] | None = None
        self._load = range(0), np.zeros(0, np.int64), 0  # of which draws, how much of each device, and in all
        if experiment.encoder.decodes:
            self.each = experiment.encoder.messages(self.assignment(0))

    def assignment(self, round: int) -> Bool[Array, "devices subsets"]:
        """Who computes what in this round."""
        experiment = self._experiment
        draw = round if experiment.allocation.varies else 0
        if self._last is not None and self._last[0] == draw:
            return self._last[1]
        assignment = experiment.allocation.assignment(experiment.devices, self.subsets, draw, experiment.seed)
        if draw not in self._load[0]:
            self._count(range(draw, draw + 1), assignment.sum(axis=1))
        if self._keeps:
            self._last = draw, assignment
        return assignment

    def even(self, round: int, first: int, stop: int) -> Even | None:
        """What devices first … stop-1 compute in this round, where all compute as much and every subset as often."""
        experiment = self._experiment
        encoder, allocation = experiment.encoder, experiment.allocation
        if not self._even:
            return None
        held = self._ahead(round if allocation.varies else 0, first, stop) if self._knows_even else None
        if held is None:  # of an assignment that is even by chance, too
            assignment = self.assignment(round)
            if np.ptp(assignment.sum(axis=1)) or np.ptp(assignment.sum(axis=0)):
                return None
            held = np.nonzero(assignment[first:stop])[1].reshape(stop - first, -1)
        weight = encoder.even_weight(held.shape[1])
        return None if weight is None else Even(held, weight)

    def _ahead(self, draw: int, first: int, stop: int) -> Int[Array, "devices held"] | None:
        """What the allocation's ``even`` says."""
        experiment, key = self._experiment, (first, stop)
        if self._asked is None or self._asked[0] != key or draw not in self._asked[1]:
            rounds = range(draw, draw + 1)
            if experiment.allocation.varies:
                most = max(1, min(self._most, _NUMBERS // max(1, (stop - first) * self.subsets)))
                rounds = range(draw, max(draw + 1, min(draw + most, experiment.rounds)))
            held = experiment.allocation.even(experiment.devices, self.subsets, rounds, experiment.seed, first, stop)
            if held is not None:
                if held.ndim != 3 or len(held) != len(rounds):
                    need = f"({len(rounds)}, {stop - first}, held)"
                    raise InputError(f"{type(experiment.allocation).__name__}.even must give {need}, got {held.shape}")
                self._count(rounds, np.full(experiment.devices, held.shape[2]))
            self._asked = key, rounds, held
        _, rounds, held = self._asked
        return None if held is None else held[draw - rounds.start]

    def computed(self, round: int, there: Bool[Array, " devices"] | None = None) -> int:
        """How many subset gradients all devices, or those that are ``there``, compute in this round."""
        draw = round if self._experiment.allocation.varies else 0
        if draw not in self._load[0]:
            self.even(round, 0, 1)
        if draw not in self._load[0]:
            self._count(range(draw, draw + 1), self.assignment(round).sum(axis=1))
        _, load, total = self._load
        return total if there is None else int(load[there].sum())

    def _count(self, draws: range, load: Int[Array, " devices"]) -> None:
        self._load = draws, load, int(load.sum())

    def decoder(self, round: int) -> Decoder:
        """How this round's messages become votes: the same in all rounds of a fixed allocation."""
        encoder, devices = self._experiment.encoder, self._experiment.devices
        again = encoder.decodes and self._experiment.allocation.varies and round != self._round
        if self._decoder is None or again:
            whole = self.assignment(round) if encoder.decodes else np.zeros((devices, 0), bool)
            self._decoder, self._round = encoder.decoder(whole), round
        return self._decoder

    def corrupted(self, byzantine: int) -> int:
        """The most votes that so many devices can corrupt."""
        if not self._experiment.encoder.decodes:
            return byzantine
        if byzantine not in self._corrupted:
            self._corrupted[byzantine] = self._experiment.encoder.corrupted(self.assignment(0), byzantine)
        return self._corrupted[byzantine]

    def tolerated(self) -> int:
        """How many devices may lie or be missing in a round, by what the code, filters and rule stand together."""
        experiment = self._experiment
        votes = self.decoder(0).votes
        stood = theory.tolerated(experiment.aggregator, experiment.filters, votes)
        if not experiment.encoder.decodes:
            return stood
        low, high = 0, (experiment.devices - 1) // 2
        while low < high:  # more devices corrupt as many votes or more
            middle = (low + high + 1) // 2
            low, high = (middle, high) if self.corrupted(middle) <= stood else (low, middle - 1)
        return low

    def come(
        self, votes: Float[Array, "devices dim"], round: int, arrived: Bool[Array, " devices"]
    ) -> Float[Array, "arrived dim"]:
        """The votes whose messages have come, of a code that does not decode."""
        found = rows(votes, np.flatnonzero(self.messages(arrived)))
        encoder = self._experiment.encoder
        if encoder.reweighs and arrived.any():
            factors = self._factors(round, arrived)[:, None].astype(found.dtype)
            found *= namespace(found).asarray(factors, device=found.device)
        return found

    def _factors(self, round: int, arrived: Bool[Array, " devices"]) -> Float[Array, " arrived"]:
        """How the messages that have come are weighed; kept while the same are missing of the same assignment."""
        key = round if self._experiment.allocation.varies else 0, arrived.tobytes()
        if self._weighed is None or self._weighed[0] != key:
            assignment = self.assignment(round)
            weights = self._experiment.encoder.code(assignment, 0, len(assignment)).weights
            self._weighed = key, least_squares_factors(weights[arrived])
        return self._weighed[1]

    def fewest(self) -> int:
        """How many devices' messages there must be, so that code, filters and rule can do with the votes."""
        experiment = self._experiment
        if experiment.encoder.decodes:  # what is missing is one with what is wrong, of which there may be as much
            return experiment.devices - max(0, self.tolerated() - experiment.byzantine)
        filters, aggregator = [item.tolerating(0) for item in experiment.filters], experiment.aggregator.tolerating(0)
        for votes in range(experiment.devices, 0, -1):
            try:
                check_votes(filters, aggregator, votes)
            except InputError:
                return votes + 1
        return 1

    def messages(self, mask: Bool[Array, " devices"]) -> Bool[Array, " messages"]:
        """Which messages come from the devices of a mask."""
        return mask if self.each == 1 else np.repeat(mask, self.each)

    def any_of(self, mask: Bool[Array, " messages"]) -> Bool[Array, " devices"]:
        """Which devices have any of their messages in a mask."""
        return mask if self.each == 1 else mask.reshape(-1, self.each).any(axis=1)

    def total(self, counts: Int[Array, " messages"]) -> Int[Array, " devices"]:
        """The sum over each device's messages."""
        return counts if self.each == 1 else counts.reshape(-1, self.each).sum(axis=1)

    def by_device(self, records: Array) -> Array:
        """The same records, those of a device as one item, as they travel."""
        return records if self.each == 1 else records.view(self.travelling(records.dtype))

    def by_message(self, items: Array) -> Array:
        """The records of ``by_device`` again."""
        return items if self.each == 1 else items.view(items.dtype["messages"].base)

    def travelling(self, layout: np.dtype[Any]) -> np.dtype[Any]:
        """What a device sends in a round, where a message is a record of this layout."""
        return layout if self.each == 1 else np.dtype([("messages", layout, (self.each,))])
