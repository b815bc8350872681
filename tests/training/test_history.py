"""What the server counts and keeps over the rounds: gradients, and scores of suspicion over time."""

import numpy as np
import pytest

from mpicoded import load_results
from mpicoded.cli import main
from mpicoded.data import datasets
from mpicoded.training import clock
from mpicoded.training.history import Scores

WORDS = ["--devices", "10", "--byzantine", "0", "--attack", '{name = "none"}', "--aggregator", '{name = "mean"}']


@pytest.fixture
def finished(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    datasets.linear_regression("data.h5", subsets=25, features=5)
    (tmp_path / "short.toml").write_text(
        'devices = 10\nrounds = 8\nevaluate_every = 2\nseed = 3\n[data]\npath = "data.h5"\n'
        '[model]\nname = "linear_regression"\n[optimizer]\nname = "sgd"\nstep_size = 1e-3\n'
    )

    def run(*words):
        assert main(["run", "short.toml", "--quiet", "-o", "out.h5", *words]) == 0
        return load_results("out.h5")

    return run


@pytest.mark.parametrize(
    ("allocation", "each_round"),
    [
        ('{name = "partition"}', 25),
        ('{name = "uniform", redundancy = 7}', 70),
        ('{name = "balanced", redundancy = 5}', 50),
        ('{name = "repetition", copies = 5}', 125),
    ],
)
def test_gradients_are_those_that_devices_computed(finished, allocation, each_round):
    history = finished("--allocation", allocation).history
    np.testing.assert_array_equal(history["gradients"], each_round * history["round"])
    assert history["gradients"].dtype == np.int64


def test_gradients_at_earlier_parameters_count_as_well(finished):
    words = ["--memory", '{name = "marina", probability = 0.5}', "--allocation", '{name = "partition"}']
    compressor = ["--compressor", '{name = "rand_k", kept = 2, shared = true}']
    counted = finished(*words, *compressor, "--evaluate_every", "1").history["gradients"]
    assert set(np.diff(counted).tolist()) == {25, 50}  # as the coin falls; the first round is always a full one


def test_permuted_tasks_count_in_every_round(finished, tmp_path):
    datasets.linear_regression("data.h5", subsets=10, features=5)
    history = finished("--allocation", '{name = "cyclic", redundancy = 3}').history
    np.testing.assert_array_equal(history["gradients"], 30 * history["round"])


def test_a_score_for_every_evaluation_is_kept(finished):
    result = finished("--byzantine", "2", "--attack", '{name = "sign_flip"}', "--identities", "fixed")
    kept = result.suspicion["over_time"]
    np.testing.assert_array_equal(kept["round"], result.history["round"])
    assert kept["score"].shape == (5, 10)
    assert not kept["score"][0].any()
    np.testing.assert_array_equal(kept["score"][-1], result.suspicion["score"].astype(np.float32))


def test_of_many_scores_the_same_are_kept_however_often_they_were_saved():
    always, saved = Scores(), Scores()
    for number in range(5000):
        score = np.array([number, -number], float)
        always.append(10 * number, score)
        saved.append(10 * number, score)
        if number % 7 == 0:
            again = Scores()
            again.restore(saved.state())
            saved = again
    assert 128 <= len(always.round) <= 256
    step = np.diff(always.round)
    assert (step == step[0]).all()
    np.testing.assert_array_equal(always.score[:, 0] * 10, always.round)
    np.testing.assert_array_equal(always.round, saved.round)
    np.testing.assert_array_equal(always.score, saved.score)


def test_few_scores_of_many_devices_are_kept():
    scores = Scores()
    for number in range(100):
        scores.append(number, np.zeros(100_000))
    assert 8 <= len(scores.round) <= 16


def test_phases_follow_each_other(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(clock, "perf_counter", lambda: now[0])
    times = clock.Clock()
    for seconds, phase in ((1, "plan"), (2, "compute"), (4, None), (8, None), (16, "plan"), (32, None)):
        now[0] += seconds
        times.leave() if phase is None else times.enter(phase)
    found = dict(zip(clock.PHASES, times.seconds, strict=True))
    assert {phase: seconds for phase, seconds in found.items() if seconds} == {"plan": 2 + 32, "compute": 4}
