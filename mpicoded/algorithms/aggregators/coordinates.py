"""Rules that look at each coordinate by itself."""

from typing import Any, ClassVar

from mpicoded.algorithms.aggregators.base import Aggregator, TolerantAggregator, Vector, Votes, share
from mpicoded.algorithms.ordering import per_coordinate
from mpicoded.algorithms.shapes import Array
from mpicoded.algorithms.slices import WHOLE, Sums


class CoordinateMedian(Aggregator):
    """Median of each coordinate (CWMed); the mean of the middle two where the number of votes is even."""

    source: ClassVar[str] = "Yin et al. 2018"
    acronym: ClassVar[str] = "CWMed"
    proven: ClassVar[str] = "4 (1 + a)^2, a = f/(n - 2f)"
    cost: ClassVar[str] = "n dim log n"

    def aggregate(
        self, votes: Votes, previous: Vector | None = None, out: Vector | None = None, sums: Sums = WHOLE
    ) -> Vector:
        """Median over votes."""
        return per_coordinate(votes, lambda xp, x: median(x)[:, 0], out)

    def kappa(self, votes: int, byzantine: int) -> float | None:
        """4 (1 + a)^2 with a = f/(n - 2f) (Allouah et al. 2023)."""
        return 4 * (1 + share(votes, byzantine)) ** 2


class TrimmedMean(TolerantAggregator):
    """Mean of each coordinate without its f largest and f smallest values (CWTM)."""

    source: ClassVar[str] = "Yin et al. 2018"
    acronym: ClassVar[str] = "CWTM"
    proven: ClassVar[str] = "6 a (1 + a), a = f/(n - 2f)"
    cost: ClassVar[str] = "n dim log n"

    def aggregate(
        self, votes: Votes, previous: Vector | None = None, out: Vector | None = None, sums: Sums = WHOLE
    ) -> Vector:
        """Mean of the n - 2f middle values."""
        self.check(votes.shape[0])
        low, high = self.byzantine, votes.shape[0] - self.byzantine
        return per_coordinate(votes, lambda xp, x: xp.mean(x[:, low:high], axis=-1), out)

    def kappa(self, votes: int, byzantine: int) -> float | None:
        """6 a (1 + a) with a = f/(n - 2f) (Allouah et al. 2023)."""
        return 6 * share(votes, byzantine) * (1 + share(votes, byzantine))


class Phocas(TolerantAggregator):
    """Mean of each coordinate's n - f values nearest to its trimmed mean."""

    source: ClassVar[str] = "Xie et al. 2018"
    cost: ClassVar[str] = "n dim log n"

    def aggregate(
        self, votes: Votes, previous: Vector | None = None, out: Vector | None = None, sums: Sums = WHOLE
    ) -> Vector:
        """Trimmed mean, then the mean of the nearest; of two values equally near, the smaller."""
        self.check(votes.shape[0])
        low, high = self.byzantine, votes.shape[0] - self.byzantine
        return per_coordinate(
            votes, lambda xp, x: mean_of_nearest(xp, x, xp.mean(x[:, low:high], axis=-1, keepdims=True), high), out
        )


class MeanAroundMedian(TolerantAggregator):
    """Mean of each coordinate's n - f values nearest to its median (MeaMed)."""

    source: ClassVar[str] = "Xie et al. 2018"
    acronym: ClassVar[str] = "MeaMed"
    cost: ClassVar[str] = "n dim log n"

    def aggregate(
        self, votes: Votes, previous: Vector | None = None, out: Vector | None = None, sums: Sums = WHOLE
    ) -> Vector:
        """Median, then the mean of the nearest; of two values equally near, the smaller."""
        self.check(votes.shape[0])
        kept = votes.shape[0] - self.byzantine
        return per_coordinate(votes, lambda xp, x: mean_of_nearest(xp, x, median(x), kept), out)


def mean_of_nearest(xp: Any, ordered: Array, centre: Array, count: int) -> Array:
    """For each row of ascending values the mean of the ``count`` nearest to its centre, the smaller of two as near.

    The nearest stand side by side. One is too low for them if the one ``count`` places further up is nearer.
    """
    total = ordered.shape[1]
    too_low = centre - ordered[:, : total - count] > ordered[:, count:] - centre
    start = xp.sum(xp.astype(too_low, xp.int64), axis=-1, keepdims=True)
    place = xp.arange(total, device=ordered.device)[None, :]
    inside = (start <= place) & (place < start + count)
    return xp.sum(xp.where(inside, ordered, xp.zeros_like(ordered)), axis=-1) / count


def median(ordered: Array) -> Array:
    """Of each row of ascending values, as a column."""
    count = ordered.shape[1]
    low, high = (count - 1) // 2, count // 2
    return ordered[:, low, None] / 2 + ordered[:, high, None] / 2
