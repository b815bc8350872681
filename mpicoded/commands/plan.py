"""``mpicoded plan``: what a run would need and send, and what theory says of it, before it is started."""

import argparse
import resource
import sys
from collections.abc import Sequence

import numpy as np

from mpicoded import configs
from mpicoded.algorithms import allocations, theory
from mpicoded.algorithms.allocations import Cyclic
from mpicoded.algorithms.shapes import Array
from mpicoded.commands.text import readable_bytes, table
from mpicoded.data import layout
from mpicoded.data.layout import Description
from mpicoded.experiment import Experiment
from mpicoded.training.aggregation import slice_servers
from mpicoded.training.coding import Coding
from mpicoded.training.costs import Cluster
from mpicoded.training.placement import Placement, evaluators, placement
from mpicoded.training.samples import saved, shares
from mpicoded.training.tolerance import Tolerance
from mpicoded.transport.base import block_sizes, header_layout
from mpicoded.wiring import Sharded

_MPI_COUNT = 2**31 - 1


def plan(config: str, ranks: int | None, overrides: Sequence[str], rates: argparse.Namespace | None = None) -> int:
    """Print the plan (ranks: None is one process without MPI). Raises InputError where the run would be refused.

    ``rates``: what the command line says of those that seconds are predicted by; None: none are predicted.
    """
    experiment = configs.load(config, overrides)
    description = layout.describe(experiment.data.path)
    experiment.check(description, ranks or 1)
    cluster = Cluster(ranks or 1, (rates.nodes if rates is not None else None) or 1)
    cluster.check()
    dim = experiment.model.dim(description.features, description.classes)
    coding = Coding(experiment, description.subsets)
    report = allocations.report(experiment.allocation, experiment.devices, description.subsets, experiment.seed)
    lines = [
        ("data", str(description)),
        ("model", f"{experiment.model.name()}: {dim} parameters, {experiment.compute.dtype}"),
        (
            "allocation",
            f"{experiment.allocation.name()}: {report.redundancy} subsets a device in a round, {report.copies} copies "
            f"of a subset, {report.lost} lost, {report.storage} stored on a device",
        ),
        *_messages(experiment, coding, dim),
        *_traffic(experiment, coding, dim, ranks),
        *_theory(experiment, description, coding, dim),
    ]
    for what, line in lines:
        print(f"{what:<15}{line}")
    print(
        f"\nmemory by rank, beside the {readable_bytes(_resident())} that Python and its libraries take, and 1 MB or a "
        "copy of one\nsubset to work in where subsets differ in size or mini-batches are drawn\n"
    )
    where = placement(experiment, description, ranks or 1)
    parts, less = shares(experiment, description, where.held), saved(experiment, description, where.held)
    print(_memory(experiment, description, coding, dim, where, np.array([part.held for part in parts])))
    if most := max(part.read for part in parts):
        unless = ", unless all are on one node, where one copy for all has room" if less else ""
        print(f"\na rank with {experiment.data.memory} reads up to {readable_bytes(most)} in every round{unless}")
    elif less:
        print(f"\nranks of a node have one copy of the samples: {readable_bytes(less)} less, if all are on one node")
    if experiment.compute.device != "cpu":
        print(
            "\nsamples, gradients and messages are in the memory of a rank's GPU, beside a copy of the samples of one "
            "batch; so is what the server works with. Messages that go by way of the CPU are in its memory as well"
        )
    if rates is not None:
        from mpicoded.commands.prediction import prediction

        print(f"\n{prediction(experiment, description, coding, cluster, rates)}")
    return 0


def _messages(experiment: Experiment, coding: Coding, dim: int) -> list[tuple[str, str]]:
    record = experiment.compressor.layout(dim, experiment.compute.dtype)
    dense = dim * np.dtype(experiment.compute.dtype).itemsize
    down = experiment.broadcast_layout(dim)
    delta, contraction = experiment.compressor.variance(dim), experiment.compressor.contraction(dim)
    quality = f"biased, contraction {contraction or 0:.3g}" if delta is None else f"unbiased, delta {delta:.3g}"
    rounds = _dense_rounds(experiment)
    several = f"; {coding.each} of a device" if coding.each > 1 else ""
    others = f"; {dense} bytes in the {rounds} dense rounds of memory {experiment.memory.name()}" if rounds else ""
    return [
        (
            "message",
            f"{record.itemsize} bytes ({', '.join(_field(record, name) for name in record.names or ())}), "
            f"{record.itemsize / dense:.3g} of a dense one{several}{others}",
        ),
        ("compressor", f"{experiment.compressor.name()}: {quality}"),
        ("broadcast", f"{down.itemsize} bytes ({', '.join(_field(down, name) for name in down.names or ())})"),
    ]


def _dense_rounds(experiment: Experiment) -> int:
    """In how many rounds messages are dense that are compressed in the others."""
    if experiment.sends_vectors:
        return 0
    return int(experiment.memory.dense(experiment.seed, np.arange(experiment.rounds)).sum())


def _field(record: np.dtype, name: str) -> str:
    base, shape = record[name].base, record[name].shape
    return f"{name}: {' × '.join([*map(str, shape), str(base)])}"


def _traffic(experiment: Experiment, coding: Coding, dim: int, ranks: int | None) -> list[tuple[str, str]]:
    devices, rounds = experiment.devices, experiment.rounds
    record = coding.travelling(experiment.compressor.layout(dim, experiment.compute.dtype)).itemsize
    sharded = isinstance(experiment.transport, Sharded)
    if sharded:  # what compressed messages are decompressed to
        record = dim * np.dtype(experiment.compute.dtype).itemsize
    senders = devices - (experiment.byzantine if not experiment.attack.sends else 0)
    up, down = senders * record, devices * experiment.broadcast_layout(dim).itemsize
    dense = senders * coding.each * dim * np.dtype(experiment.compute.dtype).itemsize
    total = rounds * up + _dense_rounds(experiment) * (dense - up)
    header = ranks * header_layout(int(block_sizes(devices, ranks).max())).itemsize if ranks else 0
    return [
        (
            "a round",
            f"{readable_bytes(up)} up, {readable_bytes(down)} down (once a device), "
            f"{readable_bytes(header)} of headers",
        ),
        (
            f"{rounds} rounds",
            f"{readable_bytes(total)} up, {readable_bytes(rounds * down)} down, "
            f"{readable_bytes(rounds * header)} of headers",
        ),
        (
            "exchange",
            f"{senders} messages of {record} bytes, cut among {_servers(experiment, dim, ranks or 1)} of the ranks",
        )
        if sharded
        else (
            "gather",
            f"{senders} items of {record} bytes, {readable_bytes(up)} at rank 0 (MPI counts items, up to {_MPI_COUNT})",
        ),
    ]


def _servers(experiment: Experiment, dim: int, ranks: int) -> int:
    """How many ranks aggregate."""
    transport = experiment.transport
    return slice_servers(transport.servers, dim, ranks) if isinstance(transport, Sharded) else 1


def _theory(experiment: Experiment, description: Description, coding: Coding, dim: int) -> list[tuple[str, str]]:
    if experiment.encoder.decodes:
        return [_code(experiment, coding)]
    devices, byzantine = experiment.devices, experiment.byzantine
    honest = devices - byzantine
    assignment = coding.assignment(0)
    rho, bias = theory.spread(experiment.encoder.code(assignment, 0, devices).rows)
    kappa = theory.kappa(experiment.aggregator, experiment.filters, devices, byzantine)
    tolerance = Tolerance(experiment, coding)
    if experiment.estimates and byzantine > tolerance.most:
        kappa = np.inf
    off = f" + {bias:.3g} ||grad F||²" if bias > 1e-12 else ""
    if description.subsets > devices:
        off += " (where subsets are in random order)"  # neighbours go to the same device in partition and cyclic
    lines = [("spread", f"rho = {rho:.4g}: an honest message is rho beta²{off} from the gradient, in squared distance")]
    floor = ""
    permuted = isinstance(experiment.allocation, Cyclic) and experiment.allocation.varies
    if permuted and kappa is not None and np.isfinite(kappa):
        floor = f"; error floor {theory.error_floor(rho, kappa, devices, honest):.3g} beta² without compression"
    known = "unknown" if kappa is None else f"{kappa:.4g}"
    chain = " + ".join([*(item.name() for item in experiment.filters), experiment.aggregator.name()])
    guess = ", if that is what the server estimates" if experiment.estimates else ""
    lines.append(("rule", f"{chain}: kappa = {known} for {byzantine} of {devices}{guess}{floor}"))
    exists, why = theory.guarantee(experiment.compressor, experiment.memory, kappa, dim, honest, byzantine)
    word = "none known" if exists is None else "yes" if exists else "none"
    told = experiment.transport.broadcast
    rounded = (
        f"; that parameters are told as {told} is left out" if told not in (None, experiment.compute.dtype) else ""
    )
    lines.append(("guarantee", f"{word}: {why}{rounded}"))
    return lines


def _code(experiment: Experiment, coding: Coding) -> tuple[str, str]:
    """What the votes that come out of a code are worth."""
    votes, corrupted = coding.decoder(0).votes, coding.corrupted(experiment.byzantine)
    return (
        "code",
        f"{experiment.encoder.name()}: {votes} {'votes' if votes > 1 else 'vote'} of a round, of which "
        f"{experiment.byzantine} Byzantine devices can corrupt {corrupted or 'none'}"
        + (" at most" if corrupted else "")
        + f"; with filters and rule it stands {coding.tolerated()} of {experiment.devices} devices",
    )


def _memory(
    experiment: Experiment, description: Description, coding: Coding, dim: int, where: Placement, samples: Array
) -> str:
    """What the arrays of a run take, in bytes, as far as it grows with the data, the model or the devices."""
    devices = coding.each * experiment.devices  # messages, where a device sends several
    dtype = np.dtype(experiment.compute.dtype)
    ranks, held = len(where.held), where.held
    evaluator = evaluators(where.holders)
    mine = coding.each * block_sizes(experiment.devices, ranks)
    record = experiment.compressor.layout(dim, dtype).itemsize
    vector = dim * dtype.itemsize
    memory = experiment.memory
    packed = 0 if experiment.sends_vectors else record
    # Evaluation turns the gradients of its subsets into integers: two copies more.
    gradients = (held.sum(axis=1) + 2 * np.bincount(evaluator, minlength=ranks)) * vector
    # The memory of the devices with what they got back of their records, and the messages at the previous parameters.
    kept = memory.device_slots + (memory.device_slots > 0) + memory.looks_back
    messages = mine * (vector + packed + kept * vector)
    colluding = experiment.attacked and experiment.attack.colludes
    listens = (
        3 * (devices - coding.each * experiment.byzantine) * vector if colluding else 0
    )  # received, and two to work with
    # Received records (twice where some devices are silent: they have gaps), decompressed messages, the memory, what
    # filters and rules with distances work with, and a few vectors.
    received = max(record, vector if _dense_rounds(experiment) else 0) * (
        (ranks > 1) + (ranks > 1 and not experiment.attack.sends)
    )
    work = vector * (2 * len(experiment.filters) + (not experiment.aggregator.by_coordinates()))
    server = np.zeros(ranks)
    if isinstance(experiment.transport, Sharded):
        # Its slice of all messages, and what filters make of it; the device's rank decompresses.
        servers = _servers(experiment, dim, ranks)
        server[:servers] = devices * (vector + work) / servers
        server[0] += 6 * vector
        messages = messages + mine * (vector if packed else 0)
    else:
        server[0] = devices * (received + (vector if packed else 0) + memory.server_slots * vector + work) + 6 * vector
    rows = [["rank", "samples", "gradients", "messages", "attackers", "server", "in all"]]
    parts = np.stack([samples, gradients, messages, np.full(ranks, listens), server])
    shown = sorted({0, int(parts[:4].sum(axis=0).argmax()), ranks - 1})
    rows += [[str(rank), *map(readable_bytes, [*parts[:, rank], parts[:, rank].sum()])] for rank in shown]
    rows.append(["all", *map(readable_bytes, [*parts.sum(axis=1), parts.sum()])])
    return table(rows)


def _resident() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
