"""How many Byzantine votes rule and filters are told to tolerate: a given number, or an estimate for each round."""

from collections import deque
from typing import Any, NamedTuple

import numpy as np

from mpicoded.algorithms.aggregators import Aggregator
from mpicoded.algorithms.encoders import Decoded, proven
from mpicoded.algorithms.filters import Filter
from mpicoded.algorithms.outliers import outlying
from mpicoded.algorithms.shapes import Array, Bool, Float
from mpicoded.algorithms.slices import WHOLE, Sums
from mpicoded.errors import InputError
from mpicoded.experiment import Experiment, check_votes
from mpicoded.training.coding import Coding

_WINDOW, _AGREE = 5, 3  # what is counted in 3 of 5 rounds is believed for good


class Estimate(NamedTuple):
    """What the server takes the number of liars for in a round."""

    tolerated: int  # Byzantine votes that the parts with byzantine = "auto" tolerated
    outlying: int  # votes that stood out
    proven: int  # devices that lied for certain, as others contradict them; a lower bound


class Tolerance:
    """Rule and filters as they are, or with the estimate of the round in place of ``byzantine = "auto"``.

    The estimate is the number of votes that stand out in the round; or the most that stood out in 3 of any 5 rounds
    so far, where that is more: too low an estimate can cost everything, too high a one costs little. It is never below
    what the devices can have corrupted of which it is proven that they lied.
    """

    def __init__(self, experiment: Experiment, coding: Coding, sums: Sums = WHOLE) -> None:
        self._experiment, self._coding, self._estimates = experiment, coding, experiment.estimates
        self._sums = sums
        self.notes: list[Estimate] = []  # a round each, where anything is estimated or can be proven
        self._parts: dict[int, tuple[tuple[Filter, ...], Aggregator]] = {}
        self._recent: deque[int] = deque(maxlen=_WINDOW)
        self._sustained = self._proven = 0
        self._conflicts = np.zeros((experiment.devices, experiment.devices), bool)
        self._limits: dict[int, int] = {}
        self.most = self._limit(coding.decoder(0).votes) if self._estimates else 0  # that all parts can be told

    def parts(self, decoded: Decoded, usable: Bool[Array, " messages"]) -> tuple[tuple[Filter, ...], Aggregator]:
        """Filters and rule for this round's votes."""
        certain = self._contradicted(decoded)
        if not self._estimates:
            if decoded.conflicts is not None:
                self.notes.append(Estimate(0, 0, certain))
            return self._told(0)
        found = self._count(decoded.votes, usable)
        self._recent.append(found)
        if len(self._recent) >= _AGREE:
            self._sustained = max(self._sustained, sorted(self._recent)[-_AGREE])
        tolerated = max(found, self._sustained, self._coding.corrupted(certain) if certain else 0)
        tolerated = min(tolerated, self._limit(len(decoded.votes)))
        self.notes.append(Estimate(tolerated, found, certain))
        return self._told(tolerated)

    def skip(self, decoded: Decoded) -> None:
        """Note a round that is skipped, in which nothing is estimated."""
        if self._estimates or decoded.conflicts is not None:
            self.notes.append(Estimate(0, 0, self._contradicted(decoded)))

    def state(self) -> dict[str, Any]:
        """All of it, for a checkpoint."""
        return {
            "notes": np.array(self.notes, np.int64).reshape(-1, len(Estimate._fields)),
            "recent": np.array(self._recent, np.int64),
            "sustained": self._sustained,
            "proven": self._proven,
            "conflicts": self._conflicts,
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from a checkpoint."""
        self.notes[:] = [Estimate(*row) for row in state["notes"].tolist()]
        self._recent.extend(state["recent"].tolist())
        self._sustained, self._proven = int(state["sustained"]), int(state["proven"])
        self._conflicts[:] = state["conflicts"]

    def trial(self, votes: Float[Array, "votes dim"]) -> tuple[tuple[Filter, ...], Aggregator]:
        """What an attacker who knows the server expects it to use for these votes, if this were the first round."""
        if not self._estimates:
            return self._told(0)
        return self._told(min(self._count(votes, np.ones(len(votes), bool)), self._limit(len(votes))))

    def _count(self, votes: Float[Array, "votes dim"], usable: Bool[Array, " messages"]) -> int:
        known = np.ones(len(votes), bool) if self._experiment.encoder.decodes else usable
        return int(np.count_nonzero(outlying(votes, known, self._sums)))

    def _contradicted(self, decoded: Decoded) -> int:
        """How many devices must have lied; with fixed identities, in any round so far."""
        if decoded.conflicts is None:
            return 0
        if self._experiment.identities == "fixed":
            if (decoded.conflicts & ~self._conflicts).any():
                self._conflicts |= decoded.conflicts
                self._proven = proven(self._conflicts)
            return self._proven
        return proven(decoded.conflicts) if decoded.conflicts.any() else 0

    def _told(self, byzantine: int) -> tuple[tuple[Filter, ...], Aggregator]:
        if byzantine not in self._parts:
            experiment = self._experiment
            filters = tuple(item.tolerating(byzantine) for item in experiment.filters)
            self._parts[byzantine] = filters, experiment.aggregator.tolerating(byzantine)
        return self._parts[byzantine]

    def _limit(self, votes: int) -> int:
        """The largest number that all parts can be told with this many votes."""
        if votes not in self._limits:
            self._limits[votes] = next((n for n in range((votes - 1) // 2, 0, -1) if self._can(n, votes)), 0)
        return self._limits[votes]

    def _can(self, byzantine: int, votes: int) -> bool:
        try:
            check_votes(*self._told(byzantine), votes)
        except InputError:
            return False
        return True
