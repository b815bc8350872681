"""Ranks of a node have one copy of the samples, read once, with the bits of ranks that have their own."""

import json
import os
from pathlib import Path

import h5py
import numpy as np
import pytest

from mpicoded.cli import main
from mpicoded.configs import decode
from mpicoded.data import datasets, layout
from mpicoded.data.shards import Shards, runs_of
from mpicoded.training import samples
from mpicoded.training.samples import in_common

QUICKSTART = Path(__file__).parents[2] / "configs" / "quickstart.toml"
HERE = Path(__file__).parent


def skip_without_room(nbytes: int, ranks: int) -> None:
    if not Path("/dev/shm").is_dir():
        pytest.skip("there is no /dev/shm")
    state = os.statvfs("/dev/shm")
    if state.f_bavail * state.f_frsize < nbytes + (ranks << 24) + (8 << 20):
        pytest.skip("/dev/shm is too small")


@pytest.mark.mpi
@pytest.mark.parametrize("ranks", [2, 3])
def test_shared_samples_have_the_bits_of_one_process_and_are_read_once(program, tmp_path, ranks):
    skip_without_room(1 << 20, ranks)
    ended = program.python(HERE / "together.py", tmp_path, ranks=ranks)
    assert ended.code == 0, ended.err
    assert [json.loads((tmp_path / f"{rank}.json").read_text()) for rank in range(ranks)] == [[]] * ranks
    assert "rror" not in ended.err


@pytest.mark.mpi
@pytest.mark.skipif(not Path("/proc/self/smaps_rollup").exists(), reason="only Linux tells what processes share")
def test_four_ranks_have_one_copy(program, tmp_path):
    path, rows, features = str(tmp_path / "data.h5"), 80_000, 160
    whole = rows * (features + 1) * 8  # 103 MB
    skip_without_room(whole, 4)
    x = np.zeros((rows, features))
    x[:, 0] = np.arange(rows)
    layout.write(path, x, x[:, 0], np.linspace(0, rows, 41).astype(int), made_by="a test")
    ended = program.python(HERE / "weigh.py", path, ranks=4)
    assert ended.code == 0, ended.err
    each, shared = map(int, ended.out.split())
    assert each > 4 * whole
    assert whole < shared < 1.2 * whole


@pytest.fixture
def bad(tmp_path) -> Path:
    """Data that ranks share, with a value that cannot be used in a row of each of three ranks' parts."""
    datasets.linear_regression(str(tmp_path / "good.h5"), subsets=100, features=50, samples_per_subset=30)
    for rank, (name, row) in enumerate([("x", 10), ("y", 1500), ("x", 2999)]):
        (tmp_path / f"{rank}.h5").write_bytes((tmp_path / "good.h5").read_bytes())
        with h5py.File(tmp_path / f"{rank}.h5", "r+") as file:
            file[name][row] = np.nan
    return tmp_path


@pytest.mark.mpi
def test_what_one_rank_reads_and_cannot_use_is_said_as_if_all_had_read_it(program, bad):
    words = [["run", str(QUICKSTART), "-o", str(bad / "out.h5"), "--data.path", f"{bad}/{i}.h5"] for i in range(3)]
    for number, ranks in enumerate(program.several(words, ranks=3)):
        assert [code for code, _, _ in ranks] == [2, 2, 2]
        value = "xyx"[number]
        assert ranks[0][1] == f"mpicoded: error: data file {bad}/{number}.h5: {value} holds NaN or infinite values\n"
        assert [said for _, said, _ in ranks[1:]] == ["", ""]
    assert not (bad / "out.h5").exists()


@pytest.mark.mpi
def test_a_rank_that_fails_before_or_while_it_reads_keeps_nobody_waiting(program, bad):
    words = ("run", QUICKSTART, "-o", "out.h5", "--data.path", bad / "good.h5")
    ended = program.python(HERE / "unable.py", *words, ranks=3, timeout=60)
    assert ended.code == 2
    lines = [line for line in ended.err.splitlines() if "mpicoded: " in line]
    assert len(lines) == 2
    for line, rank in zip(lines, (0, 2), strict=True):
        assert line.startswith(f"mpicoded: error: rank {rank} on ")
        assert line.endswith("out of memory: injected")
    assert not (bad / "out.h5").exists()


class Alone:
    """One of three ranks."""

    rank, size = 1, 3


@pytest.mark.parametrize(("allocation", "said"), [("cyclic", True), ("partition", False)])
def test_ranks_that_may_die_one_by_one_share_nothing_and_say_so_if_it_costs(tmp_path, allocation, said):
    path = str(tmp_path / "data.h5")
    datasets.linear_regression(path, subsets=12, features=200, samples_per_subset=60)
    tree = {
        "devices": 12,
        "rounds": 1,
        "data": {"path": path},
        "model": {"name": "linear_regression"},
        "allocation": {"name": allocation} | ({"redundancy": 4} if said else {}),
        "transport": {"on_rank_loss": "continue"},
    }
    found = samples.read(decode(tree, "test"), layout.describe(path), Alone(), None)
    assert found.nbytes == found.shards.nbytes == (12 if said else 4) * 60 * 201 * 8
    assert (found.apart != "") == said
    if said:
        assert f"{2 * 12 * 60 * 201 * 8} bytes in all" in found.apart


@pytest.mark.mpi
def test_memory_that_the_system_cannot_provide_is_noticed_without_a_bus_error(program, tmp_path):
    code = """
import mmap, os, sys
import numpy as np
from mpicoded.transport.node import _take
page = mmap.PAGESIZE
with open("file", "w+b") as file:
    file.truncate(4 * page)
    memory = np.frombuffer(mmap.mmap(file.fileno(), 4 * page), np.uint8)
    print(_take(memory), _take(memory[7 : page + 9]))
    file.truncate(2 * page)
    print(_take(memory[: 2 * page]), _take(memory))
"""
    ended = program.python("-c", code)
    assert ended.code == 0, ended.err
    if tuple(map(int, os.uname().release.split(".")[:2])) < (5, 14):
        pytest.skip("Linux cannot be asked before 5.14")
    assert ended.out.split() == ["True", "True", "True", "False"]


def test_parts_of_the_rows_of_some_subsets_are_those_rows(tmp_path):
    path = str(tmp_path / "data.h5")
    offsets = np.array([0, 3, 3, 10, 11, 18, 25, 25, 30])
    layout.write(path, np.arange(60.0).reshape(30, 2), np.arange(30.0), offsets, made_by="a test")
    description = layout.describe(path)
    for held in ([0, 1, 2, 4, 7], [1], [3, 5, 6], list(range(8))):
        rows = [row for subset in held for row in range(offsets[subset], offsets[subset + 1])]
        for first in range(len(rows) + 1):
            for stop in range(first, len(rows) + 1):
                runs = runs_of(description, np.array(held), first, stop)
                assert [row for start, end in runs for row in range(start, end)] == rows[first:stop]
                assert all(start < end for start, end in runs)
        x, y = layout.read_rows(description, "", runs_of(description, np.array(held)), np.float64)
        some = np.array(held[1:], int)
        part = Shards.among(description, some, np.array(held), x, y)
        for batch in part.batches(work := part.work(some)):
            for subset, values, weights in zip(work.subsets[batch.slots], batch.x, batch.weights, strict=True):
                expected = 2.0 * np.arange(offsets[subset], offsets[subset + 1])
                assert values[weights > 0, 0].tolist() == expected.tolist()


def test_plan_says_what_ranks_of_a_node_do_not_have_twice(tmp_path, capsys):
    path = str(tmp_path / "data.h5")
    datasets.linear_regression(path, subsets=100, features=100, samples_per_subset=10)  # 808 kB, on each rank
    words = ["plan", str(QUICKSTART), "--data.path", path, "--allocation", '{name = "cyclic", redundancy = 3}']
    for ranks, more, said in ((4, [], 1), (2, [], 0), (4, ["--transport.on_rank_loss", "continue"], 0)):
        assert main([*words, *more, "--ranks", str(ranks)]) == 0
        assert capsys.readouterr().out.count("one copy of the samples: 2.42 MB less, if all are on one node") == said


def test_what_ranks_have_in_common(tmp_path):
    path = str(tmp_path / "data.h5")
    layout.write(path, np.zeros((6, 2)), np.zeros(6), np.array([0, 1, 3, 6]), made_by="a test")
    description = layout.describe(path)
    held = np.array([[True, True, False], [False, True, True], [False, True, False]])
    common = in_common(description, held, np.dtype(np.float32))
    assert common.subsets.tolist() == [0, 1, 2]
    assert (common.rows, common.saved) == (6, 4 * 12)
    common = in_common(description, held[:1], np.dtype(np.float32))
    assert (common.subsets.tolist(), common.rows, common.saved) == ([0, 1], 3, 0)
    assert common.nbytes >= 3 * 12
