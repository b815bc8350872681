"""How many votes the worst placed Byzantine devices change."""

from itertools import chain, combinations, islice
from math import comb

import numpy as np

from mpicoded.algorithms.shapes import Array, Bool, Int

_WORK = 300_000_000  # multiplications that a search may take: less than a second
_BLOCK = 4_000_000  # numbers of a block of the search


def most_outvoted(held: Bool[Array, "devices tasks"], byzantine: int) -> int:
    """The most tasks of which so many devices are half the holders or more, exactly or (where that is long) a bound.

    Sets of devices that share no task are searched apart, as the groups of a repetition code are. Exact: one task
    alone, a task for every set of g devices (Aspis), and whatever can be searched; else every task that is lost takes
    half of its holders from the Byzantine devices' tasks, of which they have as many as the most loaded ones.
    """
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    devices, tasks = held.shape
    byzantine = min(byzantine, devices)
    device, task = np.nonzero(held)
    graph = coo_array((np.ones(len(device), np.int8), (device, devices + task)), shape=(devices + tasks,) * 2)
    count, label = connected_components(graph, directed=False)
    best = np.zeros(byzantine + 1, np.int64)
    for part in range(count):
        inside = held[label[:devices] == part][:, label[devices:] == part]
        if inside.size:
            best = _together(best, _curve(inside, byzantine))
    return int(best[-1])


def _together(one: Int[Array, " numbers"], other: Int[Array, " fewer"]) -> Int[Array, " numbers"]:
    """The most of both, for each number of Byzantine devices in either."""
    best = one.copy()
    for share in range(1, len(other)):
        np.maximum(best[share:], one[: len(one) - share] + other[share], out=best[share:])
    return best


def _curve(held: Bool[Array, "devices tasks"], byzantine: int) -> Int[Array, " numbers"]:
    """The most tasks for 0, 1 … devices that hold nothing else."""
    devices, tasks = held.shape
    copies = held.sum(axis=0)
    most = np.zeros(min(byzantine, devices) + 1, np.int64)
    for liars in range(1, len(most)):
        if (copies == copies[0]).all() and tasks == comb(devices, int(copies[0])):  # columns differ: these are all
            g = int(copies[0])
            most[liars] = sum(comb(liars, j) * comb(devices - liars, g - j) for j in range(-(-g // 2), g + 1))
        elif comb(devices, liars) * devices * tasks <= _WORK:
            most[liars] = _searched(held, liars)
        else:
            loads = np.sort(held.sum(axis=1))[::-1][:liars].sum()
            most[liars] = np.searchsorted(np.cumsum(np.sort((copies + 1) // 2)), loads, side="right")
    return most


def _searched(held: Bool[Array, "devices tasks"], liars: int) -> int:
    devices, tasks = held.shape
    needed = (held.sum(axis=0) + 1) // 2
    sets, most = combinations(range(devices), liars), 0
    while members := list(islice(sets, max(1, _BLOCK // (devices + tasks)))):
        chosen = np.zeros((len(members), devices), np.float32)
        flat = np.fromiter(chain.from_iterable(members), np.int64, len(members) * liars)
        chosen[np.arange(len(members))[:, None], flat.reshape(-1, liars)] = 1
        lost = (chosen @ held.astype(np.float32) >= needed).sum(axis=1)
        most = max(most, int(lost.max()))
    return most
