"""Codes that are decoded, in whole runs: exact where they say so, refused where they cannot be."""

import numpy as np
import pytest

from mpicoded.cli import main
from mpicoded.configs import decode
from mpicoded.data import datasets, layout
from mpicoded.data.results import load_results
from mpicoded.errors import InputError
from mpicoded.training.adversary import byzantine_devices
from mpicoded.training.loop import Trainer
from mpicoded.transport.local import LocalTransport

CODES = {
    "repetition": ({"name": "repetition", "copies": 5}, {"name": "majority_vote"}),
    "latin squares": ({"name": "latin_square", "copies": 5}, {"name": "majority_vote"}),
    "all subsets": ({"name": "all_subsets", "copies": 5}, {"name": "agreement"}),
    "cyclic": ({"name": "cyclic", "redundancy": 5}, {"name": "cyclic_code"}),
}
SIZES = {"repetition": (15, 30), "latin squares": (25, 25), "all subsets": (7, 21), "cyclic": (15, 15)}
"""Devices and subsets."""
ROUNDS = 8


def experiment_of(path: str, code: str, **tables):
    allocation, encoder = CODES[code]
    devices, _ = SIZES[code]
    settings = {
        "devices": devices,
        "byzantine": 2,
        "rounds": ROUNDS,
        "evaluate_every": ROUNDS,
        "seed": 3,
        "data": {"path": path},
        "allocation": allocation,
        "encoder": encoder,
        "aggregator": {"name": "mean"},
        "optimizer": {"step_size": 1e-4},
    }
    experiment = decode(settings | tables, "test")
    experiment.check(layout.describe(path), 1)
    return experiment


def trained(path: str, code: str, **tables) -> tuple[Trainer, dict]:
    trainer, rows = Trainer(experiment_of(path, code, **tables), layout.describe(path), LocalTransport()), []
    trainer.train(lambda progress: rows.append(progress.row))
    return trainer, rows[-1]


@pytest.fixture(scope="module")
def paths(tmp_path_factory) -> dict[str, str]:
    made = {}
    for code, (_, subsets) in SIZES.items():
        made[code] = str(tmp_path_factory.mktemp("data") / "linear.h5")
        datasets.linear_regression(made[code], subsets=subsets, features=12, seed=1)
    return made


@pytest.mark.parametrize(
    "attack", ["sign_flip", "gaussian", "alie", "ipm", "optimal_ipm", "label_flip", "silent", "malformed"]
)
@pytest.mark.parametrize("code", CODES)
def test_lies_within_the_limit_change_nothing(paths, code, attack):
    compressor = {} if code == "cyclic" else {"compressor": {"name": "qsgd"}}
    honest, _ = trained(paths[code], code, **compressor)
    lied_to, row = trained(paths[code], code, attack={"name": attack}, **compressor)
    np.testing.assert_allclose(lied_to.parameters, honest.parameters, rtol=1e-9)
    assert (
        row["bytes_up"]
        == (ROUNDS * (SIZES[code][0] - 2 * (attack == "silent")))
        * lied_to.uplink.adversary._coding.travelling(lied_to.experiment.compressor.layout(12, "float64")).itemsize
    )
    if attack == "silent":
        assert row["missing_records"] == 2 * ROUNDS


@pytest.mark.parametrize(("code", "draws"), [("cyclic", ROUNDS), ("repetition", 1)])
def test_an_allocation_is_drawn_once_a_round_or_once(paths, monkeypatch, code, draws):
    """Devices, decoder and attackers share it; what is not decoded or aimed at is drawn by the devices alone."""
    part = experiment_of(paths[code], code).allocation
    real, drawn = type(part).assignment, []

    def assignment(self, devices, subsets, round, seed):
        drawn.append(round)
        return real(self, devices, subsets, round, seed)

    monkeypatch.setattr(type(part), "assignment", assignment)
    aimed = {"name": "code_aware", "lies": "subset"}
    for tables in ({}, {"encoder": {"name": "mean"}, "attack": aimed}, {"encoder": {"name": "mean"}}):
        experiment = experiment_of(paths[code], code, **tables)
        trainer = Trainer(experiment, layout.describe(paths[code]), LocalTransport())
        drawn.clear()
        trainer.train()
        assert len(drawn) <= draws, tables


@pytest.mark.parametrize("code", CODES)
def test_fixed_liars_are_named_and_nobody_else_is(paths, code):
    trainer, _ = trained(paths[code], code, attack={"name": "gaussian"}, identities="fixed")
    guilty = byzantine_devices(trainer.experiment, 0)
    scores = trainer.server.suspicion.scores
    assert (scores[guilty] > 5).all()
    assert (scores[~guilty] == 0).all()
    if code != "cyclic":  # which has no replicas
        assert {note.proven for note in trainer.server.tolerance.notes} == {2}


def test_a_round_that_cannot_be_decoded_is_said_and_counted(paths, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    table = {"encoder": {"name": "cyclic_code", "byzantine": 2}, "attack": {"name": "gaussian"}}
    within, beyond = (experiment_of(paths["cyclic"], "cyclic", byzantine=count, **table) for count in (2, 4))
    for experiment, rounds in ((within, 0), (beyond, ROUNDS)):
        with open("code.toml", "w") as file:
            file.write(experiment.to_toml())
        assert main(["run", "code.toml", "--quiet"]) == 0
        assert ("round 1 could not be decoded" in capsys.readouterr().err) == bool(rounds)
        assert load_results("code.h5").bad_records["undecoded"] == rounds


def test_rules_are_told_how_many_votes_devices_can_corrupt(paths):
    told = {code: experiment_of(paths[code], code, byzantine=2, aggregator={"name": "trimmed_mean"}) for code in CODES}
    assert {code: experiment.aggregator.byzantine for code, experiment in told.items()} == dict.fromkeys(CODES, 0)
    assert told["cyclic"].encoder.byzantine == 2
    more = experiment_of(paths["latin squares"], "latin squares", byzantine=4, aggregator={"name": "trimmed_mean"})
    assert more.aggregator.byzantine == more.encoder.corrupted(more.allocation.assignment(25, 25, 0, 3), 4)
    assert more.aggregator.byzantine > 0


@pytest.mark.parametrize("memory", ["momentum", "server_momentum", "ef21", "dm21"])
def test_what_liars_leave_in_memories_needs_fixed_identities(paths, memory):
    tables = {"memory": {"name": memory}, "allocation": {"name": "repetition", "copies": 5, "permute": False}}
    with pytest.raises(InputError, match=rf"memory {memory} with encoder majority_vote: .*identities = \"fixed\""):
        experiment_of(paths["repetition"], "repetition", attack={"name": "sign_flip"}, **tables)
    experiment_of(paths["repetition"], "repetition", **tables)  # nobody lies
    for attack in ("sign_flip", "label_flip"):
        settings = tables | {"attack": {"name": attack}, "identities": "fixed"}
        honest, _ = trained(paths["repetition"], "repetition", **settings | {"byzantine": 0})
        lied_to, _ = trained(paths["repetition"], "repetition", **settings)
        np.testing.assert_allclose(lied_to.parameters, honest.parameters, rtol=1e-9)
        assert max(note.proven for note in lied_to.server.tolerance.notes) == 2


@pytest.mark.parametrize(
    ("words", "need"),
    [
        (["--byzantine", "-1"], "byzantine: expected int >= 0, got -1"),
        (["--devices", "0"], "devices: expected int >= 1, got 0"),
        (["--devices", "-9"], "devices: expected int >= 1, got -9"),
        (["--byzantine", str(10**13)], "byzantine must be fewer than half of the 15 devices"),
        (["--byzantine", "x"], "byzantine: expected int, got 'x'"),
        (["--allocation.copies", "4"], "needs a multiple of 4 devices"),
    ],
)
@pytest.mark.parametrize("command", ["run", "plan"])
def test_bad_numbers_are_one_line_with_a_code_too(paths, tmp_path, monkeypatch, capsys, command, words, need):
    monkeypatch.chdir(tmp_path)
    with open("code.toml", "w") as file:
        file.write(experiment_of(paths["repetition"], "repetition").to_toml())
    assert main([command, "code.toml", *words]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert need in said


def test_the_clairvoyant_averages_the_honest_alone(paths):
    tables = {"allocation": {"name": "cyclic", "redundancy": 3}, "encoder": {"name": "mean"}}
    rule = {"aggregator": {"name": "clairvoyant"}}
    ends = [
        trained(paths["cyclic"], "cyclic", **tables, **rule, attack={"name": attack})[0].parameters
        for attack in ("gaussian", "ipm", "silent", "non_finite")
    ]
    for end in ends[1:]:
        np.testing.assert_array_equal(end, ends[0])
    behaving, _ = trained(paths["cyclic"], "cyclic", **tables, **rule)
    everyone, _ = trained(paths["cyclic"], "cyclic", **tables)
    np.testing.assert_array_equal(behaving.parameters, everyone.parameters)
    for other in ({"filters": [{"name": "bucketing"}]}, {"encoder": {"name": "cyclic_code"}}):
        with pytest.raises(InputError, match="aggregator clairvoyant averages messages as they are sent: without"):
            experiment_of(paths["cyclic"], "cyclic", **CODES_OF_CYCLIC | rule | other)


CODES_OF_CYCLIC = {"allocation": CODES["cyclic"][0]}


@pytest.mark.parametrize("rule", ["clairvoyant", "trimmed_mean"])
def test_a_run_that_diverges_under_mimic_ends(paths, rule):
    tables = {"allocation": {"name": "cyclic", "redundancy": 3}, "encoder": {"name": "mean"}}
    optimizer = {"step_size": 1e200}
    trained(
        paths["cyclic"], "cyclic", **tables, aggregator={"name": rule}, attack={"name": "mimic"}, optimizer=optimizer
    )
