"""Filters and rule one after the other, so that large votes are read as seldom as can be."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from mpicoded.algorithms.aggregators import Aggregator
from mpicoded.algorithms.arrays import store
from mpicoded.algorithms.filters import Filter, NearestNeighborMixing
from mpicoded.algorithms.shapes import Array, Float
from mpicoded.algorithms.slices import WHOLE, Sums, told_sums


class Chain:
    """Filters and a rule. Where coordinates stand by themselves after the last filter, they are worked in pieces."""

    def __init__(self, filters: Sequence[Filter], aggregator: Aggregator, sums: Sums = WHOLE) -> None:
        last = filters[-1] if filters else None
        # A subclass may apply itself in another way.
        self._mixing = last if type(last) is NearestNeighborMixing and aggregator.by_coordinates() else None
        self._filters = filters[:-1] if self._mixing is not None else filters
        self._aggregator, self._sums = aggregator, sums

    def filtered(
        self, votes: Float[Array, "votes columns"], stream: np.random.Generator
    ) -> tuple[Float[Array, "filtered columns"], Float[Array, "mixed filtered"] | None]:
        """The votes that ``aggregate`` gets, and which of them are to be mixed there."""
        for item in self._filters:
            votes = item.apply(votes, stream=stream, **told_sums(item.apply, self._sums))
        return votes, None if self._mixing is None else self._mixing.chosen(votes, self._sums)

    def aggregate(
        self,
        votes: Float[Array, "filtered columns"],
        chosen: Float[Array, "mixed filtered"] | None,
        previous: Float[Array, " columns"],
        out: Float[Array, " columns"],
    ) -> None:
        """One vector for all, in ``out``."""
        mixing = self._mixing
        if mixing is None or chosen is None:
            where: dict[str, Any] = told_sums(self._aggregator.aggregate, self._sums)
            store(self._aggregator.aggregate(votes, previous=previous, out=out, **where), out)
            return
        for piece in self._sums.pieces(votes.shape[1]):
            mixed = mixing.mixed(chosen, votes[:, piece])
            store(self._aggregator.aggregate(mixed, previous=previous[piece], out=out[piece]), out[piece])
