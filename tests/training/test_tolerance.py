"""``byzantine = "auto"``: what the server believes of what it counts, and what comes out of it."""

import numpy as np
import pytest

from mpicoded.algorithms.aggregators import Ctma, Krum, TrimmedMean
from mpicoded.algorithms.encoders import Decoded
from mpicoded.algorithms.filters import NearestNeighborMixing
from mpicoded.cli import main
from mpicoded.configs import decode, loads
from mpicoded.data import datasets, layout
from mpicoded.data.results import load_results
from mpicoded.errors import InputError
from mpicoded.training.coding import Coding
from mpicoded.training.loop import Trainer
from mpicoded.training.tolerance import Tolerance
from mpicoded.transport.local import LocalTransport

AUTO = {"name": "trimmed_mean", "byzantine": "auto"}


@pytest.fixture(scope="module")
def path(tmp_path_factory) -> str:
    made = str(tmp_path_factory.mktemp("data") / "linear.h5")
    datasets.linear_regression(made, subsets=40, features=30, seed=1)
    return made


def experiment_of(path: str, **tables):
    settings = {
        "devices": 40,
        "rounds": 30,
        "seed": 2,
        "evaluate_every": 30,
        "data": {"path": path},
        "allocation": {"name": "cyclic", "redundancy": 20},
        "aggregator": AUTO,
        "optimizer": {"step_size": 1e-4},
    }
    experiment = decode(settings | tables, "test")
    experiment.check(layout.describe(path), 1)
    return experiment


def trained(path: str, **tables) -> tuple[Trainer, dict]:
    experiment = experiment_of(path, **tables)
    trainer, rows = Trainer(experiment, layout.describe(path), LocalTransport()), []
    trainer.train(lambda progress: rows.append(progress.row))
    return trainer, rows[-1]


def votes_with(lies: int) -> np.ndarray:
    votes = 3.0 + np.random.default_rng(0).standard_normal((40, 30))
    votes[:lies] *= -1
    return votes


@pytest.mark.parametrize(
    ("counted", "tolerated"),
    [
        ([0, 0, 0, 0], [0, 0, 0, 0]),
        ([0, 0, 0, 6, 0, 0, 0], [0, 0, 0, 6, 0, 0, 0]),  # once is chance, or an attack that is over
        ([0, 0, 4, 4, 4, 0, 0, 0, 0, 0], [0, 0, 4, 4, 4, 4, 4, 4, 4, 4]),
        ([5, 5, 5, 0, 0, 0, 9, 0], [5, 5, 5, 5, 5, 5, 9, 5]),
        ([0, 7, 0, 7, 0, 7, 0], [0, 7, 0, 7, 0, 7, 7]),
        ([5, 0, 0, 0], [5, 0, 0, 0]),
        ([5, 5, 0, 0], [5, 5, 0, 0]),
    ],
)
def test_what_is_counted_in_most_of_five_rounds_is_believed_for_good(path, counted, tolerated):
    experiment = experiment_of(path)
    tolerance = Tolerance(experiment, Coding(experiment, 40))
    usable = np.ones(40, bool)
    used = [tolerance.parts(Decoded(votes_with(lies)), usable)[1].byzantine for lies in counted]
    assert used == tolerated
    assert [note.outlying for note in tolerance.notes] == counted
    assert [note.tolerated for note in tolerance.notes] == tolerated


def test_the_estimate_stays_within_what_all_parts_stand(path):
    experiment = experiment_of(
        path, filters=[{"name": "nearest_neighbor_mixing", "byzantine": "auto"}], aggregator=AUTO | {"name": "bulyan"}
    )
    tolerance = Tolerance(experiment, Coding(experiment, 40))
    filters, aggregator = tolerance.parts(Decoded(votes_with(15)), np.ones(40, bool))
    assert aggregator.byzantine == filters[0].byzantine == (40 - 3) // 4  # bulyan needs 4f + 3


def test_missing_and_bad_records_are_counted(path):
    trainer, row = trained(path, byzantine=6, attack={"name": "silent"})
    assert trainer.server.tolerance.notes[0].outlying == 6
    assert all(note.tolerated >= 6 for note in trainer.server.tolerance.notes)
    assert row["missing_records"] == 180


@pytest.mark.parametrize("attack", [{"name": "sign_flip", "scale": -3.0}, {"name": "alie"}])
def test_the_estimate_is_as_good_as_the_number(path, attack):
    guessed, row = trained(path, byzantine=8, attack=attack)
    _, told = trained(path, byzantine=8, attack=attack, aggregator={"name": "trimmed_mean", "byzantine": 8})
    assert all(8 <= note.tolerated < 16 for note in guessed.server.tolerance.notes)
    assert row["suboptimality"] < 1.2 * told["suboptimality"]


def test_without_attackers_the_estimate_costs_nothing(path):
    _, row = trained(path)
    _, told = trained(path, aggregator={"name": "mean"})
    assert row["suboptimality"] == pytest.approx(told["suboptimality"], rel=1e-2)


def test_the_estimate_is_never_below_what_disagreement_proves(path):
    """All votes are right here, so that none stands out; who lied is known all the same."""
    tables = {"allocation": {"name": "repetition", "copies": 5}, "encoder": {"name": "majority_vote"}}
    trainer, _ = trained(path, byzantine=2, identities="fixed", attack={"name": "gaussian"}, **tables)
    notes = trainer.server.tolerance.notes
    assert {note.proven for note in notes} == {2}
    experiment = experiment_of(path, byzantine=9, attack={"name": "gaussian"}, **tables)
    coding = Coding(experiment, 40)
    tolerance = Tolerance(experiment, coding)
    conflicts = np.zeros((40, 40), bool)
    pairs = np.arange(18).reshape(9, 2)
    conflicts[pairs[:, 0], pairs[:, 1]] = conflicts[pairs[:, 1], pairs[:, 0]] = True
    _, aggregator = tolerance.parts(Decoded(np.ones((8, 30)), conflicts), np.ones(40, bool))
    assert tolerance.notes[-1].proven == 9
    assert aggregator.byzantine == coding.corrupted(9) == 3  # nine liars outvote three groups of five


def test_fixed_liars_are_proven_by_all_rounds_together(path):
    experiment = experiment_of(path, identities="fixed")
    tolerance = Tolerance(experiment, Coding(experiment, 40))
    for liar in (3, 8, 3, 20):
        conflicts = np.zeros((40, 40), bool)
        conflicts[liar, [30, 31, 32]] = conflicts[[30, 31, 32], liar] = True
        tolerance.parts(Decoded(votes_with(0), conflicts), np.ones(40, bool))
    assert [note.proven for note in tolerance.notes] == [1, 2, 2, 3]


def test_parts_with_an_estimate_work_in_a_run_only():
    for part in (TrimmedMean(byzantine="auto"), Ctma(byzantine=1, base=Krum(byzantine="auto"))):
        assert part.estimates
        with pytest.raises(InputError, match=r"auto.* use tolerating\(number\)"):
            part.aggregate(np.ones((9, 3)))
    with pytest.raises(InputError, match="tolerating"):
        NearestNeighborMixing(byzantine="auto").apply(np.ones((9, 3)))
    assert Ctma(byzantine="auto", base=Krum(byzantine="auto")).tolerating(2) == Ctma(
        byzantine=2, base=Krum(byzantine=2)
    )
    assert Ctma(byzantine=1, base=Krum(byzantine="auto")).tolerating(2) == Ctma(byzantine=1, base=Krum(byzantine=2))
    told = TrimmedMean(byzantine=4)
    assert not told.estimates
    assert told.tolerating(7) is told
    with pytest.raises(InputError, match=r"byzantine must be int >= 0 or auto, got 'many'"):
        TrimmedMean(byzantine="many")


def test_a_config_says_auto_and_the_result_file_and_show_say_what_came_of_it(path, tmp_path, capsys):
    experiment = experiment_of(path, byzantine=8, attack={"name": "sign_flip", "scale": -3.0})
    assert loads(experiment.to_toml(), "resolved") == experiment
    config = tmp_path / "auto.toml"
    config.write_text(experiment.to_toml())
    out = str(tmp_path / "out.h5")
    assert main(["run", str(config), "-o", out, "--quiet"]) == 0
    found = load_results(out).estimates
    assert {name: len(values) for name, values in found.items()} == {"tolerated": 30, "outlying": 30, "proven": 30}
    assert found["tolerated"].min() >= 8
    assert main(["show", out]) == 0
    assert "outlying votes in the median round, at most" in capsys.readouterr().out
