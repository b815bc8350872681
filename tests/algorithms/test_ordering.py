"""Means of ranks: by slow loops, in slices, compiled and not."""

import importlib.util
import math
import subprocess
import sys

import array_api_strict
import numpy as np
import pytest

from mpicoded.algorithms import ordering
from mpicoded.algorithms.aggregators import Bulyan, CoordinateMedian, MeanAroundMedian, Phocas, TrimmedMean
from mpicoded.algorithms.ordering import middle_mean, nearest_mean
from mpicoded.kernels import networks

compiled = pytest.mark.skipif(importlib.util.find_spec("numba") is None, reason="needs the extra fast")
both_ways = pytest.mark.parametrize("way", ["numpy", pytest.param("compiled", marks=compiled)])
every_dtype = pytest.mark.parametrize("dtype", [np.float32, np.float64])
COUNTS = [1, 2, 3, 5, 11, 16, 17, 20, 33, 50, 64, 65, 100, 129]
RULES = {
    "coordinate_median": lambda f: CoordinateMedian(),
    "trimmed_mean": lambda f: TrimmedMean(byzantine=f),
    "phocas": lambda f: Phocas(byzantine=f),
    "mean_around_median": lambda f: MeanAroundMedian(byzantine=f),
}
every_rule = pytest.mark.parametrize("rule", RULES.values(), ids=RULES)


@pytest.fixture
def use(monkeypatch):
    def switch(way):
        monkeypatch.setattr(ordering, "_WORTH_COMPILING", 0 if way == "compiled" else math.inf)
        monkeypatch.setattr(ordering, "_loaded", set())

    return switch


def draw(shape, dtype=np.float64, seed=0):
    """Ties, zeros of both signs, outliers, tiny numbers, and plain ones."""
    rng = np.random.default_rng(seed)
    votes = rng.normal(size=shape)
    kind = rng.integers(0, 6, shape[1])
    votes[:, kind == 0] = rng.integers(-2, 3, (shape[0], (kind == 0).sum()))
    votes[:, kind == 1] *= rng.choice([1e-30, 1.0, 1e15], (shape[0], (kind == 1).sum()))
    votes[:, kind == 2] *= 0.0
    votes[:, kind == 3] += 1e6
    return votes.astype(dtype)


def same_bits(a, b):
    assert a.dtype == b.dtype
    np.testing.assert_array_equal(a.view(f"u{a.itemsize}"), b.view(f"u{b.itemsize}"))


def by_loops(column, first, last, kept=None):
    ascending = sorted(map(float, column))
    centre = math.fsum(ascending[first : last + 1]) / (last + 1 - first)
    if kept is None:
        return centre
    start = min(
        range(len(ascending) - kept + 1), key=lambda i: max(centre - ascending[i], ascending[i + kept - 1] - centre)
    )
    return math.fsum(ascending[start : start + kept]) / kept


@both_ways
@every_dtype
@pytest.mark.parametrize("count", COUNTS)
def test_middle_means_by_loops(use, way, dtype, count):
    use(way)
    votes = draw((count, 70), dtype)
    for byzantine in {0, 1, count // 5, (count - 1) // 2} & set(range((count + 1) // 2)):
        first, last = byzantine, count - 1 - byzantine
        expected = [by_loops(column, first, last) for column in votes.T]
        spread = np.ptp(np.sort(votes, axis=0)[first : last + 1].astype(float), axis=0) + np.abs(expected)
        error = np.abs(middle_mean(votes, first, last) - expected)
        assert (error <= (2 + count / 8) * np.finfo(dtype).eps * spread).all()


@both_ways
@pytest.mark.parametrize("count", [3, 11, 16, 40, 100])
def test_nearest_means_by_loops(use, way, count):
    use(way)
    votes = np.random.default_rng(count).normal(size=(count, 70))
    for first, last in (((count - 1) // 2, count // 2), (count // 5, count - 1 - count // 5)):
        for kept in {count, count - 1, count - count // 3, (count + 1) // 2}:
            expected = [by_loops(column, first, last, kept) for column in votes.T]
            np.testing.assert_allclose(nearest_mean(votes, first, last, kept), expected, rtol=1e-12, atol=1e-13)


@compiled
@every_rule
@every_dtype
@pytest.mark.parametrize("count", COUNTS)
def test_the_compiled_loop_gives_the_same_bits(use, rule, dtype, count):
    votes = draw((count, 333), dtype, seed=count)
    for byzantine in {0, count // 5, (count - 1) // 2}:
        results = []
        for way in ("numpy", "compiled"):
            use(way)
            results.append(rule(byzantine).aggregate(votes))
        assert ordering._compiled() is not None
        same_bits(*results)


@both_ways
@every_rule
@every_dtype
@pytest.mark.parametrize("count", [4, 23, 100])
def test_slices_have_the_bits_of_the_whole(use, way, rule, dtype, count):
    """Views and copies, one column and many, and columns in another order."""
    use(way)
    part, dim = rule(count // 4), 1500
    votes = draw((count, dim), dtype, seed=1)
    whole = part.aggregate(votes)
    rng = np.random.default_rng(2)
    for _ in range(12):
        start, stop = np.sort(rng.choice(dim + 1, 2, replace=False))
        start = rng.choice([start, stop - 1])
        same_bits(part.aggregate(votes[:, start:stop]), whole[start:stop])
        same_bits(part.aggregate(votes[:, start:stop].copy()), whole[start:stop])
    shuffled = rng.permutation(dim)
    same_bits(part.aggregate(votes[:, shuffled]), whole[shuffled])
    same_bits(part.aggregate(np.asfortranarray(votes)), whole)
    same_bits(part.aggregate(votes[:, ::-3]), whole[::-3])


@both_ways
def test_bulyan_of_single_columns_has_the_bits_of_the_whole(use, way):
    use(way)
    votes = np.repeat(np.random.default_rng(0).normal(size=(23, 1)), 40, axis=1) + np.arange(40) / 7
    whole = Bulyan(byzantine=2).aggregate(votes)
    for column in range(40):
        same_bits(Bulyan(byzantine=2).aggregate(votes[:, [column]]), whole[[column]])


@both_ways
@every_rule
@every_dtype
@pytest.mark.parametrize("size", [1e12, 1e18])
def test_outliers_leave_all_digits_of_the_others(use, way, rule, dtype, size):
    """A sum of all less what is too large would have none left."""
    use(way)
    votes = np.random.default_rng(0).normal(3.0, 0.1, (21, 200)).astype(dtype)
    votes[:5] = size * np.array([1, -1, 1, 1e-3, -1])[:, None]
    honest = np.sort(votes[5:].astype(float), axis=0)
    result = rule(5).aggregate(votes)
    assert (honest[0] <= result).all()
    assert (result <= honest[-1]).all()
    exact = [by_loops(column, 5, 15) for column in votes.T]
    np.testing.assert_allclose(TrimmedMean(byzantine=5).aggregate(votes), exact, rtol=4 * np.finfo(dtype).eps)


@both_ways
@every_rule
def test_out_may_be_anything_that_takes_numbers(use, way, rule):
    use(way)
    votes = draw((11, 300))
    expected = rule(3).aggregate(votes)
    votes.flags.writeable = False
    for out in (np.empty(300), np.empty(600)[::2], np.empty(300, np.float32)):
        assert rule(3).aggregate(votes, out=out) is out
        np.testing.assert_array_equal(out, expected.astype(out.dtype))


@every_rule
@every_dtype
def test_other_libraries_add_up_in_the_same_order(rule, dtype):
    votes = draw((23, 50), dtype)
    strict = rule(5).aggregate(array_api_strict.asarray(votes))
    same_bits(np.asarray(strict), rule(5).aggregate(votes))


def ranks_of(program, votes):
    """What a program makes of votes, by plain comparisons."""
    dim = votes.shape[1]
    infinite = np.full((1, dim), np.inf)
    source = np.concatenate([votes, infinite])
    tile = np.concatenate([np.full_like(votes, np.nan), infinite, -infinite, np.full((2, dim), np.nan)])
    for pattern, start in zip(program.patterns, program.starts, strict=True):
        size, pairs = networks.PATTERNS[pattern]
        values = list((source if pattern < 4 else tile)[program.rows[start : start + size]])
        for i, j in pairs:
            values[i], values[j] = np.minimum(values[i], values[j]), np.maximum(values[i], values[j])
        if size == 9:
            tile[program.rows[start + size]] = values[-1]
        else:
            tile[program.rows[start : start + size]] = values
    return tile


@pytest.mark.parametrize("count", [*COUNTS, 200, 257])
def test_networks_sort_zeros_and_ones(count):
    """A network that puts every 0/1 column's rank right is right for all columns; here random and threshold ones."""
    rng = np.random.default_rng(count)
    votes = (rng.random((count, 60)) < np.linspace(0, 1, 60)).astype(float)
    ordered = np.sort(votes, axis=0)
    for byzantine in {0, count // 7, count // 3, (count - 1) // 2}:
        first, last = byzantine, count - 1 - byzantine
        program = networks.select(count, first, last)
        tile = ranks_of(program, votes)
        np.testing.assert_array_equal(tile[[program.low, program.high]], ordered[[first, last]])
        program = networks.order(count, (count - 1) // 2, count // 2, byzantine + 1)
        wanted = [*range(byzantine + 1), program.low, program.high, *range(count - byzantine - 1, count)]
        np.testing.assert_array_equal(ranks_of(program, votes)[wanted], ordered[wanted])


def test_a_selection_costs_less_than_half_of_a_whole_sort():
    """Comparisons of 100 votes: of all pairs 4950, of an odd-even merge sort 1104."""

    def comparisons(program):
        return sum(len(networks.PATTERNS[pattern][1]) for pattern in program.patterns)

    assert comparisons(networks.select(100, 20, 79)) < 1104
    assert comparisons(networks.select(100, 49, 50)) < 1104
    assert comparisons(networks.order(100, 49, 50, 21)) < 1500


@compiled
def test_small_votes_do_not_load_the_compiler():
    code = (
        "import sys, numpy as np; from mpicoded.algorithms.aggregators import Phocas;"
        "Phocas(byzantine=20).aggregate(np.ones((100, 100))); assert 'numba' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


@compiled
def test_loops_are_compiled_where_there_is_no_place_to_keep_them():
    from mpicoded.kernels.compiling import compiled

    namespace: dict = {}
    exec("def double(x):\n    return 2 * x", namespace)  # of no file, so that there is no folder beside it
    assert compiled("int64(int64)")(namespace["double"])(21) == 42


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_runs_that_order_many_numbers_in_all_use_the_compiled_loop_for_few(monkeypatch, dtype):
    pytest.importorskip("numba")
    monkeypatch.setattr(ordering, "_loaded", set())
    compiled, calls = ordering._compiled(), []
    monkeypatch.setattr(ordering, "_compiled", lambda: lambda *args: (calls.append(args[0].shape), compiled(*args)))
    votes, rule = draw((11, 13), dtype), TrimmedMean(byzantine=3)
    ordering.expect(11 * 13 * 1000, np.dtype(dtype))
    plain = rule.aggregate(votes)
    assert not calls
    ordering.expect(11 * 13 * 10**6, np.dtype(dtype))
    calls.clear()
    same_bits(rule.aggregate(votes), plain)
    assert calls == [(11, 13)]
    other = np.float32 if dtype == np.float64 else np.float64
    rule.aggregate(votes.astype(other))
    assert len(calls) == 1, "the loop for this type was not loaded"
