"""Rules on a GPU in units of a copy of the votes there, beside one CPU core; a round with messages staged and direct.

Takes 13 GB of the GPU's memory.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.report import table
from benchmarks.timing import fastest
from mpicoded.algorithms import aggregators
from mpicoded.algorithms.filters import NearestNeighborMixing
from mpicoded.algorithms.processors import Processor, processor
from mpicoded.algorithms.slices import LONG, WHOLE, Sums
from mpicoded.commands.launch import environment, find_launcher, is_open_mpi
from mpicoded.configs import decode
from mpicoded.data import datasets, layout
from mpicoded.errors import InputError
from mpicoded.training.loop import Trainer
from mpicoded.transport.connect import connect

SHAPE = (100, 10_000_000)
BLOCK = 1_000_000  # coordinates that are drawn, and worked by the CPU, whose seconds are those of as many as needed
FEATURES = 200_000  # of the round
TARGETS = {"trimmed_mean": 6.0}  # copies


def measure(options: argparse.Namespace) -> list[dict[str, Any]]:
    try:
        where = processor("cuda", 0)
    except InputError as error:
        return [{"skipped": str(error)}]
    return [*_rules(where, 3 if options.quick else 9), *_rounds(3 if options.quick else 10)]


def show(figures: list[dict[str, Any]]) -> str:
    if "skipped" in figures[0]:
        return f"gpu: not measured, as there is no GPU: {figures[0]['skipped']}"
    rules = [
        [
            figure["rule"],
            f"{figure['seconds'] * 1e3:.3g}",
            f"{figure['copies']:.2f}",
            f"<= {TARGETS[figure['rule']]:g}" if figure["rule"] in TARGETS else "",
            f"{figure['cpu'] * 1e3:.3g}",
            f"{figure['cpu'] / figure['seconds']:.0f}",
        ]
        for figure in figures
        if "rule" in figure
    ]
    first = figures[0]
    title = f"votes {tuple(first['shape'])} float32 on a GPU; a copy of them there takes {first['copy'] * 1e3:.3g} ms"
    header = ("rule", "ms", "copies", "target", "one CPU core, ms", "its time over the GPU's")
    rounds = [
        [
            str(figure["ranks"]),
            figure["way"],
            f"{1e3 * figure['seconds']:.3g}" if figure["seconds"] else "",
            figure["why"],
        ]
        for figure in figures
        if "way" in figure
    ]
    about = f"a round, 100 devices, {FEATURES} parameters in float32, LAD, trimmed mean"
    return "\n\n".join([table(title, header, rules), table(about, ("ranks", "messages", "ms", "why"), rounds)])


def _rules(where: Processor, rounds: int) -> Iterator[dict[str, Any]]:
    count, dim = SHAPE
    byzantine = count // 5
    block = np.random.default_rng(0).standard_normal((count, min(dim, BLOCK)), dtype=np.float32)
    there = where.put(block)
    votes, copied = (where.xp.empty(SHAPE, dtype=block.dtype) for _ in range(2))
    for start in range(0, dim, block.shape[1]):
        width = min(block.shape[1], dim - start)
        votes[:, start : start + width] = there[:, :width]
    del there

    def copy() -> None:
        copied[...] = votes

    for name, call in _calls(byzantine).items():
        outs = where.xp.empty(dim, dtype=block.dtype), np.empty(block.shape[1], block.dtype)
        on_gpu, on_cpu = partial(call, votes, outs[0], LONG), partial(call, block, outs[1], WHOLE)
        seconds = fastest({"copy": _waiting(where, copy), "rule": _waiting(where, on_gpu)}, rounds)
        cpu = fastest({"rule": on_cpu}, 1)["rule"] * dim / block.shape[1]
        yield {
            "rule": name,
            "shape": list(SHAPE),
            "seconds": seconds["rule"],
            "copy": seconds["copy"],
            "copies": seconds["rule"] / seconds["copy"],
            "cpu": cpu,
        }


def _calls(byzantine: int) -> dict[str, Callable[[Any, Any, Sums], Any]]:
    mixing = NearestNeighborMixing(byzantine=byzantine)
    rules = (
        aggregators.TrimmedMean(byzantine=byzantine),
        aggregators.CoordinateMedian(),
        aggregators.Krum(byzantine=byzantine),
    )
    calls: dict[str, Callable[[Any, Any, Sums], Any]] = {
        rule.name(): lambda votes, out, sums, rule=rule: rule.aggregate(votes, out=out, sums=sums) for rule in rules
    }
    return calls | {mixing.name(): lambda votes, out, sums: mixing.apply(votes, sums=sums)}


def _waiting(where: Processor, call: Callable[[], Any]) -> Callable[[], None]:
    def whole() -> None:
        call()
        where.wait()

    return whole


def _rounds(rounds: int) -> Iterator[dict[str, Any]]:
    """In this process, and on two ranks."""
    with tempfile.TemporaryDirectory() as folder:
        path = str(Path(folder, "linear.h5"))
        datasets.linear_regression(path, subsets=100, features=FEATURES, seed=1)
        yield from _round(path, rounds)
        if (found := find_launcher()) is None:
            return
        command = [found[0], "-n", "2", sys.executable, "-m", "benchmarks.gpu", path, str(rounds)]
        variables = environment(2, is_open_mpi(found[1]))
        ended = subprocess.run(command, env=variables, stdout=subprocess.PIPE, check=True, text=True)
        yield from json.loads(ended.stdout)


def _round(path: str, rounds: int) -> list[dict[str, Any]]:
    """On each rank: rounds as messages go by themselves, and staged."""
    transport, found = connect(), []
    settings = {
        "devices": 100,
        "rounds": rounds,
        "evaluate_every": 10**6,
        "data": {"path": path},
        "model": {"name": "linear_regression"},
        "allocation": {"name": "cyclic", "redundancy": 5},
        "aggregator": {"name": "trimmed_mean", "byzantine": 20},
        "optimizer": {"step_size": 1e-7},
        "compute": {"dtype": "float32", "device": "cuda"},
    }
    for asked in (True, False):
        trainer = Trainer(decode(settings, "gpu"), layout.describe(path), transport)
        why = trainer.settle() if asked else "for comparison"
        if asked and not trainer.uplink.direct:
            found.append({"ranks": transport.size, "way": "direct", "seconds": None, "why": f"no: {why}"})
            continue
        starts: list[float] = []
        trainer.train(tick=lambda round, faults, starts=starts: starts.append(time.perf_counter()))
        seconds = float(np.median(np.diff(starts))) if starts else None  # the others than the server note none
        way = "direct" if asked else "staged"
        found.append({"ranks": transport.size, "way": way, "seconds": seconds, "why": why})
    return found if transport.leads else []


if __name__ == "__main__":
    figures = _round(sys.argv[1], int(sys.argv[2]))
    if figures:
        print(json.dumps(figures))
