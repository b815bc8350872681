"""Filters prepare votes for the rule: (votes, dim) → (votes, dim)."""

from math import inf
from typing import ClassVar

import numpy as np

from mpicoded.algorithms.arrays import as_floats, namespace, rows, shrink_to, store
from mpicoded.algorithms.component import Positive, PositiveCount, Tolerated, VotesTaker
from mpicoded.algorithms.randomness import generator
from mpicoded.algorithms.shapes import Array, Float
from mpicoded.algorithms.slices import WHOLE, Sums, squared_distances

Votes = Float[Array, "votes dim"]
Filtered = Float[Array, "filtered dim"]
Stream = np.random.Generator | None


class Filter(VotesTaker):
    """Base of the filters."""

    proven: ClassVar[str] = "none in the literature"
    """kappa of filter and rule, where k is the rule's."""

    @classmethod
    def facts(cls) -> list[str]:
        """kappa and cost."""
        return [f"kappa, with a rule of kappa k: {cls.proven}", f"cost: {cls.cost}"]

    def votes(self, votes: int) -> int:
        """How many votes come out of this many; as many, unless the filter says otherwise."""
        return votes

    def apply(self, votes: Votes, out: Filtered | None = None, stream: Stream = None, sums: Sums = WHOLE) -> Filtered:
        """The votes that the next filter or the rule gets; ``stream`` is for filters that draw random numbers."""
        raise NotImplementedError

    def kappa(self, inner: float | None, votes: int, byzantine: int) -> float | None:
        """kappa of filter and rule together where that of the rule behind it is ``inner``; None where it is unknown."""
        return None


class NearestNeighborMixing(Filter):
    """Each vote becomes the mean of its n - f nearest votes, itself among them (NNM)."""

    source: ClassVar[str] = "Allouah et al. 2023"
    acronym: ClassVar[str] = "NNM"
    proven: ClassVar[str] = "8 f/(n - f) (k + 1)"
    cost: ClassVar[str] = "n^2 dim"
    byzantine: Tolerated  # how many Byzantine votes it tolerates; "auto": estimated in each round

    def fewest(self) -> int:
        """2f + 1."""
        return 2 * self.byzantine + 1

    def apply(self, votes: Votes, out: Filtered | None = None, stream: Stream = None, sums: Sums = WHOLE) -> Filtered:
        """Mix by one product with the matrix of neighbours."""
        votes = as_floats(votes)
        chosen = self.chosen(votes, sums)
        if out is None:
            out = namespace(votes).empty(votes.shape, dtype=votes.dtype, device=votes.device)
        for piece in sums.pieces(votes.shape[1]):
            out[:, piece] = self.mixed(chosen, votes[:, piece])
        return out

    def mixed(
        self, chosen: Float[Array, "filtered votes"], votes: Float[Array, "votes columns"]
    ) -> Float[Array, "filtered columns"]:
        """The means of those chosen, of some coordinates: worked in a piece of them, it stays in the cache."""
        mixed = chosen @ votes
        mixed /= votes.shape[0] - self.byzantine
        return mixed

    def chosen(self, votes: Votes, sums: Sums = WHOLE) -> Float[Array, "filtered votes"]:
        """Which votes are mixed into each, as 0 and 1; ties go to the lower index."""
        self.check(votes.shape[0])
        votes, xp = as_floats(votes), namespace(votes)
        count = votes.shape[0]
        # A vote is its own nearest, also among equal votes.
        distances = squared_distances(votes, sums) - xp.eye(count, dtype=votes.dtype, device=votes.device)
        order = xp.argsort(distances, axis=-1, stable=True)
        rank = xp.argsort(order, axis=-1, stable=True)
        return xp.astype(rank < count - self.byzantine, votes.dtype)

    def kappa(self, inner: float | None, votes: int, byzantine: int) -> float | None:
        """8 f/(n - f) (kappa + 1) (Allouah et al. 2023, lemma 1)."""
        return None if inner is None else 8 * byzantine / (votes - byzantine) * (inner + 1)


class Bucketing(Filter):
    """Votes are put at random into groups of ``size``, the last of what is left; each group's mean is a vote.

    A group with one lie is a lie, so f Byzantine votes leave f Byzantine groups at worst: the rule behind needs the
    same f as without groups, and has ceil(n / size) votes only to stand it.
    """

    source: ClassVar[str] = "Karimireddy et al. 2022"
    proven: ClassVar[str] = "only in expectation over the groups"
    cost: ClassVar[str] = "n dim"
    size: PositiveCount = 2  # votes in a group

    def votes(self, votes: int) -> int:
        """The number of groups."""
        return -(-votes // self.size)

    def apply(self, votes: Votes, out: Filtered | None = None, stream: Stream = None, sums: Sums = WHOLE) -> Filtered:
        """Shuffle and average; without a stream, as the same one says each time."""
        votes, xp = as_floats(votes), namespace(votes)
        stream = generator(0, "bucketing") if stream is None else stream
        count, dim = votes.shape
        full = count // self.size
        shuffled = rows(votes, stream.permutation(count))
        groups = xp.mean(xp.reshape(shuffled[: full * self.size, :], (full, self.size, dim)), axis=1)
        if full * self.size < count:
            groups = xp.concat([groups, xp.mean(shuffled[full * self.size :, :], axis=0, keepdims=True)], axis=0)
        return store(groups, out)


class Clip(Filter):
    """Votes longer than ``tau`` are shortened to it."""

    source: ClassVar[str] = "baseline"
    cost: ClassVar[str] = "n dim"
    tau: Positive  # the longest vote

    def apply(self, votes: Votes, out: Filtered | None = None, stream: Stream = None, sums: Sums = WHOLE) -> Filtered:
        """Scale each vote."""
        votes, xp = as_floats(votes), namespace(votes)
        lengths = xp.sqrt(sums.squares(votes))
        return store(votes * shrink_to(self.tau, lengths)[:, None], out)


class AdaptiveClipping(Filter):
    """Votes are shortened to the length of the (k + 1)-th longest, k = floor(2f (n - f) / n) (ARC)."""

    source: ClassVar[str] = "Allouah et al. 2025, adaptive clipping"
    acronym: ClassVar[str] = "ARC"
    proven: ClassVar[str] = "k + 2f/(n - 2f)"
    cost: ClassVar[str] = "n dim"
    byzantine: Tolerated  # how many Byzantine votes it tolerates; "auto": estimated in each round

    def fewest(self) -> int:
        """2f + 1."""
        return 2 * self.byzantine + 1

    def apply(self, votes: Votes, out: Filtered | None = None, stream: Stream = None, sums: Sums = WHOLE) -> Filtered:
        """Scale the k longest."""
        count = votes.shape[0]
        self.check(count)
        votes, xp = as_floats(votes), namespace(votes)
        lengths = xp.sqrt(sums.squares(votes))
        clipped = 2 * self.byzantine * (count - self.byzantine) // count
        limit = float(xp.sort(lengths)[count - 1 - clipped])
        return store(votes * shrink_to(limit, lengths)[:, None], out)

    def kappa(self, inner: float | None, votes: int, byzantine: int) -> float | None:
        """Kappa + 2f/(n - 2f) (Allouah et al. 2025, at second hand)."""
        if inner is None:
            return None
        return inner + 2 * byzantine / (votes - 2 * byzantine) if votes > 2 * byzantine else inf


Choice = NearestNeighborMixing | Bucketing | AdaptiveClipping | Clip
