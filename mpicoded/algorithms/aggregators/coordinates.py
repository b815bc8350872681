"""Rules that look at each coordinate by itself."""

from typing import ClassVar

from mpicoded.algorithms.aggregators.base import Aggregator, TolerantAggregator, Vector, Votes, share
from mpicoded.algorithms.ordering import middle_mean, nearest_mean
from mpicoded.algorithms.slices import WHOLE, Sums


class CoordinateMedian(Aggregator):
    """Median of each coordinate (CWMed); the mean of the middle two where the number of votes is even."""

    source: ClassVar[str] = "Yin et al. 2018"
    coordinatewise: ClassVar[bool] = True
    acronym: ClassVar[str] = "CWMed"
    proven: ClassVar[str] = "4 (1 + a)^2, a = f/(n - 2f)"
    cost: ClassVar[str] = "n dim log n"

    def aggregate(
        self, votes: Votes, previous: Vector | None = None, out: Vector | None = None, sums: Sums = WHOLE
    ) -> Vector:
        """Median over votes."""
        return middle_mean(votes, *middle_ranks(votes.shape[0]), out)

    def kappa(self, votes: int, byzantine: int) -> float | None:
        """4 (1 + a)^2 with a = f/(n - 2f) (Allouah et al. 2023)."""
        return 4 * (1 + share(votes, byzantine)) ** 2


class TrimmedMean(TolerantAggregator):
    """Mean of each coordinate without its f largest and f smallest values (CWTM)."""

    source: ClassVar[str] = "Yin et al. 2018"
    coordinatewise: ClassVar[bool] = True
    acronym: ClassVar[str] = "CWTM"
    proven: ClassVar[str] = "6 a (1 + a), a = f/(n - 2f)"
    cost: ClassVar[str] = "n dim log n"

    def aggregate(
        self, votes: Votes, previous: Vector | None = None, out: Vector | None = None, sums: Sums = WHOLE
    ) -> Vector:
        """Mean of the n - 2f middle values."""
        self.check(votes.shape[0])
        return middle_mean(votes, self.byzantine, votes.shape[0] - self.byzantine - 1, out)

    def kappa(self, votes: int, byzantine: int) -> float | None:
        """6 a (1 + a) with a = f/(n - 2f) (Allouah et al. 2023)."""
        return 6 * share(votes, byzantine) * (1 + share(votes, byzantine))


class Phocas(TolerantAggregator):
    """Mean of each coordinate's n - f values nearest to its trimmed mean."""

    source: ClassVar[str] = "Xie et al. 2018"
    coordinatewise: ClassVar[bool] = True
    cost: ClassVar[str] = "n dim log n"

    def aggregate(
        self, votes: Votes, previous: Vector | None = None, out: Vector | None = None, sums: Sums = WHOLE
    ) -> Vector:
        """Trimmed mean, then the mean of the nearest; of two values equally near, the smaller."""
        self.check(votes.shape[0])
        kept = votes.shape[0] - self.byzantine
        return nearest_mean(votes, self.byzantine, kept - 1, kept, out)


class MeanAroundMedian(TolerantAggregator):
    """Mean of each coordinate's n - f values nearest to its median (MeaMed)."""

    source: ClassVar[str] = "Xie et al. 2018"
    coordinatewise: ClassVar[bool] = True
    acronym: ClassVar[str] = "MeaMed"
    cost: ClassVar[str] = "n dim log n"

    def aggregate(
        self, votes: Votes, previous: Vector | None = None, out: Vector | None = None, sums: Sums = WHOLE
    ) -> Vector:
        """Median, then the mean of the nearest; of two values equally near, the smaller."""
        self.check(votes.shape[0])
        kept = votes.shape[0] - self.byzantine
        return nearest_mean(votes, *middle_ranks(votes.shape[0]), kept, out)


def middle_ranks(votes: int) -> tuple[int, int]:
    """The rank of the median, twice, or the two around it."""
    return (votes - 1) // 2, votes // 2
