"""Memories in the loop: against slow loops in one process, and the same bits on any ranks."""

import sys
from pathlib import Path

import h5py
import numpy as np
import pytest

from mpicoded.algorithms.memories.base import coins
from mpicoded.algorithms.randomness import Streams, generator
from mpicoded.cli import main
from mpicoded.configs import decode
from mpicoded.data import datasets, layout
from mpicoded.data.results import load_results
from mpicoded.errors import InputError
from mpicoded.training.loop import Trainer
from mpicoded.transport.local import LocalTransport

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parents[1])]
import remembering  # noqa: E402
from algorithms.slow_memories import Slow  # noqa: E402

CONFIGS = Path(__file__).parents[2] / "configs"
DEVICES, FEATURES, SAMPLES = 6, 8, 5


@pytest.fixture(scope="module")
def path(tmp_path_factory) -> str:
    made = str(tmp_path_factory.mktemp("data") / "linear.h5")
    datasets.linear_regression(made, subsets=DEVICES, features=FEATURES, samples_per_subset=SAMPLES, seed=1)
    return made


@pytest.fixture(scope="module")
def many(tmp_path_factory) -> str:
    made = str(tmp_path_factory.mktemp("data") / "linear.h5")
    datasets.linear_regression(made, subsets=14, features=9, samples_per_subset=3, seed=1)
    return made


def trainer_of(path: str, **tables) -> Trainer:
    experiment = decode(
        {
            "devices": DEVICES,
            "rounds": 12,
            "seed": 4,
            "evaluate_every": 12,
            "data": {"path": path, "batch_size": 2},
            "aggregator": {"name": "mean"},
            "optimizer": {"step_size": 5e-4},
        }
        | tables,
        "test",
    )
    description = layout.describe(path)
    experiment.check(description, 1)
    return Trainer(experiment, description, LocalTransport())


def by_loops(path: str, experiment) -> np.ndarray:
    """The parameters after the run: a device a subset, a sample at a time, and no attack."""
    with h5py.File(path) as file:
        x, y = (np.array(file[name], float).reshape(DEVICES, SAMPLES, -1) for name in ("x", "y"))
    memory, compressor, seed = experiment.memory, experiment.compressor, experiment.seed
    slow = [Slow(memory, compressor, FEATURES) for _ in range(DEVICES)]
    at = previous = np.zeros(FEATURES)
    last = np.zeros(FEATURES)
    for t in range(experiment.rounds):
        nonce = int(generator(seed, "nonce", t).integers(1 << 64, dtype=np.uint64)) if compressor.common else 0
        heads = coins(seed, np.array([t]), getattr(memory, "probability", 1.0))[0]
        votes = []
        for device in range(DEVICES):
            streams = Streams(seed, t, np.array([device]), nonce)
            drawn = (streams.uniform("mini_batch", 2)[0] * SAMPLES).astype(int)

            def gradient(
                where, samples, device=device
            ):  # F is the average over all samples, and of the subsets' losses
                errors = [(x[device, s] @ where - y[device, s, 0]) * x[device, s] for s in samples]
                return sum(errors) / len(errors)

            def lossy(vector, streams=streams):
                return compressor.decompress(compressor.compress(vector[None], streams), FEATURES, streams)[0].copy()

            now, before, full = (
                gradient(at, drawn),
                gradient(previous, drawn),
                gradient(at, range(SAMPLES)),
            )
            votes.append(slow[device].vote(t, now, before, full, heads, last, lossy))
        last = sum(votes) / DEVICES
        previous, at = at, at - experiment.optimizer.step_size * last
    return at


@pytest.mark.parametrize("compressor", remembering.COMPRESSORS, ids=str)
@pytest.mark.parametrize("memory", [{"name": "none"}, *remembering.MEMORIES], ids=str)
def test_without_attack_a_run_is_what_loops_over_devices_and_samples_make(path, memory, compressor):
    if compressor["name"] == "top_k" and memory["name"] in ("marina", "dasha_page"):
        with pytest.raises(InputError, match="is biased as it is set"):
            trainer_of(path, memory=memory, compressor=compressor)
        return
    trainer = trainer_of(path, memory=memory, compressor=compressor)
    trainer.train()
    expected = by_loops(path, trainer.experiment)
    assert np.abs(expected).max() > 0.01
    np.testing.assert_allclose(trainer.parameters, expected, rtol=1e-10, atol=1e-10 * np.abs(expected).max())


@pytest.mark.mpi
def test_every_memory_has_the_same_bits_on_3_ranks(program, tmp_path, many):
    experiments = remembering.experiments(many)
    assert len(experiments) == (8 * 5 - 3) * 2  # top_k is biased for three
    for ranks in (None, 3):
        ended = program.python(remembering.__file__, tmp_path / f"{ranks}.npy", many, ranks=ranks, timeout=250)
        assert ended.code == 0, ended.err
    alone = np.load(tmp_path / "None.npy")
    assert np.isfinite(alone).all()
    for experiment, end, expected in zip(experiments, np.load(tmp_path / "3.npy"), alone, strict=True):
        np.testing.assert_array_equal(end, expected, err_msg=experiment.to_toml())


@pytest.mark.parametrize("memory", remembering.MEMORIES, ids=str)
def test_tasks_that_vary_are_refused_or_trained_on(path, memory):
    """Under permuted LAD: what is a mean over rounds goes on; what follows a device's own gradient is refused."""
    tables = {"allocation": {"name": "cyclic", "redundancy": 2}, "memory": memory}
    if memory["name"] in ("ef21", "dasha_page") or "anchor" in memory:
        with pytest.raises(InputError, match="gives a device another task in each round"):
            trainer_of(path, **tables)
        return
    trainer = trainer_of(path, **tables, rounds=150, compressor={"name": "rand_k", "kept": 6})
    start = trainer.measure()["gradient_norm"]
    trainer.train()
    assert trainer.measure()["gradient_norm"] < 0.5 * start


@pytest.mark.parametrize("memory", [{"name": "momentum"}, {"name": "server_momentum"}, {"name": "dm21"}], ids=str)
def test_votes_of_replicas_need_messages_of_one_task(path, memory):
    voting = {"encoder": {"name": "majority_vote"}, "memory": memory}
    with pytest.raises(
        InputError, match=rf"^memory {memory['name']}: encoder majority_vote needs messages of one task"
    ):
        trainer_of(path, allocation={"name": "cyclic", "redundancy": 3}, **voting)


def test_marina_adds_the_aggregate_to_votes_only(path):
    tables = {"allocation": {"name": "repetition", "copies": 3}, "encoder": {"name": "majority_vote"}}
    with pytest.raises(InputError, match=r"^memory marina: anchor = 'server' adds .* encoder majority_vote"):
        trainer_of(path, memory={"name": "marina"}, **tables)
    trainer_of(path, memory={"name": "marina", "anchor": "own"}, **tables).train()


def test_dense_rounds_are_checked_and_attacked_too(path):
    """A record of 64 bits and one of 512; both must have the bits that an attack flips."""
    tables = {"byzantine": 2, "compressor": {"name": "rand_k", "kept": 1}, "memory": {"name": "marina"}}
    trainer_of(path, attack={"name": "bit_flip", "bits": 64}, **tables).train()
    with pytest.raises(InputError, match="bits must be at most the 64 bits of a record"):
        trainer_of(path, attack={"name": "bit_flip", "bits": 65}, **tables)


@pytest.mark.parametrize(
    ("memory", "warned"),
    [
        ("none", ""),
        ("momentum", "has a theory for identities that stay only"),
        ("server_momentum", "keeps what a device sent while it was Byzantine"),
        ("dasha_page", "keeps what a device sent while it was Byzantine"),
        ("marina", ""),
    ],
)
def test_resampled_identities_are_warned_of(tmp_path, monkeypatch, capsys, memory, warned):
    monkeypatch.chdir(tmp_path)
    assert main(["data", "linear_regression", "-o", "linear.h5"]) == 0
    words = ["--rounds", "2", "--memory.name", memory]
    assert main(["run", str(CONFIGS / "cwtm_linear.toml"), "-o", "out.h5", *words]) == 0
    lines = [line for line in capsys.readouterr().err.splitlines() if f"memory {memory}" in line]
    assert [warned in line for line in lines] == [True] * bool(warned)
    assert [line for line in load_results("out.h5").warnings if "memory" in line] == [
        line.removeprefix("mpicoded: warning: ") for line in lines
    ]
