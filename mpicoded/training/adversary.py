"""Byzantine devices: who they are in a round, and what they send instead of their message."""

from collections.abc import Callable

import numpy as np

from mpicoded.algorithms.attacks import NoAttack, Seen
from mpicoded.algorithms.randomness import Streams, generator
from mpicoded.algorithms.shapes import Array, Bool, Float
from mpicoded.experiment import Experiment
from mpicoded.transport.base import Transport, block, block_starts


class Adversary:
    """The attackers among the devices of this rank, and what reaches them from the others."""

    def __init__(self, experiment: Experiment, transport: Transport, dim: int, dtype: np.dtype) -> None:
        self._experiment, self._transport = experiment, transport
        self._first, self._stop = block(experiment.devices, transport.rank, transport.size)
        self._starts = block_starts(experiment.devices, transport.size)
        self.active = experiment.byzantine > 0 and not isinstance(experiment.attack, NoAttack)
        colludes = self.active and experiment.attack.colludes
        self._honest = np.empty((experiment.devices - experiment.byzantine, dim) if colludes else (0, dim), dtype)

    def byzantine(self, round: int) -> Bool[Array, " devices"]:
        """Which devices are Byzantine: the same draw on every rank."""
        experiment = self._experiment
        draw = round if experiment.identities == "resampled" else 0
        chosen = np.zeros(experiment.devices, bool)
        if experiment.attack.places:
            chosen[experiment.attack.place(experiment.devices, experiment.byzantine)] = True
            return chosen
        order = generator(experiment.seed, "byzantine", draw).permutation(experiment.devices)
        chosen[order[: experiment.byzantine]] = True
        return chosen

    def mislabelled(self, round: int) -> Bool[Array, " messages"] | None:
        """Which of this rank's devices compute on wrong targets; None: none of them."""
        if not self.active or not self._experiment.attack.mislabels:
            return None
        mine = self.byzantine(round)[self._first : self._stop]
        return mine if mine.any() else None

    def act(self, messages: Float[Array, "messages dim"], round: int) -> None:
        """Replace the messages of this rank's Byzantine devices, in place.

        What colluding attackers know travels on an exchange of its own, which no byte counter sees: it stands
        for what an attacker listens in on, not for traffic of the training.
        """
        if not self.active or self._experiment.attack.tampers or not self._experiment.attack.sends:
            return
        byzantine = self.byzantine(round)
        mine = byzantine[self._first : self._stop]
        honest = None
        if self._experiment.attack.colludes:
            counts = np.add.reduceat(~byzantine, self._starts, dtype=np.int64)
            honest = self._transport.share(messages[~mine], counts, self._honest)
        if mine.any():
            seen = Seen(self._experiment.devices, honest, self._trial(byzantine, honest, round))
            messages[mine] = self._experiment.attack.forge(messages[mine], seen, self._streams(mine, round))

    def tamper(self, records: Array, round: int) -> Bool[Array, " records"] | None:
        """Change the packed records of this rank's Byzantine devices, in place; which devices send (None: all)."""
        attack = self._experiment.attack
        if not self.active or (attack.sends and not attack.tampers):
            return None
        mine = self.byzantine(round)[self._first : self._stop]
        if not attack.sends:
            return ~mine
        if mine.any():
            raw = records.view(np.uint8).reshape(len(records), records.itemsize)
            forged = raw[mine]
            attack.tamper(forged, self._streams(mine, round))
            raw[mine] = forged
        return None

    def _trial(
        self, byzantine: Bool[Array, " devices"], honest: Array | None, round: int
    ) -> Callable[[Array], Array] | None:
        """What the server would make of a forged message, for attacks that try."""
        experiment = self._experiment
        if honest is None or not experiment.attack.knows_rule:
            return None
        votes = np.empty((experiment.devices, honest.shape[1]), honest.dtype)

        def aggregate(forged: Array) -> Array:
            votes[~byzantine] = honest
            votes[byzantine] = forged
            mixed: Array = votes
            for item in experiment.filters:
                mixed = item.apply(mixed, stream=generator(experiment.seed, "trial", round))
            return experiment.aggregator.aggregate(mixed)

        return aggregate

    def _streams(self, mine: Bool[Array, " messages"], round: int) -> Streams:
        return Streams(self._experiment.seed, round, self._first + np.flatnonzero(mine))
