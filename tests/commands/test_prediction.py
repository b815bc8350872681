"""``mpicoded plan --time``: what it says, what it takes, what it refuses."""

import re
from pathlib import Path

import pytest

from mpicoded.cli import main
from mpicoded.commands import prediction
from mpicoded.commands.text import readable_seconds
from mpicoded.training import probe_votes

ROOT = Path(__file__).parents[2]
QUICKSTART = str(ROOT / "configs" / "quickstart.toml")
GIVEN = ["--node-alpha", "1e-6", "--node-beta", "1e-10", "--call", "1e-5"]  # so that no ranks are started
FIXED = ["--compressor.name", "natural", "--allocation.permute", "false"]
SCALES = {"µs": 1e-6, "ms": 1e-3, "s": 1.0, "min": 60.0, "h": 3600.0, "days": 86400.0}


@pytest.fixture
def here(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(probe_votes, "_SECONDS", 0.01)
    assert main(["data", "linear_regression", "-o", "linear.h5", "--seed", "3"]) == 0
    capsys.readouterr()


def seconds(text: str) -> float:
    number, unit = text.split()
    return float(number) * SCALES[unit]


def rows(said: str, first: str) -> dict[str, list[str]]:
    """The rows of the table whose heading begins so."""
    (found,) = re.findall(rf"^{first} .*\n-+\n((?:.+\n)+)", said, re.M)
    lines = [re.split(r"  +", line) for line in found.splitlines()]
    return {line[0]: line[1:] for line in lines}


def planned(capsys, *words: str) -> str:
    assert main(["plan", QUICKSTART, *GIVEN, *words]) == 0
    return capsys.readouterr().out


def test_nobody_is_told_seconds_who_has_not_asked(here, capsys, monkeypatch):
    monkeypatch.setattr("mpicoded.training.probe.measure", None)
    assert main(["plan", QUICKSTART, "--ranks", "4"]) == 0
    assert "seconds" not in capsys.readouterr().out


def test_phases_add_up_to_a_round_and_rounds_to_a_run(here, capsys):
    said = planned(capsys, "--ranks", "4", "--nodes", "2", "--rounds", "40")
    assert "predicted for 4 ranks on 2 nodes" in said
    phases = rows(said, "phase")
    whole, all_rounds, each_second = (phases.pop(name) for name in ("a round", "40 rounds", "rounds/s"))
    assert {"broadcast", "plan", "compute", "encode", "gather", "decompress", "aggregate", "step"} < set(phases)
    for way in range(2):
        total = seconds(whole[way])
        assert sum(seconds(line[way]) for line in phases.values()) == pytest.approx(total, rel=0.02)
        assert seconds(all_rounds[way]) == pytest.approx(40 * total, rel=0.02)
        assert float(each_second[way]) == pytest.approx(1 / total, rel=0.02)
    scaling = rows(said, "ranks")
    assert list(scaling) == ["1", "2", "4", "8", "16", "32", "64", "100"]
    assert [line[0] for line in scaling.values()] == ["1", "1", "2", "4", "8", "16", "32", "50"]
    assert (scaling["4"][1], scaling["4"][3]) == tuple(whole)


def test_rates_that_are_given_are_taken(here, capsys):
    words = ["--ranks", "100", "--nodes", "100"]
    said = planned(capsys, *words, "--alpha", "1", "--beta", "1e-9", "--flops", "1000")
    phases = rows(said, "phase")
    assert seconds(phases["gather"][0]) == pytest.approx(2 * 99, rel=0.01)  # headers and records, one after another
    flops = 4 * 20 * 100  # of 20 samples with 100 features
    assert seconds(phases["compute"][0]) == pytest.approx(flops / 1000, rel=0.01)
    assert "1e+03 flops of gradients a second (given)" in said
    assert "alpha 1 s, beta 1e-09 s/byte" in said
    assert "given: alpha, beta, node-alpha, node-beta, call" in said
    slow = planned(capsys, *words, "--alpha", "1e-9", "--beta", "1")
    assert seconds(rows(slow, "phase")["gather"][0]) > 99 * 800


def test_where_the_root_saturates(here, capsys):
    """Messages that take long saturate it at once; ranks with much to compute never do."""
    words = ["--ranks", "8", "--nodes", "8"]
    assert "the root saturates at 2 ranks:" in planned(capsys, *words, "--alpha", "1")
    assert "the root does not saturate: with 100 ranks" in planned(capsys, *words, "--flops", "1")


def test_what_slices_cannot_do_is_said(here, capsys):
    said = planned(capsys, "--memory.name", "ef21", "--identities", "fixed", *FIXED)
    assert "sharded: transport sharded: memory ef21 needs whole messages" in said
    assert all(len(line) == 1 for line in rows(said, "phase").values())
    said = planned(capsys, "--transport.deadline", "5")
    assert "sharded: transport sharded waits for all messages" in said
    said = planned(capsys, "--transport.name", "sharded")
    assert all(len(line) == 2 for line in rows(said, "phase").values())


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--nodes", "3", "--ranks", "2"], "--nodes must be at most the 2 ranks, one each, got 3"),
        (["--nodes", "2"], "--nodes must be at most the 1 ranks, one each, got 2"),
        (["--nodes", "0"], "argument --nodes: must be a whole number from 1 on, got '0'"),
        (["--nodes", "-1"], "argument --nodes: "),
        (["--alpha", "0"], "argument --alpha: must be a number above 0, got '0'"),
        (["--alpha=-1e-6"], "argument --alpha: must be a number above 0, got '-1e-6'"),
        (["--beta", "nan"], "argument --beta: must be a number above 0, got 'nan'"),
        (["--node-alpha", "inf"], "argument --node-alpha: must be a number above 0, got 'inf'"),
        (["--node-beta", "fast"], "argument --node-beta: must be a number above 0, got 'fast'"),
        (["--flops", "1e999"], "argument --flops: must be a number above 0, got '1e999'"),
        (["--time", "--ranks", "101"], "101 ranks are more than the 100 devices"),
    ],
)
def test_rates_that_cannot_be_are_refused(here, capsys, words, expected):
    assert main(["plan", QUICKSTART, *words]) == 2
    told = capsys.readouterr()
    assert expected in told.err
    assert (told.out, told.err.count("\n")) == ("", 1)


def test_where_no_ranks_can_be_started_the_line_is_stated(here, capsys, monkeypatch):
    monkeypatch.setattr(prediction, "find_launcher", lambda: None)
    assert main(["plan", QUICKSTART, "--alpha", "3e-6"]) == 0
    said = capsys.readouterr().out
    assert "given: alpha; as of a network of 25 Gb/s and of shared memory: beta, node-alpha, node-beta, call" in said


@pytest.mark.mpi
def test_the_line_is_measured_between_two_ranks(program, tmp_path):
    assert program("data", "linear_regression", "-o", "linear.h5").code == 0
    ended = program("plan", QUICKSTART, "--time", "--ranks", 2)
    assert ended.code == 0, ended.err
    assert "measured between two ranks here: node-alpha, node-beta, call; as of a network" in ended.out
    told = re.search(r"in a node: alpha (\S+) s, beta (\S+) s/byte; a collective call: (\S+) s", ended.out)
    alpha, beta, call = map(float, told.groups())
    assert 1e-8 < alpha < 1e-2
    assert 1e-12 < beta < 1e-7
    assert 0 <= call < 1e-1


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0 µs"),
        (2.5e-5, "25 µs"),
        (0.5, "500 ms"),
        (0.9999, "1 s"),
        (90, "1.5 min"),
        (7200, "2 h"),
        (864000, "10 days"),
    ],
)
def test_seconds_are_told_in_units_of_their_size(value, text):
    assert readable_seconds(value) == text
