"""A grid of experiments: what is in it, what its files are called, and that each runs once, whoever runs it."""

import hashlib
import itertools
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from mpicoded.cli import main
from mpicoded.commands.job import STOPPED, Job, Options
from mpicoded.commands.sweep import _array
from mpicoded.configs import load
from mpicoded.data import checkpoints, datasets
from mpicoded.data.results import load_results
from mpicoded.training.checkpoint import Keeper
from mpicoded.transport.local import LocalTransport

CONFIG = """
devices = 12
byzantine = 2
rounds = 20
evaluate_every = 5
[data]
path = "data.h5"
[allocation]
name = "cyclic"
redundancy = 4
[attack]
name = "sign_flip"
scale = -2.0
[aggregator]
name = "trimmed_mean"
[optimizer]
step_size = 1e-4
"""
GRID = ["sweep", "small.toml", "--vary", "attack.name=sign_flip,ipm", "--vary", "seed=1,2"]
POINTS = list(itertools.product(("sign_flip", "ipm"), (1, 2)))


@pytest.fixture
def here(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    datasets.linear_regression("data.h5", subsets=12, features=20, samples_per_subset=2, seed=1)
    Path("small.toml").write_text(CONFIG)
    return tmp_path


@pytest.fixture
def rows(capsys):
    """``rows(words)``: the listing's cells, by line."""

    def rows(words: list[str]) -> list[list[str]]:
        capsys.readouterr()
        assert main(words) == 0
        lines = capsys.readouterr().out.splitlines()
        assert set(lines[1]) == {"-"}
        return [re.split(r"\s{2,}", line.strip()) for line in (lines[0], *lines[2:-1])]

    return rows


def stop_before(monkeypatch, rounds: int) -> None:
    """A signal comes before this round."""
    real = Keeper.wish

    def wish(self, round):
        if round == rounds:
            signal.raise_signal(signal.SIGTERM)
        return real(self, round)

    monkeypatch.setattr(Keeper, "wish", wish)


def error(capsys, words: list[str]) -> str:
    """The one line that refuses these words."""
    capsys.readouterr()
    assert main(words) == 2
    said = capsys.readouterr()
    assert said.out == ""
    (line,) = said.err.splitlines()
    return line


def test_the_listing_is_the_product_in_order_and_leaves_no_trace(here, rows):
    heading, *found = rows(GRID)
    assert heading == ["attack.name", "seed", "result", "state"]
    assert [(row[0], row[1], int(row[2])) for row in found] == [(str(n), *point) for n, point in enumerate(POINTS)]
    assert {row[4] for row in found} == {"not started"}
    assert len({row[3] for row in found}) == 4
    assert sorted(path.name for path in here.iterdir()) == ["data.h5", "small.toml"]


def test_a_file_is_named_by_the_hash_of_the_experiment_that_is_in_it(here, rows):
    words = ["--attack.name", "ipm", "--seed", "2", "--quiet", "-o", "alone.h5"]
    assert main(["run", "small.toml", *words]) == 0
    digest = hashlib.sha256(load_results("alone.h5").toml.encode()).hexdigest()
    assert rows(GRID)[4][3] == f"results/small-{digest[:10]}.h5"


def test_names_do_not_depend_on_how_the_grid_is_written(here, rows):
    Path("other").mkdir()
    Path("other/small.toml").write_text(CONFIG.replace("sign_flip", "ipm") + 'schedule = "constant"\n')
    names = {row[3] for row in rows(GRID)[1:]}
    for words in (
        ["--vary", "seed=2, 1", "--vary", 'attack.name="ipm",sign_flip'],
        ["--vary", "attack={name='sign_flip', scale=-2},{name='ipm', scale=-2}", "--vary", "seed=1,2"],
        ["--vary", "seed=2,1", "--attack.scale=-2.0", "--vary", "attack.name=sign_flip,ipm"],
    ):
        for config in ("small.toml", "other/small.toml"):
            assert {row[3] for row in rows(["sweep", config, *words])[1:]} == names
    assert {row[3] for row in rows([*GRID, "--rounds", "21"])[1:]}.isdisjoint(names)


def test_a_component_is_set_before_its_fields(here, rows):
    """What stands in the config would else drop them."""
    names, scales = ["--vary", "attack.name=gaussian"], ["--vary", "attack.deviation=1,2"]
    one, other = (rows([*GRID[:2], *words])[1:] for words in (names + scales, scales + names))
    assert [row[3] for row in one] == [row[3] for row in other]
    tables = [
        "--vary",
        "filters.0.size=1,2",
        "--vary",
        'filters=[{name = "bucketing"}],[{name = "bucketing", size = 3}]',
    ]
    assert len(rows([*GRID[:2], *tables])) == 1 + 2  # the size is set in both


def test_brackets_and_quotes_hold_their_commas_together(here, rows):
    lists = 'filters=[],[{name="nearest_neighbor_mixing", byzantine=2}, {name="bucketing", size=2}]'
    heading, *found = rows([*GRID[:2], "--vary", lists, "--vary", "attack={name='ipm', scale=3.0},{name='alie'}"])
    assert heading[:2] == ["filters", "attack"]
    assert [row[1:3] for row in found] == [
        [filters, attack]
        for filters in ("[]", '[{name="nearest_neighbor_mixing", byzantine=2}, {name="bucketing", size=2}]')
        for attack in ("{name='ipm', scale=3.0}", "{name='alie'}")
    ]


def test_several_configs_and_what_is_the_same_experiment(here, rows, capsys):
    Path("more.toml").write_text(CONFIG.replace("redundancy = 4", "redundancy = 3"))
    heading, *found = rows(["sweep", "small.toml", "more.toml", "--vary", "seed=0,0x0,1"])
    assert heading[:2] == ["config", "seed"]
    assert [row[1:3] for row in found] == [["small", "0"], ["small", "1"], ["more", "0"], ["more", "1"]]
    assert [Path(row[3]).name.partition("-")[0] for row in found] == ["small", "small", "more", "more"]
    capsys.readouterr()
    assert main(["sweep", "small.toml", "more.toml", "--vary", "allocation.redundancy=3,5"]) == 0
    said = capsys.readouterr()
    assert "2 experiments, 0 finished" in said.out
    assert [line.partition("warning: ")[2] for line in said.err.splitlines()] == [
        "more.toml allocation.redundancy=3 is the same experiment as 0: it runs once",
        "more.toml allocation.redundancy=5 is the same experiment as 1: it runs once",
    ]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--vary", "seed"], "--vary seed: it is written --vary section.key=value,value"),
        (["--vary", "seed="], "--vary seed=: it is written"),
        (["--vary", "seed=1,,2"], "--vary seed=1,,2: a value is empty"),
        (["--vary", "filters=[1,2"], "its brackets or quotes do not match"),
        (["--vary", "seed=1", "--vary", "seed=2"], "--vary seed=2: seed varies already"),
        (["--vary", "attack.scalle=1"], "attack.scalle=1: config small.toml: attack sign_flip has no key 'scalle'"),
        (["--vary", "seed=1,x"], "seed=x: config small.toml: seed: expected int, got 'x'"),
        (["--vary", "attack.name=ipm,impf"], "attack.name=impf: config small.toml: attack"),
        (["--vary", "aggregator.byzantine=2,6"], "small.toml aggregator.byzantine=6: TrimmedMean(byzantine=6) needs"),
        (["--vary", "data.path=data.h5,gone.h5"], "gone.h5"),
        (["--vary", "allocation.redundancy=3,13"], "allocation.redundancy=13: "),
        (["--ranks", "13", "--run"], "small.toml: 13 ranks are more than the 12 devices"),
        (["more.toml"], "config more.toml cannot be read"),
        (["--vary", "seed=1", "more.toml"], "unexpected argument 'more.toml'"),
        (["--index", "1"], "--index 1: the grid's last one is 0"),
        (["--index", "0", "--run"], "not allowed with"),
    ],
)
def test_what_is_wrong_is_one_line_before_anything_runs(here, capsys, words, said):
    run = [] if {"--index", "--run"} & set(words) else ["--run"]
    assert said in error(capsys, ["sweep", "small.toml", *words, *run])
    assert not (here / "results").exists()


def test_each_is_run_resumed_or_left_as_it_is(here, rows, monkeypatch, capsys):
    alone = {}
    for name, seed in POINTS:
        assert main(["run", "small.toml", "--attack.name", name, "--seed", str(seed), "-o", "x.h5", "--quiet"]) == 0
        alone[name, seed] = load_results("x.h5")
    files = [row[3] for row in rows(GRID)[1:]]
    assert main([*GRID, "--index", "1", "--quiet"]) == 0
    for number in ("2", "3"):
        with monkeypatch.context() as patch:
            stop_before(patch, 13)
            assert main([*GRID, "--index", number, "--quiet"]) == STOPPED
    checkpoints.path_of(files[3]).unlink()
    assert [row[4] for row in rows(GRID)[1:]] == ["not started", "finished", "resumable, round 13", "unfinished"]
    before = Path(files[1]).stat()
    assert main([*GRID, "--array"]) == 0
    assert capsys.readouterr().out == "0,2-3\n"

    program = subprocess.run([sys.executable, "-m", "mpicoded", *GRID, "--run"], capture_output=True, text=True)
    assert program.returncode == 0, program.stderr
    assert [line for line in program.stdout.splitlines() if line.startswith("[")] == [
        "[0] small attack.name=sign_flip seed=1: not started",
        "[2] small attack.name=ipm seed=1: resumable, round 13",
        "[3] small attack.name=ipm seed=2: unfinished",
    ]
    assert program.stdout.count("resuming") == 1
    assert program.stdout.splitlines()[-1] == "4 experiments: 1 were finished, 3 were run"
    assert Path(files[1]).stat() == before
    for file, point in zip(files, POINTS, strict=True):
        result = load_results(file)
        assert result.finished
        assert result.toml == alone[point].toml
        np.testing.assert_array_equal(result.parameters, alone[point].parameters)
        np.testing.assert_array_equal(result.history["loss"], alone[point].history["loss"])
    capsys.readouterr()
    assert main([*GRID, "--array"]) == 0
    said = capsys.readouterr()
    assert said.out == "none\n"
    assert "all 4 experiments are finished" in said.err
    assert main([*GRID, "--run"]) == 0
    assert main([*GRID, "--index", "0"]) == 0
    assert "is finished: nothing to do" in capsys.readouterr().out


def test_one_failure_does_not_end_the_others(here, rows, monkeypatch):
    """The dataset has changed since one was stopped: it cannot be resumed."""
    grid = [*GRID[:2], "--vary", "seed=1,2"]
    with monkeypatch.context() as patch:
        stop_before(patch, 13)
        assert main([*grid, "--index", "0", "--quiet"]) == STOPPED
    datasets.linear_regression("data.h5", subsets=12, features=20, samples_per_subset=2, seed=2)
    words = [sys.executable, "-m", "mpicoded", *grid, "--run", "--quiet"]
    program = subprocess.run(words, capture_output=True, text=True)
    assert program.returncode == 1
    assert program.stdout == ""
    first, last = program.stderr.splitlines()
    assert "its dataset or its model's code has changed" in first
    assert last == "mpicoded: error: 1 of 2 experiments failed: 0"
    assert [row[3] for row in rows(grid)[1:]] == ["resumable, round 13", "finished"]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_stops_the_sweep_to_be_resumed(here, rows, number):
    words = [*GRID, "--rounds", "1000000", "--evaluate_every", "1000000"]
    first, second, *_ = (row[3] for row in rows(words)[1:])
    command = [sys.executable, "-m", "mpicoded", *words, "--run"]
    program = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, start_new_session=True)
    deadline = time.monotonic() + 60
    while not Path(first).exists():
        assert time.monotonic() < deadline
        time.sleep(0.05)
    os.killpg(program.pid, number)  # as a terminal sends it
    _, said = program.communicate(timeout=60)
    assert program.returncode == STOPPED
    assert f"stopped by {number.name} after round" in said
    assert "the sweep was stopped: the same command goes on" in said
    assert not load_results(first).finished
    assert checkpoints.path_of(first).exists()
    assert not Path(second).exists()


def test_under_mpi_all_ranks_run_the_same_one(here, program, rows):
    file = rows(GRID)[3][3]
    assert main([*GRID, "--index", "2", "--quiet"]) == 0
    alone = load_results(file).parameters
    Path(file).unlink()
    for said in ("on 2 ranks", "is finished: nothing to do"):
        ended = program(*GRID, "--index", "2", ranks=2)
        assert ended.code == 0, ended.err
        assert said in ended.out
    np.testing.assert_array_equal(load_results(file).parameters, alone)
    ended = program(*GRID, "--vary", "optimizer.step_size=1e-4,x", "--index", "7", ranks=2)
    assert ended.code == 2
    (line,) = [line for line in ended.err.splitlines() if "mpicoded: " in line]
    assert "step_size=x: config small.toml: " in line


def test_only_one_process_lists_and_none_of_several_starts_others(here, monkeypatch, capsys):
    monkeypatch.setenv("OMPI_COMM_WORLD_SIZE", "2")
    monkeypatch.setenv("OMPI_COMM_WORLD_RANK", "1")
    assert main(GRID) == 0
    assert capsys.readouterr() == ("", "")
    monkeypatch.setenv("OMPI_COMM_WORLD_RANK", "0")
    assert "start it without mpiexec" in error(capsys, [*GRID, "--run"])
    assert main(GRID) == 0
    assert "4 experiments" in capsys.readouterr().out


def test_what_rank_0_sees_finished_is_finished_for_all(here):
    """Another host's view of a shared folder may be older."""

    class Second(LocalTransport):
        def texts(self, text: str) -> list[str]:
            return ["finished", text]

    assert Job(Second(), "late.h5", Options(quiet=True)).run(lambda: load("small.toml")) == 0
    assert not Path("late.h5").exists()


def test_another_experiments_file_is_not_taken_for_this_one(here, rows, capsys):
    target = Path(rows(GRID)[1][3])
    target.parent.mkdir()
    assert main(["run", "small.toml", "--quiet", "-o", str(target)]) == 0  # another seed
    for words in ([], ["--run"], ["--array"], ["--index", "0"]):
        assert "is of another experiment than its name says" in error(capsys, [*GRID, *words])
    assert main([*GRID, "--index", "1", "--quiet"]) == 0


@pytest.mark.parametrize("finished", list(itertools.product((False, True), repeat=5)))
def test_the_array_names_the_unfinished_ones(finished):
    said = _array(["finished" if it else "unfinished" for it in finished])
    numbers = set()
    for part in [] if said == "none" else said.split(","):
        first, _, last = part.partition("-")
        assert first != last
        numbers |= set(range(int(first), int(last or first) + 1))
    assert numbers == {number for number, it in enumerate(finished) if not it}
    begins = sum(before and not it for before, it in itertools.pairwise((True, *finished)))
    assert said == "none" or len(said.split(",")) == begins
