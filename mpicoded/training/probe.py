"""Rates of this machine: real parts of a round, called with what some devices and some coordinates would give them.

Samples are made up. Each phase is measured at two sizes, and a line is drawn through them: over devices for what ranks
do, over coordinates for what is done with the votes.
"""

import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import msgspec
import numpy as np

from mpicoded.algorithms.attacks import NoAttack
from mpicoded.algorithms.memories import Turn
from mpicoded.algorithms.processors import Processor, processor
from mpicoded.algorithms.shapes import Array, Bool, Int
from mpicoded.data.layout import Description
from mpicoded.data.shards import Shards
from mpicoded.experiment import Experiment
from mpicoded.training.adversary import Adversary, lying
from mpicoded.training.clock import Clock
from mpicoded.training.coding import Coding
from mpicoded.training.costs import Line, Rates, Sizes, flops
from mpicoded.training.devices import Devices, Gradients
from mpicoded.training.links import Uplink
from mpicoded.training.mishaps import Mishaps
from mpicoded.training.probe_votes import Alone, Seconds, by_numbers, noise, timed, voting
from mpicoded.training.server import Receiver
from mpicoded.transport.base import Gathered, block, block_starts

_BYTES = 128 << 20  # to work in
_SUBSET = 8 << 20  # of the samples of one subset
_DEVICES = 64  # that share subsets, as those of a rank do


class Probe(NamedTuple):
    """What is measured, of which experiment."""

    experiment: Experiment
    description: Description
    coding: Coding
    sizes: Sizes
    assignment: Bool[Array, "devices subsets"]
    turn: Turn

    @property
    def dtype(self) -> np.dtype[Any]:
        """What is computed in."""
        return np.dtype(self.experiment.compute.dtype)

    @property
    def liars(self) -> Bool[Array, " devices"]:
        """Of the first round."""
        return lying(self.experiment, 0)


def probe(experiment: Experiment, description: Description, coding: Coding) -> Probe:
    """What there is to measure of an experiment."""
    dim, dtype = experiment.model.dim(description.features, description.classes), experiment.compute.dtype
    memory, total = experiment.memory, coding.each * experiment.devices
    turns = (memory.turn(experiment.seed, round, experiment.compressor, total) for round in range(100))
    turn = next(
        (turn for turn in turns if not turn.dense), memory.turn(experiment.seed, 0, experiment.compressor, total)
    )
    colludes = experiment.attacked and experiment.attack.colludes
    sizes = Sizes(
        devices=experiment.devices,
        dim=dim,
        number=np.dtype(dtype).itemsize,
        record=coding.travelling(experiment.compressor.layout(dim, dtype)).itemsize,
        broadcast=experiment.broadcast_layout(dim).itemsize,
        passes=1 + turn.looks_back + (experiment.attacked and experiment.attack.mislabels),
        seen=coding.each * (experiment.devices - experiment.byzantine) if colludes else 0,
    )
    return Probe(experiment, description, coding, sizes, coding.assignment(0), turn._replace(round=0))


def measure(what: Probe, counts: bool) -> Rates:
    """The rates of one rank, here. ``counts``: also what slices would have to sum over all coordinates."""
    with np.errstate(all="ignore"):  # as in training
        lines, between = _computing(what)
        dim = what.sizes.dim
        votes, sums, beside = voting(what.experiment, what.coding, dim, counts)
        numbers = by_numbers(what.experiment, what.coding, dim, what.liars)
        return Rates(lines | _sending(what) | numbers | votes, sums, between + beside)


def _lines(units: Sequence[Seconds], seconds: Sequence[Seconds]) -> dict[str, Line]:
    """Through two measurements of the phases that have units."""
    return {
        phase: Line.through((units[0][phase], seconds[0][phase]), (units[1][phase], seconds[1][phase]))
        for phase in units[0]
    }


def _rank(what: Probe, devices: int) -> tuple[int, int]:
    """Which rank of how many hosts so many devices: the one with fewest liars for one device, else with most."""
    ranks = what.sizes.devices // devices
    lying = np.add.reduceat(what.liars, block_starts(what.sizes.devices, ranks), dtype=np.int64)
    return int(lying.argmin() if devices == 1 else lying.argmax()), ranks


def _computing(what: Probe) -> tuple[dict[str, Line], float]:
    """Gradients and messages, of subsets and models that are smaller where the real ones are very large."""
    many = min(what.sizes.devices, _DEVICES)
    description = _smaller(what, many)
    units: list[Seconds] = []
    seconds: list[Seconds] = []
    beside = 0.0
    for count in (1, many):
        first, stop = block(what.sizes.devices, *_rank(what, count))
        mine = what.assignment[first:stop]
        wanted = np.flatnonzero(mine.any(axis=0))
        clock, dim = Clock(), what.experiment.model.dim(description.features, description.classes)
        call = _gradients(what, description, first, stop, wanted, clock)
        found, outside = timed(clock, call)
        computed = flops(int(samples_of(what.experiment, description)[wanted].sum()), dim, what.sizes.passes)
        encoded = float(np.count_nonzero(mine)) * dim * what.sizes.passes
        units.append({"plan": stop - first, "compute": computed, "encode": encoded})
        seconds.append(found)
        beside = beside or outside
    return _lines(units, seconds), beside


def samples_of(experiment: Experiment, description: Description) -> Int[Array, " subsets"]:
    """The samples of each subset that its gradient is of."""
    sizes, batch = np.diff(description.offsets), experiment.data.batch_size
    return sizes if batch is None else np.where(sizes > 0, batch, 0)


def _smaller(what: Probe, devices: int) -> Description:
    """The dataset with fewer samples and features, as far as must be for so many devices."""
    description, experiment = what.description, what.experiment
    number, redundancy = what.dtype.itemsize, int(what.assignment.sum(axis=1).max())
    most = max(experiment.data.batch_size or 1, _SUBSET // (description.features * number))
    sizes = np.minimum(np.diff(description.offsets), most)
    subsets = min(description.subsets, devices * redundancy)
    needed = number * (subsets * (float(sizes.max(initial=0)) * description.features + what.sizes.dim))
    needed += number * devices * what.sizes.dim
    share = min(1.0, _BYTES / needed) if experiment.model.resizes else 1.0
    features = max(1, int(description.features * share))
    return description._replace(features=features, offsets=np.concatenate([[0], np.cumsum(sizes)]))


def _gradients(
    what: Probe, description: Description, first: int, stop: int, wanted: Int[Array, " wanted"], clock: Clock
) -> Callable[[], None]:
    """A rank's part of a round up to its messages, on made-up samples."""
    experiment, turn = what.experiment, what.turn
    sizes, held = np.diff(description.offsets), wanted
    rounds: Iterator[int] = itertools.repeat(turn.round)
    if experiment.allocation.varies and sizes.sum() * description.features * what.dtype.itemsize <= _BYTES:
        # Of one round a plan is made once; other rounds want other subsets.
        held, rounds = np.arange(description.subsets), itertools.count(turn.round)
    rows = int(sizes[held].sum())
    x = np.full((rows, description.features), 0.5, what.dtype)
    y = np.zeros(rows, description.target(what.dtype))
    shards = Shards.among(description, held, held, x, y, processor(experiment.compute.device, 0))
    dim = experiment.model.dim(description.features, description.classes)
    gradients = Gradients(experiment.model, shards, dim, description.classes)
    devices = Devices(experiment, what.coding, first, stop, gradients, clock)
    parameters = np.zeros(dim, what.dtype)
    wrong = [False] * what.sizes.passes
    if experiment.attacked and experiment.attack.mislabels:
        wrong[-1] = True

    def call() -> None:
        round = next(rounds)
        plan = devices.plan(round, turn.whole)
        for mislabelled in wrong:
            devices.messages(plan, round, parameters, mislabelled)

    return call


def _sending(what: Probe) -> dict[str, Line]:
    """What becomes of messages on their rank, and of records at the server."""
    dim, number = what.sizes.dim, what.dtype.itemsize
    experiment = what.experiment
    if experiment.attack.colludes:  # measured apart, since that takes the messages of all
        experiment = msgspec.structs.replace(experiment, attack=NoAttack())
    each = what.coding.each
    units: list[Seconds] = []
    seconds: list[Seconds] = []
    many = min(what.sizes.devices, max(2, min(_DEVICES, _BYTES // (4 * each * dim * number))))
    for count in (1, many):
        rank, ranks = _rank(what, count)
        first, stop = block(what.sizes.devices, rank, ranks)
        clock, transport, parts = Clock(), Alone(rank, ranks), (what.coding, dim)
        adversary = Adversary(experiment, transport, *parts, Processor())
        mishaps = Mishaps(msgspec.structs.replace(experiment, faults=()), rank, clock)
        uplink = Uplink(experiment, transport, what.coding, adversary, mishaps, dim, clock, Processor())
        receiver = Receiver(experiment, what.coding, first, stop, dim, processor(experiment.compute.device, 0))
        found, _ = timed(clock, *_records(what, uplink, receiver, first, stop, clock))
        lies = int(np.count_nonzero(what.liars[first:stop]))
        units.append({"compress": stop - first, "attack": lies, "decompress": stop - first})
        seconds.append(found)
    return _lines(units, seconds)


def _records(
    what: Probe, uplink: Uplink, receiver: Receiver, first: int, stop: int, clock: Clock
) -> tuple[Callable[[], None], Callable[[], None]]:
    """Pack messages and receive them; and what makes the messages anew."""
    original = noise(what.coding.each * (stop - first), what.sizes.dim, what.dtype)
    messages, previous = original.copy(), np.zeros(what.sizes.dim, what.dtype)
    back = original.copy() if what.turn.looks_back else None
    come, keys = np.ones(stop - first, bool), what.experiment.encoder.code(what.assignment, first, stop).keys
    rounds = itertools.count(what.turn.round)

    def call() -> None:
        turn = what.turn._replace(round=next(rounds))
        records, _ = uplink.pack(messages, back, keys, turn, 0)
        with clock.phase("decompress"):
            receiver.receive(Gathered(records, come), previous, turn, 0)

    def anew() -> None:
        messages[...] = original

    return call, anew
