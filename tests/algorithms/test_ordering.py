"""Means of ranks: by slow loops, in slices, compiled and not."""

import importlib.util
import math
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import array_api_strict
import numpy as np
import pytest

from mpicoded.algorithms import ordering
from mpicoded.algorithms.aggregators import Bulyan, CoordinateMedian, MeanAroundMedian, Phocas, TrimmedMean
from mpicoded.algorithms.ordering import middle_mean, nearest_mean
from mpicoded.kernels import networks

compiled = pytest.mark.skipif(importlib.util.find_spec("llvmlite") is None, reason="needs the extra fast")
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


def ranks_of(steps, votes):
    """What steps make of votes, by plain comparisons."""
    tile = np.full_like(votes, np.nan)
    for step in steps:
        rows = (votes if step.reads_votes else tile)[step.first :]
        values = [rows[row].copy() for row in step.network.inputs]
        for greater, i, j in step.network.operations:
            values.append((np.maximum if greater else np.minimum)(values[i], values[j]))
        for row, value in step.network.results:
            tile[step.first + row] = values[value]
    return tile


@pytest.mark.parametrize("count", [*COUNTS, 200, 257])
def test_networks_sort_zeros_and_ones(count):
    """A network that puts every 0/1 column's rank right is right for all columns; here random and threshold ones."""
    rng = np.random.default_rng(count)
    votes = (rng.random((count, 60)) < np.linspace(0, 1, 60)).astype(float)
    ordered = np.sort(votes, axis=0)
    for byzantine in {0, count // 7, count // 3, (count - 1) // 2}:
        ends = {*range(byzantine + 1), *range(count - byzantine - 1, count)}
        middle = {(count - 1) // 2, count // 2}
        for wanted in ({byzantine, count - 1 - byzantine}, ends, ends | middle, set(range(count))):
            rows = sorted(wanted)
            np.testing.assert_array_equal(
                ranks_of(networks.steps(count, frozenset(wanted)), votes)[rows], ordered[rows]
            )


def test_a_selection_takes_much_less_than_a_whole_sort():
    """Minima and maxima of 100 votes; an odd-even merge sort of all takes 2,208."""

    def operations(*wanted):
        return sum(len(step.network.operations) for step in networks.steps(100, frozenset(wanted)))

    assert operations(20, 79) < 1650
    assert operations(49, 50) < 1700
    assert operations(49, 50, *range(21), *range(79, 100)) < 1950
    assert operations(*range(100)) < 2208


@compiled
def test_small_votes_do_not_load_the_compiler():
    code = (
        "import sys, numpy as np; from mpicoded.algorithms.aggregators import Phocas;"
        "Phocas(byzantine=20).aggregate(np.ones((100, 100))); assert 'llvmlite' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


@compiled
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_loops_are_compiled_once_numbers_enough_were_ordered(monkeypatch, dtype):
    compiled, calls = ordering._compiled(), []
    monkeypatch.setattr(ordering, "_compiled", lambda: lambda *of: calls.append(of[1]) or compiled(*of))
    monkeypatch.setattr(ordering, "_WORTH_COMPILING", 3 * 13)
    monkeypatch.setattr(ordering, "_ordered", {})
    monkeypatch.setattr(ordering, "_expected", {})
    votes, rule = draw((11, 13), dtype), TrimmedMean(byzantine=3)
    plain = rule.aggregate(votes)
    rule.aggregate(votes)
    assert not calls
    same_bits(rule.aggregate(votes), plain)
    assert calls == [3]
    TrimmedMean(byzantine=2).aggregate(votes)
    rule.aggregate(votes.astype(np.float32 if dtype == np.float64 else np.float64))
    assert calls == [3], "other ranks, or other numbers, are another loop"
    ordering.expect(11, 10**9)
    TrimmedMean(byzantine=2).aggregate(votes)
    assert calls == [3, 2]
    TrimmedMean(byzantine=2).aggregate(votes[1:])
    assert calls == [3, 2], "nobody expected so few votes"


@compiled
def test_a_loop_writes_nowhere_else(use):
    use("compiled")
    votes, big = draw((11, 100), np.float32), np.zeros(200, np.float32)
    expected = middle_mean(votes, 2, 8)
    with pytest.raises(ValueError, match="broadcast"):
        ordering._mean(votes, 2, 8, None, big[:10])  # past the checks of shapes that tests make
    assert not big.any()
    fixed = big[:100]
    fixed.flags.writeable = False
    with pytest.raises(ValueError, match="read-only"):
        middle_mean(votes, 2, 8, fixed)
    same_bits(middle_mean(votes, 2, 8, votes[0]).copy(), expected)  # which it reads until the end


@compiled
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_many_threads_may_order_at_once(monkeypatch, dtype):
    monkeypatch.setattr(ordering, "_WORTH_COMPILING", 0)
    votes = [draw((23, 5000), dtype, seed) for seed in range(8)]
    expected = [middle_mean(part, 4, 18) for part in votes]
    with ThreadPoolExecutor(4) as pool:
        for found, one in zip(pool.map(lambda part: middle_mean(part, 4, 18), votes * 20), expected * 20, strict=True):
            same_bits(found, one)


@compiled
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_processor_that_can_do_less_gives_the_same_bits(monkeypatch, dtype):
    """Code for what all processors of this architecture can do: other vectors, fewer registers."""
    from mpicoded.kernels import compiling, coordinates

    votes, found = draw((100, 1000), dtype), []
    for target in (compiling._target(), (compiling._target()[0], "", "")):
        monkeypatch.setattr(compiling, "_target", lambda target=target: target)
        for ranks in ((20, 79, 0), (49, 50, 0), (20, 79, 80)):
            out = np.empty(1000, dtype)
            coordinates.middle.cache_clear()
            coordinates.middle(100, *ranks, votes.dtype.str)(votes, out)
            found.append(out)
    coordinates.middle.cache_clear()
    for here, anywhere in zip(found[:3], found[3:], strict=True):
        same_bits(here, anywhere)
