"""What takes too long for every day: MPICODED_ALL=1 pytest tests/training/test_long.py -s (25 minutes on 2 cores).

A hundred killed runs, fifty runs that lose ranks, and slow ranks with a deadline; each prints a summary.
"""

import collections
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import h5py
import numpy as np
import pytest
from test_checkpoint import SETTINGS, assert_same, write_config
from test_survival import DYING

from mpicoded.cli import main
from mpicoded.commands.launch import find_launcher
from mpicoded.data import checkpoints, datasets
from mpicoded.data.results import load_results

pytestmark = [
    pytest.mark.mpi,
    pytest.mark.timeout(3600),
    pytest.mark.skipif(not os.environ.get("MPICODED_ALL"), reason="takes long: MPICODED_ALL=1"),
]
MPICODED = [sys.executable, "-m", "mpicoded"]


def descendants(pid: int) -> list[int]:
    """A process and all that it has started: ranks are not in their launcher's process group."""
    parents = {}
    for place in Path("/proc").iterdir():
        if place.name.isdecimal():
            try:
                parents[int(place.name)] = int((place / "stat").read_text().rpartition(")")[2].split()[1])
            except (OSError, IndexError):
                continue
    found = [pid]
    for one in found:
        found += [child for child, parent in parents.items() if parent == one]
    return found


def kill_all(process: subprocess.Popen) -> None:
    for pid in reversed(descendants(process.pid)):
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            continue
    process.wait()


@pytest.fixture
def begin(program):
    def started(ranks: int, *words: str) -> subprocess.Popen:
        launcher = [find_launcher()[0], "-n", str(ranks)] if ranks > 1 else []
        return subprocess.Popen([*launcher, *MPICODED, *words], env=program.environment(ranks), start_new_session=True)

    return started


def test_a_hundred_killed_runs_come_to_the_same_end(tmp_path, monkeypatch, begin):
    """At random instants, half of them while a checkpoint is being written; resumed on another number of ranks."""
    monkeypatch.chdir(tmp_path)
    datasets.linear_regression("data.h5", subsets=12, features=20, samples_per_subset=6, seed=1)
    names = ["dm21", "ef21", "estimates and momentum", "adam"]
    for name in names:
        write_config(f"{name}.toml", rounds=50, more="checkpoint_every = 1", **SETTINGS[name])
        assert main(["run", f"{name}.toml", "-o", f"{name}.h5", "--quiet"]) == 0
    rng, seen = np.random.default_rng(0), collections.Counter()
    for number in range(100):
        name = names[number % len(names)]
        before, after = rng.choice([1, 2, 3, 5], 2, replace=False).tolist()
        for place in tmp_path.glob("*part.h5*"):
            place.unlink()
        process = begin(before, "run", f"{name}.toml", "-o", "part.h5", "--quiet")
        place, deadline = checkpoints.path_of("part.h5"), time.monotonic() + 60
        while not place.exists() and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.002)
        if number % 2:
            time.sleep(rng.uniform(0, 0.1))
        else:
            while not list(tmp_path.glob(".part.h5.checkpoint.*.part")) and process.poll() is None:
                pass
        writing = bool(list(tmp_path.glob(".part.h5.checkpoint.*.part")))
        ended = process.poll() is not None
        kill_all(process)
        seen["ended before"] += ended
        seen["killed while a checkpoint was written"] += writing and not ended
        if place.exists():
            with h5py.File(place) as file:
                file.visititems(lambda _, item: item[()] if isinstance(item, h5py.Dataset) else None)
                seen["rounds"] += int(file.attrs["round"])
        if Path("part.h5").exists():
            with h5py.File("part.h5") as file:
                assert len(file["history/loss"][()]) > 0
        process = begin(after, "resume", "part.h5", "--quiet")
        assert process.wait(timeout=120) == 0, (number, name, before, after)
        assert_same(f"{name}.h5", "part.h5")
        assert not place.exists()
        seen["came to the same end"] += 1
    print(f"\n100 runs: {dict(seen)}")
    assert seen["came to the same end"] == 100
    assert seen["ended before"] <= 5
    assert seen["killed while a checkpoint was written"] >= 40


LOST = """
devices = 100
byzantine = 20
rounds = 150
seed = 3
evaluate_every = 50
checkpoint_every = 20
[data]
path = "data.h5"
[allocation]
name = "cyclic"
redundancy = 20
[attack]
name = "alie"
[[filters]]
name = "nearest_neighbor_mixing"
[aggregator]
name = "trimmed_mean"
[optimizer]
step_size = 1e-4
[transport]
on_rank_loss = "continue"
"""
TWO = '[[faults]]\nname = "killed"\nranks = [3]\nfirst = 50\n[[faults]]\nname = "killed"\nranks = [6]\nfirst = 120\n'
WAYS = [
    ("one after the other", None, {3, 6}),
    ("two at once", ["gather", "60", "2", "5"], {2, 5}),
    ("in a broadcast", ["broadcast", "70", "4"], {4}),
    ("in a checkpoint", ["collect", "5", "1"], {1}),
    ("the server", ["gather", "90", "0"], {0}),
]


def test_fifty_runs_lose_ranks_and_end_near_the_others(tmp_path, monkeypatch, program):
    monkeypatch.chdir(tmp_path)
    datasets.linear_regression("data.h5", subsets=100, features=100, samples_per_subset=1, seed=3)
    Path("whole.toml").write_text(LOST)
    Path("two.toml").write_text(LOST + TWO)
    shutil.copy("whole.toml", "run.toml")
    assert main(["run", "whole.toml", "--quiet"]) == 0
    whole = load_results("whole.h5").history["suboptimality"][-1]
    launcher, seconds, ratios = find_launcher()[0], [], []
    for number in range(50):
        name, dying, ranks = WAYS[number % len(WAYS)]
        words = ["-c", DYING, *dying] if dying else ["-m", "mpicoded", "run", "two.toml", "-o", "lost.h5", "--quiet"]
        for place in tmp_path.glob("lost.h5*"):
            place.unlink()
        start = time.monotonic()
        command = [launcher, "--with-ft", "ulfm", "-n", "8", sys.executable, *words]
        process = subprocess.Popen(
            command, env=program.environment(8), start_new_session=True, stderr=subprocess.PIPE, text=True
        )
        try:
            _, err = process.communicate(timeout=120)
        except subprocess.TimeoutExpired:
            kill_all(process)
            pytest.fail(f"run {number} ({name}) hangs")
        seconds.append(time.monotonic() - start)
        assert process.returncode == 0, (number, name, err)
        result = load_results("lost.h5")
        assert result.finished
        assert set(result.lost_ranks["rank"].tolist()) == ranks, (number, name)
        assert all(f"rank {rank} on " in err for rank in ranks)
        ratios.append(result.history["suboptimality"][-1] / whole)
        assert ratios[-1] < 1.5, (number, name)
    print(f"\n50 runs: {np.mean(seconds):.1f} s each, at most {max(seconds):.1f}")
    print(f"suboptimality over that of a run without losses: {min(ratios):.3f} to {max(ratios):.3f}")


SLOW = """
devices = 100
byzantine = 20
rounds = 150
seed = 3
evaluate_every = 5
[data]
path = "large.h5"
[allocation]
name = "cyclic"
redundancy = 20
[attack]
name = "sign_flip"
[[filters]]
name = "nearest_neighbor_mixing"
[aggregator]
name = "trimmed_mean"
[optimizer]
step_size = 1e-3
"""
TEN_TIMES = '[[faults]]\nname = "slow"\nranks = [3, 6]\nfactor = 10.0\n'


def test_slow_ranks_do_not_slow_the_others(tmp_path, monkeypatch, begin):
    monkeypatch.chdir(tmp_path)
    datasets.linear_regression("large.h5", subsets=100, features=100, samples_per_subset=1500, seed=3)
    found = {}
    for name, more in {
        "all": "",
        "all, 2 slow": TEN_TIMES,
        "deadline, 2 slow": "[transport]\ndeadline = {deadline}\n" + TEN_TIMES,
        "quickest 75, 2 slow": "[transport]\nquickest = 75\n" + TEN_TIMES,
    }.items():
        deadline = 1.3 * found["all"][0] if found else 0
        Path("run.toml").write_text(SLOW + more.format(deadline=deadline))
        rounds = 20 if name == "all, 2 slow" else 150  # it has the bits of "all"
        process = begin(8, "run", "run.toml", "-o", "run.h5", "--quiet", "--rounds", str(rounds))
        assert process.wait(timeout=600) == 0
        history = load_results("run.h5").history
        left_out = history["missing_records"][-1] / (100 * rounds)
        found[name] = history["seconds"][-1] / rounds, history["suboptimality"][-12:].mean()
        print(f"\n{name}: {1000 * found[name][0]:.0f} ms a round, {found[name][1]:.4g} in the last 60 rounds, "
              f"{100 * left_out:.0f} % of the messages left out")  # fmt: skip
    assert found["all, 2 slow"][0] > 4 * found["all"][0]
    for name in ("deadline, 2 slow", "quickest 75, 2 slow"):
        assert found[name][0] < 1.5 * found["all"][0]
        # Subsets of many samples agree so well that what is left after five orders of magnitude is the noise of the
        # votes: that of the middle 35 of 75 is 1.7 times that of the middle 60 of 100.
        assert found[name][1] < 2 * found["all"][1]


def test_slow_ranks_that_are_not_waited_for_change_little(tmp_path, monkeypatch, begin):
    """In LAD's setting, where subsets differ."""
    monkeypatch.chdir(tmp_path)
    datasets.linear_regression("linear.h5", subsets=100, features=100, seed=3)
    lad = (Path(__file__).parents[2] / "configs/lad_linear.toml").read_text()
    ends = []
    for more in ("", TEN_TIMES + "[transport]\nquickest = 75\n"):
        Path("run.toml").write_text(lad + more)
        process = begin(8, "run", "run.toml", "-o", "run.h5", "--quiet")
        assert process.wait(timeout=600) == 0
        history = load_results("run.h5").history
        ends.append(history["suboptimality"][-1])
        print(f"\nends at {ends[-1]:.4g}, {history['missing_records'][-1] / 1000:.0f} % of the messages left out")
    assert ends[1] < 1.5 * ends[0]


@pytest.mark.parametrize("ranks", [1, 2])
def test_memory_stays_the_same_over_a_hundred_thousand_rounds(tmp_path, monkeypatch, program, ranks):
    monkeypatch.chdir(tmp_path)
    datasets.linear_regression("data.h5", subsets=100, features=100, seed=1)
    Path("lad.toml").write_text(
        'devices = 100\nbyzantine = 20\nrounds = 100_000\ndata.path = "data.h5"\n'
        'model.name = "linear_regression"\nallocation = { name = "cyclic", redundancy = 20 }\n'
        'attack = { name = "sign_flip", scale = -2.0 }\naggregator = { name = "trimmed_mean", byzantine = 20 }\n'
        "optimizer.step_size = 1e-4\n"
    )
    peaks = {}
    for rounds in (20_000, 100_000):  # the compiled loop is loaded for both
        words = ("run", "lad.toml", "-o", f"{rounds}.h5", "--rounds", rounds, "--evaluate_every", rounds // 10)
        ended = program(*words, ranks=ranks if ranks > 1 else None, timeout=1200)
        assert ended.code == 0, ended.err
        with h5py.File(f"{rounds}.h5") as file:
            peaks[rounds] = file["memory/peak"][:]
            seconds = float(file["history/seconds"][-1])
        print(f"{ranks} ranks: {rounds} rounds in {seconds:.0f} s, peaks {peaks[rounds].tolist()}")
    assert (peaks[100_000] < peaks[20_000] + (1 << 20)).all()
