"""What the server does with records that it cannot use, and what it tells of them."""

import itertools
from pathlib import Path

import numpy as np
import pytest

from mpicoded.algorithms.faults import Killed
from mpicoded.algorithms.randomness import Streams
from mpicoded.configs import decode
from mpicoded.data import datasets, layout
from mpicoded.data.results import load_results
from mpicoded.errors import InputError
from mpicoded.training.faults import Faults
from mpicoded.training.loop import Trainer
from mpicoded.transport.local import LocalTransport

CONFIGS = Path(__file__).parents[2] / "configs"
TOP_K = {"name": "top_k", "kept": 5}


@pytest.fixture(scope="module")
def path(tmp_path_factory) -> str:
    made = str(tmp_path_factory.mktemp("data") / "linear.h5")
    datasets.linear_regression(made, subsets=20, features=30, seed=1)
    return made


def trained(path: str, **tables) -> tuple[Trainer, list[dict]]:
    experiment = decode(
        {
            "devices": 20,
            "byzantine": 4,
            "identities": "fixed",
            "rounds": 6,
            "seed": 2,
            "evaluate_every": 1,
            "data": {"path": path},
            "optimizer": {"step_size": 1e-4},
        }
        | tables,
        "test",
    )
    description = layout.describe(path)
    experiment.check(description, 1)
    trainer = Trainer(experiment, description, LocalTransport())
    rows: list[dict] = []
    trainer.train(lambda progress: rows.append(progress.row))
    return trainer, rows


def attackers(trainer: Trainer) -> np.ndarray:
    return trainer.uplink.adversary.byzantine(0)


def test_bad_records_are_counted_by_device_and_round(path):
    trainer, rows = trained(path, attack={"name": "malformed"}, compressor=TOP_K)
    faults = trainer.server.faults
    guilty = attackers(trainer)
    assert [row["bad_records"] for row in rows] == [0, 4, 8, 12, 16, 20, 24]  # 5 random places are hardly ever in order
    assert rows[-1]["missing_records"] == 0
    np.testing.assert_array_equal(faults.bad, 6 * guilty)
    np.testing.assert_array_equal(faults.first_round, 1 * guilty)
    np.testing.assert_array_equal(faults.last_round, 6 * guilty)
    assert faults.most_at_once == 4
    expected = [[round, device, 0] for round in range(1, 7) for device in np.flatnonzero(guilty)]
    assert faults.events.tolist() == expected


def test_silent_devices_are_missing_and_send_no_bytes(path):
    trainer, rows = trained(path, attack={"name": "silent"})
    np.testing.assert_array_equal(trainer.server.faults.missing, 6 * attackers(trainer))
    assert not trainer.server.faults.bad.any()
    assert rows[-1]["missing_records"] == 24
    assert rows[-1]["bytes_up"] == 6 * 16 * 30 * 8
    assert np.isfinite(trainer.parameters).all()


def test_only_the_first_faults_are_kept_one_by_one_but_all_are_counted():
    faults = Faults(1000, tolerated=700)
    arrived, nothing = np.ones(1000, bool), np.zeros(1000, np.int64)
    for round in range(30):
        faults.note(round, arrived, np.arange(1000) < 700, nothing)
    assert len(faults.events) == 10_000
    assert faults.events[-1].tolist() == [15, 199, 0]
    assert faults.bad.sum() == 30 * 700
    assert faults.last_round[:700].tolist() == [30] * 700
    assert faults.beyond is None
    faults.note(30, arrived, np.arange(1000) < 701, nothing)
    faults.note(31, arrived, np.arange(1000) < 800, nothing)
    assert faults.beyond == (31, 701)


def test_a_bad_record_is_a_zero_vote(path):
    """The same run as if the attackers sent zero: bad and missing messages have no other effect."""
    ends = [
        trained(path, attack=attack, aggregator={"name": "trimmed_mean"})[0].parameters
        for attack in (
            {"name": "sign_flip", "scale": 0.0},
            {"name": "silent"},
            {"name": "non_finite"},
            {"name": "non_finite", "value": "-inf", "coordinates": 1},
        )
    ]
    for end in ends[1:]:
        np.testing.assert_array_equal(end, ends[0])


def test_numbers_that_do_not_fit_the_wire_are_counted(path):
    scaled = {"name": "sign_flip", "scale": 1e9}
    _, rows = trained(path, attack=scaled, compressor={"name": "none", "dtype": "float16"}, byzantine=2)
    assert rows[-1]["saturated"] == 6 * 2 * 30
    _, rows = trained(path, attack=scaled, compressor={"name": "none", "dtype": "float32"}, byzantine=2)
    assert rows[-1]["saturated"] == 0
    _, rows = trained(path, optimizer={"step_size": 1e9}, transport={"broadcast": "float16"}, rounds=2)
    assert rows[1]["saturated"] == 0
    assert rows[2]["saturated"] == 30


def test_a_narrow_broadcast_reaches_the_devices_and_leaves_the_server_its_digits(path):
    (full, _), (narrow, rows) = (
        trained(path, transport={} if wire is None else {"broadcast": wire}) for wire in (None, "float16")
    )
    assert rows[-1]["bytes_down"] == 6 * 20 * 30 * 2
    np.testing.assert_allclose(narrow.parameters, full.parameters, rtol=1e-2, atol=1e-4)
    assert (narrow.parameters != full.parameters).any()
    assert (narrow.parameters.astype(np.float16) != narrow.parameters).any()


def test_devices_and_server_remember_the_same_whatever_was_sent(path):
    for attack, compressor in itertools.product(
        ("sign_flip", "malformed", "bit_flip", "silent", "non_finite"),
        (TOP_K, {"name": "qsgd", "levels": 2}, {"name": "rand_k", "kept": 3}, {"name": "none"}, {"name": "natural"}),
    ):
        trainer, _ = trained(
            path,
            attack={"name": attack},
            compressor=compressor,
            memory={"name": "ef21"},
            allocation={"name": "balanced", "redundancy": 5},
            identities="resampled",
        )
        state = trainer.aggregation.receiver.memory[0]
        np.testing.assert_array_equal(trainer.uplink._state[0], state, err_msg=f"{attack} {compressor}")
        assert np.isfinite(state).all()
        assert state.any(axis=1).sum() > 15


def test_error_feedback_makes_a_biased_compressor_reach_what_it_misses_alone(path):
    settings = {"byzantine": 0, "rounds": 800, "evaluate_every": 800, "optimizer": {"step_size": 1e-3}}
    lost = {
        memory: trained(
            path,
            compressor={"name": "top_k", "kept": 1},
            memory={"name": memory},
            aggregator={"name": "mean"},
            allocation={"name": "balanced", "redundancy": 5},
            **settings,
        )[1][-1]["suboptimality"]
        for memory in ("none", "ef21")
    }
    assert lost["ef21"] < 0.01 * lost["none"]


def test_nonces_of_the_seed_repeat_a_run_and_those_of_entropy_do_not(path):
    shared = {"name": "rand_k", "kept": 3, "shared": True}
    seeds = [trained(path, compressor=shared)[0] for _ in range(2)]
    np.testing.assert_array_equal(seeds[0].parameters, seeds[1].parameters)
    wild = [trained(path, compressor=shared, transport={"nonces": "entropy"})[0] for _ in range(2)]
    assert (wild[0].parameters != wild[1].parameters).any()
    nonces = set()
    for round in range(50):
        seeds[0].downlink.write(np.zeros(30), round)
        nonces.add(seeds[0].downlink.told()[1])
    assert len(nonces) == 50
    assert seeds[0].downlink.nbytes == 30 * 8 + 8


def test_a_shared_mask_follows_from_the_nonce_alone():
    here, there = (Streams(seed, 7, np.arange(3), nonce=11).shared() for seed in (1, 2))
    np.testing.assert_array_equal(here.choices("rand_k", 100, 10), there.choices("rand_k", 100, 10))


def test_a_memory_that_lies_have_made_too_long_starts_anew(path):
    """Two records, each short enough by itself, must not keep an honest device out for ever."""
    trainer, _ = trained(
        path,
        byzantine=0,
        rounds=1,
        compressor={"name": "qsgd"},
        memory={"name": "ef21"},
        allocation={"name": "balanced", "redundancy": 5},
    )
    limit = np.sqrt(np.finfo(float).max / (16 * 20)) / 2
    trainer.aggregation.receiver.memory[0, 7] = trainer.uplink._state[0, 7] = limit
    before = trainer.server.faults.bad.sum()
    for round in range(1, 40):
        trainer._round(round)
    np.testing.assert_array_equal(trainer.uplink._state, trainer.aggregation.receiver.memory)
    assert np.abs(trainer.aggregation.receiver.memory[0, 7]).max() < 1e6
    assert trainer.server.faults.bad.sum() - before <= 2


@pytest.mark.parametrize(("rule", "tolerated"), [("mean", 0), ("coordinate_median", 9), ("geometric_median", 9)])
def test_rules_without_a_number_of_their_own_tolerate_what_they_can(path, rule, tolerated):
    trainer, _ = trained(path, aggregator={"name": rule}, rounds=1)
    assert trainer.server.faults.tolerated == tolerated


@pytest.mark.mpi
def test_the_result_file_names_device_rank_and_host_and_warns(program, tmp_path):
    assert program("data", "linear_regression", "-o", "linear.h5").code == 0
    words = ["--rounds", 8, "--identities", "fixed", "--attack.name", "malformed", "--compressor.name", "top_k"]
    words += ["--compressor.kept", 10, "--aggregator.byzantine", 19]
    ended = program("run", CONFIGS / "lad_linear.toml", "-o", "bad.h5", *words, ranks=3)
    assert ended.code == 0, ended.err
    result = load_results(tmp_path / "bad.h5")
    told = result.bad_records
    np.testing.assert_array_equal(told["rank"], np.repeat([0, 1, 2], [33, 33, 34]))
    assert set(told["host"]) == set(result.hosts)
    guilty = np.flatnonzero(told["bad"])
    assert len(guilty) == 20
    assert (told["bad"][guilty] == 8).all()
    assert result.history["bad_records"][-1] == told["bad"].sum() == 160
    events = told["events"]
    assert events["round"].tolist() == np.repeat(np.arange(1, 9), 20).tolist()
    np.testing.assert_array_equal(events["device"].reshape(8, 20), np.tile(guilty, (8, 1)))
    np.testing.assert_array_equal(events["rank"], told["rank"][events["device"]])
    first = f"a bad record from device {guilty[0]} (rank {told['rank'][guilty[0]]}, host {result.hosts[0]}) in round 1"
    many = "records of 20 devices were bad or missing in round 1, more than the 19 that rule and filters tolerate"
    for text in (first, many):
        assert sum(text in line for line in result.warnings) == 1
        assert sum(text in line for line in ended.err.splitlines()) == 1
    said = program("show", "bad.h5").out
    assert "replaced: 160 bad and 0 missing records of 20 devices, at most 20 in a round, first in round 1" in said


def test_a_rank_dies_once():
    fault = Killed(ranks=(2,), first=7)
    assert [round for round in range(1, 20) if fault.strikes(2, round)] == [7]
    assert not fault.strikes(1, 7)
    with pytest.raises(InputError, match=r"dies once, in round first: last = 9"):
        Killed(ranks=(2,), last=9)
