"""What all rules share, and the plain mean."""

from math import inf
from typing import ClassVar

from mpicoded.algorithms.arrays import namespace, store
from mpicoded.algorithms.component import Tolerated, VotesTaker
from mpicoded.algorithms.shapes import Array, Float
from mpicoded.algorithms.slices import WHOLE, Sums

Votes = Float[Array, "votes dim"]
Vector = Float[Array, " dim"]


class Aggregator(VotesTaker):
    """Base of the rules."""

    needs: ClassVar[tuple[int, int]] = (2, 1)
    """(a, b): to stand f Byzantine votes the rule needs a f + b votes."""
    proven: ClassVar[str] = "none in the literature"
    """kappa."""
    coordinatewise: ClassVar[bool] = False
    """Whether each coordinate of the result depends on that of the votes alone. See ``by_coordinates``."""
    told: ClassVar[bool] = False
    """Whether the server tells it who is honest, and gives it their messages alone: no server of real devices can."""

    @classmethod
    def facts(cls) -> list[str]:
        """Breakdown point, kappa and cost."""
        return [f"stands {cls.stands()} of n votes", f"kappa: {cls.proven}", f"cost: {cls.cost}"]

    @classmethod
    def by_coordinates(cls) -> bool:
        """Whether votes can be worked in pieces: the class that says how to aggregate must say ``coordinatewise``."""
        definer = next(each for each in cls.__mro__ if "aggregate" in vars(each))
        return bool(vars(definer).get("coordinatewise", False))

    @classmethod
    def stands(cls) -> str:
        """The breakdown point in words."""
        each, beside = cls.needs
        return f"f <= (n - {beside})/{each}"

    def aggregate(
        self, votes: Votes, previous: Vector | None = None, out: Vector | None = None, sums: Sums = WHOLE
    ) -> Vector:
        """One vector for all votes; ``previous`` is the last round's, for rules that start from it.

        ``sums``: where the votes are slices of some coordinates, how they are summed over all. A rule of which this is
        no argument is for whole votes only.
        """
        raise NotImplementedError

    def kappa(self, votes: int, byzantine: int) -> float | None:
        """kappa of the rule where ``byzantine`` of the votes lie; None where the literature has none."""
        return None

    def breakdown(self, votes: int) -> int:
        """The largest number of Byzantine votes that the rule stands among so many, if it is told that number.

        However large they are, the honest votes alone bound the result. Never half of the votes or more: nobody
        could say which half lies.
        """
        each, beside = self.needs
        return max(votes - beside, 0) // each


class TolerantAggregator(Aggregator):
    """Base of the rules that are told how many Byzantine votes to tolerate."""

    takes: ClassVar[tuple[int, int] | None] = None
    """(a, b): with fewer than a f + b votes the rule is undefined; None: as many as it needs."""
    byzantine: Tolerated  # how many Byzantine votes it tolerates; "auto": estimated in each round

    @classmethod
    def facts(cls) -> list[str]:
        """The fewest votes as well."""
        each, beside = cls.takes or cls.needs
        stands, *others = super().facts()
        return [f"{stands}, is undefined below {each if each > 1 else ''}f + {beside}", *others]

    def fewest(self) -> int:
        """As many as the rule needs to stand f Byzantine votes, or as it takes."""
        each, beside = self.takes or self.needs
        return each * self.byzantine + beside


class Mean(Aggregator):
    """Arithmetic mean: no robustness (VA, MA; also SGC-DL's server)."""

    source: ClassVar[str] = "baseline"
    acronym: ClassVar[str] = "VA, MA; SGC-DL"
    coordinatewise: ClassVar[bool] = True
    proven: ClassVar[str] = "unbounded"
    cost: ClassVar[str] = "n dim"

    @classmethod
    def stands(cls) -> str:
        """No lie at all."""
        return "f = 0"

    def aggregate(
        self, votes: Votes, previous: Vector | None = None, out: Vector | None = None, sums: Sums = WHOLE
    ) -> Vector:
        """Mean over votes."""
        return store(namespace(votes).mean(votes, axis=0), out)

    def kappa(self, votes: int, byzantine: int) -> float | None:
        """None without Byzantine votes, else unbounded."""
        return 0.0 if byzantine == 0 else inf

    def breakdown(self, votes: int) -> int:
        """A single lie can take it anywhere."""
        return 0


class Clairvoyant(Mean):
    """Mean of the honest messages: what a server would do that knew who lies; in simulation only.

    The bound of what any rule can reach. ``aggregate`` takes the honest devices' votes alone.
    """

    source: ClassVar[str] = "baseline"
    acronym: ClassVar[str] = ""
    told: ClassVar[bool] = True
    proven: ClassVar[str] = "0"

    @classmethod
    def stands(cls) -> str:
        """Whoever lies is left out."""
        return "any f < n"

    def kappa(self, votes: int, byzantine: int) -> float | None:
        """Zero: it is the honest mean."""
        return 0.0

    def breakdown(self, votes: int) -> int:
        """All but one."""
        return max(votes - 1, 0)


def share(votes: int, byzantine: int) -> float:
    """a = f/(n - 2f); infinite where half or more of the votes lie."""
    return byzantine / (votes - 2 * byzantine) if votes > 2 * byzantine else inf
