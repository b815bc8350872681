"""A rule and an attack that mpicoded does not have: the class is the config, its name in snake case is their name."""

from typing import ClassVar

import numpy as np

from mpicoded.algorithms.aggregators import TolerantAggregator
from mpicoded.algorithms.arrays import as_floats, namespace, store
from mpicoded.algorithms.attacks import Attack, Seen
from mpicoded.algorithms.component import NonNegative
from mpicoded.algorithms.randomness import Streams
from mpicoded.algorithms.shapes import Array, Float


class Faba(TolerantAggregator):
    """Mean of what is left when f times the vote furthest from the mean of all others and itself has gone (FABA)."""

    source: ClassVar[str] = "Xia et al. 2019"
    acronym: ClassVar[str] = "FABA"
    cost: ClassVar[str] = "f n dim"

    def aggregate(
        self,
        votes: Float[Array, "votes dim"],
        previous: Float[Array, " dim"] | None = None,
        out: Float[Array, " dim"] | None = None,
    ) -> Float[Array, " dim"]:
        """Drop one vote at a time, of two as far the earlier, with a new mean each time."""
        self.check(votes.shape[0])
        votes, xp = as_floats(votes), namespace(votes)
        for _ in range(self.byzantine):
            offsets = votes - xp.mean(votes, axis=0, keepdims=True)
            furthest = int(xp.argmax(xp.vecdot(offsets, offsets, axis=-1)))
            votes = xp.concat([votes[:furthest, :], votes[furthest + 1 :, :]], axis=0)
        return store(xp.mean(votes, axis=0), out)


class FreeRider(Attack):
    """Zeros instead of gradients, from devices that compute nothing; with ``noise`` of this deviation as a disguise."""

    source: ClassVar[str] = "Fraboni et al. 2021"
    cost: ClassVar[str] = "f dim"
    noise: NonNegative = 0.0

    def forge(self, own: Float[Array, "byzantine dim"], seen: Seen, streams: Streams) -> Float[Array, "byzantine dim"]:
        """Every device draws from a stream of its own, so that the numbers do not depend on the rank."""
        forged = self.noise * streams.normal("free_rider", own.shape[1])
        return np.asarray(forged, own.dtype)
