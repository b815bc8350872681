"""Ranks that aggregate slices of the coordinates: the bits of the root's, fewer bytes to it."""

import json
import os
import re
from pathlib import Path

import numpy as np
import pytest

from mpicoded.cli import main
from mpicoded.configs import load
from mpicoded.data import checkpoints, datasets, layout
from mpicoded.data.results import load_results
from mpicoded.errors import InputError

pytestmark = pytest.mark.mpi
only_all = pytest.mark.skipif("MPICODED_ALL" not in os.environ, reason="takes long: MPICODED_ALL=1")
DIM = 20_011  # three parts

CONFIG = """
devices = 12
byzantine = 2
rounds = 30
seed = 3
evaluate_every = 10
checkpoint_every = 10
[data]
path = "data.h5"
[model]
name = "linear_regression"
[allocation]
name = "cyclic"
redundancy = 4
[attack]
name = "sign_flip"
[aggregator]
name = "centered_clipping"
tau = 1e3
[optimizer]
step_size = 1e-6
momentum = 0.5
[transport]
name = "sharded"
"""


@pytest.fixture
def here(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    datasets.linear_regression("data.h5", subsets=12, features=DIM, seed=1)
    Path("run.toml").write_text(CONFIG)
    return tmp_path


@pytest.mark.parametrize("ranks", [pytest.param(2, marks=only_all), 3, pytest.param(5, marks=only_all)])
def test_every_rule_in_slices_has_the_bits_of_the_root(program, tmp_path, ranks):
    datasets.linear_regression(str(tmp_path / "data.h5"), subsets=15, features=DIM, seed=1)
    ended = program.python(Path(__file__).with_name("shards.py"), "data.h5", ranks=ranks, timeout=200)
    assert ended.code == 0, ended.err
    found = json.loads(ended.out)
    assert found["different"] == []
    assert found["same"] >= 40
    assert len(found["refused"]) < found["same"] / 10, found["refused"]
    assert all(got == expected for got, expected in found["bytes"])


def test_on_any_number_of_ranks_as_in_one_process(here, program):
    assert main(["run", "run.toml", "-o", "root.h5", "--quiet", "--transport.name", "root"]) == 0
    assert main(["run", "run.toml", "-o", "one.h5", "--quiet"]) == 0
    assert program("run", "run.toml", "-o", "three.h5", "--quiet", ranks=3).code == 0
    results = [load_results(f"{name}.h5") for name in ("root", "one", "three")]
    for result in results[1:]:
        np.testing.assert_array_equal(result.parameters, results[0].parameters)
        for name in ("loss", "gradient_norm", "bytes_up", "bytes_down"):
            np.testing.assert_array_equal(result.history[name], results[0].history[name])


def test_it_goes_on_from_a_checkpoint_on_another_number_of_ranks(here, program):
    """Clipping starts from the last vote, of which each server needs its slice."""
    assert program("run", "run.toml", "-o", "whole.h5", "--quiet", ranks=2).code == 0
    kill = "import os, mpicoded.training.history as h\nold = h.History.append\ndef new(self, round, *w):\n"
    kill += "    if round == 20: os._exit(9)\n    return old(self, round, *w)\nh.History.append = new\n"
    kill += "from mpicoded.cli import main\nmain(['run', 'run.toml', '-o', 'part.h5', '--quiet'])"
    assert program.python("-c", kill, ranks=2).code != 0
    assert checkpoints.find(checkpoints.path_of("part.h5")).round == 20
    assert program("resume", "part.h5", "--quiet", ranks=3).code == 0
    np.testing.assert_array_equal(load_results("part.h5").parameters, load_results("whole.h5").parameters)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--memory.name", "ef21", "--identities", "fixed"], "transport sharded: memory ef21 needs whole messages"),
        (
            ["--encoder.name", "majority_vote", "--allocation.name", "repetition"],
            "is decoded",
        ),
        (["--transport.deadline", "1"], "deadline"),
    ],
)
def test_what_needs_whole_messages_is_refused(here, words, said):
    with pytest.raises(InputError, match=re.escape(said)):
        load("run.toml", words).check(layout.describe("data.h5"), 2)


def test_plan_says_among_how_many(here, capsys):
    assert main(["plan", "run.toml", "--ranks", "5"]) == 0
    told = capsys.readouterr().out
    assert f"12 messages of {8 * DIM} bytes, cut among 3 of the ranks" in told
    assert main(["plan", "run.toml", "--ranks", "5", "--transport.servers", "2"]) == 0
    assert "cut among 2 of the ranks" in capsys.readouterr().out
