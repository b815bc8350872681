"""Every allocation gives each device its subsets; each one has the structure its paper asks for."""

import re
from itertools import combinations

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from msgspec.structs import replace

from mpicoded.algorithms import allocations
from mpicoded.algorithms.allocations import Balanced, Cyclic, Partition, Spread, Uniform, report
from mpicoded.errors import InputError

from .building import LIGHT, each, family

DEVICES, SUBSETS, REDUNDANCY = 6, 12, 4
ALLOCATIONS = family(allocations.Choice, redundancy=REDUNDANCY)
ALLOCATIONS |= {"cyclic, fixed": Cyclic(redundancy=REDUNDANCY, permute=False)}


@each(ALLOCATIONS)
def test_assignment_is_a_matrix_of_devices_and_subsets(part):
    part.check(DEVICES, SUBSETS)
    held = part.assignment(DEVICES, SUBSETS, 0, 3)
    assert held.shape == (DEVICES, SUBSETS)
    assert held.dtype == bool


@each(ALLOCATIONS)
def test_every_device_computes_as_many_subsets_as_asked(part):
    expected = getattr(part, "redundancy", SUBSETS // DEVICES)
    for seed in range(5):
        assert (part.assignment(DEVICES, SUBSETS, seed, seed).sum(axis=1) == expected).all()


@each(ALLOCATIONS)
def test_assignment_follows_from_the_seed(part):
    for round in (0, 7):
        same = [part.assignment(DEVICES, SUBSETS, round, 3) for _ in range(2)]
        np.testing.assert_array_equal(*same)


@each(ALLOCATIONS, but=("partition", "cyclic, fixed"))
def test_another_seed_gives_another_assignment(part):
    one, other = (part.assignment(DEVICES, SUBSETS, 0, seed) for seed in (3, 4))
    assert not np.array_equal(one, other)


@each(ALLOCATIONS)
def test_only_a_varying_allocation_changes_with_the_round(part):
    first, later = (part.assignment(DEVICES, SUBSETS, round, 3) for round in (0, 1))
    assert np.array_equal(first, later) is not part.varies


@each(ALLOCATIONS)
def test_devices_can_read_what_they_compute(part):
    holdings = part.holdings(DEVICES, SUBSETS, 3)
    assert holdings.shape == (DEVICES, SUBSETS)
    for round in range(5):
        assert not (part.assignment(DEVICES, SUBSETS, round, 3) & ~holdings).any()


@each(ALLOCATIONS)
def test_report_by_loops(part):
    held = part.assignment(DEVICES, SUBSETS, 0, 3)
    sets = [set(np.flatnonzero(row)) for row in held]
    counts = {
        "redundancy": [len(s) for s in sets],
        "copies": [sum(k in s for s in sets) for k in range(SUBSETS)],
        "overlap": [len(a & b) for a, b in combinations(sets, 2)],
        "storage": [SUBSETS if part.varies else len(s) for s in sets],
    }
    result = report(part, DEVICES, SUBSETS, 3)
    for field, values in counts.items():
        expected = Spread(min(values), sum(values) / len(values), max(values))
        assert getattr(result, field) == pytest.approx(expected)
    assert result.lost == counts["copies"].count(0)


@each(ALLOCATIONS)
def test_one_device_has_no_overlap(part):
    single = Partition() if isinstance(part, Partition) else replace(part, redundancy=4)
    assert report(single, 1, 4, 3).overlap == Spread(0, 0.0, 0)


@each(ALLOCATIONS, but=("partition",))
def test_redundancy_is_between_one_and_the_subsets(part):
    with pytest.raises(InputError, match="redundancy must be int >= 1, got 0"):
        replace(part, redundancy=0)
    name = part.name()
    with pytest.raises(InputError, match=f"allocation {name}: redundancy must be at most .* 12, got 24"):
        replace(part, redundancy=24).check(DEVICES, SUBSETS)


def test_spread_as_text():
    assert str(Spread(4, 4.0, 4)) == "4"
    assert str(Spread.of(np.array([1, 2, 4]))) == "1 to 4, mean 2.333"


# Partition


@pytest.mark.parametrize(("devices", "subsets"), [(1, 1), (1, 5), (4, 4), (4, 10), (7, 100), (100, 1000)])
def test_partition_gives_every_subset_to_one_device(devices, subsets):
    Partition().check(devices, subsets)
    held = Partition().assignment(devices, subsets, 0, 0)
    assert (held.sum(axis=0) == 1).all()
    assert np.ptp(held.sum(axis=1)) <= 1
    owners = held.argmax(axis=0)
    assert (np.diff(owners) >= 0).all()


def test_partition_needs_a_subset_for_each_device():
    with pytest.raises(InputError, match=r"allocation partition: .*, got 9 subsets for 10 devices"):
        Partition().check(10, 9)


# Cyclic

CYCLIC = [
    (10, 10, 1),
    (10, 10, 3),
    (10, 10, 7),
    (10, 10, 10),
    (5, 20, 8),
    (7, 21, 21),
    (1, 3, 3),
    (100, 100, 5),
]


def shared(distance, devices, width):
    return max(0, width - distance) + max(0, width - (devices - distance))


@pytest.mark.parametrize(("devices", "subsets", "redundancy"), CYCLIC)
def test_fixed_windows_overlap_by_their_distance(devices, subsets, redundancy):
    size = subsets // devices
    held = Cyclic(redundancy=redundancy, permute=False).assignment(devices, subsets, 0, 0)
    for i, j in combinations(range(devices), 2):
        assert (held[i] & held[j]).sum() == size * shared(j - i, devices, redundancy // size)


def test_fixed_window_of_a_device_starts_at_its_own_subset():
    held = Cyclic(redundancy=3, permute=False).assignment(5, 5, 9, 0)
    assert [np.flatnonzero(row).tolist() for row in held] == [
        [0, 1, 2],
        [1, 2, 3],
        [2, 3, 4],
        [0, 3, 4],
        [0, 1, 4],
    ]


@pytest.mark.parametrize(("devices", "subsets", "redundancy"), CYCLIC)
def test_permuted_windows_have_the_same_overlaps_between_other_devices(devices, subsets, redundancy):
    size = subsets // devices
    held = Cyclic(redundancy=redundancy).assignment(devices, subsets, 4, 1)
    formula = [size * shared(j, devices, redundancy // size) for j in range(1, devices)]
    for i in range(devices):
        overlaps = (held & held[i]).sum(axis=1)
        assert sorted(np.delete(overlaps, i).tolist()) == sorted(formula)


@pytest.mark.parametrize("permute", [True, False])
@pytest.mark.parametrize(("devices", "subsets", "redundancy"), CYCLIC)
def test_every_subset_is_on_equally_many_devices(devices, subsets, redundancy, permute):
    allocation = Cyclic(redundancy=redundancy, permute=permute)
    allocation.check(devices, subsets)
    for round in range(3):
        held = allocation.assignment(devices, subsets, round, 0)
        assert (held.sum(axis=0) == redundancy * devices // subsets).all()
        assert (held.sum(axis=1) == redundancy).all()


def test_tasks_are_blocks_of_neighbouring_subsets():
    held = Cyclic(redundancy=8).assignment(5, 20, 2, 0)
    blocks = held.reshape(5, 5, 4)
    assert (blocks.all(axis=2) == blocks.any(axis=2)).all()


def test_permutations_leave_no_pair_of_device_and_subset_out():
    counts = sum(Cyclic(redundancy=3).assignment(10, 10, round, 0).astype(int) for round in range(2000))
    deviation = np.sqrt(2000 * 0.3 * 0.7)
    assert np.abs(counts - 600).max() < 5 * deviation


def test_permutations_make_any_two_subsets_companions_and_any_two_devices_neighbours():
    """A fixed window never joins subsets or devices that are far apart; permuted ones join all pairs equally often."""
    subsets, devices = np.zeros((10, 10)), np.zeros((10, 10))
    for round in range(2000):
        held = Cyclic(redundancy=2).assignment(10, 10, round, 0).astype(int)
        subsets += held.T @ held
        devices += held @ held.T
    expected = 2000 * 10 / 45
    for together in (subsets, devices):
        pairs = together[np.triu_indices(10, 1)]
        assert pairs.mean() == pytest.approx(expected)
        assert np.ptp(pairs) < 8 * np.sqrt(expected)


@LIGHT
@given(st.integers(1, 20), st.integers(1, 60), st.integers(1, 60))
def test_cyclic_names_the_nearest_parameters(devices, subsets, redundancy):
    assume(redundancy <= subsets)
    allocation = Cyclic(redundancy=redundancy)
    multiple, asked = (devices, subsets) if subsets % devices else (subsets // devices, redundancy)
    if asked % multiple == 0:
        allocation.check(devices, subsets)
        return
    with pytest.raises(InputError, match=rf"got {asked}; the nearest is \d+$") as caught:
        allocation.check(devices, subsets)
    nearest = int(re.findall(r"\d+", str(caught.value))[-1])
    assert abs(nearest - asked) == min(abs(k * multiple - asked) for k in range(1, asked + 2))
    assert nearest % multiple == 0


def test_cyclic_errors_name_part_need_and_value():
    with pytest.raises(
        InputError, match=r"allocation cyclic: .* multiple of the 10 devices, got 25; the nearest is 20"
    ):
        Cyclic(redundancy=3).check(10, 25)
    with pytest.raises(InputError, match=r"allocation cyclic: .* multiple of 3, .*got 4; the nearest is 3"):
        Cyclic(redundancy=4).check(10, 30)


# Uniform


def test_uniform_loses_as_many_subsets_as_expected():
    """The mean over 60 seeds has a standard deviation of about 0.5."""
    expected = 1000 * (1 - 0.04) ** 100
    assert round(expected, 1) == 16.9
    lost = [report(Uniform(redundancy=40), 100, 1000, seed).lost for seed in range(60)]
    assert np.mean(lost) == pytest.approx(expected, abs=1.5)


def test_uniform_draws_every_subset_equally_often():
    copies = sum(Uniform(redundancy=4).assignment(10, 20, 0, seed).sum(axis=0) for seed in range(500))
    assert np.abs(copies - 1000).max() < 5 * np.sqrt(5000 * 0.2 * 0.8)


def test_uniform_holds_everything_at_full_redundancy():
    assert Uniform(redundancy=7).assignment(5, 7, 0, 0).all()


# Balanced


@pytest.mark.parametrize(
    ("devices", "subsets", "redundancy"),
    [
        (100, 1000, 40),
        (100, 100, 20),
        (100, 100, 99),
        (100, 100, 100),
        (10, 5, 5),
        (10, 5, 1),
        (3, 9, 3),
        (1, 4, 4),
    ],
)
def test_balanced_is_exact(devices, subsets, redundancy):
    allocation = Balanced(redundancy=redundancy)
    allocation.check(devices, subsets)
    held = allocation.assignment(devices, subsets, 0, 3)
    assert (held.sum(axis=1) == redundancy).all()
    assert (held.sum(axis=0) == devices * redundancy // subsets).all()


@LIGHT
@given(st.integers(1, 12), st.integers(1, 12), st.integers(1, 12), st.integers(0, 5))
def test_balanced_is_exact_for_all_small_numbers(devices, subsets, redundancy, seed):
    assume(redundancy <= subsets and devices * redundancy % subsets == 0)
    held = Balanced(redundancy=redundancy).assignment(devices, subsets, 0, seed)
    assert (held.sum(axis=1) == redundancy).all()
    assert (held.sum(axis=0) == devices * redundancy // subsets).all()


def test_balanced_in_the_papers_setting():
    result = report(Balanced(redundancy=40), 100, 1000, 3)
    assert result.lost == 0
    assert result.copies == Spread(4, 4.0, 4)
    assert result.overlap.mean == pytest.approx(1000 * 6 / 4950)  # 4 copies make 6 pairs of each subset
    assert result.overlap.max < 10


def test_balanced_draws_every_pair_of_device_and_subset_equally_often():
    counts = sum(Balanced(redundancy=4).assignment(6, 12, 0, seed).astype(int) for seed in range(300))
    assert np.abs(counts - 100).max() < 5 * np.sqrt(300 / 3 * 2 / 3)


@LIGHT
@given(st.integers(1, 30), st.integers(1, 60), st.integers(1, 60))
def test_balanced_names_the_nearest_redundancy(devices, subsets, redundancy):
    assume(redundancy <= subsets)
    possible = [r for r in range(1, subsets + 1) if devices * r % subsets == 0]
    allocation = Balanced(redundancy=redundancy)
    if redundancy in possible:
        allocation.check(devices, subsets)
        return
    with pytest.raises(InputError, match=f"got {devices} . {redundancy}; the nearest redundancy is") as caught:
        allocation.check(devices, subsets)
    named = [int(r) for r in re.findall(r"\d+", str(caught.value).partition("nearest")[2])]
    below, above = [r for r in possible if r < redundancy], [r for r in possible if r > redundancy]
    assert named == below[-1:] + above[:1]
