import tomllib
from pathlib import Path

import pytest

from mpicoded import overrides
from mpicoded.algorithms.aggregators import Krum, TrimmedMean
from mpicoded.algorithms.component import members
from mpicoded.configs import FAMILIES, decode, load, loads
from mpicoded.data import datasets, layout
from mpicoded.errors import InputError

CONFIGS = Path(__file__).parent.parent / "configs"


def override(tree, words):
    return overrides.override(tree, words, FAMILIES)


def tree(**changes):
    base = {
        "devices": 10,
        "byzantine": 2,
        "rounds": 5,
        "data": {"path": "x.h5"},
        "model": {"name": "linear_regression"},
    }
    return {key: value for key, value in (base | changes).items() if value is not None}


BAD = {
    "a misspelt top-level key": (
        tree(round=3),
        "the top level has no key 'round'; it has: devices, byzantine",
    ),
    "a missing key": (tree(rounds=None), "the top level lacks rounds"),
    "a wrong type": (tree(devices="x"), "devices: expected int, got 'x'"),
    "a number out of range": (tree(devices=0), "devices: expected int >= 1, got 0"),
    "a fraction for a count": (tree(rounds=1.5), "rounds: expected int, got 1.5"),
    "a word that is none of the choices": (
        tree(identities="a"),
        "identities: expected one of resampled | fixed, got 'a'",
    ),
    "a device that is none": (
        tree(compute={"device": "gpu"}),
        "compute.device: expected one of cpu | cuda, got 'gpu'",
    ),
    "a table without its key": (tree(data={}), "data lacks path"),
    "a misspelt key of data": (tree(data={"pth": "a"}), "data has no key 'pth'; it has: path, batch_size"),
    "a value for a table": (tree(data="a"), "data: expected object, got 'a'"),
    "an unknown component": (
        tree(model={"name": "lin"}),
        "model has no component 'lin'; choose from: linear_regression",
    ),
    "a component without name": (
        tree(aggregator={"byzantine": 1}),
        "aggregator needs a name; choose from: mean",
    ),
    "a component that is text": (tree(attack="none"), "attack must be a table with a name, got 'none'"),
    "a misspelt field": (
        tree(aggregator={"name": "krum", "byz": 3}),
        "aggregator krum has no key 'byz'; it has: byzantine",
    ),
    "a field of the wrong sign": (
        tree(aggregator={"name": "krum", "byzantine": -1}),
        "aggregator.byzantine: expected int >= 0, got -1",
    ),
    "a missing field": (tree(allocation={"name": "cyclic"}), "allocation lacks redundancy"),
    "a bad filter": (
        tree(filters=[{"name": "nearest_neighbor_mixing", "byzantine": "a"}]),
        "filters.0.byzantine: expected int >= 0 or auto, got 'a'",
    ),
    "a filter that is no table": (tree(filters=[3]), "filters must be a table with a name, got 3"),
    "a step of zero": (tree(optimizer={"step_size": 0}), "optimizer.step_size: expected float > 0.0, got 0"),
    "a huge seed": (tree(seed=2**70), "seed: expected int"),
}


@pytest.mark.parametrize("case", BAD)
def test_a_bad_config_is_one_line_that_names_place_need_and_value(case):
    broken, expected = BAD[case]
    with pytest.raises(InputError) as raised:
        decode(broken, "a.toml")
    assert str(raised.value).startswith(f"config a.toml: {expected}")
    assert "\n" not in str(raised.value)
    assert "`" not in str(raised.value)


def test_rule_and_filters_tolerate_the_byzantine_devices_unless_told_otherwise():
    experiment = decode(tree(filters=[{"name": "nearest_neighbor_mixing"}]), "a.toml")
    assert experiment.aggregator == TrimmedMean(byzantine=2)
    assert experiment.filters[0].byzantine == 2
    assert decode(tree(aggregator={"name": "krum", "byzantine": 1}), "a").aggregator == Krum(byzantine=1)


def test_the_resolved_experiment_survives_toml():
    experiment = decode(tree(attack={"name": "alie"}, filters=[{"name": "nearest_neighbor_mixing"}]), "a")
    assert loads(experiment.to_toml(), "b") == experiment
    assert tomllib.loads(experiment.to_toml())["optimizer"]["momentum"] == 0.0


def test_overrides_edit_the_tree():
    words = [
        "--seed",
        "4",
        "--data.path=z.h5",
        "--attack.name",
        "ipm",
        "--attack.scale",
        "2",
        "--filters",
        "[]",
    ]
    changed = override(tree(attack={"name": "alie", "z": 1.0}), words)
    assert changed["seed"] == 4
    assert changed["data"] == {"path": "z.h5"}
    assert changed["attack"] == {"name": "ipm", "scale": 2}  # alie's z went with alie
    assert override(tree(filters=[{"name": "a"}]), ["--filters.0.byzantine", "1"])["filters"][0]["byzantine"] == 1


def test_a_new_component_keeps_the_fields_that_it_has_too():
    changed = override(tree(aggregator={"name": "trimmed_mean", "byzantine": 3}), ["--aggregator.name", "krum"])
    assert decode(changed, "a").aggregator == Krum(byzantine=3)


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--seed"], "override --seed needs a value"),
        (["seed", "3"], "unexpected argument 'seed'"),
        (["--devices.x", "3"], "devices is not a table"),
        (["--filters.3.byzantine", "3"], "override --filters.3.byzantine"),
    ],
)
def test_bad_overrides_are_named(words, expected):
    with pytest.raises(InputError, match=expected):
        decode(override(tree(filters=[]), words), "a")


@pytest.mark.parametrize(
    ("changes", "ranks", "expected"),
    [
        ({}, 11, "11 ranks are more than the 10 devices"),
        ({"byzantine": 5}, 1, "byzantine must be fewer than half of the 10 devices, got 5"),
        ({"model": {"name": "softmax_regression"}}, 1, "is for classification, but"),
        (
            {"allocation": {"name": "cyclic", "redundancy": 21}},
            1,
            "at most the number of subsets, 20, got 21",
        ),
        ({"allocation": {"name": "balanced", "redundancy": 3}}, 1, "the nearest redundancy is 2 or 4"),
        (
            {"aggregator": {"name": "krum", "byzantine": 4}},
            1,
            r"Krum\(byzantine=4\) needs at least 11 votes, got 10",
        ),
        (
            {"filters": [{"name": "nearest_neighbor_mixing", "byzantine": 5}]},
            1,
            "needs at least 11 votes, got 10",
        ),
    ],
)
def test_parts_that_do_not_fit_are_refused_before_the_run(tmp_path, changes, ranks, expected):
    path = str(tmp_path / "data.h5")
    datasets.linear_regression(path, subsets=20, features=3)
    with pytest.raises(InputError, match=expected):
        decode(tree(data={"path": path}, **changes), "a").check(layout.describe(path), ranks)


def test_the_rule_must_have_enough_of_the_votes_that_its_filters_leave(tmp_path, monkeypatch):
    path = str(tmp_path / "data.h5")
    datasets.linear_regression(path, subsets=20, features=3)
    experiment = decode(tree(data={"path": path}, filters=[{"name": "nearest_neighbor_mixing"}]), "a")
    experiment.check(layout.describe(path), 1)
    monkeypatch.setattr(type(experiment.filters[0]), "votes", lambda self, votes: votes // 3)
    with pytest.raises(InputError, match=r"TrimmedMean\(byzantine=2\) needs at least 5 votes, got 3"):
        experiment.check(layout.describe(path), 1)


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("*.toml")), ids=lambda path: path.stem)
def test_every_shipped_config_loads_and_says_how_to_make_its_data(path):
    experiment = load(str(path))
    command = next(line for line in path.read_text().splitlines() if line.startswith("# Data: mpicoded data "))
    assert f"-o {experiment.data.path}" in command


def test_names_are_the_classes_in_snake_case():
    from mpicoded.algorithms.component import snake_case

    assert [snake_case(name) for name in ("CoordinateMedian", "Ipm", "RandK", "QSGDCode")] == [
        "coordinate_median",
        "ipm",
        "rand_k",
        "qsgd_code",
    ]
    for choice in FAMILIES.values():
        for name, cls in members(choice).items():
            assert name in (snake_case(cls.__name__), "none")
