"""Predicted seconds: closed forms by hand, what must never fall, and the counts that they are made of."""

import msgspec
import numpy as np
import pytest

from mpicoded.algorithms.processors import Processor
from mpicoded.algorithms.slices import part_edges
from mpicoded.configs import decode
from mpicoded.data import datasets, layout
from mpicoded.training import costs, probe, probe_votes
from mpicoded.training.aggregation import SharedSums
from mpicoded.training.clock import OUTSIDE, PHASES, Clock
from mpicoded.training.coding import Coding
from mpicoded.training.combiner import Combiner
from mpicoded.training.costs import Cluster, Line, Links, Load, Rates, Sizes
from mpicoded.training.placement import evaluators
from mpicoded.transport.base import block, header_layout, order_layout
from mpicoded.transport.local import LocalTransport

ROUND = [name for name in PHASES if name not in OUTSIDE]
FREE = Links(alpha=0, beta=0, node_alpha=0, node_beta=0, call=0)
SIZES = Sizes(devices=12, dim=20_011, number=8, record=1000, broadcast=500)  # three parts
LOAD = Load(devices=3, samples=7, held=11, liars=2)
IDLE = Rates(dict.fromkeys(ROUND, Line()), {})


def rates(**lines: Line) -> Rates:
    return Rates(IDLE.lines | lines, {})


def links(**told: float) -> Links:
    return msgspec.structs.replace(FREE, **told)


def priced(phase: str, line: Line) -> tuple[float, float]:
    """What a phase costs at the root and in three slices, and that nothing else costs anything."""
    found = costs.root(SIZES, rates(**{phase: line}), FREE, Cluster(4, 1), LOAD)
    sliced = costs.sharded(SIZES, rates(**{phase: line}), FREE, Cluster(4, 1), LOAD, 3)
    assert sum(found.values()) == found[phase]
    assert sum(sliced.values()) == sliced[phase]
    return found[phase], sliced[phase]


@pytest.mark.parametrize(
    ("phase", "root", "sharded"),
    [
        ("plan", 3, 3),
        ("compute", 4 * 7 * 20_011, 4 * 7 * 20_011),
        ("encode", 11 * 20_011, 11 * 20_011),
        ("attack", 2, 2),
        ("compress", 3, 3),
        ("decompress", 12, 3),
        ("decode", 20_011, 6671),  # a third, rounded up
        ("filter", 20_011, 6671),
        ("aggregate", 20_011, 6671),
        ("suspect", 20_011, 6671),
        ("step", 20_011, 20_011),
        ("broadcast", 20_011, 20_011),
    ],
)
def test_each_phase_is_a_line_in_units_of_its_own(phase, root, sharded):
    assert priced(phase, Line(5.0, 0.0)) == (5.0, 5.0)
    assert priced(phase, Line(0.0, 2.0)) == (2.0 * root, 2.0 * sharded)


def test_seen_messages_of_all_make_an_attack_one_of_numbers():
    seen = SIZES._replace(seen=10)
    found = costs.root(seen, rates(attack=Line(0, 2.0)), FREE, Cluster(1, 1), LOAD)
    assert found["attack"] == 2.0 * seen.dim
    moved = costs.root(seen, IDLE, links(node_beta=1.0), Cluster(4, 1), LOAD)
    assert moved["attack"] == 10 * 20_011 * 8


def test_looking_back_computes_and_encodes_twice():
    sizes = SIZES._replace(passes=2)
    for phase in ("compute", "encode"):
        once, twice = (costs.root(s, rates(**{phase: Line(0, 1.0)}), FREE, Cluster(1, 1), LOAD) for s in (SIZES, sizes))
        assert twice[phase] == 2 * once[phase] > 0


@pytest.mark.parametrize(
    ("ranks", "nodes", "near", "far"), [(1, 1, 0, 0), (2, 1, 1, 0), (4, 2, 1, 2), (7, 3, 2, 4), (100, 100, 0, 99)]
)
def test_messages_reach_the_root_one_after_another(ranks, nodes, near, far):
    cluster = Cluster(ranks, nodes)
    assert costs.gather(links(alpha=1.0), cluster, 10) == far
    assert costs.gather(links(node_alpha=1.0), cluster, 10) == near
    assert costs.gather(links(beta=1.0), cluster, 10 * ranks) == 10 * far
    assert costs.gather(links(node_beta=1.0), cluster, 10 * ranks) == 10 * (near + 1)  # its own are copied
    assert costs.gather(links(call=1.0), cluster, 10) == 1


@pytest.mark.parametrize(
    ("ranks", "nodes", "among", "within"), [(2, 1, 0, 1), (8, 1, 0, 3), (5, 5, 3, 0), (6, 2, 1, 2), (64, 16, 4, 2)]
)
def test_a_short_broadcast_goes_down_a_tree_of_nodes_and_one_of_ranks(ranks, nodes, among, within):
    cluster = Cluster(ranks, nodes)
    assert costs.broadcast(links(alpha=1.0), cluster, 0) == among
    assert costs.broadcast(links(node_alpha=1.0), cluster, 0) == within


def test_a_long_broadcast_is_scattered_and_gathered():
    """Two thirds more than once down the line, where a tree would take three times as long."""
    assert costs.broadcast(links(beta=1.0), Cluster(8, 8), 800) == 2 * 800 * 7 / 8
    mixed = links(alpha=100.0, beta=1.0)
    assert costs.broadcast(mixed, Cluster(8, 8), 1) == 3 * (100 + 1)
    assert costs.broadcast(mixed, Cluster(8, 8), 80_000) == 10 * 100 + 2 * 80_000 * 7 / 8


def test_bytes_to_the_root_are_those_that_travel_and_its_own():
    found = costs.root(SIZES, IDLE, links(node_beta=1.0), Cluster(4, 1), LOAD)
    assert found["gather"] == 12 * 1000 + 4 * header_layout(3).itemsize
    assert found["broadcast"] == 2 * 3 / 4 * (500 + order_layout(4).itemsize)  # scattered among four and gathered


def test_slices_bring_fewer_bytes_to_the_root():
    """N dim (P - 1) / P² + dim numbers beside its own, and a few bytes a device."""
    sizes, ranks = SIZES._replace(dim=400_000, devices=100), 4
    load = LOAD._replace(devices=25)
    found = costs.sharded(sizes, IDLE, links(node_beta=1.0), Cluster(ranks, 1), load, ranks)
    slices = 8 * (100 * 400_000 * (ranks - 1) / ranks**2 + 400_000)
    own = 8 * 100 * 400_000 / ranks**2
    assert 0 < found["gather"] - slices - own < 30 * 100
    at_root = costs.root(sizes._replace(record=8 * 400_000), IDLE, links(node_beta=1.0), Cluster(ranks, 1), load)
    assert at_root["gather"] > 3.8 * found["gather"] - 8 * 4 * 400_000


def test_nodes_share_one_line_to_the_others():
    """Four of eight ranks are on the first node and serve: their slices of what the other four have come in there."""
    line = links(beta=1.0)
    assert costs.exchange(line, Cluster(8, 2), 8, 800, 800) == 4 * 800 * 4 / 8
    assert costs.exchange(line, Cluster(8, 8), 8, 800, 800) == 800 * 7 / 8
    assert costs.exchange(line, Cluster(8, 2), 1, 800, 100) == 800 * 4 / 8  # into the only server's
    assert costs.exchange(line, Cluster(8, 1), 8, 800, 800) == 0
    assert costs.exchange(line, Cluster(8, 2), 8, 800, 2000) == 4 * 2000 * 4 / 8  # out of the node goes more


def test_sums_over_slices_travel_to_all_servers():
    told = IDLE._replace(sums={"suspect": [36], "filter": [144, 12]})
    found = costs.sharded(SIZES, told, links(node_beta=1.0), Cluster(4, 1), LOAD, 3)
    assert (found["suspect"], found["filter"]) == (3 * 36 * 8, 3 * (144 + 12) * 8)  # of three parts
    calls = costs.sharded(SIZES, told, links(call=1.0), Cluster(4, 1), LOAD, 3)
    assert (calls["suspect"], calls["filter"], calls["gather"]) == (1, 2, 5)
    alone = costs.sharded(SIZES, told, links(call=1.0), Cluster(4, 1), LOAD, 1)
    assert alone["suspect"] == alone["filter"] == 0


@pytest.mark.parametrize("changed", [*Links.__struct_fields__, *sorted(set(ROUND) - {"gather"})])
@pytest.mark.parametrize("cluster", [Cluster(1, 1), Cluster(4, 1), Cluster(100, 7), Cluster(10_000, 10_000)])
def test_nothing_gets_shorter_when_a_rate_gets_longer(changed, cluster):
    lines, told = dict.fromkeys(ROUND, Line(1e-6, 1e-9)), Links()
    if changed in ROUND:
        slower, slow = Rates(lines | {changed: Line(2e-6, 2e-9)}, {}), told
    else:
        slower, slow = Rates(lines, {}), msgspec.structs.replace(told, **{changed: 2 * getattr(told, changed)})
    for way in (costs.root, lambda *words: costs.sharded(*words, min(3, cluster.ranks))):
        before, after = way(SIZES, Rates(lines, {}), told, cluster, LOAD), way(SIZES, slower, slow, cluster, LOAD)
        assert all(after[name] >= before[name] for name in before)
        if changed in ROUND or cluster.ranks == 10_000:
            assert sum(after.values()) > sum(before.values()) or changed.startswith("node")


def test_one_rank_moves_nothing_and_its_load_is_everything():
    found = costs.root(SIZES, IDLE, Links(), Cluster(1, 1), LOAD)
    assert sum(found.values()) == 0
    held = np.random.default_rng(0).random((9, 14)) < 0.3
    samples = np.arange(14)
    assert costs.load(held, samples, np.arange(9) % 3 == 0, 1) == Load(
        9, int(samples[held.any(axis=0)].sum()), int(held.sum()), 3
    )


@pytest.mark.parametrize(("devices", "ranks"), [(9, 2), (10, 3), (16, 16), (13, 5), (40, 33)])
def test_the_busiest_rank_is_found_among_few_and_nearly_among_many(devices, ranks):
    stream = np.random.default_rng(devices)
    held, liars = stream.random((devices, 21)) < 0.4, stream.random(devices) < 0.5
    samples = stream.integers(0, 9, 21)
    each = []
    for rank in range(ranks):  # brute force
        first, stop = block(devices, rank, ranks)
        mine = [any(held[i, k] for i in range(first, stop)) for k in range(21)]
        count = sum(int(held[i, k]) for i in range(first, stop) for k in range(21))
        each.append((stop - first, sum(samples[mine]), count, sum(liars[first:stop])))
    found, busiest = costs.load(held, samples, liars, ranks), np.max(each, axis=0)
    assert (found.devices, found.liars) == (busiest[0], busiest[3])
    if ranks <= 16:
        assert found == tuple(busiest)
    else:
        assert np.mean([row[1] for row in each]) <= found.samples <= busiest[1]


def test_ten_thousand_ranks_are_looked_at_in_a_sample():
    held = np.zeros((10_000, 10_000), bool)
    held[:, :20] = True
    assert costs.load(held, np.full(10_000, 3), np.zeros(10_000, bool), 10_000) == Load(1, 60, 20, 0)


@pytest.mark.parametrize(
    ("points", "expected"),
    [
        (((1, 3.0), (5, 11.0)), Line(1.0, 2.0)),
        (((1, 3.0), (5, 2.0)), Line(2.0, 0.0)),  # more take no longer: noise
        (((1, 1.0), (5, 11.0)), Line(0.0, 2.2)),  # a fixed part below zero: noise
        (((4, 8.0), (4, 8.0)), Line(0.0, 2.0)),
        (((0, 1.0), (0, 3.0)), Line(3.0, 0.0)),
        (((0, 1.0), (2, 3.0)), Line(1.0, 1.0)),
    ],
)
def test_a_line_goes_through_what_was_measured_last(points, expected):
    line = Line.through(*points)
    assert line == pytest.approx(expected)
    assert line.at(points[1][0]) == pytest.approx(points[1][1])


@pytest.mark.parametrize(("power", "taken"), [(0, 1), (1, 1), (2, 2), (3, 3), (5, 3)])
def test_more_votes_than_are_measured_follow_the_last_doubling(power, taken):
    assert probe_votes.extrapolated(1.0, 2.0**power, 10.0) == pytest.approx(2.0**power * 10.0**taken)
    assert probe_votes.extrapolated(0.0, 3.0, 10.0) == 30.0


@pytest.mark.parametrize("density", [0.0, 0.05, 0.6, 1.0])
def test_each_subset_is_evaluated_by_its_holders_in_turn(density, monkeypatch):
    monkeypatch.setattr("mpicoded.training.placement._SUBSETS", 7)
    holders = np.random.default_rng(3).random((11, 40)) < density
    for subset, rank in enumerate(evaluators(holders).tolist()):
        there = np.flatnonzero(holders[:, subset]).tolist()
        assert rank == (there[subset % len(there)] if there else 0)


TREE = {
    "devices": 12,
    "byzantine": 2,
    "rounds": 3,
    "data": {"path": "data.h5"},
    "model": {"name": "linear_regression"},
    "allocation": {"name": "cyclic", "redundancy": 4},
    "attack": {"name": "sign_flip"},
    "optimizer": {"step_size": 1e-6},
}


@pytest.fixture
def described(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(probe_votes, "_SECONDS", 0)  # one call each
    datasets.linear_regression("data.h5", subsets=12, features=500, seed=1)
    return layout.describe("data.h5")


@pytest.mark.parametrize(
    "words",
    [
        {},
        {"compressor": {"name": "rand_k", "kept": 9}, "memory": {"name": "momentum"}},
        {"compressor": {"name": "qsgd"}, "filters": [{"name": "nearest_neighbor_mixing"}]},
        {"attack": {"name": "optimal_ipm"}, "aggregator": {"name": "geometric_median"}},
        {"attack": {"name": "label_flip"}, "aggregator": {"name": "krum", "byzantine": "auto"}},
        {"attack": {"name": "bit_flip"}, "compute": {"dtype": "float32"}, "data": {"path": "data.h5", "batch_size": 3}},
        {"attack": {"name": "silent"}, "compressor": {"name": "qsgd"}, "memory": {"name": "marina"}},
        {"allocation": {"name": "repetition", "copies": 3}, "encoder": {"name": "majority_vote"}},
        {"devices": 1, "byzantine": 0, "allocation": {"name": "partition"}},
    ],
)
def test_every_phase_of_an_experiment_is_measured(described, words):
    experiment = decode(TREE | words, "costs")
    experiment.check(described, 1)
    what = probe.probe(experiment, described, Coding(experiment, 12))
    assert what.sizes.passes == 1 + (experiment.attack.mislabels or experiment.memory.looks_back)
    found = probe.measure(what, counts=not experiment.encoder.decodes)
    assert set(found.lines) == set(ROUND) - {"gather"}
    assert all(line.fixed >= 0 and line.each >= 0 for line in found.lines.values())
    for phase in ("broadcast", "plan", "compute", "encode", "compress", "decompress", "aggregate", "suspect", "step"):
        assert sum(found.lines[phase]) > 0, phase
    attacks = experiment.attacked and (experiment.attack.sends and not experiment.attack.mislabels)
    assert sum(found.lines["attack"]) > 0 or not attacks


@pytest.mark.parametrize("name", ["trimmed_mean", "krum", "geometric_median", "centered_clipping"])
@pytest.mark.parametrize("filtered", [False, True])
def test_sums_are_counted_as_they_travel(described, name, filtered):
    rule = {"name": name, "tau": 10.0} if name == "centered_clipping" else {"name": name}
    filters = [{"name": "nearest_neighbor_mixing"}] if filtered else []
    experiment = decode(TREE | {"aggregator": rule, "filters": filters}, "costs")
    coding, dim = Coding(experiment, 12), 20_011
    counted = probe.measure(probe.probe(experiment, described, coding), counts=True).sums
    sums = SharedSums(0, part_edges(dim), [0, 3])
    sums.transport = LocalTransport()
    combiner = Combiner(experiment, coding, Clock(), dim, Processor(), sums)
    votes = probe_votes.noise(12, dim, np.dtype(np.float64))
    combiner.combine(votes, np.ones(12, bool), np.ones(12, bool), 0)
    assert sums.moved == 3 * 8 * sum(sum(numbers) for numbers in counted.values()) > 0


def test_a_great_many_votes_are_measured_with_fewer(described, monkeypatch):
    """Scaled down: a share of liars as large, parts that still work, and sums as long as those of all devices."""
    monkeypatch.setattr(probe_votes, "_VOTES", 20)
    sizes = []
    old = probe_votes.noise

    def noise(rows, columns, dtype):
        sizes.append(rows)
        return old(rows, columns, dtype)

    monkeypatch.setattr(probe_votes, "noise", noise)
    tree = TREE | {"devices": 60, "byzantine": 12, "aggregator": {"name": "krum"}}
    tree |= {"filters": [{"name": "nearest_neighbor_mixing"}]}
    experiment = decode(tree, "costs")
    _, sums, _ = probe_votes.voting(experiment, Coding(experiment, 60), 500, True)
    assert set(sizes) == {10, 20}
    assert sums["suspect"] == [3 * 60]
    assert sums["filter"] == [9 * 60, 60 * 60]
    sizes.clear()
    alone = decode(tree | {"filters": [], "aggregator": {"name": "trimmed_mean"}}, "costs")
    probe_votes.voting(alone, Coding(alone, 60), 500, True)
    assert set(sizes) == {60}
