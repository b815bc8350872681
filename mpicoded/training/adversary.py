"""Byzantine devices: who they are in a round, and what they send instead of their message."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from mpicoded.algorithms.arrays import picked, replace
from mpicoded.algorithms.attacks import Seen
from mpicoded.algorithms.randomness import Streams, generator, generators
from mpicoded.algorithms.shapes import Array, Bool, Float
from mpicoded.experiment import Experiment
from mpicoded.training.coding import Coding
from mpicoded.training.tolerance import Tolerance
from mpicoded.transport.base import Transport, block, block_starts, devices_on

_ROUNDS = 32  # whose liars are drawn together


def byzantine_devices(experiment: Experiment, round: int) -> Bool[Array, " devices"]:
    """Which devices are Byzantine in this round: the same draw on every rank."""
    draw = round if experiment.identities == "resampled" else 0
    return _drawn(experiment, range(draw, draw + 1))[0]


def _drawn(experiment: Experiment, draws: range) -> Bool[Array, "draws devices"]:
    """Those of several rounds."""
    devices, byzantine = experiment.devices, experiment.byzantine
    chosen = np.zeros((len(draws), devices), bool)
    if experiment.attack.places:
        chosen[:, experiment.attack.place(devices, byzantine)] = True
        return chosen
    for row, stream in zip(chosen, generators(experiment.seed, "byzantine", draws), strict=True):
        row[stream.permutation(devices)[:byzantine]] = True
    return chosen


def lying(experiment: Experiment, round: int) -> Bool[Array, " devices"]:
    """Those of them that do: none where there is no attack."""
    return byzantine_devices(experiment, round) if experiment.attacked else np.zeros(experiment.devices, bool)


class Spoiled(NamedTuple):
    """A subset whose gradient attackers multiply in their messages."""

    messages: Bool[Array, " messages"]  # of this rank, those of attackers
    subset: int
    factor: float


class Adversary:
    """The attackers among the devices of this rank, and what reaches them from the others.

    Where devices send several messages, attackers forge each of theirs as if it came from a device of its own.
    """

    def __init__(self, experiment: Experiment, transport: Transport, coding: Coding, dim: int, dtype: np.dtype) -> None:
        self._experiment, self._transport, self._coding = experiment, transport, coding
        self._first, self._stop = block(experiment.devices, transport.rank, transport.size)
        self._starts = block_starts(experiment.devices, transport.size)
        self.active, attack = experiment.attacked, experiment.attack
        # The server as attackers think of it.
        self._tolerance = Tolerance(experiment, coding) if self.active and attack.knows_rule else None
        self._forges = self.active and attack.sends and not attack.tampers
        self._everyone = np.ones(experiment.devices, bool)
        self._drawn: tuple[range, Bool[Array, "draws devices"]] = range(0), self._everyone[None, :]
        others = coding.each * (experiment.devices - experiment.byzantine) if self.active and attack.colludes else 0
        self._honest = np.empty((others, dim), dtype)

    def byzantine(self, round: int) -> Bool[Array, " devices"]:
        """Which devices are Byzantine in this round."""
        draw = round if self._experiment.identities == "resampled" else 0
        if draw not in self._drawn[0]:  # of several rounds together: one costs little more alone
            draws = range(draw, draw + _ROUNDS)
            self._drawn = draws, _drawn(self._experiment, draws)
        draws, drawn = self._drawn
        return drawn[draw - draws.start]

    def mislabelled(self, round: int) -> Bool[Array, " messages"] | None:
        """Which of this rank's messages are computed on wrong targets; None: none of them."""
        if not self.active or not self._experiment.attack.mislabels:
            return None
        mine = self._mine(self.byzantine(round))
        return mine if mine.any() else None

    def spoiled(self, round: int) -> Spoiled | None:
        """What this rank's attackers make of one subset's gradient; None: nothing."""
        factor = self._experiment.attack.spoils
        if not self.active or factor is None:
            return None
        byzantine = self.byzantine(round)
        held = self._coding.assignment(round)[byzantine].sum(axis=0)
        mine = self._mine(byzantine)
        return Spoiled(mine, int(held.argmax()), factor) if mine.any() else None

    def _mine(self, devices: Bool[Array, " devices"]) -> Bool[Array, " messages"]:
        return self._coding.messages(devices[self._first : self._stop])

    def act(self, messages: Float[Array, "messages dim"], round: int) -> None:
        """Replace the messages of this rank's Byzantine devices, in place.

        What colluding attackers know travels on an exchange of its own, which no byte counter sees: it stands
        for what an attacker listens in on, not for traffic of the training. Of messages on a GPU, those that
        attackers see or change are fetched.
        """
        if not self._forges:
            return
        byzantine = self.byzantine(round)
        mine = self._mine(byzantine)
        honest = None
        if self._experiment.attack.colludes:
            counts = self._coding.each * np.add.reduceat(~byzantine, self._starts, dtype=np.int64)
            honest = self._transport.share(picked(messages, ~mine), counts * self._transport.present, self._honest)
        if np.count_nonzero(mine):
            present, there = self._transport.present, self._everyone
            if np.count_nonzero(present) < len(present):
                there = devices_on(present, len(there))  # not the devices of ranks that have died
            trial = self._trial(byzantine, there, honest, round)
            seen = Seen(self._coding.each * int(np.count_nonzero(there)), honest, trial)
            own = picked(messages, mine)
            replace(messages, mine, self._experiment.attack.forge(own, seen, self._streams(mine, round)))

    def tamper(self, records: Array, round: int) -> Bool[Array, " devices"] | None:
        """Change the packed records of this rank's Byzantine devices, in place; which devices send (None: all)."""
        attack = self._experiment.attack
        if not self.active or (attack.sends and not attack.tampers):
            return None
        if not attack.sends:
            return ~self.byzantine(round)[self._first : self._stop]
        mine = self._mine(self.byzantine(round))
        if mine.any():
            raw = records.view(np.uint8).reshape(len(records), records.itemsize)
            forged = raw[mine]
            attack.tamper(forged, self._streams(mine, round))
            raw[mine] = forged
        return None

    def _trial(
        self, byzantine: Bool[Array, " devices"], there: Bool[Array, " devices"], honest: Array | None, round: int
    ) -> Callable[[Array], Array] | None:
        """What the server would make of a forged message, for attacks that try."""
        experiment, tolerance = self._experiment, self._tolerance
        if honest is None or tolerance is None:
            return None
        liars, come = self._coding.messages(byzantine), self._coding.messages(there)
        messages = np.zeros((len(liars), honest.shape[1]), honest.dtype)
        decoder = self._coding.decoder(round)

        def aggregate(forged: Array) -> Array:
            messages[~liars & come] = honest
            messages[liars & come] = forged
            mixed = decoder.decode(messages, come, generator(experiment.seed, "trial code", round)).votes
            if not (come.all() or experiment.encoder.decodes):
                mixed = mixed[come]
            filters, aggregator = tolerance.trial(mixed)
            for item in filters:
                mixed = item.apply(mixed, stream=generator(experiment.seed, "trial", round))
            if aggregator.told:
                mixed = mixed[~liars[come]]
            return aggregator.aggregate(mixed)

        return aggregate

    def _streams(self, mine: Bool[Array, " messages"], round: int) -> Streams:
        return Streams(self._experiment.seed, round, self._first * self._coding.each + np.flatnonzero(mine))
