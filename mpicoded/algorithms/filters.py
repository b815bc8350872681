"""Filters prepare votes for the rule: (votes, dim) → (votes, dim)."""

from typing import ClassVar

from mpicoded.algorithms.arrays import as_floats, namespace, squared_distances, store
from mpicoded.algorithms.component import Count, VotesTaker
from mpicoded.algorithms.shapes import Array, Float


class Filter(VotesTaker):
    """Base of the filters."""

    def votes(self, votes: int) -> int:
        """How many votes come out of this many; as many, unless the filter says otherwise."""
        return votes

    def apply(
        self, votes: Float[Array, "votes dim"], out: Float[Array, "filtered dim"] | None = None
    ) -> Float[Array, "filtered dim"]:
        """The votes that the next filter or the rule gets."""
        raise NotImplementedError

    def kappa(self, inner: float | None, votes: int, byzantine: int) -> float | None:
        """kappa of filter and rule together where that of the rule behind it is ``inner``; None where it is unknown."""
        return None


class NearestNeighborMixing(Filter):
    """Each vote becomes the mean of its n - f nearest votes, itself among them (NNM)."""

    source: ClassVar[str] = "Allouah et al. 2023"
    byzantine: Count

    def fewest(self) -> int:
        """2f + 1."""
        return 2 * self.byzantine + 1

    def apply(
        self, votes: Float[Array, "votes dim"], out: Float[Array, "filtered dim"] | None = None
    ) -> Float[Array, "filtered dim"]:
        """Mix by one product with the 0/1 matrix of neighbours; ties go to the lower index."""
        self.check(votes.shape[0])
        votes, xp = as_floats(votes), namespace(votes)
        count = votes.shape[0]
        kept = count - self.byzantine
        # A vote is its own nearest, also among equal votes.
        distances = squared_distances(votes) - xp.eye(count, dtype=votes.dtype, device=votes.device)
        order = xp.argsort(distances, axis=-1, stable=True)
        rank = xp.argsort(order, axis=-1, stable=True)
        mixing = xp.astype(rank < kept, votes.dtype)
        return store((mixing @ votes) / kept, out)

    def kappa(self, inner: float | None, votes: int, byzantine: int) -> float | None:
        """8 f/(n - f) (kappa + 1) (Allouah et al. 2023, lemma 1)."""
        return None if inner is None else 8 * byzantine / (votes - byzantine) * (inner + 1)


Choice = NearestNeighborMixing
