"""A round's aggregation by the root against slices on all ranks: from packed messages to new parameters everywhere."""

import argparse
import json
import subprocess
import sys
import time
from typing import Any

import numpy as np

from benchmarks.report import table
from mpicoded.commands.launch import environment, find_launcher, is_open_mpi

RANKS, SHAPE = 2, (100, 1_000_000)
RULES: dict[str, dict[str, Any]] = {
    "trimmed mean": {"aggregator": {"name": "trimmed_mean", "byzantine": 20}},
    "geometric median": {"aggregator": {"name": "geometric_median"}},
    "NNM + trimmed mean": {
        "filters": [{"name": "nearest_neighbor_mixing", "byzantine": 20}],
        "aggregator": {"name": "trimmed_mean", "byzantine": 20},
    },
}


def measure(options: argparse.Namespace) -> list[dict[str, Any]]:
    if (found_launcher := find_launcher()) is None:
        return []
    launcher, version = found_launcher
    rounds = "2" if options.quick else "5"
    command = [launcher, "-n", str(RANKS), sys.executable, "-m", "benchmarks.sharding", rounds]
    variables = environment(RANKS, is_open_mpi(version))
    ended = subprocess.run(command, env=variables, stdout=subprocess.PIPE, check=True, text=True)
    found: list[dict[str, Any]] = json.loads(ended.stdout)
    return found


def show(figures: list[dict[str, Any]]) -> str:
    rows = [
        [
            figure["rule"],
            *(f"{figure[key] * 1e3:.0f} ms" for key in ("root", "sharded")),
            f"{figure['root'] / figure['sharded']:.2f}",
            *(f"{figure[key] * 1e3:.0f} ms" for key in ("root_rule", "sharded_rule")),
            f"{figure['root_rule'] / figure['sharded_rule']:.2f}",
            f"{figure['bare'] * 1e3:.0f} ms",
        ]
        for figure in figures
    ]
    header = ("rule", "root", "sharded", "ratio", "its rule", "sharded", "ratio", "bare Gather + Bcast")
    return table(f"{RANKS} ranks, {SHAPE[0]} × {SHAPE[1]} float32: seconds of a round's aggregation", header, rows)


def ranks(rounds: int) -> None:
    """On each rank: time the rounds, taking the transports in turn."""
    from mpicoded.algorithms.memories import Turn
    from mpicoded.algorithms.processors import Processor
    from mpicoded.configs import decode
    from mpicoded.training.aggregation import aggregation
    from mpicoded.training.clock import PHASES, Clock
    from mpicoded.training.coding import Coding
    from mpicoded.training.links import Downlink
    from mpicoded.transport.base import block
    from mpicoded.transport.mpi import MPI, MpiTransport

    devices, dim = SHAPE
    transport, comm = MpiTransport(), MPI.COMM_WORLD
    first, stop = block(devices, transport.rank, transport.size)
    vectors = np.random.default_rng(transport.rank).standard_normal((stop - first, dim), dtype=np.float32)
    everyone = np.empty((devices if transport.rank == 0 else 0, dim), np.float32)
    found = []
    for rule, tree in RULES.items():
        ways = {}
        for name in ("root", "sharded"):
            given = {"devices": devices, "rounds": 10**6, "data": {"path": "none"}, "compute": {"dtype": "float32"}}
            experiment = decode(
                given
                | {"model": {"name": "linear_regression"}, "optimizer": {"step_size": 0.1}, "transport": {"name": name}}
                | tree,
                "sharding",
            )
            clock, parameters = Clock(), np.zeros(dim, np.float32)
            parts = aggregation(experiment, transport, Coding(experiment, devices), parameters, clock, Processor())
            messages = vectors if parts.room is None else parts.room  # where devices compute them
            messages[...] = vectors
            ways[name] = experiment, clock, parameters, parts, Downlink(experiment, transport, dim), messages
        seconds = {name: float("inf") for name in (*ways, "root_rule", "sharded_rule", "bare")}
        for round in range(rounds + 1):  # the first one allocates
            for name, (experiment, clock, parameters, parts, downlink, messages) in ways.items():
                records = messages.view(experiment.compressor.layout(dim, np.float32)).ravel()
                turn = Turn(round, devices, experiment.compressor, False)
                clock.reset()
                comm.Barrier()
                start = time.perf_counter()
                parts.round(records, None, turn, 0)
                if transport.leads:
                    downlink.write(parameters, round)
                downlink.told()
                comm.Barrier()
                if round:
                    seconds[name] = min(seconds[name], time.perf_counter() - start)
                    own = sum(clock.seconds[PHASES.index(phase)] for phase in ("filter", "aggregate"))
                    longest = np.array([own])
                    comm.Allreduce(MPI.IN_PLACE, longest, MPI.MAX)
                    seconds[f"{name}_rule"] = min(seconds[f"{name}_rule"], float(longest[0]))
            comm.Barrier()
            start = time.perf_counter()
            comm.Gather(vectors, everyone)
            comm.Bcast(ways["root"][2])
            comm.Barrier()
            seconds["bare"] = min(seconds["bare"], time.perf_counter() - start)
        found.append({"rule": rule, **seconds})
    if transport.rank == 0:
        print(json.dumps(found))
        sys.stdout.flush()


if __name__ == "__main__":
    ranks(int(sys.argv[1]))
