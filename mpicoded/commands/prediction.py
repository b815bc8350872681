"""Seconds of a round as ``mpicoded plan --time`` predicts them, for one number of ranks and for all there may be."""

import argparse
import re
import subprocess
from collections.abc import Callable

import msgspec

from mpicoded.commands.launch import environment, find_launcher, is_open_mpi, program
from mpicoded.commands.text import readable_seconds, table
from mpicoded.data.layout import Description
from mpicoded.errors import InputError, one_line
from mpicoded.experiment import Experiment
from mpicoded.training import costs
from mpicoded.training.aggregation import slice_servers
from mpicoded.training.clock import OUTSIDE, PHASES
from mpicoded.training.coding import Coding
from mpicoded.training.costs import Cluster, Line, Links, Rates
from mpicoded.training.probe import Probe, measure, probe, samples_of
from mpicoded.transport.launched import launched
from mpicoded.wiring import Sharded, Wiring

_LINKS = Links.__struct_fields__
_WITHIN = ("node_alpha", "node_beta", "call")  # what two ranks here can tell
_ROWS = (*(name for name in PHASES if name not in OUTSIDE), "between")
_DOCTOR_SECONDS = 60
_SHORT = 1e-7  # seconds of a phase that is not worth a line


def prediction(
    experiment: Experiment, description: Description, coding: Coding, cluster: Cluster, arguments: argparse.Namespace
) -> str:
    """The tables."""
    links, source = _links(arguments)
    refused = _refused(experiment, description, cluster.ranks)
    what = probe(experiment, description, coding)
    rates = measure(what, counts=refused is None)
    if arguments.flops is not None:
        compute = Line(rates.lines["compute"].fixed, 1 / arguments.flops)
        rates = rates._replace(lines={**rates.lines, "compute": compute})
    predictor = Predictor(what, rates, links, refused is None)
    return "\n".join(
        [
            f"seconds of a round, predicted for {_said(cluster)}",
            f"  a rank: {_speed(rates, arguments.flops)}",
            f"  between nodes: alpha {links.alpha:.3g} s, beta {links.beta:.3g} s/byte; in a node: alpha "
            f"{links.node_alpha:.3g} s, beta {links.node_beta:.3g} s/byte; a collective call: {links.call:.3g} s",
            f"  {source}",
            *([f"  sharded: {refused}"] if refused is not None else []),
            "",
            _phases(predictor, cluster, experiment.rounds),
            "",
            saturation(predictor, cluster),
            "",
            scaling(predictor, cluster),
        ]
    )


class Predictor:
    """Phases of a round by number of ranks."""

    def __init__(self, what: Probe, rates: Rates, links: Links, slices: bool) -> None:
        self.slices, self.devices = slices, what.sizes.devices
        self._what, self._rates, self._links = what, rates, links
        transport = what.experiment.transport
        self._servers = transport.servers if isinstance(transport, Sharded) else None
        self._samples, self._liars = samples_of(what.experiment, what.description), what.liars

    def root(self, cluster: Cluster) -> dict[str, float]:
        """With transport root."""
        return costs.root(self._what.sizes, self._rates, self._links, cluster, self._load(cluster))

    def sharded(self, cluster: Cluster) -> dict[str, float]:
        """With transport sharded."""
        servers = slice_servers(self._servers, self._what.sizes.dim, cluster.ranks)
        return costs.sharded(self._what.sizes, self._rates, self._links, cluster, self._load(cluster), servers)

    def _load(self, cluster: Cluster) -> costs.Load:
        return costs.load(self._what.assignment, self._samples, self._liars, cluster.ranks)


def _links(arguments: argparse.Namespace) -> tuple[Links, str]:
    """What is given, measured or, where neither, stated; and which is what."""
    given = {name: value for name in _LINKS if (value := getattr(arguments, name)) is not None}
    measured = {} if set(_WITHIN) <= set(given) else _measured()
    sources = {
        "given": [name for name in _LINKS if name in given],
        "measured between two ranks here": [name for name in measured if name not in given],
        "as of a network of 25 Gb/s and of shared memory": [name for name in _LINKS if name not in measured | given],
    }
    told = [f"{source}: {', '.join(names).replace('_', '-')}" for source, names in sources.items() if names]
    return Links(**measured | given), "; ".join(told)


def _measured() -> dict[str, float]:
    """What ``mpicoded doctor`` finds on two ranks; nothing where they cannot be started from here."""
    found = find_launcher() if launched() is None else None
    if found is None:
        return {}
    launcher, version = found
    try:
        ended = subprocess.run(
            [launcher, "-n", "2", *program(), "doctor"],
            env=environment(2, is_open_mpi(version)),
            capture_output=True,
            text=True,
            timeout=_DOCTOR_SECONDS,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return {}
    told = dict(re.findall(r"--([a-z-]+) ([0-9.e+-]+)", ended.stdout))
    return {name: float(told[option]) for name in _WITHIN if (option := name.replace("_", "-")) in told}


def _refused(experiment: Experiment, description: Description, ranks: int) -> str | None:
    """Why there would be no run with slices."""
    transport = experiment.transport
    if isinstance(transport, Sharded):
        return None
    if transport.incomplete:
        return "transport sharded waits for all messages, without deadline, quickest or on_rank_loss"
    told = {name: getattr(transport, name) for name in Wiring.__struct_fields__}
    try:
        msgspec.structs.replace(experiment, transport=Sharded(**told)).check(description, ranks)
    except InputError as error:
        return one_line(error)
    return None


def _phases(predictor: Predictor, cluster: Cluster, rounds: int) -> str:
    root = predictor.root(cluster)
    both = [root, predictor.sharded(cluster)] if predictor.slices else [root]
    shown = [name for name in _ROWS if any(phases[name] >= _SHORT for phases in both)]
    totals = [sum(phases.values()) for phases in both]
    lines: list[tuple[str, Callable[[int], str]]] = [
        *((name, lambda way, name=name: readable_seconds(both[way][name])) for name in shown),
        ("a round", lambda way: readable_seconds(totals[way])),
        (f"{rounds} rounds", lambda way: readable_seconds(rounds * totals[way])),
        ("rounds/s", lambda way: f"{1 / totals[way]:.3g}"),
    ]
    rows = [[name, *(text(way) for way in range(len(both)))] for name, text in lines]
    return table([["phase", "root", "sharded"][: 1 + len(both)], *rows])


def scaling(predictor: Predictor, cluster: Cluster) -> str:
    """Of powers of two, and of as many ranks as there may be."""
    counts = [2**power for power in range(predictor.devices.bit_length()) if 2**power < predictor.devices]
    rows = [["ranks", "nodes", "root", "of it rank 0 alone", *(["sharded"] if predictor.slices else [])]]
    for ranks in [*counts, predictor.devices]:
        some = cluster.lowest(ranks)
        phases = predictor.root(some)
        total = sum(phases.values())
        rows.append([str(ranks), str(some.nodes), readable_seconds(total), f"{costs.alone(phases) / total:.0%}"])
        if predictor.slices:
            rows[-1].append(readable_seconds(sum(predictor.sharded(some).values())))
    return table(rows)


def saturation(predictor: Predictor, cluster: Cluster) -> str:
    """From how many ranks on rank 0 alone takes longer than all of them together."""

    def saturated(ranks: int) -> bool:
        phases = predictor.root(cluster.lowest(ranks))
        return costs.alone(phases) >= costs.parallel(phases)

    low, high = 1, predictor.devices
    if not saturated(high):
        return f"the root does not saturate: with {high} ranks, what rank 0 does alone is shorter than what all share"
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if saturated(middle) else (middle + 1, high)
    phases = predictor.root(cluster.lowest(low))
    seconds = readable_seconds(costs.alone(phases))
    return (
        f"the root saturates at {low} {'rank' if low == 1 else 'ranks'}: from there on rank 0 takes longer alone "
        f"({seconds}) than what all ranks share"
    )


def _said(cluster: Cluster) -> str:
    ranks = f"{cluster.ranks} {'rank' if cluster.ranks == 1 else 'ranks'}"
    return f"{ranks} on {cluster.nodes} {'node' if cluster.nodes == 1 else 'nodes'}"


def _speed(rates: Rates, given: float | None) -> str:
    each = rates.lines["compute"].each
    gradients = f"{1 / each:.3g} flops of gradients" if each > 0 else "no seconds for gradients"
    return f"{gradients} a second ({'given' if given else 'measured'}); all else measured here"
