"""Rules and filters with votes on a GPU; the kernels' source is tested without one, compiled for the CPU."""

import argparse
import shutil
import subprocess
from typing import Any

import msgspec
import numpy as np
import pytest
from test_gpu import on_a_gpu

from mpicoded.algorithms import aggregators, filters, ordering
from mpicoded.algorithms.component import Component, members
from mpicoded.algorithms.slices import LONG
from mpicoded.kernels import cuda

FIELDS = {"byzantine": 12, "tau": 100.0}
PARTS = members(aggregators.Choice) | members(filters.Choice)
MEANS = [
    *((1, 0, 0, 0, "float64"), (2, 0, 1, 0, "float64"), (10, 4, 5, 0, "float64"), (12, 3, 8, 12, "float64")),
    *((11, 2, 8, 9, "float32"), (12, 5, 6, 1, "float64"), (33, 7, 25, 20, "float32"), (33, 8, 24, 20, "float64")),
    *((100, 20, 79, 0, "float32"), (128, 63, 64, 0, "float32")),
]
without_compiler = pytest.mark.skipif(shutil.which("c++") is None, reason="no C++ compiler")


def ordered_by(pairs: list[tuple[int, int]], votes: np.ndarray) -> np.ndarray:
    rows = votes.copy()
    for i, j in pairs:
        rows[i], rows[j] = np.minimum(rows[i], rows[j]), np.maximum(rows[i], rows[j])
    return rows


@pytest.mark.parametrize("count", [*range(1, 18), 33, 100, 128])
def test_a_network_brings_the_wanted_ranks_into_their_rows(count):
    rng = np.random.default_rng(count)
    # What holds for all votes of zeros and ones holds for all votes.
    bits = np.arange(1 << count) >> np.arange(count)[:, None] & 1 if count < 12 else rng.integers(0, 2, (count, 3000))
    for votes in (bits.astype(float), rng.integers(0, count, (count, 500)).astype(float)):
        for wanted in ({0}, {count - 1}, {count // 2}, {count // 5, count - 1 - count // 5}, set(range(count))):
            rows = ordered_by(cuda.network(count, wanted), votes)
            expected, which = np.sort(votes, axis=0), sorted(wanted)
            np.testing.assert_array_equal(rows[which], expected[which])
            np.testing.assert_array_equal(np.sort(rows, axis=0), expected)  # no vote is lost


def test_what_no_wanted_rank_depends_on_is_left_out():
    assert len(cuda.network(100, {20, 79})) < 0.9 * len(cuda.network(100, range(100)))
    assert not cuda.network(1, {0})


@without_compiler
@pytest.mark.parametrize(("count", "first", "last", "kept", "dtype"), MEANS)
def test_a_kernel_computes_what_the_cpu_does(standin, count, first, last, kept, dtype):
    rng = np.random.default_rng(count)
    votes = rng.normal(3, 2, (count, 300)).astype(dtype)
    votes[:, :50] = rng.integers(-2, 3, (count, 50))  # many are equal
    votes[-1] *= 1e6
    compute = ordering.nearest_mean if kept else ordering.middle_mean
    ranks = (first, last, kept) if kept else (first, last)
    room = standin.asarray(np.full(400, 7.0, dtype))
    out, wide = room[:300], standin.asarray(np.concatenate([votes, votes], axis=1))
    assert cuda.takes(wide)
    assert compute(wide[:, 300:], *ranks, out=out) is out
    expected, tolerance = compute(votes, *ranks), 1e-5 if dtype == "float32" else 1e-13
    np.testing.assert_allclose(out.get(), expected, tolerance, tolerance)
    assert (room.get()[300:] == 7).all()  # threads beyond the last coordinate write nothing
    np.testing.assert_array_equal(
        compute(wide[:, ::2], *ranks).get(), compute(standin.ascontiguousarray(wide[:, ::2]), *ranks).get()
    )


def test_more_votes_than_a_kernel_takes_are_sorted(standin):
    votes = np.random.default_rng(0).normal(size=(cuda.MOST + 1, 50))
    assert not cuda.takes(standin.asarray(votes))
    found = ordering.middle_mean(standin.asarray(votes), 20, 90)
    np.testing.assert_allclose(found.get(), ordering.middle_mean(votes, 20, 90), 1e-12)


@pytest.mark.skipif(shutil.which("nvcc") is None, reason="no nvcc")
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_kernel_is_cuda(tmp_path, dtype):
    (tmp_path / "kernel.cu").write_text(cuda.source(12, 5, 6, 8, dtype))
    ended = subprocess.run(["nvcc", "-ptx", "-o", tmp_path / "kernel.ptx", tmp_path / "kernel.cu"], check=False)
    assert ended.returncode == 0
    assert ".visible .entry middle(" in (tmp_path / "kernel.ptx").read_text()


def test_the_benchmark_runs_on_the_stand_in_and_says_where_there_is_no_gpu(standin, monkeypatch):
    from benchmarks import gpu

    monkeypatch.setattr(gpu, "SHAPE", (20, 700))
    monkeypatch.setattr(gpu, "BLOCK", 300)
    monkeypatch.setattr(gpu, "FEATURES", 50)
    monkeypatch.setattr(gpu, "find_launcher", lambda: None)
    options = argparse.Namespace(quick=True)
    figures = gpu.measure(options)
    assert [figure.get("rule", figure.get("way")) for figure in figures] == [
        "trimmed_mean", "coordinate_median", "krum", "nearest_neighbor_mixing", "direct", "staged"
    ]  # fmt: skip
    assert all(figure["seconds"] > 0 for figure in figures)
    assert "trimmed_mean" in gpu.show(figures)
    monkeypatch.setattr(standin, "_visible", list)
    assert gpu.show(gpu.measure(options)).startswith("gpu: not measured, as there is no GPU: compute.device")


def result_of(part: Component, votes: Any) -> Any:
    words = {} if isinstance(votes, np.ndarray) else {"sums": LONG}
    return part.aggregate(votes, **words) if hasattr(part, "aggregate") else part.apply(votes, **words)


def part_of(name: str) -> Component:
    cls = PARTS[name]
    return msgspec.convert(
        {field: FIELDS[field] for field in cls.__struct_fields__ if field in FIELDS} | {"name": name}, cls
    )


@on_a_gpu
@pytest.mark.parametrize("count", [100, 130])
@pytest.mark.parametrize("name", PARTS)
def test_a_part_on_a_gpu_gives_what_it_gives_on_the_cpu(name, count):
    import cupy

    votes = np.random.default_rng(1).normal(1, 2, (count, 600_000)).astype("float32")
    votes[:10] = -3
    expected = result_of(part_of(name), votes)
    found = result_of(part_of(name), cupy.asarray(votes))
    assert isinstance(found, cupy.ndarray)
    np.testing.assert_allclose(found.get(), expected, rtol=1e-5, atol=1e-5 * np.abs(expected).max())


@pytest.mark.parametrize("name", PARTS)
def test_a_part_on_the_stand_in_gives_what_it_gives_on_the_cpu(standin, monkeypatch, name):
    monkeypatch.setitem(FIELDS, "byzantine", 4)
    votes = np.random.default_rng(1).normal(1, 2, (20, 9000))
    votes[:3] = -3
    expected = result_of(part_of(name), votes)
    found = result_of(part_of(name), standin.asarray(votes))
    assert isinstance(found, standin.Array)
    np.testing.assert_allclose(found.get(), expected, rtol=1e-9, atol=1e-9)
