"""Tasks: subsets that the same devices hold, so that what is sent of them can be compared."""

from typing import NamedTuple

import numpy as np

from mpicoded.algorithms.products import Rows
from mpicoded.algorithms.shapes import Array, Bool, Int


class Tasks(NamedTuple):
    """The classes of subsets that are held by exactly the same devices, numbered by their first subset.

    Subsets that nobody holds are in none.
    """

    held: Bool[Array, "devices tasks"]
    of: Int[Array, " subsets"]
    """The task of each subset; -1: of none."""

    def weights(self, tasks: Int[Array, " messages"]) -> Rows:
        """The sparse matrix (messages, subsets) of messages about these tasks: T/M times the sum of each one's subsets.

        So the mean over all T tasks is that over the M subsets, lost ones counted as zero; of tasks that are equally
        large and lose none, a message is the mean over its task.
        """
        count, subsets = self.held.shape[1], len(self.of)
        ordered = np.argsort(self.of, kind="stable")
        starts = np.searchsorted(self.of[ordered], np.arange(count + 1))
        columns, ends = stretches(starts[tasks], starts[tasks + 1])
        values = np.full(len(columns), count / subsets)
        return Rows(values, ordered[columns], ends, subsets)


def tasks_of(assignment: Bool[Array, "devices subsets"]) -> Tasks:
    """The tasks of an assignment."""
    packed = np.ascontiguousarray(np.packbits(assignment, axis=0).T)
    columns = packed.view(f"V{packed.shape[1]}")[:, 0]
    _, first, group = np.unique(columns, return_index=True, return_inverse=True)
    anyone = assignment[:, first].any(axis=0)
    rank = np.full(len(first), -1)
    rank[np.flatnonzero(anyone)[np.argsort(first[anyone])]] = np.arange(anyone.sum())
    return Tasks(assignment[:, np.sort(first[anyone])], rank[group])


def stretches(starts: Int[Array, " n"], stops: Int[Array, " n"]) -> tuple[Int[Array, " total"], Int[Array, " ends"]]:
    """start, start + 1 … stop - 1 of each stretch one after the other, and where each ends, from 0 on."""
    ends = np.concatenate([[0], np.cumsum(stops - starts)])
    return np.arange(ends[-1]) + np.repeat(starts - ends[:-1], stops - starts), ends


def places(held: Bool[Array, "devices tasks"]) -> Int[Array, "tasks copies"]:
    """Which messages are about each task, in the order of devices, where each sends one for each of its tasks.

    Rows of tasks with fewer copies than others end in -1.
    """
    task, _ = np.nonzero(held.T)
    copies = held.sum(axis=0)
    number = (np.cumsum(held).reshape(held.shape) - 1).T[held.T]  # messages are ordered by device, then by task
    place = np.arange(len(task)) - np.repeat(np.cumsum(copies) - copies, copies)
    table = np.full((len(copies), copies.max(initial=0)), -1)
    table[task, place] = number
    return table
