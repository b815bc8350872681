"""Ranks that die or are late: training goes on without them, and the result file says who."""

import os
import re
from pathlib import Path

import numpy as np
import pytest

from mpicoded.cli import main
from mpicoded.commands.job import STOPPED
from mpicoded.configs import load
from mpicoded.data import checkpoints, datasets, layout
from mpicoded.data.results import load_results
from mpicoded.errors import InputError
from mpicoded.training.coding import Coding
from mpicoded.training.loop import Trainer
from mpicoded.training.tolerance import Tolerance
from mpicoded.transport.base import Gathered
from mpicoded.transport.local import LocalTransport

pytestmark = pytest.mark.mpi
only_all = pytest.mark.skipif("MPICODED_ALL" not in os.environ, reason="takes long: MPICODED_ALL=1")

CONFIG = """
devices = 40
byzantine = 6
rounds = 60
seed = 3
evaluate_every = 20
checkpoint_every = 15
[data]
path = "data.h5"
[allocation]
name = "cyclic"
redundancy = 10
[attack]
name = "{attack}"
[memory]
name = "{memory}"
[[filters]]
name = "nearest_neighbor_mixing"
[aggregator]
name = "trimmed_mean"
[optimizer]
step_size = 1e-4
[transport]
{transport}
{more}
"""
CONTINUE = 'on_rank_loss = "continue"'
# Dies when a function is called for the so-many-th time: a function of the transport that all ranks call.
DYING = """
import os, signal, sys
from mpicoded.cli import main
from mpicoded.transport.star import StarTransport
from mpicoded.data import checkpoints
name, nth, *ranks = sys.argv[1:]
calls = 0
def dying(real):
    def call(self, *words):
        global calls
        calls += 1
        if calls == int(nth) and os.environ["OMPI_COMM_WORLD_RANK"] in ranks:
            os.kill(os.getpid(), signal.SIGKILL)
        return real(self, *words)
    return call
where = checkpoints if name == "save" else StarTransport
setattr(where, name, dying(getattr(where, name)))
sys.exit(main(["run", "run.toml", "-o", "lost.h5", "--quiet"]))
"""


@pytest.fixture
def here(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    datasets.linear_regression("data.h5", subsets=40, features=30, samples_per_subset=2, seed=1)
    return tmp_path


def write(transport: str = CONTINUE, attack: str = "alie", memory: str = "none", more: str = "") -> None:
    Path("run.toml").write_text(CONFIG.format(transport=transport, attack=attack, memory=memory, more=more))


def killed(rank: int, round: int) -> str:
    return f'[[faults]]\nname = "killed"\nranks = [{rank}]\nfirst = {round}\n'


def assert_same(one: str, other: str) -> None:
    first, second = load_results(one), load_results(other)
    np.testing.assert_array_equal(first.parameters, second.parameters)
    for name in ("loss", "gradient_norm", "bytes_up", "bytes_down"):
        np.testing.assert_array_equal(first.history[name], second.history[name])


@pytest.mark.parametrize("transport", ["deadline = 30.0", pytest.param("quickest = 40", marks=only_all), CONTINUE])
def test_where_nobody_is_late_or_lost_the_bits_are_the_same(here, program, transport):
    write(transport, attack="sign_flip")
    assert main(["run", "run.toml", "-o", "one.h5", "--quiet"]) == 0
    ended = program("run", "run.toml", "-o", "four.h5", "--quiet", ranks=4, survives=transport == CONTINUE)
    assert ended.code == 0, ended
    assert "mpicoded" not in ended.err  # launchers may have something to say about themselves
    assert_same("one.h5", "four.h5")


def lost(ended, name: str = "lost.h5") -> list[tuple[int, int]]:
    assert ended.code == 0, ended
    result = load_results(name)
    assert result.finished
    found = result.lost_ranks
    for rank, host in zip(found["rank"], found["host"], strict=True):
        assert f"rank {rank} on {host} has died" in ended.err
    return list(zip(found["rank"].tolist(), found["round"].tolist(), strict=True))


def test_ranks_that_die_one_after_the_other_are_named_and_training_goes_on(here, program, capsys):
    write(more=killed(1, 21) + killed(3, 44))
    assert main(["run", "run.toml", "-o", "whole.h5", "--quiet", "--faults=[]"]) == 0
    assert lost(program("run", "run.toml", "-o", "lost.h5", "--quiet", ranks=4, survives=True)) == [(1, 21), (3, 44)]
    result, whole = load_results("lost.h5"), load_results("whole.h5")
    assert result.history["suboptimality"][-1] < 1.5 * whole.history["suboptimality"][-1]
    missing = np.repeat([0, 60 - 20, 0, 60 - 43], 10)
    np.testing.assert_array_equal(result.bad_records["missing"], missing)
    capsys.readouterr()
    assert main(["show", "lost.h5"]) == 0
    told = capsys.readouterr().out
    assert "left out: 570 late or lost messages of 20 devices\n  rank 1 (" in told
    assert ") died in round 44" in told
    assert "replaced" not in told
    assert result.bad_records["bad"].sum() == 0
    assert not checkpoints.path_of("lost.h5").exists()


def test_what_is_done_without_the_dead_is_what_one_process_does_without_their_messages(here, program, monkeypatch):
    """Replayed with a mask: neither old messages nor zeros have got in."""
    write(attack="sign_flip", memory="momentum", more=killed(2, 30))
    assert lost(program("run", "run.toml", "-o", "lost.h5", "--quiet", ranks=4, survives=True)) == [(2, 30)]

    def gather(self, records, round, devices, sent=None):
        return Gathered(records, (np.arange(40) // 10 != 2) | (round < 29))

    monkeypatch.setattr(LocalTransport, "gather", gather)
    assert main(["run", "run.toml", "-o", "replayed.h5", "--quiet", "--faults=[]"]) == 0
    np.testing.assert_array_equal(load_results("lost.h5").parameters, load_results("replayed.h5").parameters)


@pytest.mark.parametrize(
    ("name", "nth", "ranks"),
    [
        pytest.param("broadcast", 30, [2], marks=only_all),
        ("gather", 25, [1, 3]),  # two at once
        ("share", 20, [3]),
        ("collect", 4, [1]),  # losses, the gradients' sum, a checkpoint's state
        pytest.param("collect", 5, [2], marks=only_all),
        pytest.param("collect", 3, [2], marks=only_all),
        pytest.param("gather", 40, [0], marks=only_all),
        pytest.param("tell", 33, [0], marks=only_all),
        ("save", 2, [0]),  # while it writes a checkpoint
        pytest.param("broadcast", 41, [0, 1], marks=only_all),
    ],
)
def test_whatever_ranks_do_when_they_die_the_others_go_on(here, program, name, nth, ranks):
    write(memory="momentum")
    if name == "share":  # attackers who try the rule try it with what they know of the others
        config = Path("run.toml")
        config.write_text(config.read_text().replace('"alie"', '"optimal_ipm"\nevaluations = 2'))
    ended = program.python("-c", DYING, name, nth, *ranks, ranks=4, survives=True)
    assert {rank for rank, _ in lost(ended)} == set(ranks)
    assert main(["run", "run.toml", "-o", "whole.h5", "--quiet"]) == 0
    found, whole = (load_results(name).history["suboptimality"] for name in ("lost.h5", "whole.h5"))
    assert found[-1] < 1.5 * whole[-1]
    np.testing.assert_array_equal(load_results("lost.h5").history["round"], [0, 20, 40, 60])


def test_too_few_that_are_left_end_the_run_with_a_way_on(here, program):
    write(more=killed(1, 21) + killed(2, 22) + killed(3, 23))
    ended = program("run", "run.toml", "-o", "lost.h5", "--quiet", ranks=4, survives=True)
    assert ended.code == 1
    line = "10 devices are left after the death of ranks [1, 2, 3], but code, filters and rule need 13"
    assert line in ended.err
    assert "mpicoded resume lost.h5 goes on after round 15" in ended.err
    assert "Traceback" not in ended.err
    assert main(["resume", "lost.h5", "--quiet"]) == 2  # the faults name ranks that one process has not


def test_a_checkpoint_after_a_loss_holds_what_both_sides_can_go_on_with(here, program):
    """With ef21 device and server remember the same: also of devices that begin anew when all ranks are there again."""
    write(attack="sign_flip", memory="ef21", more=killed(2, 10) + killed(1, 35) + killed(3, 35))
    words = ("run", "run.toml", "-o", "lost.h5", "--quiet", "--allocation.permute", "false")
    assert program(*words, ranks=4, survives=True).code == 1
    assert checkpoints.find(checkpoints.path_of("lost.h5")).round == 30
    state = checkpoints.load(checkpoints.path_of("lost.h5"), 0, 40, True)
    np.testing.assert_array_equal(state["server"]["memory"][0], state["devices"])
    np.testing.assert_array_equal(state["devices"].any(axis=1), np.arange(40) // 10 != 2)


def test_who_was_lost_before_a_run_was_resumed_stays_known(here, program):
    write(more=killed(2, 10))
    words = ("-o", "lost.h5", "--quiet", "--rounds", "1000000", "--time-limit", "3s")
    assert program("run", "run.toml", *words, ranks=4, survives=True).code == STOPPED
    assert checkpoints.load(checkpoints.path_of("lost.h5"), 0, 1, False)["lost_ranks"]["rank"].tolist() == [2]
    assert program("resume", "lost.h5", "--quiet", "--time-limit", "3s", ranks=4, survives=True).code == STOPPED
    found = load_results("lost.h5").lost_ranks
    assert (found["rank"].tolist(), found["round"].tolist(), len(found["host"])) == ([2], [10], 1)


def test_nobody_waits_in_finalize_for_a_rank_that_dies_while_it_leaves(here, program):
    """One run in four hung: what ends by ``_exit`` calls no exit handlers, of which MPI_Finalize is one."""
    write()
    code = f"import atexit\natexit.register(print, 'finalized')\n{DYING}"
    ended = program.python("-c", code, "close", 1, 1, ranks=3, survives=True, timeout=60)
    assert ended.code == 0, ended
    assert "finalized" not in ended.out
    assert load_results("lost.h5").finished


def test_accuracy_is_of_all_test_samples_whoever_is_there(here):
    """Rank 0 of 2, alone, against one process."""
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((1000, 3)), rng.integers(0, 4, 1000)
    layout.write("data.h5", x[:40], y[:40], np.arange(41), made_by="a test", classes=4, test=(x[40:], y[40:]))

    class Left(LocalTransport):
        size = 2

        def __init__(self):
            super().__init__()
            self.present = np.array([True, False])

    write("", attack="none", more='[model]\nname = "softmax_regression"')
    experiment, description = load("run.toml"), layout.describe("data.h5")
    found = []
    for transport in (LocalTransport(), Left()):
        trainer = Trainer(experiment, description, transport)
        trainer.parameters[:] = np.random.default_rng(1).standard_normal(trainer.parameters.size)
        found.append(trainer.measure())
    assert found[0] == found[1]


def test_attackers_expect_no_more_to_be_tolerated_than_the_votes_that_are_left_allow(here):
    write(attack="optimal_ipm")
    experiment = load("run.toml", ["--aggregator.name", "krum", "--aggregator.byzantine", "auto", "--filters=[]"])
    tolerance = Tolerance(experiment, Coding(experiment, 40))
    votes = np.random.default_rng(0).normal(1, 0.01, (7, 30))
    votes[:3] *= -100  # three stand out of seven, of which krum can be told two
    _, aggregator = tolerance.trial(votes)
    assert np.isfinite(aggregator.aggregate(votes)).all()


def test_an_mpi_that_cannot_go_on_is_refused(here, program):
    write()
    ended = program("run", "run.toml", "-o", "lost.h5", ranks=2)
    assert ended.code == 2
    assert ended.err.count("mpicoded: error") == 1
    assert "mpiexec --with-ft ulfm" in ended.err
    assert not Path("lost.h5").exists()


def test_a_rank_that_fails_alone_is_lost_alone(here, program):
    write()
    code = """
import sys
from mpicoded.cli import main
from mpicoded.training.devices import Devices
real = Devices.messages
def messages(self, plan, round, parameters, **more):
    if round == 9 and self.first == 20:
        raise ZeroDivisionError("injected")
    return real(self, plan, round, parameters, **more)
Devices.messages = messages
sys.exit(main(["run", "run.toml", "-o", "lost.h5", "--quiet"]))
"""
    ended = program.python("-c", code, ranks=4, survives=True)
    assert [rank for rank, _ in lost(ended)] == [2]
    assert re.search(r"error on rank 2 of \S+ in round 10: ZeroDivisionError: injected", ended.err)


LATE = """
import sys
import numpy as np
from mpicoded.cli import main
from mpicoded.training.server import Receiver
real, masks = Receiver.receive, []
def receive(self, gathered, *words):
    masks.append(gathered.arrived.copy())
    return real(self, gathered, *words)
Receiver.receive = receive
code = main(["run", "run.toml", "-o", "late.h5", "--quiet"])
if masks:
    np.save("masks.npy", masks)
sys.exit(code)
"""
SLOW = '[[faults]]\nname = "slow"\nranks = [1, 2]\nfactor = 300.0\nfirst = 10\nlast = 40\n'


@pytest.mark.parametrize(
    "transport",
    ["deadline = 0.05", pytest.param("quickest = 20", marks=only_all), 'quickest = 15\nbelow = "skip"'],
)
def test_late_messages_are_left_out_and_never_taken_for_others(here, program, monkeypatch, transport):
    """The masks of the run, replayed in one process, give its bits."""
    write(transport, attack="sign_flip", memory="server_momentum", more=SLOW)
    ended = program.python("-c", LATE, ranks=4)
    assert ended.code == 0, ended
    assert "nothing came in time from devices of" in ended.err
    masks = np.load("masks.npy")
    of_ranks = masks.reshape(60, 4, 10)
    assert (of_ranks.all(axis=2) == of_ranks.any(axis=2)).all()
    assert of_ranks[:, 0].all()
    assert 0 < of_ranks[:, 1:3, 0].mean() < 1  # late now and then, in time now and then
    monkeypatch.setattr(
        LocalTransport, "gather", lambda self, records, round, devices, sent=None: Gathered(records, masks[round])
    )
    assert main(["run", "run.toml", "-o", "replayed.h5", "--quiet", "--faults=[]"]) == 0
    np.testing.assert_array_equal(load_results("late.h5").parameters, load_results("replayed.h5").parameters)
    np.testing.assert_array_equal(load_results("late.h5").bad_records["missing"], (~masks).sum(axis=0))


ALL_EVALUATE = """
import sys, time
from mpicoded.cli import main
from mpicoded.training.evaluation import Evaluator
from mpicoded.transport.base import RanksMissing
losses = Evaluator.losses
def slow(self, *words):
    time.sleep(0.4 if self._transport.leads else 0.8)
    try:
        return losses(self, *words)
    except RanksMissing:
        sys.exit("somebody was taken for too late")
Evaluator.losses = slow
sys.exit(main(["run", "run.toml", "-o", "late.h5", "--quiet", "--rounds", "20"]))
"""


def test_an_evaluation_may_take_longer_than_rounds(here, program):
    """The deadline is for rounds: nobody is too late for what takes the server as long."""
    write("deadline = 0.02", attack="sign_flip")
    ended = program.python("-c", ALL_EVALUATE, ranks=3)
    assert ended.code == 0, ended


def test_erasures_can_be_weighed_so_that_nothing_is_lost(here, monkeypatch):
    """Of groups with equal messages another number is left in each round, but never none."""
    base = (
        CONFIG.partition("[allocation]")[0].format(),
        CONFIG.partition("[optimizer]")[2].format(transport="", more=""),
    )
    text = '[allocation]\nname = "repetition"\ncopies = 8\npermute = false\n[aggregator]\nname = "mean"\n[optimizer]'
    Path("run.toml").write_text(text.join(base).replace("byzantine = 6", ""))
    assert main(["run", "run.toml", "-o", "whole.h5", "--quiet"]) == 0
    masks = np.random.default_rng(0).random((60, 40)) < 0.7
    assert all(mask[group : group + 8].any() for mask in masks for group in range(0, 40, 8))
    monkeypatch.setattr(
        LocalTransport, "gather", lambda self, records, round, devices, sent=None: Gathered(records, masks[round])
    )
    ends = {}
    for erasures in ("leave_out", "least_squares"):
        words = ["--transport.quickest", "20", "--encoder.erasures", erasures]
        assert main(["run", "run.toml", "-o", "part.h5", "--quiet", *words]) == 0
        ends[erasures] = load_results("part.h5").parameters
    np.testing.assert_allclose(ends["least_squares"], load_results("whole.h5").parameters, rtol=1e-9)
    assert not np.allclose(ends["leave_out"], load_results("whole.h5").parameters, rtol=1e-3)


STOPPING = """
import os, signal, sys
from mpicoded.cli import main
from mpicoded.training.devices import Devices
real = Devices.messages
def messages(self, plan, round, *words, **more):
    if round >= 9 and os.environ["OMPI_COMM_WORLD_RANK"] == "2":
        os.kill(os.getpid(), signal.SIGSTOP)
    return real(self, plan, round, *words, **more)
Devices.messages = messages
sys.exit(main(["run", "run.toml", "-o", "stuck.h5", "--quiet", "--checkpoint_every", "5", *sys.argv[1:]]))
"""


def test_a_watchdog_says_where_ranks_are_and_ends_the_job(here, program):
    write("", attack="sign_flip")
    ended = program.python("-c", STOPPING, "--watchdog", "3s", ranks=3, timeout=60)
    assert ended.code == 1, ended
    assert "nothing has happened for 3 s: the job is ended; mpicoded resume stuck.h5 goes on after round 5" in ended.err
    assert re.search(r"  rank 0 on \S+: in round 10, gather, for [3-9] s\n", ended.err)
    assert re.search(
        r"  rank 1 on \S+: (in round 10, gather|waiting for orders after round 10), for [2-9] s\n", ended.err
    )
    assert "  rank 2: says nothing, as if stopped\n" in ended.err
    assert ended.err.count("nothing has happened") == 1
    assert not Path("stuck.h5.watchdog").exists()
    assert main(["resume", "stuck.h5", "--quiet"]) == 0
    assert load_results("stuck.h5").finished


def test_with_a_deadline_a_rank_that_stands_still_holds_up_nobody(here, program):
    write("deadline = 0.2", attack="sign_flip")
    ended = program.python("-c", STOPPING, ranks=3, timeout=60)
    assert ended.code == 0, ended
    assert "ranks [2] still owe an answer and are left behind" in ended.err
    result = load_results("stuck.h5")
    assert result.finished
    assert (result.bad_records["missing"][26:] >= 60 - 30).all()


@pytest.mark.parametrize(("come", "words"), [(12, ()), (0, ("--aggregator.byzantine", "auto"))])
def test_too_few_in_time_leave_the_parameters_as_they_are(here, monkeypatch, capsys, come, words):
    write('deadline = 1.0\nbelow = "skip"', attack="sign_flip")
    few = Gathered
    monkeypatch.setattr(
        LocalTransport,
        "gather",
        lambda self, records, round, devices, sent=None: few(records, np.arange(40) < (come if round % 2 else 13)),
    )
    assert main(["run", "run.toml", "-o", "few.h5", "--quiet", *words]) == 0
    result = load_results("few.h5")
    assert result.bad_records["skipped"] == 30
    assert {len(column) for column in result.estimates.values()} == ({60} if words else set())  # a row for each round
    assert "too few messages came in round 2: no step was made" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("transport", "changes", "said"),
    [
        ("deadline = 0.1", {"attack": "alie"}, "attack alie needs all honest messages"),
        ("quickest = 10", {"attack": "sign_flip", "memory": "momentum"}, "memory momentum would remember"),
        ("quickest = 10", {"attack": "sign_flip", "memory": "marina"}, "memory marina would remember"),
        ("quickest = 41", {"attack": "sign_flip"}, "quickest = 41 is more than the 40 devices"),
        ('below = "skip"', {"attack": "sign_flip"}, 'below = "skip" is for runs with a deadline'),
        (CONTINUE, {"more": killed(2, 3)}, "faults name rank 2, but there are 2 ranks"),
        (CONTINUE, {"more": '[encoder]\nerasures = "least_squares"'}, "is for the rule mean alone"),
    ],
)
def test_what_would_mean_nothing_is_refused(here, transport, changes, said):
    write(transport, **changes)
    with pytest.raises(InputError, match=re.escape(said)):
        load("run.toml").check(layout.describe("data.h5"), 2)


def test_a_dead_rank_without_such_an_mpi_ends_the_job_and_the_way_on_is_said(here, program):
    write("", more=killed(2, 20))
    ended = program("run", "run.toml", "-o", "lost.h5", "--quiet", ranks=4, timeout=30)
    assert ended.code not in (0, 2, 75)
    assert "mpicoded resume lost.h5 goes on after round 15" in ended.err
    assert checkpoints.find(checkpoints.path_of("lost.h5")).round == 15
    assert not load_results("lost.h5").finished
