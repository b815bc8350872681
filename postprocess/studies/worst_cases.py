"""A search for the worst case of a robust rule: votes that move it furthest from the honest mean.

The first votes are honest, the rest are lies, and all of them are moved to make ||F - mean_S||^2 / V as large as can
be, S the honest votes and V the mean of ||x_i - mean_S||^2: first placed in ways that are known to hurt, in one
dimension and in many, then by random steps that are kept where they make it worse (no gradients: most rules have
jumps).
"""

import math
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from typing import Any, NamedTuple

import numpy as np

Array = np.ndarray[Any, Any]
Measure = Callable[[Array], float]
Rule = Callable[[Array], Array]


class Found(NamedTuple):
    """The worst case that a search met, and the placement from which it was reached."""

    ratio: float
    votes: Array
    start: str


def variance(honest: Array) -> float:
    """The mean squared distance to the mean, V."""
    return float(((honest - honest.mean(axis=0)) ** 2).sum(axis=1).mean())


def largest(honest: Array) -> float:
    """The largest squared distance to the mean, as in CRA-DL's definition."""
    return float(((honest - honest.mean(axis=0)) ** 2).sum(axis=1).max())


def ratio(aggregate: Rule, votes: Array, honest: int, measure: Measure) -> float:
    """||F - mean_S||^2 over the measure of S, the first votes; 0 where those are equal."""
    spread = measure(votes[:honest])
    if not spread > 1e-12 * (votes[:honest] ** 2).max():
        return 0.0
    votes = votes / math.sqrt(spread)
    return float(((aggregate(votes) - votes[:honest].mean(axis=0)) ** 2).sum())


def placements(honest: int, lies: int, rng: np.random.Generator) -> Iterator[tuple[str, Array]]:
    """Votes, the lies last, in ways that are known to hurt some rule, and what the way is called."""
    places = 0.999 * np.concatenate([np.linspace(-2, 3, 26), [-1e3, -30.0, -6, 6, 30, 1e3]])  # a little nearer: no ties
    for ones in range(1, honest):
        row = np.repeat([1.0, 0.0], [ones, honest - ones])
        for place in places:
            yield "two places", np.concatenate([row, np.full(lies, place)])[:, None]  # all lies at a third
    for _ in range(200):  # some of them far
        levels = np.concatenate([[0.0, 1.0], rng.choice([-1, 1], 2) * 10 ** rng.uniform(-1, 2, 2)])
        yield "four places", rng.choice(levels, (honest + lies, 1))
    for dim in (2, 5, honest):
        corners = np.eye(honest, dim)  # of a simplex; what there is more than corners lies at the origin
        direction = rng.normal(size=dim)
        direction /= np.linalg.norm(direction)
        aims = (corners[0], corners.mean(axis=0), corners[: max(1, honest // 4)].mean(axis=0), direction)
        for aim in aims:
            for place in (-30.0, -1, 0.3, 0.6, 1, 1.5, 3, 30):
                yield "simplex", np.concatenate([corners, np.tile(place * aim, (lies, 1))])
        for _ in range(40):
            cloud = rng.normal(size=(honest + lies, dim)) * 10 ** rng.uniform(-1, 1, (honest + lies, 1))
            cloud[honest:] = cloud[honest:] + rng.normal(size=dim) * 10 ** rng.uniform(-1, 1)
            yield "cloud", cloud


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
    aggregate: Rule,
    honest: int,
    lies: int,
    rng: np.random.Generator,
    evaluations: int,
    measure: Measure = variance,
    dims: Sequence[int] = (),
    every: int = 1,
) -> Found:
    """The worst case met: every placement (or every second, …) of these dimensions (or all), then steps from the worst.

    ``evaluations`` is the number of steps, over all starts together: the four worst placements of each dimension.
    """

    def look(votes: Array, start: str) -> Found:
        return Found(ratio(aggregate, votes, honest, measure), votes, start)

    met: dict[int, list[Found]] = {}
    for start, votes in islice(placements(honest, lies, rng), 0, None, every):
        if not dims or votes.shape[1] in dims:
            met.setdefault(votes.shape[1], []).append(look(votes, start))
    starts = [found for group in met.values() for found in sorted(group, key=lambda found: -found.ratio)[:4]]
    ends = []
    for worst in starts:
        length = 0.3
        for _ in range(evaluations // len(starts)):
            found = look(moved(worst.votes, honest, length, rng), worst.start)
            if found.ratio > worst.ratio:
                worst, length = found, min(3 * length, 1.0)
            else:
                length = 0.9 * length if length > 1e-6 else 0.3
        ends.append(worst)
    return max(ends, key=lambda found: found.ratio)


def rounded(found: Found, again: Callable[[Array], float]) -> Found:
    """The same with as few digits of the votes as keep 99.9 % of the ratio, and with the ratio of those."""
    for digits in (4, 7, 10):
        votes = np.vectorize(lambda value, digits=digits: float(f"{value:.{digits}g}"))(found.votes)
        if (kept := again(votes)) >= 0.999 * found.ratio:
            return Found(kept, votes, found.start)
    return found
