"""Ranks whose samples do not fit into the memory they may use: the same bits, and no more memory."""

import json
import os
import re
from pathlib import Path

import h5py
import numpy as np
import pytest

from mpicoded.cli import main
from mpicoded.configs import decode
from mpicoded.data import datasets, layout
from mpicoded.data.results import load_results
from mpicoded.data.streaming import Streamed
from mpicoded.training import allowance, samples
from mpicoded.training.allowance import memory_limit
from mpicoded.transport.local import LocalTransport
from mpicoded.units import nbytes

HERE = Path(__file__).parent
QUICKSTART = HERE.parents[1] / "configs" / "quickstart.toml"
FEW = ["--devices", "12", "--byzantine", "2", "--aggregator.byzantine", "2"]
FEW += ["--allocation", '{name = "cyclic", redundancy = 3}', "--data.memory"]


@pytest.mark.mpi
@pytest.mark.parametrize("ranks", [1, 2, 3])
def test_out_of_core_has_the_bits_of_one_process_that_holds_all(program, tmp_path, ranks):
    ended = program.python(HERE / "outside.py", tmp_path, ranks=ranks)
    assert ended.code == 0, ended.err
    assert [json.loads((tmp_path / f"{rank}.json").read_text()) for rank in range(ranks)] == [[]] * ranks


WEIGH = """
import re, sys
from mpicoded.configs import decode
from mpicoded.data import layout
from mpicoded.training.loop import Trainer
from mpicoded.transport.local import LocalTransport
def peak():  # what getrusage tells may be of the process that started this one
    with open("/proc/self/status") as status:
        return 1024 * int(re.search(r"VmHWM:\\s+(\\d+) kB", status.read())[1])
path, memory = sys.argv[1:]
trained = []
for data in ({"path": path + ".small"}, {"path": path, "memory": memory}):  # the first: what is imported when needed
    tree = {"devices": 8, "rounds": 2, "evaluate_every": 2, "data": data, "model": {"name": "linear_regression"},
        "allocation": {"name": "cyclic", "redundancy": 10}, "optimizer": {"step_size": 1e-9}}
    before = peak()
    Trainer(decode(tree, "weigh"), layout.describe(data["path"]), LocalTransport()).train()
print(peak() - before)
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="other systems count otherwise")
def test_a_dataset_of_four_times_the_memory_takes_no_more_than_that(program, tmp_path):
    path, rows, features = str(tmp_path / "data.h5"), 400_000, 127
    layout.write(
        path, np.zeros((rows, features)), np.zeros(rows), np.linspace(0, rows, 41).astype(int), made_by="a test"
    )
    layout.write(path + ".small", np.zeros((80, features)), np.zeros(80), np.arange(0, 81, 2), made_by="a test")
    assert os.path.getsize(path) > 4 * 100e6
    ended = program.python("-c", WEIGH, path, "100 MB")
    assert ended.code == 0, ended.err
    assert 60e6 < int(ended.out) < 110e6


def tree(path, **data):
    return {
        "devices": 12,
        "rounds": 3,
        "data": {"path": path} | data,
        "model": {"name": "linear_regression"},
        "allocation": {"name": "cyclic", "redundancy": 3},
    }


@pytest.fixture
def path(tmp_path) -> str:
    """12 subsets of 8080 bytes."""
    datasets.linear_regression(str(tmp_path / "data.h5"), subsets=12, features=100, samples_per_subset=10)
    return str(tmp_path / "data.h5")


@pytest.mark.parametrize("memory", ["2 XB", "-1 MB", "0 B", "MB", "1e3 MB", "1 GB ", "", "9" * 400 + " GB"])
def test_memory_that_is_no_size_is_one_line(path, tmp_path, capsys, memory):
    words = ["run", str(QUICKSTART), "-o", str(tmp_path / "out.h5"), "--data.path", path, "--data.memory", memory]
    assert main(words) == 2
    said = capsys.readouterr().err
    assert said.startswith('mpicoded: error: data.memory must be a size such as "500 MB" or "2 GB", got ')
    assert said.count("\n") == 1


def test_sizes_are_what_they_say():
    told = {"512 MB": 512_000_000, "1.5GB": 1_500_000_000, "64 KiB": 65536, "3 B": 3, "2 GiB": 2**31, "2 kB": 2000}
    assert {text: nbytes(text) for text in told} == told
    assert nbytes("0.5 B") is None


@pytest.mark.mpi
def test_too_little_is_refused_on_all_ranks_with_what_is_enough(program, path):
    words = ["run", str(QUICKSTART), "-o", "out.h5", "--data.path", path, *FEW]
    (refused,) = program.several([[*words, "16159 B"]], ranks=2)
    assert [code for code, _, _ in refused] == [2, 2]
    assert refused[0][1].endswith('set memory = "16160 B" or more\n')
    assert program(*words, "16160 B").code == 0


def test_a_file_that_is_cut_while_it_trains_ends_the_run_with_one_line(program, path):
    code = """
import os, sys
from mpicoded.cli import main
from mpicoded.training.loop import Trainer
step = Trainer._step
def cutting(self, round):
    if round == 5:
        os.truncate(sys.argv[1], 50_000)
    return step(self, round)
Trainer._step = cutting
sys.exit(main(["run", sys.argv[2], "-o", "out.h5", "--quiet", "--data.path", *sys.argv[1:2], *sys.argv[3:]]))
"""
    ended = program.python("-c", code, path, QUICKSTART, *FEW, "20 kB", timeout=60)
    assert ended.code == 1
    assert re.fullmatch(
        r"mpicoded: error on rank 0 of \S+ in round [67]: InputError: data file .* (shorter|changed).*\n", ended.err
    )


def test_plan_says_what_is_read_in_every_round(path, capsys):
    words = ["plan", str(QUICKSTART), "--data.path", path, *FEW]
    assert main([*words, "1 MB"]) == 0
    assert "in every round" not in capsys.readouterr().out
    assert main([*words, "40 kB"]) == 0
    said = capsys.readouterr().out
    assert "a rank with 40 kB reads up to 80.8 kB in every round\n" in said  # of 12 subsets 2 stay
    row = next(line.split() for line in said.splitlines() if line.startswith("0  "))
    assert row[1:3] == ["32.3", "kB"]  # those, and two buffers
    assert main([*words, "40 kB", "--ranks", "4", "--allocation", '{name = "partition"}']) == 0  # 3 subsets a rank
    assert "in every round" not in capsys.readouterr().out


class Alone:
    """One of three ranks."""

    rank, size = 1, 3


@pytest.mark.parametrize(("memory", "streams"), [("50 kB", True), ("97 kB", False)])
def test_ranks_that_may_die_one_by_one_stream_each_by_itself(path, memory, streams):
    experiment = decode(tree(path, memory=memory) | {"transport": {"on_rank_loss": "continue"}}, "test")
    found = samples.read(experiment, layout.describe(path), Alone(), None)
    assert isinstance(found.shards, Streamed) == streams
    assert found.nbytes <= 1000 * int(memory.split()[0])


@pytest.mark.mpi
@pytest.mark.skipif("MPICODED_ALL" not in os.environ, reason="takes long: MPICODED_ALL=1")
def test_after_a_death_its_subsets_are_streamed_too(program, path, tmp_path):
    (tmp_path / "x.toml").write_text(
        f'devices = 12\nrounds = 6\nevaluate_every = 3\n[data]\npath = "{path}"\n[model]\nname = "linear_regression"\n'
        '[transport]\non_rank_loss = "continue"\n[[faults]]\nname = "killed"\nranks = [1]\nfirst = 5\n'
    )  # each device has a subset of its own
    ends = []
    for memory in ("1 GB", "16160 B"):
        words = ["run", "x.toml", "-o", "x.h5", "--data.memory", memory, "--quiet"]
        ended = program(*words, ranks=3, survives=True)
        assert ended.code == 0, ended
        ends.append(load_results(tmp_path / "x.h5"))
    assert [end.lost_ranks["rank"].tolist() for end in ends] == [[1], [1]]
    assert [end.memory["shards"][2] for end in ends] == [4 * 8080, 2 * 8080]
    for name in ("loss", "gradient_norm"):
        np.testing.assert_array_equal(ends[0].history[name], ends[1].history[name])
    np.testing.assert_array_equal(ends[0].parameters, ends[1].parameters)


def test_a_limit_of_the_system_is_kept_where_nothing_is_said(path, monkeypatch):
    description, need = layout.describe(path), 12 * 8080
    experiment = decode(tree(path), "test")
    for room, streams in ((need, False), (need - 1, True), (20_000, True)):
        monkeypatch.setattr(allowance, "memory_limit", lambda room=room: 400_000 + -(-4 * room // 3))
        monkeypatch.setattr(allowance, "_resident", lambda: 300_000)
        found = samples.read(experiment, description, LocalTransport(), None)
        assert isinstance(found.shards, Streamed) == streams
        assert found.nbytes <= room
        assert ("control group" in found.apart) == streams
    for room in (0, 2 * 8080 - 1):  # too little to read by blocks: nobody asked for it, so that the run goes on
        monkeypatch.setattr(allowance, "memory_limit", lambda room=room: 400_000 + -(-4 * room // 3))
        found = samples.read(experiment, description, LocalTransport(), None)
        assert not isinstance(found.shards, Streamed)
        assert "too few to read them by blocks" in found.apart
    monkeypatch.setattr(allowance, "memory_limit", lambda: 1)
    told = decode(tree(path, memory="97 kB"), "test")  # who says something is believed
    assert not isinstance(samples.read(told, description, LocalTransport(), None).shards, Streamed)


@pytest.mark.parametrize(
    ("told", "files", "limit"),
    [
        ("0::/a/b\n", {"a/b/memory.max": "max\n", "a/memory.max": "500\n", "memory.max": "900\n"}, 500),
        ("0::/a/b\n", {"a/b/memory.max": "300\n", "a/memory.max": "500\n"}, 300),
        ("0::/outside/the/container\n", {"memory.max": "700\n"}, 700),
        ("0::/../..\n", {}, None),
        ("9:cpu:/c\n4:memory:/a\n0::/\n", {"memory/a/memory.limit_in_bytes": "800\n", "cpu/c/memory.max": "1"}, 800),
        ("4:cpuset,memory:/a\n", {"memory/memory.limit_in_bytes": "9223372036854771712\n"}, None),
        ("nonsense", {"memory.max": "5"}, None),
        (None, {"memory.max": "5"}, None),
    ],
)
def test_the_limit_is_the_smallest_of_the_groups_around_this_process(tmp_path, told, files, limit):
    for name, text in files.items():
        (tmp_path / "groups" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "groups" / name).write_text(text)
    if told is not None:
        (tmp_path / "told").write_text(told)
    assert memory_limit(tmp_path / "groups", tmp_path / "told") == limit


def test_this_process_is_not_below_what_it_has():
    assert 0 < allowance._resident() < (memory_limit() or 1 << 60)


def test_a_process_ends_though_a_block_is_being_read_by_hdf5(program, tmp_path):
    """What is stored in compressed pieces is read under HDF5's lock, which the thread must not take to its grave."""
    path = str(tmp_path / "data.h5")
    datasets.linear_regression(path, subsets=12, features=100, samples_per_subset=2000, seed=1)
    with h5py.File(path, "r+") as file:
        x = file["x"][:]
        del file["x"]
        file.create_dataset("x", data=x, chunks=(500, 100), compression="gzip")
    (tmp_path / "short.toml").write_text(
        'devices = 12\nrounds = 1\nmodel.name = "linear_regression"\naggregator.name = "mean"\n'
        'data = { path = "data.h5", memory = "5 MB" }\noptimizer.step_size = 1e-9\n'
        'allocation = { name = "cyclic", redundancy = 3 }\n'
    )
    for _ in range(2):
        ended = program("run", "short.toml", "-o", "out.h5", "--restart", timeout=30)
        assert ended.code == 0, ended.err
