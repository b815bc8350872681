"""Rules that look for one centre of all votes, step by step."""

from typing import ClassVar

from mpicoded.algorithms.aggregators.base import Aggregator, Vector, Votes, share
from mpicoded.algorithms.arrays import as_floats, namespace, shrink_to
from mpicoded.algorithms.component import Positive, PositiveCount
from mpicoded.algorithms.shapes import Array, Float
from mpicoded.algorithms.slices import WHOLE, Sums, centred_gram, pair_distances


class GeometricMedian(Aggregator):
    """The point of least summed distance to the votes (RFA), by smoothed Weiszfeld steps until converged.

    z = sum b_i x_i / sum b_i with b_i = 1 / max(nu, ||z - x_i||). ``tolerance``: the steps end when one moves the
    point by less than this times the median distance to the votes. ``smoothing`` is nu in the same unit.
    """

    source: ClassVar[str] = "Pillutla et al. 2019"
    acronym: ClassVar[str] = "RFA, GM"
    proven: ClassVar[str] = "4 (1 + a)^2, a = f/(n - 2f)"
    cost: ClassVar[str] = "n^2 dim, and n^2 in each step"
    tolerance: Positive = 1e-10  # the least step, in median distances of the votes
    smoothing: Positive = 1e-9  # nu, in the same unit
    max_steps: PositiveCount = 10_000  # after which it ends, converged or not

    def aggregate(
        self, votes: Votes, previous: Vector | None = None, out: Vector | None = None, sums: Sums = WHOLE
    ) -> Vector:
        """Iterate on the weights alone: the point is a mean of votes, so their inner products say all.

        A vote acts by its direction only, so one that is further than 1/sqrt(eps) median distances is drawn
        in to there: nothing is lost, and no outlier is large enough to drown the others in rounding.
        """
        votes, xp = as_floats(votes), namespace(votes)
        eps = float(xp.finfo(votes.dtype).eps)
        centre, gram = centred_gram(votes, sums)
        squares = xp.linalg.diagonal(gram)
        limit = min(float(xp.sort(squares)[votes.shape[0] // 2]) / eps, float(xp.finfo(votes.dtype).max))
        ones = xp.ones_like(squares)
        shrink = xp.where(squares > limit, xp.sqrt(limit / xp.where(squares > limit, squares, ones)), ones)
        weights = shrink * self._weights(pair_distances(gram * shrink[:, None] * shrink[None, :]))
        return sums.combine_about(centre, weights, votes, out)

    def kappa(self, votes: int, byzantine: int) -> float | None:
        """4 (1 + a)^2 with a = f/(n - 2f) (Allouah et al. 2023)."""
        return 4 * (1 + share(votes, byzantine)) ** 2

    def _weights(self, squares: Float[Array, "votes votes"]) -> Float[Array, " votes"]:
        """The weights of the votes in their geometric median, from their squared distances."""
        xp = namespace(squares)
        count = squares.shape[0]
        # Start among the votes that have most others near: from the plain mean, two far votes on opposite sides
        # would make the distances of the others the difference of two large numbers.
        typical = xp.sqrt(xp.sort(squares, axis=-1)[:, count // 2])
        least = float(xp.min(typical))
        weights = least / typical if least > 0 else xp.astype(typical == 0, squares.dtype)
        weights = weights / xp.sum(weights)
        tolerance = max(self.tolerance, float(xp.finfo(squares.dtype).eps))
        for _ in range(self.max_steps):
            # ||sum_j w_j x_j - x_i||^2 = (D w)_i - w D w / 2 for sum w = 1 and D the squared distances
            towards = squares @ weights
            distances = xp.sqrt(xp.clip(towards - (weights @ towards) / 2, min=0))
            scale = float(xp.sort(distances)[count // 2])  # the median: no outlier moves it much
            if scale == 0:
                break
            fresh = 1 / xp.clip(distances / scale, min=self.smoothing)
            fresh = fresh / xp.sum(fresh)
            change = fresh - weights
            weights = fresh
            moved = float(-(change @ (squares @ change)) / 2)  # squared length, since the changes sum to zero
            if moved <= (tolerance * scale) ** 2:
                break
        return weights


class CenteredClipping(Aggregator):
    """Steps from the last round's result by the mean of the votes' offsets, none longer than ``tau``.

    v <- v + (1/n) sum (x_i - v) min(1, tau/||x_i - v||), ``iterations`` times; v starts from zero in the first round.
    """

    source: ClassVar[str] = "Karimireddy et al. 2021"
    acronym: ClassVar[str] = "CC"
    proven: ClassVar[str] = "none: it depends on where the last round ended; f lies move a step by f tau/n at most"
    cost: ClassVar[str] = "n dim for one iteration, else n^2 dim"
    tau: Positive  # the longest offset that counts whole
    iterations: PositiveCount = 1  # steps in a round

    def aggregate(
        self, votes: Votes, previous: Vector | None = None, out: Vector | None = None, sums: Sums = WHOLE
    ) -> Vector:
        """Iterate on the weights of the votes' offsets from the start: their inner products say all."""
        votes, xp = as_floats(votes), namespace(votes)
        start = xp.zeros_like(votes[0, :]) if previous is None else previous
        if self.iterations == 1:
            squares = sums.squares_from(votes, start)
            weights = shrink_to(self.tau, xp.sqrt(squares)) / votes.shape[0]
        else:
            weights = self._weights(sums.gram(votes, start))
        return sums.piecewise(
            votes.shape[1],
            lambda piece: start[piece] + weights @ (votes[:, piece] - start[None, piece]),
            out,
        )

    def _weights(self, gram: Float[Array, "votes votes"]) -> Float[Array, " votes"]:
        """The weights of the offsets in what is added to the start, from the offsets' inner products."""
        xp = namespace(gram)
        squares = xp.linalg.diagonal(gram)
        weights = xp.zeros_like(squares)
        for _ in range(self.iterations):
            towards = gram @ weights
            distances = xp.sqrt(xp.clip(squares - 2 * towards + weights @ towards, min=0))
            steps = shrink_to(self.tau, distances) / squares.shape[0]
            weights = weights * (1 - xp.sum(steps)) + steps
        return weights
