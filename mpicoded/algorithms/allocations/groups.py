"""Allocations for voting: devices that compute the same tasks."""

from itertools import chain, combinations, takewhile
from math import comb
from typing import ClassVar

import numpy as np

from mpicoded.algorithms.allocations.base import Designed
from mpicoded.algorithms.allocations.nearest import Pair, around, multiples
from mpicoded.algorithms.component import PositiveCount
from mpicoded.algorithms.shapes import Array, Bool
from mpicoded.errors import InputError

_MOST_TASKS = 1_000_000


class Repetition(Designed):
    """Groups of devices that compute the same subsets, each subset in one group: a vote of 2s+1 outvotes s lies.

    N/g groups of g = ``copies`` devices; a device has M g/N subsets (where M is no multiple of the groups, one more or
    less). Permuted, a group's devices are anywhere, so that a rank or host that fails does not take a whole group with
    it; with ``permute = false`` they are neighbours, and a rank that hosts whole groups computes fewer subsets.
    """

    source: ClassVar[str] = "DRACO, Chen et al. 2018; DETOX, Rajput et al. 2019"
    acronym: ClassVar[str] = "DRACO, DETOX"
    cost: ClassVar[str] = "every subset computed as often as it has copies"
    copies: PositiveCount = 3  # devices that compute each subset

    def check(self, devices: int, subsets: int) -> None:
        """Whole groups, with a subset for each."""
        super().check(devices, subsets)
        groups, rest = divmod(devices, self.copies)
        if not rest and groups <= subsets:
            return
        need = f"a multiple of {self.copies} devices, the copies of a subset, got {devices}"
        if not rest:
            need = f"a subset for each of the {groups} groups of {self.copies} devices, got {subsets}"
        sizes = {count: max(count, subsets) for count in (min(groups, subsets), groups, groups + bool(rest)) if count}
        raise self.refuse(f"needs {need}", devices, subsets, [(n * self.copies, m) for n, m in sizes.items()])

    def design(self, devices: int, subsets: int) -> Bool[Array, "devices tasks"]:
        """Devices × groups."""
        groups = devices // self.copies
        return np.asarray(np.arange(devices)[:, None] // self.copies == np.arange(groups))


class AllSubsets(Designed):
    """Aspis: a task for every set of ``copies`` devices, so that any devices share as many tasks as any others.

    With g = ``copies`` there are C(N, g) tasks, a device has C(N-1, g-1) and a pair shares C(N-2, g-2). A task is a
    block of subsets where these are a multiple.
    """

    source: ClassVar[str] = "Aspis, Konstantinidis and Ramamoorthy 2022"
    acronym: ClassVar[str] = "Aspis"
    cost: ClassVar[str] = "every subset computed as often as it has copies"
    copies: PositiveCount = 3  # devices that compute each subset

    def check(self, devices: int, subsets: int) -> None:
        """No more copies than devices, no absurd number of tasks, and subsets that are a multiple of it."""
        super().check(devices, subsets)
        if self.copies > devices:
            raise InputError(f"allocation all_subsets: copies must be at most the {devices} devices, got {self.copies}")
        tasks = comb(devices, self.copies)
        if tasks <= _MOST_TASKS and subsets % tasks == 0:
            return
        reason = f"every {self.copies} of {devices} devices make {tasks} tasks, of which {subsets} is no multiple"
        if tasks > _MOST_TASKS:
            reason = f"every {self.copies} of {devices} devices make {tasks} tasks, more than {_MOST_TASKS}"
        few = list(takewhile(lambda copies: comb(devices, copies) <= _MOST_TASKS, range(devices + 1)))
        fitting = {copies for g in few for copies in (g, devices - g) if copies and subsets % comb(devices, g) == 0}
        if fitting:
            reason += f" (copies = {' or '.join(map(str, around(fitting, self.copies)))} would do)"
        raise self.refuse(reason, devices, subsets, self._pairs(devices, subsets))

    def design(self, devices: int, subsets: int) -> Bool[Array, "devices tasks"]:
        """Devices × sets, in lexical order."""
        tasks = comb(devices, self.copies)
        chosen = chain.from_iterable(combinations(range(devices), self.copies))
        members = np.fromiter(chosen, np.int64, tasks * self.copies).reshape(tasks, self.copies)
        held = np.zeros((devices, tasks), bool)
        held[members.T, np.arange(tasks)] = True
        return held

    def _pairs(self, devices: int, subsets: int) -> list[Pair]:
        found: list[Pair] = []
        count = self.copies
        while (tasks := comb(count, self.copies)) <= _MOST_TASKS and (tasks <= subsets or count <= devices + 1):
            found += multiples(count, tasks, subsets)
            count += 1
        return found
