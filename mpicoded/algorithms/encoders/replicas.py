"""Replicas of a task's message: which say the same to the bit, and what their vote is."""

import numpy as np

from mpicoded.algorithms.shapes import Array, Bool, Float, Int

_BLOCK_BYTES = 1 << 21  # short rows cost more to gather than a larger cache does (measured)


def classes(
    messages: Float[Array, "messages dim"], table: Int[Array, "tasks copies"], usable: Bool[Array, " messages"]
) -> Int[Array, "tasks copies"]:
    """The place of the first replica of the task that has the same bits; -1 where there is no usable replica.

    ``table``: the messages about each task, -1 where it has fewer. The first replica of each task is compared with
    the others, then the first of those that differ, and so on: one pass where all agree.
    """
    bits = messages.view(f"u{messages.itemsize}")
    same = np.full(table.shape, -1)
    left = (table >= 0) & usable[table]
    while left.any():
        first = left.argmax(axis=1)
        task, place = np.nonzero(left)
        equal = place == first[task]
        others = np.flatnonzero(~equal)
        equal[others] = _equal(bits, table[task, place][others], table[task, first[task]][others])
        task, place = task[equal], place[equal]
        same[task, place] = first[task]
        left[task, place] = False
    return same


def _equal(bits: Array, ones: Int[Array, " pairs"], others: Int[Array, " pairs"]) -> Bool[Array, " pairs"]:
    """Which pairs of rows are equal. Those that differ are not read any further."""
    dim = bits.shape[1]
    equal = np.ones(len(ones), bool)
    start = 0
    while start < dim and equal.any():
        still = np.flatnonzero(equal)
        stop = start + max(64, _BLOCK_BYTES // (bits.itemsize * len(still)))
        equal[still] = (bits[ones[still], start:stop] == bits[others[still], start:stop]).all(axis=1)
        start = stop
    return equal


def largest(same: Int[Array, "tasks copies"]) -> tuple[Int[Array, " tasks"], Int[Array, " tasks"]]:
    """The largest class of each task (the first one of several), by the place of its first replica, and its size."""
    tasks, copies = same.shape
    task, place = np.nonzero(same >= 0)
    sizes = np.bincount(task * copies + same[task, place], minlength=tasks * copies).reshape(tasks, copies)
    return sizes.argmax(axis=1), sizes.max(axis=1, initial=0)


def conflicts(same: Int[Array, "tasks copies"], owners: Int[Array, "tasks copies"], devices: int) -> Array:
    """Which two devices sent different usable replicas of the same task, as a matrix (devices, devices)."""
    found = np.zeros((devices, devices), bool)
    disputed = ((same >= 0) & (same != largest(same)[0][:, None])).any(axis=1)
    same, owners = same[disputed], owners[disputed]
    for place in range(1, same.shape[1]):
        against = (same[:, :place] >= 0) & (same[:, place, None] >= 0) & (same[:, :place] != same[:, place, None])
        task, other = np.nonzero(against)
        found[owners[task, place], owners[task, other]] = True
    return found | found.T


def medians(messages: Float[Array, "messages dim"], replicas: Int[Array, "tasks copies"]) -> Float[Array, "tasks dim"]:
    """The coordinate-wise median of each task's replicas (-1: none there); zero for a task without any."""
    result = np.zeros((len(replicas), messages.shape[1]), messages.dtype)
    counts = (replicas >= 0).sum(axis=1)
    ordered = -np.sort(-replicas, axis=1)
    for count in range(1, replicas.shape[1] + 1):
        chosen = np.flatnonzero(counts == count)
        width = max(64, _BLOCK_BYTES // (messages.itemsize * count * max(len(chosen), 1)))
        for start in range(0, messages.shape[1] if len(chosen) else 0, width):
            columns = slice(start, start + width)
            result[chosen, columns] = np.median(messages[:, columns][ordered[chosen, :count]], axis=1)
    return result
