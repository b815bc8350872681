"""The battery of the allocations."""

from itertools import combinations
from typing import Any, NamedTuple

import numpy as np
import pytest

from mpicoded.algorithms.allocations import Allocation, Spread, report
from mpicoded.algorithms.component import Component
from mpicoded.algorithms.encoders import Mean
from mpicoded.testing.battery import ComponentBattery


class Case(NamedTuple):
    """An allocation with a number of devices and of subsets for which it exists."""

    allocation: Allocation
    devices: int
    subsets: int


class AllocationBattery(ComponentBattery):
    """What holds for every allocation: ``parts = [Case(Mine(redundancy=4), devices=6, subsets=12)]``."""

    @classmethod
    def component(cls, part: Any) -> Component:
        """The allocation of a case."""
        assert isinstance(part, Case), "parts = [Case(Mine(…), devices=6, subsets=12), …]"
        return part.allocation

    def test_assignment_is_a_matrix_of_devices_and_subsets(self, part: Case) -> None:
        allocation, devices, subsets = part
        allocation.check(devices, subsets)
        held = allocation.assignment(devices, subsets, 0, 3)
        assert held.shape == (devices, subsets)
        assert held.dtype == bool

    def test_every_device_has_something_to_compute(self, part: Case) -> None:
        allocation, devices, subsets = part
        for seed in range(5):
            assert allocation.assignment(devices, subsets, seed, seed).any(axis=1).all()

    def test_assignment_follows_from_the_seed(self, part: Case) -> None:
        allocation, devices, subsets = part
        for round in (0, 7):
            np.testing.assert_array_equal(*(allocation.assignment(devices, subsets, round, 3) for _ in range(2)))

    def test_another_seed_gives_another_assignment(self, part: Case) -> None:
        allocation, devices, subsets = part
        one, other = (allocation.assignment(devices, subsets, 0, seed) for seed in (3, 4))
        assert not np.array_equal(one, other)

    def test_only_a_varying_allocation_changes_with_the_round(self, part: Case) -> None:
        allocation, devices, subsets = part
        first, later = (allocation.assignment(devices, subsets, round, 3) for round in (0, 1))
        assert np.array_equal(first, later) is not allocation.varies

    def test_even_rows_are_those_of_the_assignment(self, part: Case) -> None:
        """Where there are any: of some devices, ascending."""
        allocation, devices, subsets = part
        both = allocation.even(devices, subsets, range(2), 3, 0, devices)
        if both is None:
            return
        for round in (0, 1):
            held, whole = allocation.assignment(devices, subsets, round, 3), both[round]
            rows = np.zeros(held.shape, int)
            np.add.at(rows, (np.arange(devices)[:, None], whole), 1)
            np.testing.assert_array_equal(rows, held)
            assert (np.diff(whole, axis=1) > 0).all()
            assert len(set(held.sum(axis=0))) == len(set(held.sum(axis=1))) == 1, "uneven, but called even"
            for first, stop in ((0, 1), (1, devices), (devices // 2, devices // 2)):
                some: Any = allocation.even(devices, subsets, range(round, 2), 3, first, stop)
                np.testing.assert_array_equal(some[0], whole[first:stop])

    def test_devices_can_read_what_they_compute(self, part: Case) -> None:
        allocation, devices, subsets = part
        holdings = allocation.holdings(devices, subsets, 3)
        assert holdings.shape == (devices, subsets)
        for round in range(5):
            assert not (allocation.assignment(devices, subsets, round, 3) & ~holdings).any()

    def test_report_by_loops(self, part: Case) -> None:
        allocation, devices, subsets = part
        held = allocation.assignment(devices, subsets, 0, 3)
        sets = [set(np.flatnonzero(row)) for row in held]
        counts = {
            "redundancy": [len(s) for s in sets],
            "copies": [sum(k in s for s in sets) for k in range(subsets)],
            "overlap": [len(a & b) for a, b in combinations(sets, 2)],
            "storage": [subsets if allocation.varies else len(s) for s in sets],
        }
        result = report(allocation, devices, subsets, 3)
        for field, values in counts.items():
            expected = Spread(min(values), sum(values) / len(values), max(values))
            assert getattr(result, field) == pytest.approx(expected)
        assert result.lost == counts["copies"].count(0)
        assert result.holders.tolist() == counts["copies"]
        rhos = [(subsets - len(s)) / (len(s) * (subsets - 1)) for s in sets]  # means of r of M subsets
        assert result.rho == pytest.approx(sum(rhos) / len(rhos))

    def test_unbiased_messages_average_to_the_mean_of_all_subsets(self, part: Case) -> None:
        """With the encoder ``mean``; no subset may be on no device."""
        allocation, devices, subsets = part
        weights = Mean().code(allocation.assignment(devices, subsets, 0, 3), 0, devices).weights
        np.testing.assert_allclose(weights.sum(axis=0) / devices, 1 / subsets, rtol=1e-12)
