"""How many lie? Votes that lie where honest ones hardly do, counted from the votes alone."""

import numpy as np

from mpicoded.algorithms.arrays import as_floats, namespace, on_host
from mpicoded.algorithms.shapes import Array, Bool, Float
from mpicoded.algorithms.slices import WHOLE, Sums, squared_distances
from mpicoded.algorithms.spread import deviations

# Robust deviations beyond which a vote is counted. In the papers' settings honest votes stay within 3.3 (distance), 3.3
# (direction) and 4.9 (nearest vote), see docs/studies/unknown_byzantine.md.
_DISTANCE, _DIRECTION, _CLOSENESS = 4.0, 4.5, 8.0
_SLIGHT = 0.05  # honest votes may agree very well: a vote that differs by a few percent does no harm
_PASSES = 20  # each leaves out what the last one found; they settle in two or three


def outlying(
    votes: Float[Array, "votes dim"], usable: Bool[Array, " votes"], sums: Sums = WHOLE
) -> Bool[Array, " votes"]:
    """Which votes stand out, those that are not usable among them; never half of all or more beside these.

    Three things are measured of a vote: its median distance to the others (too far away, or too near to the middle),
    its component along the mean (turned around), and the distance to its nearest vote (copies). One that is further
    than some robust deviations from the median of the others' stands out; it is left out then, and the rest measured
    anew, since many liars widen the deviation that they are measured in.

    Lies within the spread of honest votes are not seen, and honest votes that differ much (data that differ much,
    without redundancy) may be.
    """
    votes = as_floats(votes)
    kept = np.array(usable)
    if np.count_nonzero(kept) < 3:
        return ~kept
    distances = on_host(squared_distances(votes, sums))
    zero = np.finfo(np.dtype(str(votes.dtype).rpartition(".")[2])).eps * np.median(distances[kept][:, kept])
    np.fill_diagonal(distances, np.inf)
    closest = _log(distances.min(axis=1), zero)
    for _ in range(_PASSES):
        half = (np.count_nonzero(kept) - 1) // 2  # never the infinite one
        middle = _log(np.partition(distances[:, kept], half, axis=1)[:, half], zero)
        found = np.abs(deviations(middle, kept, _SLIGHT)) > _DISTANCE
        along = _along_mean(votes, kept, sums)
        found |= np.abs(deviations(along, kept, _SLIGHT * abs(np.median(along[kept])))) > _DIRECTION
        found |= deviations(closest, kept, _SLIGHT) < -_CLOSENESS
        rest = usable & ~found
        if 2 * np.count_nonzero(rest) <= np.count_nonzero(usable) or (rest == kept).all():
            break
        kept = rest
    return ~kept


def _log(squares: Float[Array, " votes"], zero: float) -> Float[Array, " votes"]:
    """Ratios of distances are what matters; those that rounding makes of zero are equal."""
    return np.log(squares + zero + np.finfo(np.float64).tiny)


def _along_mean(votes: Float[Array, "votes dim"], kept: Bool[Array, " votes"], sums: Sums) -> Float[Array, " votes"]:
    xp = namespace(votes)
    weights = xp.asarray(kept / np.count_nonzero(kept), dtype=votes.dtype, device=votes.device)
    mean = sums.combine(weights, votes)
    return on_host(sums.over(votes.shape[1], lambda piece: votes[:, piece] @ mean[piece]))
