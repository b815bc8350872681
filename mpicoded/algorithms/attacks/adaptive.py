"""Attacks that are fitted to the honest messages, or to the rule that the server uses."""

import math
from collections.abc import Callable
from typing import ClassVar, Literal

from mpicoded.algorithms.aggregators import krum_scores
from mpicoded.algorithms.arrays import as_type, beside, namespace
from mpicoded.algorithms.attacks.base import Attack, Seen
from mpicoded.algorithms.component import Positive, PositiveCount
from mpicoded.algorithms.randomness import Streams
from mpicoded.algorithms.shapes import Array, Float
from mpicoded.algorithms.slices import squared_distances

Deviation = Literal["std", "unit", "sign"]


class MinMax(Attack):
    """mu - lam dev with the largest lam at which no honest message is further away than honest ones are apart.

    max_i ||m - x_i||^2 <= max_ij ||x_i - x_j||^2. ``deviation``: dev is the coordinate deviation sigma (``std``),
    mu/||mu|| (``unit``) or sign(mu) (``sign``).
    """

    source: ClassVar[str] = "Shejwalkar and Houmansadr 2021"
    cost: ClassVar[str] = "n^2 dim"
    on_gpu: ClassVar[bool] = True
    colludes: ClassVar[bool] = True
    deviation: Deviation = "std"  # what dev is

    def forge(self, own: Float[Array, "byzantine dim"], seen: Seen, streams: Streams) -> Float[Array, " dim"]:
        """Where the first of the honest balls is left: a quadratic equation for each."""
        assert seen.honest is not None
        xp, (mean, direction) = namespace(own), _direction(seen.honest, self.deviation)
        bound = float(xp.max(squared_distances(seen.honest, seen.sums)))
        # ||mu - lam d - x||^2 = a lam^2 - 2 b lam + c with b = (mu - x).d and c = ||mu - x||^2 <= bound
        offsets = mean - seen.honest
        a, b, c = direction @ direction, offsets @ direction, xp.sum(offsets * offsets, axis=1)
        if a == 0:
            return mean
        under = b * b - a * (c - bound)
        lam = float(xp.min((b + xp.sqrt(xp.maximum(under, xp.zeros_like(under)))) / a))
        return mean - max(lam, 0.0) * direction


class MinSum(Attack):
    """mu - lam dev with the largest lam whose summed distances stay within those of the most central honest message.

    sum_i ||m - x_i||^2 <= min_i sum_j ||x_i - x_j||^2, as in the released code.
    """

    source: ClassVar[str] = "Shejwalkar and Houmansadr 2021"
    cost: ClassVar[str] = "n^2 dim"
    on_gpu: ClassVar[bool] = True
    colludes: ClassVar[bool] = True
    deviation: Deviation = "std"  # what dev is

    def forge(self, own: Float[Array, "byzantine dim"], seen: Seen, streams: Streams) -> Float[Array, " dim"]:
        """sum_i ||m - x_i||^2 = sum_i ||mu - x_i||^2 + H lam^2 ||dev||^2."""
        assert seen.honest is not None
        xp, (mean, direction) = namespace(own), _direction(seen.honest, self.deviation)
        bound = float(xp.min(xp.sum(squared_distances(seen.honest, seen.sums), axis=1)))
        offsets = mean - seen.honest
        room = bound - float(xp.sum(offsets * offsets))
        length = seen.honest.shape[0] * float(direction @ direction)
        lam = math.sqrt(max(room, 0.0) / length) if length > 0 else 0.0
        return mean - lam * direction


class FangKrum(Attack):
    """-lam sign(mu), the largest lam of a halving search at which Krum picks it."""

    source: ClassVar[str] = "Fang et al. 2020, as in the code of Shejwalkar and Houmansadr 2021"
    acronym: ClassVar[str] = "Fang"
    cost: ClassVar[str] = "n^2 dim for each halving, 60 at most"
    on_gpu: ClassVar[bool] = True
    colludes: ClassVar[bool] = True

    def forge(self, own: Float[Array, "byzantine dim"], seen: Seen, streams: Streams) -> Float[Array, " dim"]:
        """Start at the bound of the paper, halve until Krum is deceived (or lam is negligible)."""
        assert seen.honest is not None
        xp, honest, (count, dim) = namespace(own), seen.honest, seen.honest.shape
        byzantine = seen.messages - count
        mean = xp.mean(honest, axis=0)
        nearest = max(count - 2, 1)
        inner = xp.sort(squared_distances(honest, seen.sums), axis=1)[:, 1 : nearest + 1]
        offsets = honest - mean
        radius = float(xp.sqrt(xp.max(xp.sum(offsets * offsets, axis=1))))
        room = max(seen.messages - 2 * byzantine - 1, 1)
        lam = float(xp.sqrt(xp.min(xp.sum(inner, axis=1)) / (room * dim))) + radius / math.sqrt(dim)
        for _ in range(_HALVINGS):
            forged = -lam * xp.sign(mean)
            votes = xp.concat([xp.broadcast_to(forged, (byzantine, dim)), honest])
            if seen.messages < byzantine + 3 or int(xp.argmin(krum_scores(votes, byzantine, seen.sums))) < byzantine:
                break
            lam /= 2
        return forged


class FangTrimmed(Attack):
    """Just outside the honest range, on the side that is away from the mean: against trimmed mean and median.

    Below the smallest honest value where mu > 0, above the largest where mu < 0, uniform up to ``band`` times as far.
    """

    source: ClassVar[str] = "Fang et al. 2020"
    acronym: ClassVar[str] = "Fang"
    cost: ClassVar[str] = "n dim"
    on_gpu: ClassVar[bool] = True
    colludes: ClassVar[bool] = True
    band: Positive = 2.0  # how far beyond the honest range, as a factor of its edge

    def forge(self, own: Float[Array, "byzantine dim"], seen: Seen, streams: Streams) -> Float[Array, "byzantine dim"]:
        """Each attacker draws for itself."""
        assert seen.honest is not None
        xp = namespace(own)
        low, high = xp.min(seen.honest, axis=0), xp.max(seen.honest, axis=0)
        above = xp.mean(seen.honest, axis=0) > 0
        edge = xp.where(above, low, high)
        outwards = xp.where(above, low < 0, high > 0)  # away from zero, or towards it
        far = xp.where(outwards, edge * float(self.band), edge / float(self.band))
        drawn = beside(streams.uniform("fang_trimmed", own.shape[1]), own)
        return as_type(edge + drawn * (far - edge), own.dtype)


class OptimalIpm(Attack):
    """-lam mu with the lam, of either sign, that takes the rule in use furthest from the honest mean."""

    source: ClassVar[str] = "Shejwalkar and Houmansadr 2021; Allouah et al. 2023"
    acronym: ClassVar[str] = "IPM, optimised"
    cost: ClassVar[str] = "evaluations × filters and rule"
    on_gpu: ClassVar[bool] = True
    colludes: ClassVar[bool] = True
    knows_rule: ClassVar[bool] = True
    evaluations: PositiveCount = 20  # of filters and rule, in each round

    def forge(self, own: Float[Array, "byzantine dim"], seen: Seen, streams: Streams) -> Float[Array, " dim"]:
        """A line search along the mean."""
        assert seen.honest is not None
        mean = namespace(own).mean(seen.honest, axis=0)
        return _worst(lambda lam: -lam * mean, mean, seen, self.evaluations)


class OptimalAlie(Attack):
    """mu - lam sigma with the lam, of either sign, that takes the rule in use furthest from the honest mean."""

    source: ClassVar[str] = "Shejwalkar and Houmansadr 2021; Allouah et al. 2023"
    acronym: ClassVar[str] = "ALIE, optimised"
    cost: ClassVar[str] = "evaluations × filters and rule"
    on_gpu: ClassVar[bool] = True
    colludes: ClassVar[bool] = True
    knows_rule: ClassVar[bool] = True
    evaluations: PositiveCount = 20  # of filters and rule, in each round

    def forge(self, own: Float[Array, "byzantine dim"], seen: Seen, streams: Streams) -> Float[Array, " dim"]:
        """A line search along the deviations."""
        assert seen.honest is not None
        mean, deviation = _direction(seen.honest, "std")
        return _worst(lambda lam: mean - lam * deviation, mean, seen, self.evaluations)


_HALVINGS = 60  # a lam of 2^-60 of the bound is none


def _direction(honest: Float[Array, "honest dim"], deviation: Deviation) -> tuple[Array, Array]:
    """The honest mean, and where to shift it."""
    xp = namespace(honest)
    mean = xp.mean(honest, axis=0)
    if deviation == "std":
        return mean, xp.std(honest, axis=0)
    if deviation == "sign":
        return mean, xp.sign(mean)
    length = xp.sqrt(mean @ mean)
    return mean, mean / length if length > 0 else mean


def _worst(forge: Callable[[float], Array], mean: Array, seen: Seen, evaluations: int) -> Float[Array, " dim"]:
    """The forged message that does most harm, over both signs of lam.

    Half of the evaluations go to powers of two of both signs, the rest to a search around the best of them: a step that
    helps is doubled, one that does not is halved and turned round.
    """

    def harm(lam: float) -> float:
        assert seen.aggregate is not None
        off = seen.aggregate(forge(lam)) - mean
        return float(off @ off)

    coarse = [sign * 2.0 ** (power - 3) for power in range(max(evaluations // 4, 1)) for sign in (1, -1)]
    most, best = max((harm(lam), lam) for lam in coarse)
    step = best / 4
    for _ in range(evaluations - len(coarse)):
        found = harm(best + step)
        if found > most:
            best, most, step = best + step, found, 2 * step
        else:
            step = -step / 2
    return forge(best)
