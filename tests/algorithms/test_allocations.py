"""Every allocation gives each device its subsets; each one has the structure its paper asks for."""

import re
from itertools import combinations, permutations, product
from math import comb

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from msgspec.structs import replace

from mpicoded.algorithms import allocations
from mpicoded.algorithms.allocations import (
    Allocation,
    AllSubsets,
    Balanced,
    BlockDesign,
    Cyclic,
    LatinSquare,
    OrthogonalArray,
    Partition,
    Repetition,
    Spread,
    Uniform,
    report,
)
from mpicoded.algorithms.allocations.designs import designs, singer
from mpicoded.algorithms.allocations.galois import Field, field, prime_power, prime_powers
from mpicoded.algorithms.component import members
from mpicoded.algorithms.encoders import Mean
from mpicoded.errors import InputError
from mpicoded.testing import AllocationBattery, Case

from .building import LIGHT

# Each member where it exists: devices, subsets, and the subsets that a device then has.
CASES = {
    "partition": (Partition(), 6, 12, 2),
    "cyclic": (Cyclic(redundancy=4), 6, 12, 4),
    "cyclic, fixed": (Cyclic(redundancy=4, permute=False), 6, 12, 4),
    "uniform": (Uniform(redundancy=4), 6, 12, 4),
    "balanced": (Balanced(redundancy=4), 6, 12, 4),
    "block_design": (BlockDesign(), 7, 7, 3),
    "block_design, blocks": (BlockDesign(), 9, 36, 12),
    "block_design, fixed": (BlockDesign(permute=False), 7, 7, 3),
    "orthogonal_array": (OrthogonalArray(), 5, 32, 8),
    "orthogonal_array, blocks": (OrthogonalArray(held_levels=2), 4, 36, 24),
    "repetition": (Repetition(), 6, 12, 6),
    "latin_square": (LatinSquare(), 9, 9, 3),
    "latin_square, blocks": (LatinSquare(), 6, 18, 6),
    "all_subsets": (AllSubsets(), 5, 10, 6),
    "all_subsets, blocks": (AllSubsets(copies=2), 4, 18, 9),
}
FIXED = ("partition", "cyclic, fixed", "block_design, fixed")  # whatever the seed


each_case = pytest.mark.parametrize(("part", "devices", "subsets", "held_each"), list(CASES.values()), ids=list(CASES))


class TestAllocations(AllocationBattery):
    parts = {name: Case(*case[:3]) for name, case in CASES.items()}
    but = {
        "test_another_seed_gives_another_assignment": dict.fromkeys(FIXED, "it draws nothing"),
        "test_unbiased_messages_average_to_the_mean_of_all_subsets": {"uniform": "it loses some"},
    }


def test_every_member_has_a_case():
    assert {part.name() for part, *_ in CASES.values()} == set(members(allocations.Choice))


@each_case
def test_every_device_computes_as_many_subsets_as_asked(part, devices, subsets, held_each):
    for seed in range(5):
        assert (part.assignment(devices, subsets, seed, seed).sum(axis=1) == held_each).all()


@pytest.mark.parametrize(
    "part", [Partition(), Cyclic(redundancy=4), Uniform(redundancy=4), Balanced(redundancy=4), Repetition(copies=1)]
)
def test_one_device_has_no_overlap(part):
    assert report(part, 1, 4, 3).overlap == Spread(0, 0.0, 0)


@pytest.mark.parametrize(
    "part", [Cyclic(redundancy=4), Uniform(redundancy=4), Balanced(redundancy=4), BlockDesign(redundancy=4)]
)
def test_redundancy_is_between_one_and_the_subsets(part):
    with pytest.raises(InputError, match=r"redundancy must be int >= 1.*, got 0"):
        replace(part, redundancy=0)
    name = part.name()
    with pytest.raises(InputError, match=f"allocation {name}: redundancy must be at most .* 12, got 24"):
        replace(part, redundancy=24).check(6, 12)


def test_rho_is_the_expectation_over_all_orders_of_the_subsets():
    """By brute force over the 120 orders of five subsets, for the weights of an uneven allocation."""
    held = np.array([[1, 1, 0, 0, 1], [0, 1, 1, 0, 0], [0, 0, 0, 1, 0]], bool)

    class Given(Allocation):
        def assignment(self, devices, subsets, round, seed):
            return held

    gradients = np.random.default_rng(1).normal(size=(5, 7))
    deviations = gradients - gradients.mean(axis=0)
    heterogeneity = (deviations**2).sum(axis=1).mean()

    def unbiased(held):
        return Mean().code(held, 0, 3).rows

    plain = held / held.sum(axis=1, keepdims=True)
    for weights, found in (
        (plain, report(Given(), 3, 5, 0).rho),
        (unbiased(held).dense(), report(Given(), 3, 5, 0, weigh=unbiased).rho),
    ):
        orders = np.array(list(permutations(range(5))))
        squares = ((weights @ deviations[orders]) ** 2).sum(axis=2).mean()
        assert found == pytest.approx(squares / heterogeneity)
    assert unbiased(held).dense() != pytest.approx(plain)


def test_reports_of_lad_have_its_rho():
    for redundancy, rho in ((1, 1), (5, 0.192), (10, 0.0909), (20, 0.0404), (41, 0.0145), (100, 0)):
        assert report(Cyclic(redundancy=redundancy), 100, 100, 3).rho == pytest.approx(rho, abs=5e-4)


def test_a_report_is_of_the_round_that_is_asked_for():
    class Growing(Allocation):
        def assignment(self, devices, subsets, round, seed):
            return np.arange(subsets) <= np.full((devices, 1), round)

    assert [report(Growing(), 3, 5, 0, round).redundancy.max for round in (0, 3)] == [1, 4]


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


# Finite fields

SMALL = (2, 3, 4, 5, 7, 8, 9, 11, 13, 16, 17, 19, 25, 27, 32)


@pytest.mark.parametrize("order", SMALL)
def test_field_axioms_by_brute_force(order):
    gf = Field(order)
    a, b, c = np.meshgrid(*[np.arange(order)] * 3, indexing="ij")
    for combine, neutral in ((gf.add, 0), (gf.multiply, 1)):
        np.testing.assert_array_equal(combine(combine(a, b), c), combine(a, combine(b, c)))
        np.testing.assert_array_equal(combine(a, b), combine(b, a))
        np.testing.assert_array_equal(combine(a, np.full_like(a, neutral)), a)
    np.testing.assert_array_equal(gf.multiply(a, gf.add(b, c)), gf.add(gf.multiply(a, b), gf.multiply(a, c)))
    np.testing.assert_array_equal(gf.add(gf.subtract(a, b), b), a)
    table = gf.multiply(a[:, :, 0], b[:, :, 0])
    assert table.min() == 0
    assert table.max() == order - 1
    assert ((table == 1).sum(axis=1)[1:] == 1).all()  # an inverse of all but 0
    assert not (table[1:, 1:] == 0).any()


@pytest.mark.parametrize("order", [2, 3, 5, 7, 31, 101])
def test_fields_of_prime_order_are_the_integers_modulo_it(order):
    a, b = np.meshgrid(np.arange(order), np.arange(order))
    np.testing.assert_array_equal(field(order).add(a, b), (a + b) % order)
    np.testing.assert_array_equal(field(order).subtract(a, b), (a - b) % order)
    np.testing.assert_array_equal(field(order).multiply(a, b), a * b % order)


@pytest.mark.parametrize("order", [*SMALL, 64, 81, 125, 243, 343, 1024, 1009, 31**2, 31**3])
def test_powers_of_a_primitive_element_are_all_elements_but_zero(order):
    gf = field(order)
    assert sorted(gf.powers.tolist()) == list(range(1, order))
    assert gf.powers[0] == 1
    step = gf.powers[1 % (order - 1)]
    np.testing.assert_array_equal(gf.multiply(gf.powers[:-1], np.full(order - 2, step)), gf.powers[1:])


@pytest.mark.parametrize("order", [0, 1, 6, 10, 12, 36, 100])
def test_there_is_no_field_of_other_orders(order):
    with pytest.raises(InputError, match=f"prime power of elements, got {order}"):
        Field(order)


def test_prime_powers_by_brute_force():
    primes = [n for n in range(2, 401) if all(n % k for k in range(2, n))]
    expected = {p**m: (p, m) for p in primes for m in range(1, 9) if p**m <= 400}
    assert prime_powers(400) == tuple(sorted(expected))
    assert [prime_powers(limit) for limit in (0, 1, 2, 4)] == [(), (), (2,), (2, 3, 4)]
    assert {n: prime_power(n) for n in range(401) if prime_power(n)} == expected


@pytest.mark.parametrize(("order", "dimension"), [(2, 4), (3, 3), (4, 3), (5, 2), (8, 2), (9, 2)])
def test_vectors_and_lines_through_zero(order, dimension):
    gf = field(order)
    vectors, directions = gf.vectors(dimension), gf.directions(dimension)
    assert sorted(map(tuple, vectors.tolist())) == sorted(product(range(order), repeat=dimension))
    lines = {
        frozenset(tuple(gf.multiply(np.full(dimension, scale), line).tolist()) for scale in range(1, order))
        for line in directions
    }
    assert len(lines) == len(directions) == (order**dimension - 1) // (order - 1)
    assert set().union(*lines) == set(map(tuple, vectors[1:].tolist()))
    assert not directions[: order + 1, 2:].any()  # those of a plane come first
    for x, y in ((1, 2), (3, 1), (len(directions) - 1, order)):
        total = 0
        for left, right in zip(directions[x % len(directions)], vectors[y], strict=True):
            total = gf.add(total, gf.multiply(left, right))
        assert gf.inner(directions, vectors)[x % len(directions), y] == total


# Block designs

KNOWN = [
    *[("projective", q * q + q + 1, q * q + q + 1, q + 1, 1) for q in (2, 3, 4, 5, 7, 8, 9, 11, 13)],
    *[("affine", q * q, q * q + q, q + 1, 1) for q in (2, 3, 4, 5, 7, 8, 9, 11, 13)],
    *[("paley", q, q, (q - 1) // 2, (q - 3) // 4) for q in (7, 11, 19, 23, 27, 31, 43, 47, 59, 67, 71, 79, 83, 103)],
    *[("difference_set", q * q + q + 1, q * q + q + 1, q + 1, 1) for q in (2, 3, 4, 5, 7, 8, 9, 11, 13)],
    *[("difference_set", q, q, (q - 1) // 2, (q - 3) // 4) for q in (7, 11, 19, 23, 27, 31, 43, 103)],
    ("projective", 15, 15, 7, 3),
    ("projective", 40, 40, 13, 4),
    ("affine", 8, 14, 7, 3),
    ("affine", 27, 39, 13, 4),
    *[("difference_set", v, v, k, m) for v, k, m in ((13, 4, 1), (37, 9, 2), (101, 25, 6), (109, 28, 7))],  # 4th powers
    *[("difference_set", v, v, k, m) for v, k, m in ((15, 7, 3), (35, 17, 8), (63, 31, 15), (99, 49, 24))],  # twins
    *[("difference_set", v, v, k, m) for v, k, m in ((16, 6, 2), (64, 28, 12))],  # bent
    ("steiner", 100, 825, 33, 1),
]
DESIGNS = designs(200)


def test_the_designs_of_the_literature_are_known():
    assert set(KNOWN) <= {(d.family, d.devices, d.tasks, d.redundancy, d.overlap) for d in DESIGNS}


def is_design(held, redundancy, copies, overlap):
    """Whether all rows have as many ones, all columns, and all pairs of rows in common."""
    shared = held.astype(int) @ held.T
    pairs = shared[np.triu_indices(len(held), 1)]
    return (np.diag(shared) == redundancy).all() and (held.sum(axis=0) == copies).all() and (pairs == overlap).all()


@pytest.mark.parametrize("design", DESIGNS, ids=lambda d: f"{d.family}-{d.devices}-{d.tasks}-{d.redundancy}")
def test_every_design_is_balanced(design):
    held = design.build()
    assert held.shape == (design.devices, design.tasks)
    assert design.devices * design.redundancy == design.tasks * design.copies
    assert design.redundancy * (design.copies - 1) == design.overlap * (design.devices - 1)
    assert is_design(held, design.redundancy, design.copies, design.overlap)
    assert design.overlap > 0


def test_large_designs_are_balanced():
    for devices, subsets, redundancy, copies in ((993, 993, 32, 32), (961, 992, 32, 31), (1023, 1023, 511, 511)):
        held = BlockDesign().assignment(devices, subsets, 0, 3)
        assert is_design(held.astype(np.float32), redundancy, copies, redundancy * (copies - 1) // (devices - 1))


def test_the_design_for_100_devices_is_that_of_the_notes():
    """By loops, with polynomials over F5 modulo x^2 - 2."""
    plane = list(product(range(5), repeat=2))

    def plus(a, b):
        return (a[0] + b[0]) % 5, (a[1] + b[1]) % 5

    def times_x(a):  # (a_0 + a_1 x) x = a_0 x + 2 a_1
        return 2 * a[1] % 5, a[0]

    blocks = [{(0, a), (1, b), (2, plus(a, b)), (3, plus(times_x(a), b))} for a in plane for b in plane]
    for base in (((0, 0), (0, 1), (1, 0), (2, 2)), ((0, 0), (0, 2), (1, 3), (3, 2))):
        blocks += [{(group, plus(point, by)) for point in base} for group in range(4) for by in plane]
    number = {(group, a): 25 * group + 5 * a[0] + a[1] for group in range(4) for a in plane}
    expected = {frozenset(number[point] for point in block) for block in blocks}
    assert len(expected) == 825
    held = BlockDesign(permute=False).assignment(100, 825, 0, 0)
    assert {frozenset(np.flatnonzero(column).tolist()) for column in held.T} == expected
    result = report(BlockDesign(), 100, 825, 3)
    assert result.redundancy == Spread(33, 33.0, 33)
    assert result.copies == Spread(4, 4.0, 4)
    assert result.overlap == Spread(1, 1.0, 1)
    assert result.rho == pytest.approx((825 - 33) / (33 * 824))


@pytest.mark.parametrize(("order", "dimension"), [(2, 2), (4, 2), (9, 2), (3, 3), (2, 5)])
def test_singers_sets_are_cyclic_and_their_differences_are_balanced(order, dimension):
    held = singer(order, dimension)
    size = len(held)
    for device in range(size):
        np.testing.assert_array_equal(held[device], np.roll(held[0], device))
    chosen = np.flatnonzero(held[0]).tolist()
    counts = np.bincount([(a - b) % size for a in chosen for b in chosen if a != b], minlength=size)
    assert len(set(counts[1:].tolist())) == 1


@pytest.mark.parametrize("permute", [True, False])
@pytest.mark.parametrize(
    ("devices", "subsets", "redundancy", "copies", "overlap"),
    [(7, 7, 3, 3, 1), (7, 35, 15, 3, 5), (9, 12, 4, 3, 1), (9, 24, 8, 3, 2), (13, 26, 8, 4, 2), (100, 1650, 66, 4, 2)],
)
def test_a_task_is_a_block_where_the_subsets_are_a_multiple(devices, subsets, redundancy, copies, overlap, permute):
    part = BlockDesign(permute=permute)
    part.check(devices, subsets)
    held = part.assignment(devices, subsets, 0, 5)
    assert is_design(held, redundancy, copies, overlap)
    size = subsets // {7: 7, 9: 12, 13: 13, 100: 825}[devices]
    blocks = held.reshape(devices, -1, size)
    assert (blocks.all(axis=2) == blocks.any(axis=2)).all()


def test_redundancy_and_family_choose_between_designs():
    assert [report(BlockDesign(redundancy=r), 31, 62, 0).redundancy.max for r in (None, 12, 30)] == [12, 12, 30]
    assert report(BlockDesign(family="paley"), 31, 31, 0).redundancy.max == 15
    assert report(BlockDesign(family="projective"), 31, 31, 0).redundancy.max == 6
    for family in ("projective", "difference_set", "paley"):
        held = BlockDesign(family=family, permute=False).assignment(7, 7, 0, 0)
        shifts = [np.array_equal(held[k], np.roll(held[0], k)) for k in range(7)]
        assert all(shifts) is (family != "projective")
    with pytest.raises(InputError, match=r"7 subsets have no design of redundancy 5; the nearest redundancy is 3$"):
        BlockDesign(redundancy=5).check(7, 7)
    with pytest.raises(InputError, match=r"no design of redundancy 10; the nearest redundancy is 6 or 15$"):
        BlockDesign(redundancy=10).check(31, 31)
    with pytest.raises(
        InputError, match=r"no steiner design is known for 7 .*; nearest: 100 devices with 825 subsets$"
    ):
        BlockDesign(family="steiner").check(7, 7)


@pytest.mark.parametrize(("part", "devices", "subsets"), [(BlockDesign(), 7, 7), (LatinSquare(), 6, 9)])
def test_permuted_designs_leave_no_pair_of_device_and_task_out(part, devices, subsets):
    counts = sum(part.assignment(devices, subsets, 0, seed).astype(int) for seed in range(700))
    share = counts.sum() / counts.size / 700
    assert np.abs(counts - 700 * share).max() < 5 * np.sqrt(700 * share * (1 - share))


def test_permuted_designs_make_any_two_devices_and_any_two_tasks_companions():
    """As written, devices of one square and cells of one line never are; permuted, all pairs are equally often."""
    devices, tasks = np.zeros((6, 6)), np.zeros((9, 9))
    for seed in range(1500):
        held = LatinSquare().assignment(6, 9, 0, seed).astype(int)
        devices += held @ held.T
        tasks += held.T @ held
    for together, share in ((devices, 9 / 15), (tasks, 18 / 36)):
        pairs = together[np.triu_indices(len(together), 1)]
        assert pairs.mean() == pytest.approx(1500 * share)
        assert np.abs(pairs - 1500 * share).max() < 5 * np.sqrt(1500 * share * (1 - share))


# Orthogonal arrays

ARRAYS = [
    (OrthogonalArray(), devices, subsets, levels, 1)
    for devices, subsets, levels in [(3, 4, 2), (4, 9, 3), (7, 8, 2), (6, 25, 5), (13, 27, 3), (63, 64, 2), (21, 64, 4)]
] + [
    (OrthogonalArray(levels=4, held_levels=3), 5, 16, 4, 3),
    (OrthogonalArray(held_levels=2), 10, 81, 9, 2),
    (OrthogonalArray(levels=3), 40, 81, 3, 1),
    (OrthogonalArray(levels=3, held_levels=3), 4, 27, 3, 3),
    (OrthogonalArray(), 4, 90, 3, 1),
    (OrthogonalArray(), 100, 1331, 11, 1),
    (OrthogonalArray(held_levels=4), 150, 625, 5, 4),
    (OrthogonalArray(levels=8), 5, 64, 8, 1),
    (OrthogonalArray(levels=7, held_levels=2), 3, 98, 7, 2),
]


@pytest.mark.parametrize(("part", "devices", "subsets", "levels", "held_levels"), ARRAYS)
def test_pairs_share_exactly_what_cra_dl_asks_for(part, devices, subsets, levels, held_levels):
    part.check(devices, subsets)
    result = report(part, devices, subsets, 3)
    redundancy = held_levels * subsets // levels
    assert result.redundancy == Spread(redundancy, redundancy, redundancy)
    assert redundancy**2 % subsets == 0
    assert {result.overlap.min, result.overlap.max} == {redundancy**2 // subsets}
    share = redundancy / subsets
    assert result.holders.var() == pytest.approx(devices * share * (1 - share), abs=1e-9)
    assert result.lost == part.lost(devices, subsets)
    if devices > levels or held_levels == levels:
        assert result.lost == 0


@pytest.mark.parametrize(("levels", "held_levels"), [(2, 1), (3, 1), (4, 1), (5, 1), (4, 2), (5, 2), (5, 3), (7, 4)])
def test_subsets_are_lost_only_with_at_most_as_many_devices_as_levels(levels, held_levels):
    part = OrthogonalArray(levels=levels, held_levels=held_levels)
    for dimension in (2, 3):
        subsets = 2 * levels**dimension
        for devices in range(1, levels + 3 if dimension > 2 else levels + 2):
            part.check(devices, subsets)
            lost = report(part, devices, subsets, 1).lost
            assert part.lost(devices, subsets) == lost
            if held_levels == 1:
                assert lost == max(2 * levels ** (dimension - 2) * (levels - 1) * (levels + 1 - devices), 0)
            if devices > levels:
                assert lost == 0
            if devices == 1:
                assert lost == subsets - held_levels * subsets // levels


def test_levels_are_those_that_lose_nothing_with_the_least_redundancy():
    for devices, levels, lost in (
        (2, 2, 16),
        (3, 2, 0),
        (4, 2, 0),
        (5, 4, 0),
        (8, 4, 0),
        (9, 8, 0),
        (10, 4, 0),
        (22, 2, 0),
    ):
        result = report(OrthogonalArray(), devices, 64, 0)
        assert (64 // result.redundancy.max, result.lost) == (levels, lost)
    assert report(OrthogonalArray(levels=8), 5, 64, 0).lost == 28


def test_unbiased_weights_are_refused_where_the_array_loses_subsets():
    part = OrthogonalArray()
    part.check_encoder(Mean(), 6, 25)
    for devices, subsets in ((5, 25), (2, 9), (1, 8), (3, 343), (4, 50)):
        part.check_encoder(Mean(weighting="plain"), devices, subsets)
        assert part.lost(devices, subsets)
        with pytest.raises(
            InputError, match=r"^encoder mean: weighting unbiased cannot be, .* leaves \d+ of"
        ) as caught:
            part.check_encoder(Mean(), devices, subsets)
        more, held = map(
            int, re.search(r"lose none with (\d+) devices or held_levels = (\d+)$", str(caught.value)).groups()
        )
        for other, count in ((part, more), (replace(part, held_levels=held), devices)):
            other.check(count, subsets)
            other.check_encoder(Mean(), count, subsets)
            assert report(other, count, subsets, 2).lost == 0
        assert all(part.lost(count, subsets) for count in range(devices, more))


def test_other_allocations_accept_every_encoder():
    """Uniform allocations lose subsets by chance: that is reported, not refused."""
    assert report(Uniform(redundancy=2), 6, 12, 3).lost
    for name, (part, devices, subsets, _) in CASES.items():
        if not name.startswith("orthogonal_array"):
            part.check_encoder(Mean(), devices, subsets)


def test_levels_that_cannot_be_are_refused():
    with pytest.raises(InputError, match=r"levels must be a prime power, got 6; the nearest is 5 or 7$"):
        OrthogonalArray(levels=6).check(4, 36)
    with pytest.raises(InputError, match=r"levels must be a prime power, got 12; the nearest is 11 or 13$"):
        OrthogonalArray(levels=12).check(4, 144)
    with pytest.raises(InputError, match=r"held_levels must be at most the 3 levels, got 4$"):
        OrthogonalArray(levels=3, held_levels=4).check(4, 9)
    with pytest.raises(InputError, match=r"held_levels must be at most 8, the levels of the array .*, got 9$"):
        OrthogonalArray(held_levels=9).check(9, 64)
    OrthogonalArray(held_levels=8).check(9, 64)


# Repetition


@pytest.mark.parametrize("permute", [True, False])
@pytest.mark.parametrize(
    ("devices", "subsets", "copies"), [(6, 12, 3), (6, 12, 2), (15, 100, 5), (100, 1000, 50), (9, 9, 1), (4, 7, 4)]
)
def test_groups_compute_the_same_and_others_nothing_of_it(devices, subsets, copies, permute):
    part = Repetition(copies=copies, permute=permute)
    part.check(devices, subsets)
    held = part.assignment(devices, subsets, 0, 3)
    groups = {row.tobytes() for row in held}
    assert len(groups) == devices // copies
    assert all(sum(row.tobytes() == group for row in held) == copies for group in groups)
    assert (held.sum(axis=0) == copies).all()
    assert np.ptp(held.sum(axis=1)) == (subsets * copies % devices != 0)
    assert held.sum(axis=1).mean() == pytest.approx(subsets * copies / devices)
    neighbours = all((held[k] == held[k // copies * copies]).all() for k in range(devices))
    assert neighbours is (not permute or copies in (1, devices))


# Latin squares


@pytest.mark.parametrize("permute", [True, False])
@pytest.mark.parametrize(
    ("order", "copies"),
    [(n, q) for n in (2, 3, 4, 5, 7, 8, 9, 11, 13) for q in range(2, n + 2) if q in (2, 3, n - 1, n, n + 1)],
)
def test_devices_of_two_squares_share_one_task_and_of_one_square_none(order, copies, permute):
    part, devices, tasks = LatinSquare(permute=permute), copies * order, order**2
    part.check(devices, tasks)
    held = part.assignment(devices, tasks, 0, 3)
    assert (held.sum(axis=1) == order).all()
    assert (held.sum(axis=0) == copies).all()
    shared = held.astype(int) @ held.T
    assert set(shared[np.triu_indices(devices, 1)].tolist()) == {0, 1}
    others = shared == 0  # those of the same square
    assert (others.sum(axis=1) == order - 1).all()
    for row in others if permute else ():
        square = held[row]
        assert square.any(axis=0).sum() == tasks - order
    if not permute:
        square = np.arange(devices) // order
        np.testing.assert_array_equal(others, (square[:, None] == square) & ~np.eye(devices, dtype=bool))


@pytest.mark.parametrize("order", [3, 4, 5, 8, 9])
def test_the_squares_are_latin(order):
    held = LatinSquare(permute=False).assignment((order - 1) * order, order**2, 0, 0)
    for square in held.reshape(order - 1, order, order, order):  # square, symbol, row, column
        shown = square.argmax(axis=0)
        assert (square.sum(axis=0) == 1).all()
        for line in (*shown, *shown.T):
            assert sorted(line.tolist()) == list(range(order))


def test_squares_are_as_large_as_the_numbers_allow():
    assert report(LatinSquare(), 20, 400, 0).copies == Spread(4, 4.0, 4)  # order 5, not order 4 with 5 copies
    assert report(LatinSquare(copies=5), 20, 400, 0).copies == Spread(5, 5.0, 5)
    with pytest.raises(InputError, match=r"no squares that make 3 copies; the nearest copies are 4$"):
        LatinSquare(copies=3).check(20, 400)


# All subsets


@pytest.mark.parametrize("permute", [True, False])
@pytest.mark.parametrize(("devices", "copies"), [(5, 3), (6, 2), (7, 7), (8, 4), (15, 3), (30, 2), (4, 1)])
def test_there_is_one_task_for_every_set_of_devices(devices, copies, permute):
    tasks = comb(devices, copies)
    part = AllSubsets(copies=copies, permute=permute)
    part.check(devices, tasks)
    held = part.assignment(devices, tasks, 0, 3)
    sets = sorted(tuple(np.flatnonzero(column).tolist()) for column in held.T)
    assert sets == list(combinations(range(devices), copies))
    assert is_design(held, comb(devices - 1, copies - 1), copies, comb(devices - 2, copies - 2) if copies > 1 else 0)


def test_absurd_numbers_of_tasks_are_refused():
    with pytest.raises(InputError, match=r"every 20 of 100 devices make 5359\d+ tasks, more than 1000000") as caught:
        AllSubsets(copies=20).check(100, 1000)
    assert "copies = 1 or 99 would do" in str(caught.value)
    with pytest.raises(InputError, match=r"make 2598960 tasks, more than 1000000"):
        AllSubsets(copies=5).check(52, comb(52, 5))
    with pytest.raises(InputError, match=r"copies must be at most the 5 devices, got 6"):
        AllSubsets(copies=6).check(5, 100)
    with pytest.raises(InputError, match=r"\(copies = 2 or 8 would do\)"):
        AllSubsets(copies=3).check(10, 45)
    for copies in (2, 8):
        AllSubsets(copies=copies).check(10, 45)


# What is named in errors exists, and nothing nearer does

NAMING = [
    BlockDesign(),
    BlockDesign(redundancy=6),
    *[BlockDesign(family=family) for family in ("projective", "affine", "paley", "difference_set")],
    OrthogonalArray(),
    OrthogonalArray(held_levels=3),
    OrthogonalArray(levels=3),
    Repetition(),
    Repetition(copies=5),
    LatinSquare(),
    LatinSquare(copies=3),
    AllSubsets(),
    AllSubsets(copies=2),
]


def refusal(part, devices, subsets):
    try:
        part.check(devices, subsets)
    except InputError as error:
        return str(error)
    return None


def pairs_of(text):
    first, more = re.fullmatch(r".*; nearest: (\d+ devices? with \d+ subsets?)((?:, \d+ with \d+)*)", text).groups()
    return [tuple(map(int, re.findall(r"\d+", words))) for words in [first, *more.split(", ")[1:]]]


@pytest.mark.parametrize("part", NAMING, ids=repr)
def test_errors_name_the_nearest_numbers_that_exist(part):
    named_at_all = 0
    for devices, subsets in product((1, 6, 7, 10, 22), (1, 12, 25)):
        text = refusal(part, devices, subsets)
        if text is None or "; nearest: " not in text:
            assert text is None or re.search(
                r"redundancy must be at most|(copies|held_levels) must be|copies are", text
            )
            continue
        named = pairs_of(text)
        named_at_all += len(named)
        assert len(named) == len(set(named)) <= 6
        for pair in named:
            assert refusal(part, *pair) is None, text
        for n in range(1, 30):  # nothing else for as many subsets is nearer on its side
            if refusal(part, n, subsets) is None:
                side = [a for a, b in named if b == subsets and (a > devices) == (n > devices)]
                assert min(abs(a - devices) for a in side) <= abs(n - devices), text
        for m in range(1, 40):
            if refusal(part, devices, m) is None:
                side = [b for a, b in named if a == devices and (b > subsets) == (m > subsets)]
                assert min(abs(b - subsets) for b in side) <= abs(m - subsets), text
    assert named_at_all


@pytest.mark.parametrize("part", NAMING, ids=repr)
@pytest.mark.parametrize(("devices", "subsets"), [(10**9 + 7, 10**6 + 3), (1001, 10**6 + 3)])
def test_numbers_that_are_much_too_large_are_refused_at_once(part, devices, subsets):
    assert pairs_of(refusal(part, devices, subsets))


def test_errors_read_well():
    for part, devices, subsets, text in (
        (
            BlockDesign(),
            100,
            100,
            "allocation block_design: no block design is known for 100 devices and 100 subsets, or a divisor of those; "
            "nearest: 101 devices with 101 subsets, 99 with 99, 16 with 100, 100 with 825",
        ),
        (
            Repetition(),
            100,
            1000,
            "allocation repetition: needs a multiple of 3 devices, the copies of a subset, got 100; "
            "nearest: 99 devices with 1000 subsets, 102 with 1000",
        ),
        (
            OrthogonalArray(),
            100,
            1000,
            "allocation orthogonal_array: no array has 100 devices and 1000 subsets, or a divisor of those (s^n "
            "subsets, n from 2 on, for at most (s^n - 1)/(s - 1) devices, s a prime power); "
            "nearest: 100 devices with 1024 subsets, 100 with 972, 85 with 1024, 31 with 1000",
        ),
    ):
        assert refusal(part, devices, subsets) == text
