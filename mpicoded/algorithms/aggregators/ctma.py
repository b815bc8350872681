"""A rule on top of any other."""

from typing import ClassVar

from mpicoded.algorithms.aggregators.base import Mean, TolerantAggregator, Vector, Votes
from mpicoded.algorithms.aggregators.centres import CenteredClipping, GeometricMedian
from mpicoded.algorithms.aggregators.coordinates import CoordinateMedian, MeanAroundMedian, Phocas, TrimmedMean
from mpicoded.algorithms.aggregators.diameter import MinimumDiameter
from mpicoded.algorithms.aggregators.neighbours import Bulyan, Krum, MultiKrum
from mpicoded.algorithms.aggregators.weights import CovarianceFiltering, NormThreshold
from mpicoded.algorithms.arrays import as_floats, namespace
from mpicoded.algorithms.slices import WHOLE, Sums
from mpicoded.errors import InputError

Base = (
    Mean
    | CoordinateMedian
    | TrimmedMean
    | Phocas
    | MeanAroundMedian
    | Krum
    | MultiKrum
    | Bulyan
    | MinimumDiameter
    | GeometricMedian
    | CenteredClipping
    | CovarianceFiltering
    | NormThreshold
)


class Ctma(TolerantAggregator):
    """Mean of the n - f votes nearest to what another rule makes of them, ``base``: a trimmed mean unless it is set."""

    source: ClassVar[str] = "Dahan and Levy 2024"
    acronym: ClassVar[str] = "CTMA"
    proven: ClassVar[str] = "of the order f/n if that of the base is bounded"
    cost: ClassVar[str] = "n dim after the base"
    base: Base | None = None  # the rule to whose result votes must be near; unset: trimmed_mean

    @property
    def centre(self) -> Base:
        """The rule whose result the votes must be near to."""
        return TrimmedMean(byzantine=self.byzantine) if self.base is None else self.base

    def fewest(self) -> int:
        """2f + 1, or what the base needs."""
        return max(super().fewest(), self.centre.fewest())

    def check(self, votes: int) -> None:
        """The base may have reasons of its own to refuse."""
        super().check(votes)
        if self.centre.told:
            raise InputError(f"aggregator ctma: base {self.centre.name()} needs to be told who is honest")
        self.centre.check(votes)

    def breakdown(self, votes: int) -> int:
        """That of the base."""
        return self.centre.breakdown(votes)

    def aggregate(
        self, votes: Votes, previous: Vector | None = None, out: Vector | None = None, sums: Sums = WHOLE
    ) -> Vector:
        """The base, then the mean; of votes as near, those of lower index, in the votes' order."""
        self.check(votes.shape[0])
        votes, xp = as_floats(votes), namespace(votes)
        order = xp.argsort(sums.squares_from(votes, self.centre.aggregate(votes, previous, sums=sums)), stable=True)
        return sums.mean_of(order[: votes.shape[0] - self.byzantine], votes, out)
