"""How far lies can move each robust rule: a search for the worst case, written as Markdown tables.

    python docs/studies/robustness.py [--evaluations 20000] [--seed 1] [--processes 2] > tables.md

A rule F is (f, kappa)-robust when, for every set S of n - f of the n votes,
||F - mean_S||^2 <= kappa V with V = (1/|S|) sum over S of ||x_i - mean_S||^2. Here S is the first n - f votes, the rest
are lies, and all of them are moved to make ||F - mean_S||^2 / V as large as can be: first placed in ways that are known
to hurt, in one dimension and in many, then by random steps that are kept where they make it worse (no gradients: most
rules have jumps). What is found is a lower bound of the best kappa. CRA-DL's C_alpha^2 has max over S of
||x_i - mean_S||^2 in V's place. The exit code is 1 where a stated kappa is exceeded.
"""

import argparse
import math
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from itertools import islice, repeat
from typing import Any, NamedTuple

import numpy as np

from mpicoded.algorithms import aggregators, theory
from mpicoded.algorithms.aggregators import Aggregator
from mpicoded.algorithms.component import members
from mpicoded.algorithms.filters import AdaptiveClipping, Filter, NearestNeighborMixing
from mpicoded.algorithms.randomness import generator

VOTES, BYZANTINE = 20, (2, 4, 8)
UNBOUNDED = 1e6  # a ratio that no bounded rule comes near

Array = np.ndarray[Any, Any]
Measure = Callable[[Array], float]


class Found(NamedTuple):
    """The worst case that a search met."""

    ratio: float
    votes: Array


def variance(honest: Array) -> float:
    """The mean squared distance to the mean, V."""
    return float(((honest - honest.mean(axis=0)) ** 2).sum(axis=1).mean())


def largest(honest: Array) -> float:
    """The largest squared distance to the mean, as in CRA-DL's definition."""
    return float(((honest - honest.mean(axis=0)) ** 2).sum(axis=1).max())


def ratio(aggregate: Callable[[Array], Array], votes: Array, honest: int, measure: Measure) -> float:
    """||F - mean_S||^2 over the measure of S, the first votes; 0 where those are equal."""
    spread = measure(votes[:honest])
    if not spread > 1e-12 * (votes[:honest] ** 2).max():
        return 0.0
    votes = votes / math.sqrt(spread)
    return float(((aggregate(votes) - votes[:honest].mean(axis=0)) ** 2).sum())


def placements(honest: int, lies: int, rng: np.random.Generator) -> Iterator[Array]:
    """Votes, the lies last, in ways that are known to hurt some rule."""
    places = 0.999 * np.concatenate([np.linspace(-2, 3, 26), [-1e3, -30.0, -6, 6, 30, 1e3]])  # a little nearer: no ties
    for ones in range(1, honest):
        row = np.repeat([1.0, 0.0], [ones, honest - ones])
        for place in places:
            yield np.concatenate([row, np.full(lies, place)])[:, None]  # numbers at two places, all lies at a third
    for _ in range(200):  # at four places, some of them far
        levels = np.concatenate([[0.0, 1.0], rng.choice([-1, 1], 2) * 10 ** rng.uniform(-1, 2, 2)])
        yield rng.choice(levels, (honest + lies, 1))
    for dim in (2, 5, honest):
        corners = np.eye(honest, dim)  # of a simplex; what there is more than corners lies at the origin
        direction = rng.normal(size=dim)
        direction /= np.linalg.norm(direction)
        aims = (corners[0], corners.mean(axis=0), corners[: max(1, honest // 4)].mean(axis=0), direction)
        for aim in aims:
            for place in (-30.0, -1, 0.3, 0.6, 1, 1.5, 3, 30):
                yield np.concatenate([corners, np.tile(place * aim, (lies, 1))])
        for _ in range(40):
            cloud = rng.normal(size=(honest + lies, dim)) * 10 ** rng.uniform(-1, 1, (honest + lies, 1))
            cloud[honest:] = cloud[honest:] + rng.normal(size=dim) * 10 ** rng.uniform(-1, 1)
            yield cloud


def moved(votes: Array, honest: int, length: float, rng: np.random.Generator) -> Array:
    """The votes after a random step: of all lies together, of one vote, of a vote onto another, or of everything."""
    votes = votes.copy()
    dim, kind = votes.shape[1], rng.integers(6)
    one = rng.integers(len(votes))
    if kind == 0:
        votes[honest:] += length * rng.normal(size=dim)
    elif kind == 1:
        votes[one] += length * rng.normal(size=dim)
    elif kind == 2:
        votes[one] = votes[rng.integers(len(votes))]
    elif kind == 3:
        votes[one] *= math.exp(length * rng.normal())
    elif kind == 4:
        same = (votes == votes[one]).all(axis=1)
        votes[same] += length * rng.normal(size=dim)
    else:
        votes += length * rng.normal(size=votes.shape)
    return votes


def search(
    aggregate: Callable[[Array], Array],
    honest: int,
    lies: int,
    rng: np.random.Generator,
    evaluations: int,
    measure: Measure = variance,
    dims: Sequence[int] = (),
    every: int = 1,
) -> Found:
    """The worst case met: every placement (or every second, …) of these dimensions (or all), then steps from the worst.

    ``evaluations`` is the number of steps, over all starts together.
    """

    def look(votes: Array) -> Found:
        return Found(ratio(aggregate, votes, honest, measure), votes)

    met: dict[int, list[Found]] = {}
    for votes in islice(placements(honest, lies, rng), 0, None, every):
        if not dims or votes.shape[1] in dims:
            met.setdefault(votes.shape[1], []).append(look(votes))
    starts = [found for group in met.values() for found in sorted(group, key=lambda found: -found.ratio)[:4]]
    ends = []
    for start in starts:
        worst, length = start, 0.3
        for _ in range(evaluations // len(starts)):
            found = look(moved(worst.votes, honest, length, rng))
            if found.ratio > worst.ratio:
                worst, length = found, min(3 * length, 1.0)
            else:
                length = 0.9 * length if length > 1e-6 else 0.3
        ends.append(worst)
    return max(ends, key=lambda found: found.ratio)


def chained(filters: Sequence[Filter], rule: Aggregator) -> Callable[[Array], Array]:
    """Votes → filters → rule."""

    def aggregate(votes: Array) -> Array:
        for item in filters:
            votes = item.apply(votes)
        return np.asarray(rule.aggregate(votes))

    return aggregate


def is_unbounded(aggregate: Callable[[Array], Array], honest: int, lies: int) -> bool:
    """Whether equal honest votes, of no variance, can be missed."""
    votes = np.repeat([[2.0], [1.0]], [honest, lies], axis=0)
    return abs(float(aggregate(votes)[0]) - 2) > 1e-6


def in_all_coordinates(votes: Array, honest: int) -> Array:
    """A one-dimensional case in ``honest`` dimensions: the honest votes move on by one in each.

    Every honest vote then is at each place once, so all are as far from their mean, and largest and mean squared
    distance are the same number: for a rule that works by coordinates, C_alpha^2 is no smaller than kappa.
    """
    turned = [np.concatenate([np.roll(votes[:honest], shift, axis=0), votes[honest:]]) for shift in range(honest)]
    return np.concatenate(turned, axis=1)


def rules(byzantine: int) -> dict[str, Aggregator]:
    """Every rule that can be asked for that many Byzantine votes, and one more base of CTMA."""
    found: dict[str, Aggregator] = {}
    for name, cls in members(aggregators.Choice).items():
        fields = {"byzantine": byzantine, "tau": 1.0}
        rule: Any = cls(**{field: fields[field] for field in cls.__struct_fields__ if field in fields})
        if byzantine <= rule.breakdown(VOTES) or name == "mean":
            found[name] = rule
    found["ctma, base geometric_median"] = aggregators.Ctma(byzantine=byzantine, base=aggregators.GeometricMedian())
    return found


def derived(rule: Aggregator, votes: int, byzantine: int) -> float | None:
    """Bounds of kappa that docs/robustness.md proves, for rules whose literature has none."""
    nearest = 4 * byzantine / (votes - byzantine)
    match rule:
        case aggregators.Phocas():
            inner = aggregators.TrimmedMean(byzantine=byzantine).kappa(votes, byzantine)
        case aggregators.MeanAroundMedian():
            inner = aggregators.CoordinateMedian().kappa(votes, byzantine)
        case aggregators.Ctma():
            inner = rule.centre.kappa(votes, byzantine)
        case aggregators.MinimumDiameter():
            return 8 * byzantine**2 / (votes - byzantine)
        case _:
            return None
    return None if inner is None else nearest * (1 + inner)


class Case(NamedTuple):
    """One cell of the tables."""

    name: str
    byzantine: int
    filters: tuple[Filter, ...]
    rule: Aggregator

    def bound(self) -> tuple[float | None, bool]:
        """kappa that is stated or else derived, and whether it is stated."""
        stated = theory.kappa(self.rule, self.filters, VOTES, self.byzantine)
        if stated is not None:
            return stated, True
        found = derived(self.rule, VOTES, self.byzantine)
        for item in reversed(self.filters):
            found = item.kappa(found, VOTES, self.byzantine)
        return found, False

    def worst(self, evaluations: int, seed: int, every: int = 1) -> float:
        """What the search finds."""
        aggregate, honest = chained(self.filters, self.rule), VOTES - self.byzantine
        if is_unbounded(aggregate, honest, self.byzantine):
            return math.inf
        stream = generator(seed, f"{self.name}, {len(self.filters)} filters", self.byzantine)
        return search(aggregate, honest, self.byzantine, stream, evaluations, every=every).ratio

    def constants(self, evaluations: int, seed: int) -> tuple[float, float]:
        """C_alpha^2 that is met in one dimension, and in as many as there are honest votes."""
        aggregate, honest = chained(self.filters, self.rule), VOTES - self.byzantine
        stream = generator(seed, f"{self.name}, C_alpha", self.byzantine)
        line = partial(search, aggregate, honest, self.byzantine, stream, evaluations // 2, dims=[1])
        turned = in_all_coordinates(line().votes, honest)
        return line(measure=largest).ratio, ratio(aggregate, turned, honest, largest)


def cases(filters: Callable[[int], tuple[Filter, ...]], names: Sequence[str] = ()) -> list[list[Case]]:
    """A row of cases for each rule, or for those named."""
    found: dict[str, list[Case]] = {}
    for byzantine in BYZANTINE:
        for name, rule in rules(byzantine).items():
            if not names or name in names:
                found.setdefault(name, []).append(Case(name, byzantine, filters(byzantine), rule))
    return list(found.values())


def number(value: float | None) -> str:
    """Three digits."""
    return "–" if value is None else "unbounded" if value > UNBOUNDED else f"{value:.3g}"


def table(head: str, rows: list[list[Case]], found: dict[Case, float]) -> str:
    """What was found, and what is stated or (in brackets) derived."""
    lines = [f"| {head} | {' | '.join(f'f = {byzantine}' for byzantine in BYZANTINE)} |", "|---" * 4 + "|"]
    for row in rows:
        cells = {}
        for case in row:
            bound, stated = case.bound()
            said = (
                ""
                if bound is None or bound == math.inf
                else f" ≤ {number(bound)}"
                if stated
                else f" ≤ ({number(bound)})"
            )
            cells[case.byzantine] = number(found[case]) + said
        lines.append(f"| `{row[0].name}` | {' | '.join(cells.get(byzantine, '–') for byzantine in BYZANTINE)} |")
    return "\n".join(lines)


def main() -> int:
    """Print the tables; 1 where a bound is exceeded."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--evaluations", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--processes", type=int, default=2)
    options = parser.parse_args()
    proven = ("coordinate_median", "trimmed_mean", "krum", "geometric_median")
    tables = {
        "the rule alone": cases(lambda byzantine: ()),
        "after `nearest_neighbor_mixing`": cases(lambda byzantine: (NearestNeighborMixing(byzantine=byzantine),)),
        "after `adaptive_clipping`": cases(lambda byzantine: (AdaptiveClipping(byzantine=byzantine),), proven),
    }
    everything = [case for rows in tables.values() for row in rows for case in row]
    by_coordinate = cases(lambda byzantine: (), ("coordinate_median", "trimmed_mean", "phocas", "mean_around_median"))
    flat = [case for row in by_coordinate for case in row]
    with ProcessPoolExecutor(options.processes) as pool:
        kappas = pool.map(Case.worst, everything, repeat(options.evaluations), repeat(options.seed))
        constants = pool.map(Case.constants, flat, repeat(options.evaluations), repeat(options.seed))
        found = dict(zip(everything, kappas, strict=True))
        met = dict(zip(flat, constants, strict=True))
    for head, rows in tables.items():
        print(table(head, rows, found), end="\n\n")
    print(f"| C_alpha², one dimension; n - f dimensions | {' | '.join(f'f = {f}' for f in BYZANTINE)} |")
    print("|---" * 4 + "|")
    for row in by_coordinate:
        cells = [f"{number(met[case][0])}; {number(met[case][1])}" for case in row]
        print(f"| `{row[0].name}` | {' | '.join(cells)} |")
    exceeded = [
        case for case in everything if (bound := case.bound()[0]) is not None and found[case] > bound * (1 + 1e-9)
    ]
    for case in exceeded:
        print(f"EXCEEDED: {case} has {found[case]}, its bound is {case.bound()[0]}", file=sys.stderr)
    return 1 if exceeded else 0


if __name__ == "__main__":
    sys.exit(main())
