"""Seconds of a round on any number of ranks, from rates that were measured once.

Work: a line for each phase, seconds = fixed + each × units. Traffic: Hockney's alpha and beta (1994), seconds of a
message and of a byte of it, one pair between nodes and one within a node; for collective calls the terms of Thakur,
Rabenseifner and Gropp (2005): trees for short vectors, scatter and allgather for long ones. What all ranks of a node
exchange with other nodes goes through one link.
"""

from collections.abc import Mapping, Sequence
from math import ceil, log2
from typing import NamedTuple

import msgspec
import numpy as np

from mpicoded.algorithms.shapes import Array, Bool, Int
from mpicoded.algorithms.slices import part_edges
from mpicoded.errors import InputError
from mpicoded.transport.base import BESIDE, block_starts, header_layout, order_layout

ROOT_ALONE = ("gather", "decompress", "decode", "estimate", "filter", "aggregate", "suspect", "step")
"""Phases of rank 0, for which the others wait, with transport root."""
BY_COLUMNS = ("decode", "estimate", "filter", "aggregate", "suspect")
_SAMPLED = 16  # ranks that are looked at for the one with most to do


class Line(NamedTuple):
    """Seconds of a phase: some of every call, and some of every unit."""

    fixed: float = 0.0
    each: float = 0.0

    def at(self, units: float) -> float:
        """Seconds of so many units."""
        return self.fixed + self.each * units

    @classmethod
    def through(cls, first: tuple[float, float], second: tuple[float, float]) -> "Line":
        """From (units, seconds) of two calls, the second with more units: through it, and never falling."""
        (few, short), (many, long) = first, second
        if many <= few or long <= 0:
            return cls(0.0, long / many) if many > 0 else cls(long)
        each = min(max(0.0, (long - short) / (many - few)), long / many)
        return cls(long - each * many, each)


class Links(msgspec.Struct, frozen=True, kw_only=True):
    """Seconds of a message (alpha) and of a byte of it (beta), and of a collective call beside its messages."""

    alpha: float = 2e-6  # between nodes: an InfiniBand or RDMA network of 25 Gb/s
    beta: float = 1 / 3e9
    node_alpha: float = 1e-6  # within a node: shared memory
    node_beta: float = 1.5e-10
    call: float = 2e-5


class Cluster(NamedTuple):
    """Ranks on nodes, one node after another."""

    ranks: int
    nodes: int

    @property
    def per_node(self) -> int:
        """Ranks of a full node."""
        return -(-self.ranks // self.nodes)

    def lowest(self, ranks: int) -> "Cluster":
        """So many ranks, as many on a node as here: the lowest ones, or more than there are."""
        return Cluster(ranks, -(-ranks // self.per_node))

    def check(self) -> None:
        """Raise InputError where there are more nodes than ranks."""
        if self.nodes > self.ranks:
            raise InputError(f"--nodes must be at most the {self.ranks} ranks, one each, got {self.nodes}")


class Sizes(NamedTuple):
    """What an experiment moves."""

    devices: int
    dim: int
    number: int  # bytes of a number as it is computed
    record: int  # bytes that a device sends in a round
    broadcast: int  # bytes that a rank is told
    passes: int = 1  # gradients of a subset in a round
    seen: int = 0  # honest messages that colluding attackers listen in on


class Load(NamedTuple):
    """What the busiest rank does in a round."""

    devices: int
    samples: int  # in all subsets that its devices compute, each computed once
    held: int  # gradients that are encoded, counted once for each device that does
    liars: int


class Rates(NamedTuple):
    """What a rank takes."""

    lines: Mapping[str, Line]
    """By phase. Units are devices (plan, compress, decompress), flops (compute), liars (attack, unless they collude),
    multiplied numbers (encode), coordinates (the others)."""
    sums: Mapping[str, Sequence[int]]
    """By phase, the sums over all coordinates: how many numbers each has."""
    between: float = 0.0
    """Seconds outside all phases."""


def flops(samples: int, dim: int, passes: int = 1) -> float:
    """Of gradients of a model that is linear in its parameters: a product forth and one back, 2 each."""
    return 4.0 * samples * dim * passes


def load(
    assignment: Bool[Array, "devices subsets"],
    samples: Int[Array, " subsets"],
    liars: Bool[Array, " devices"],
    ranks: int,
) -> Load:
    """The most that one of the ranks does, of each kind; of many ranks, a sample is looked at."""
    devices = len(assignment)
    starts = [*block_starts(devices, ranks).tolist(), devices]
    computed, held = 0, 0
    for rank in np.unique(np.linspace(0, ranks - 1, min(ranks, _SAMPLED)).astype(int)).tolist():
        mine = assignment[starts[rank] : starts[rank + 1]]
        computed = max(computed, int(samples[mine.any(axis=0)].sum()))
        held = max(held, int(np.count_nonzero(mine)))
    lying = int(np.add.reduceat(liars, starts[:-1], dtype=np.int64).max())
    return Load(int(np.diff(starts).max()), computed, held, lying)


def root(sizes: Sizes, rates: Rates, links: Links, cluster: Cluster, load: Load) -> dict[str, float]:
    """Seconds of each phase of a round, as rank 0 sees it, where all messages go there."""
    found = _before(sizes, rates, links, cluster, load)
    found["gather"] = 0.0
    if cluster.ranks > 1:
        header = cluster.ranks * header_layout(load.devices).itemsize
        found["gather"] = gather(links, cluster, header) + gather(links, cluster, sizes.devices * sizes.record)
    found["decompress"] = rates.lines["decompress"].at(sizes.devices)
    for phase in BY_COLUMNS:
        found[phase] = rates.lines[phase].at(sizes.dim)
    return _after(found, sizes, rates)


def sharded(sizes: Sizes, rates: Rates, links: Links, cluster: Cluster, load: Load, servers: int) -> dict[str, float]:
    """The same where each of so many servers aggregates a slice of the coordinates."""
    found = _before(sizes, rates, links, cluster, load)
    width = -(-sizes.dim // servers)
    among, every = cluster.lowest(servers), sizes.devices * width * sizes.number
    found["gather"] = every * links.node_beta
    if cluster.ranks > 1:
        status = cluster.ranks * header_layout(load.devices).itemsize, 9 * sizes.devices
        found["gather"] = sum(gather(links, cluster, nbytes) for nbytes in status)
        found["gather"] += allgather(links, cluster, sizes.devices)
        found["gather"] += exchange(links, cluster, servers, every, load.devices * sizes.dim * sizes.number)
        found["gather"] += gather(links, among, sizes.dim * sizes.number)
    found["decompress"] = rates.lines["decompress"].at(load.devices)
    parts = len(part_edges(sizes.dim)) - 1
    for phase in BY_COLUMNS:
        found[phase] = rates.lines[phase].at(width)
        if servers > 1:
            sums = (parts * numbers * sizes.number for numbers in rates.sums.get(phase, ()))
            found[phase] += sum(allgather(links, among, nbytes) for nbytes in sums)
    return _after(found, sizes, rates)


def _before(sizes: Sizes, rates: Rates, links: Links, cluster: Cluster, load: Load) -> dict[str, float]:
    lines = rates.lines
    found = {"broadcast": lines["broadcast"].at(sizes.dim)}
    if cluster.ranks > 1:
        order = order_layout(cluster.ranks).itemsize
        messages = [order + sizes.broadcast] if sizes.broadcast <= BESIDE else [order, sizes.broadcast]
        found["broadcast"] += sum(broadcast(links, cluster, nbytes) for nbytes in messages)
    found["plan"] = lines["plan"].at(load.devices)
    found["compute"] = lines["compute"].at(flops(load.samples, sizes.dim, sizes.passes))
    found["encode"] = lines["encode"].at(load.held * sizes.dim * sizes.passes)
    found["attack"] = lines["attack"].at(sizes.dim if sizes.seen else load.liars)
    if sizes.seen and cluster.ranks > 1:
        found["attack"] += allgather(links, cluster, sizes.seen * sizes.dim * sizes.number)
    found["compress"] = lines["compress"].at(load.devices)
    return found


def _after(found: dict[str, float], sizes: Sizes, rates: Rates) -> dict[str, float]:
    return found | {"step": rates.lines["step"].at(sizes.dim), "between": rates.between}


def alone(phases: Mapping[str, float]) -> float:
    """Seconds that more ranks do not shorten, with transport root."""
    return sum(phases[name] for name in ROOT_ALONE)


def parallel(phases: Mapping[str, float]) -> float:
    """Seconds of what the ranks share among them."""
    return sum(phases[name] for name in ("compute", "encode", "attack", "compress", "plan"))


def broadcast(links: Links, cluster: Cluster, nbytes: int) -> float:
    """To all ranks: among the nodes, then within each."""
    among = _tree(cluster.nodes, nbytes, links.alpha, links.beta)
    return links.call + among + _tree(cluster.per_node, nbytes, links.node_alpha, links.node_beta)


def _tree(count: int, nbytes: int, alpha: float, beta: float) -> float:
    """The shorter of a binomial tree, and a scatter with an allgather."""
    if count < 2:
        return 0.0
    steps = ceil(log2(count))
    whole = steps * (alpha + nbytes * beta)
    return min(whole, (steps + count - 1) * alpha + 2 * nbytes * beta * (count - 1) / count)


def gather(links: Links, cluster: Cluster, nbytes: int) -> float:
    """So many bytes of all ranks to rank 0, one rank after another; its own are copied."""
    near, far = cluster.per_node, cluster.ranks - cluster.per_node
    each = nbytes / cluster.ranks
    within = (near - 1) * links.node_alpha + near * each * links.node_beta
    return links.call + within + far * (links.alpha + each * links.beta)


def allgather(links: Links, cluster: Cluster, nbytes: int) -> float:
    """So many bytes in all to each rank: every node takes in those of the others once, and hands all to its ranks."""
    ranks, nodes = cluster.per_node, cluster.nodes
    among = ceil(log2(nodes)) * links.alpha + nbytes * links.beta * (nodes - 1) / nodes
    own = nbytes if ranks > 1 else nbytes / cluster.ranks
    return links.call + among + ceil(log2(ranks)) * links.node_alpha + own * links.node_beta


def exchange(links: Links, cluster: Cluster, servers: int, taken: int, given: int) -> float:
    """``taken`` bytes from all ranks to each of the servers, the lowest ones; ``given`` from each rank to them."""
    near, far = cluster.per_node, cluster.ranks - cluster.per_node
    serving = min(near, servers)
    within = (near - 1) * links.node_alpha + taken * near / cluster.ranks * links.node_beta
    into = serving * taken * far / cluster.ranks
    out_of = near * given * (servers - serving) / servers
    return links.call + within + far * links.alpha + max(into, out_of) * links.beta
