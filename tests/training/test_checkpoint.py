"""A run that was stopped goes on with the same bits, on any number of ranks, whatever stopped it."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import h5py
import numpy as np
import pytest

from mpicoded.cli import main
from mpicoded.commands.job import STOPPED
from mpicoded.configs import decode
from mpicoded.data import checkpoints, datasets, layout
from mpicoded.data.results import load_results
from mpicoded.errors import InputError
from mpicoded.training.checkpoint import Keeper, Wish
from mpicoded.training.devices import Devices
from mpicoded.training.loop import Trainer
from mpicoded.transport.local import LocalTransport

CONFIG = """
devices = 12
byzantine = 2
rounds = {rounds}
seed = 4
evaluate_every = 5
{more}
[data]
path = "data.h5"
{data}
[allocation]
name = "{allocation}"
redundancy = 4
permute = false
[attack]
name = "{attack}"
[compressor]
{compressor}
[memory]
{memory}
[[filters]]
name = "nearest_neighbor_mixing"
byzantine = "auto"
[aggregator]
{rule}
[optimizer]
{optimizer}
"""
PARTS = {
    "rounds": 20,
    "more": "",
    "data": "",
    "allocation": "cyclic",
    "attack": "alie",
    "compressor": 'name = "none"',
    "memory": 'name = "none"',
    "rule": 'name = "trimmed_mean"\nbyzantine = "auto"',
    "optimizer": "step_size = 1e-4\nmomentum = 0.9",
}
KEPT = 'name = "rand_k"\nkept = 5'
SETTINGS = {
    "estimates and momentum": {},
    "the last aggregate": {"rule": 'name = "centered_clipping"\ntau = 10.0', "attack": "sign_flip"},
    "ef21": {"memory": 'name = "ef21"', "compressor": 'name = "top_k"\nkept = 5', "attack": "malformed"},
    "dasha_page": {"memory": 'name = "dasha_page"', "compressor": KEPT, "data": "batch_size = 2"},
    "marina": {"memory": 'name = "marina"', "compressor": KEPT, "data": "batch_size = 2"},
    "dm21": {"memory": 'name = "dm21"', "compressor": 'name = "top_k"\nkept = 5', "attack": "silent"},
    "server momentum": {"memory": 'name = "server_momentum"', "compressor": KEPT + "\nshared = true"},
    "adam": {"optimizer": 'name = "adam"\nstep_size = 0.1', "attack": "silent"},
}


@pytest.fixture
def here(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    datasets.linear_regression("data.h5", subsets=12, features=20, samples_per_subset=6, seed=1)
    return tmp_path


def write_config(path: str, **parts) -> str:
    Path(path).write_text(CONFIG.format(**PARTS | parts))
    return path


def content(path: str) -> dict[str, np.ndarray]:
    """All of a result but for times and memory, which differ from run to run."""
    with h5py.File(path) as file:
        found = {}
        file.visititems(lambda name, item: found.update({name: item[()]}) if isinstance(item, h5py.Dataset) else None)
    headers = ("history/bytes_overhead",)  # of the ranks
    own = (
        "mpi_rank",
        "timings/",
        "memory/",
        "history/seconds",
        *headers,
        "suspicion/rank",
        "bad_records/rank",
        "bad_records/ev",
    )
    return {name: values for name, values in found.items() if not name.startswith(own)}


def assert_same(one: str, other: str) -> None:
    first, second = content(one), content(other)
    assert first.keys() == second.keys()
    for name, values in first.items():
        np.testing.assert_array_equal(values, second[name], err_msg=name)


def stop_after(monkeypatch, rounds: int) -> None:
    """A signal comes while this many rounds are done."""
    real = Trainer._round

    def round_and_signal(self, round):
        real(self, round)
        if round + 1 == rounds and self.transport.rank == 0:
            os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(Trainer, "_round", round_and_signal)


@pytest.mark.parametrize("setting", SETTINGS)
def test_a_stopped_run_goes_on_with_the_same_bits(here, monkeypatch, setting, capsys):
    write_config("run.toml", **SETTINGS[setting])
    assert main(["run", "run.toml", "-o", "whole.h5", "--quiet"]) == 0
    capsys.readouterr()
    for rounds in (1, 15) if setting == "estimates and momentum" else (13,):
        with monkeypatch.context() as patch:
            stop_after(patch, rounds)
            assert main(["run", "run.toml", "-o", "part.h5", "--quiet", "--restart"]) == STOPPED
        assert f"stopped by SIGTERM after round {rounds}: mpicoded resume part.h5" in capsys.readouterr().err
        assert not load_results("part.h5").finished
        assert checkpoints.find(checkpoints.path_of("part.h5")).round == rounds
        assert main(["resume", "part.h5", "--quiet"]) == 0
        assert_same("whole.h5", "part.h5")
        assert not checkpoints.path_of("part.h5").exists()
        assert main(["resume", "part.h5", "--quiet"]) == 0  # nothing to do


@pytest.mark.mpi
@pytest.mark.parametrize(("setting", "ranks"), [("dasha_page", 5), ("estimates and momentum", 2)])
def test_it_goes_on_with_any_number_of_ranks(here, program, monkeypatch, setting, ranks):
    write_config("run.toml", **SETTINGS[setting])
    assert main(["run", "run.toml", "-o", "whole.h5", "--quiet"]) == 0
    stop_after(monkeypatch, 8)
    assert main(["run", "run.toml", "-o", "one.h5", "--quiet"]) == STOPPED
    monkeypatch.undo()
    monkeypatch.chdir(here)
    ended = program("resume", "one.h5", "--quiet", ranks=ranks)
    assert ended.code == 0, ended
    assert_same("whole.h5", "one.h5")


@pytest.mark.mpi
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1])
def test_a_signal_to_any_rank_stops_all(here, program, number):
    write_config("run.toml", rounds=100_000, **SETTINGS["ef21"])
    ended = program.python("-c", SIGNALLED, int(number), ranks=3)
    assert ended.code == STOPPED, ended
    assert "mpicoded resume part.h5 goes on" in ended.err
    assert checkpoints.find(checkpoints.path_of("part.h5")).round > 3


SIGNALLED = """
import os, sys
from mpicoded.cli import main
from mpicoded.training.loop import Trainer
real = Trainer._step
def signalled(self, round):
    real(self, round)
    if self.transport.rank == 2 and round == 3:
        os.kill(os.getpid(), int(sys.argv[1]))
Trainer._step = signalled
sys.exit(main(["run", "run.toml", "-o", "part.h5", "--quiet"]))
"""


@pytest.mark.mpi
def test_what_kill_9_leaves_can_be_resumed(here):
    """Killed at random instants, again and again, it comes to the same end."""
    rounds = 150
    write_config("run.toml", rounds=rounds, more="checkpoint_every = 7", **SETTINGS["dm21"])
    assert main(["run", "run.toml", "-o", "whole.h5", "--quiet"]) == 0
    rng, done, kills = np.random.default_rng(0), [], 0
    words = [sys.executable, "-m", "mpicoded", "run", "run.toml", "-o", "part.h5", "--quiet"]
    while kills < 6:
        process = subprocess.Popen(words, start_new_session=True)
        place, deadline = checkpoints.path_of("part.h5"), time.monotonic() + 60
        before = done[-1] if done else 0
        while process.poll() is None and time.monotonic() < deadline:
            saved = checkpoints.find(place)
            if saved is not None and saved.round > before:
                time.sleep(rng.uniform(0, 0.05))
                break
            time.sleep(0.002)
        if process.poll() is not None:
            break
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        kills += 1
        done.append(checkpoints.find(place).round)
        words = [sys.executable, "-m", "mpicoded", "resume", "part.h5", "--quiet"]
    assert kills >= 2
    assert done == sorted(done)
    assert main(["resume", "part.h5", "--quiet"]) == 0
    assert_same("whole.h5", "part.h5")


def test_checkpoints_come_by_rounds_and_by_time(monkeypatch):
    saved = []
    keeper = Keeper(LocalTransport(), 7, None, lambda round, state: None)
    for round in range(22):
        if keeper.wish(round) is Wish.SAVE:
            saved.append(round)
            keeper.keep(round, {})
    assert saved == [7, 14, 21]
    now = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    keeper, saved = Keeper(LocalTransport(), None, 30.0, lambda round, state: None), []
    for round in range(100):
        now[0] += 1.5
        if keeper.wish(round) is Wish.SAVE:
            saved.append(round)
            keeper.keep(round, {})
    assert saved == [19, 39, 59, 79, 99]


def test_a_signal_may_come_twice_but_a_second_ctrl_c_interrupts():
    """A cancelled job's ranks get one from the batch system and one from the launcher."""
    keeper = Keeper(LocalTransport(), None, None, lambda round, state: None)
    with keeper.listening():
        for number in (signal.SIGTERM, signal.SIGUSR1, signal.SIGTERM):
            signal.raise_signal(number)
        assert keeper.wish(3) is Wish.STOP
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)


def test_an_unfinished_run_is_not_thrown_away_unasked(here, monkeypatch, capsys):
    write_config("run.toml")
    with monkeypatch.context() as patch:
        stop_after(patch, 8)
        assert main(["run", "run.toml", "-o", "part.h5", "--quiet"]) == STOPPED
    capsys.readouterr()
    assert main(["run", "run.toml", "-o", "part.h5"]) == 2
    assert "stopped after round 8: mpicoded resume part.h5 goes on" in capsys.readouterr().err
    Path("part.h5").unlink()
    assert main(["resume", "part.h5", "--quiet"]) == 0  # the checkpoint alone is enough
    assert load_results("part.h5").finished


def test_a_checkpoint_of_something_else_is_refused(here, monkeypatch, capsys):
    write_config("run.toml")
    with monkeypatch.context() as patch:
        stop_after(patch, 8)
        assert main(["run", "run.toml", "-o", "part.h5", "--quiet"]) == STOPPED
    datasets.linear_regression("data.h5", subsets=12, features=20, samples_per_subset=6, seed=2)
    assert main(["resume", "part.h5"]) == 2
    assert "is of another experiment, or its dataset or its model's code has changed" in capsys.readouterr().err
    content = Path("part.h5.checkpoint").read_bytes()
    for damaged in (b"", content[:100], content[: len(content) // 2], b"x" * 5000):
        Path("part.h5.checkpoint").write_bytes(damaged)
        assert main(["resume", "part.h5"]) == 2
        assert "part.h5.checkpoint is" in capsys.readouterr().err


@pytest.mark.parametrize("every", ["soon", "0s", "10", "-5s", "1d"])
def test_what_is_no_interval_is_refused(here, every):
    experiment = decode({"devices": 12, "rounds": 2, "checkpoint_every": every, "data": {"path": "data.h5"}}, "test")
    with pytest.raises(InputError, match=r'a number of rounds or a time such as "30s" or "5m", got'):
        experiment.check(layout.describe("data.h5"), 1)


def test_a_checkpoint_that_cannot_be_written_ends_the_run_with_its_reason(here, monkeypatch, capsys):
    def full(*words):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpoints, "save", full)
    write_config("run.toml", more="checkpoint_every = 5")
    assert main(["run", "run.toml", "-o", "part.h5", "--quiet"]) == 1
    assert "after round 5: OSError: the checkpoint cannot be written" in capsys.readouterr().err


def test_a_run_stops_before_its_time_limit_and_goes_on(here, capsys, monkeypatch):
    write_config("run.toml")
    assert main(["run", "run.toml", "-o", "whole.h5", "--quiet", "--rounds", "30"]) == 0
    quick = Devices.messages

    def slow(self, *words, **more):
        time.sleep(0.02)
        return quick(self, *words, **more)

    monkeypatch.setattr(Devices, "messages", slow)
    words = ["run", "run.toml", "-o", "part.h5", "--quiet", "--rounds", "30", "--time-limit", "0.3s"]
    start, stops = time.monotonic(), 0
    while main(words) == STOPPED:
        assert time.monotonic() - start < 20
        assert "stopped by the time limit after round" in capsys.readouterr().err
        words = ["resume", "part.h5", "--quiet", "--time-limit", "0.3s"]
        start, stops = time.monotonic(), stops + 1
    assert stops
    assert_same("whole.h5", "part.h5")


@pytest.mark.parametrize("limit", ["0s", "soon", "10", "-5s"])
def test_what_is_no_time_limit_is_refused(here, capsys, limit):
    write_config("run.toml")
    assert main(["run", "run.toml", f"--time-limit={limit}"]) == 2
    assert "must be a time such as 90s, 55m or 2h, got" in capsys.readouterr().err
