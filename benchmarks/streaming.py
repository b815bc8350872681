"""Rounds whose samples do not fit into the memory allowed, against a plain sequential read of the same file.

A round reads again what the budget has no room for. Both rates are in bytes of the file, with its pages dropped from
the system's cache before ("disk"), and with all of them there ("cache"): then the round is bound by computing.
"""

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.report import table

BUDGET, TIMES = 512 << 20, 4  # the file's bytes over those allowed
FEATURES, SUBSETS = {"linear_regression": 1000, "softmax_regression": 784}, 128
_PLAIN = 1 << 20  # bytes of the plain read's buffer: as fast as any


def measure(options: argparse.Namespace) -> list[dict[str, Any]]:
    budget = BUDGET // (4 if options.quick else 1)
    return [_measured(model, budget, options) for model in FEATURES]


def show(figures: list[dict[str, Any]]) -> str:
    rows = [
        [
            figure["model"],
            f"{figure['file'] / 1e6:.0f} MB",
            f"{figure['budget'] / 1e6:.0f} MB",
            f"{figure['peak'] / 1e6:.0f} MB",
            f"{figure['read'] / 1e6:.0f} MB",
            where,
            f"{figure[where]['plain'] / 1e9:.2f} GB/s",
            f"{figure[where]['round'] / 1e9:.2f} GB/s",
            f"{figure[where]['round'] / figure[where]['plain']:.2f}",
            f"{figure['computed'] / 1e9:.2f} GB/s",
        ]
        for figure in figures
        for where in ("disk", "cache")
    ]
    header = ("model", "file", "allowed", "peak", "a round reads", "from", "plain read", "round", "ratio", "in memory")
    limit = figures[0]["limit"]
    told = "data.memory alone" if limit is None else f"data.memory, and a control group's {limit / 1e6:.0f} MB"
    return table(f"Training out of core, limited by {told}: bytes a second", header, rows)


def _measured(model: str, budget: int, options: argparse.Namespace) -> dict[str, Any]:
    """In a process of its own, so that its peak is that of training."""
    with tempfile.TemporaryDirectory(dir=Path.cwd()) as folder:  # /tmp may be in memory
        path = str(Path(folder, "data.h5"))
        _write(path, model, TIMES * budget, options.dtype)
        rounds = "4" if options.quick else "6"
        command = [sys.executable, "-m", "benchmarks.streaming", model, path, str(budget), options.dtype, rounds]
        ended = subprocess.run(command, stdout=subprocess.PIPE, check=True, text=True)
    found: dict[str, Any] = json.loads(ended.stdout)
    return found


def _write(path: str, model: str, size: int, dtype: str) -> None:
    from mpicoded.data import layout

    features, classes = FEATURES[model], 0 if model == "linear_regression" else 10
    each = size // (SUBSETS * features * np.dtype(dtype).itemsize)
    rng = np.random.default_rng(0)
    x = np.tile(rng.standard_normal((each, features)).astype(dtype), (SUBSETS, 1))
    y = rng.integers(0, classes, len(x)) if classes else rng.standard_normal(len(x))
    layout.write(path, x, y, np.arange(SUBSETS + 1) * each, classes=classes, made_by="benchmarks streaming")
    with open(path, "rb") as file:
        os.fsync(file.fileno())  # what is not on the disk yet cannot be dropped


def alone(model: str, path: str, budget: int, dtype: str, rounds: int) -> dict[str, Any]:
    """Train, and between the rounds read the file plainly: in turn from the disk and from the cache."""
    from mpicoded.configs import decode
    from mpicoded.data import layout
    from mpicoded.training.allowance import memory_limit
    from mpicoded.training.loop import Trainer
    from mpicoded.transport.local import LocalTransport

    tree = {
        "devices": SUBSETS,
        "byzantine": 10,
        "rounds": 2 * rounds + 1,
        "evaluate_every": 2 * rounds + 1,
        "data": {"path": path, "memory": f"{budget} B"},
        "model": {"name": model},
        "allocation": {"name": "cyclic", "redundancy": 8},
        "attack": {"name": "sign_flip"},
        "aggregator": {"name": "trimmed_mean", "byzantine": 10},
        "optimizer": {"step_size": 1e-9},
        "compute": {"dtype": dtype},
    }
    trainer = Trainer(decode(tree, "streaming"), layout.describe(path), LocalTransport())
    read = trainer.devices._gradients.shards.division.read_bytes
    seconds: dict[str, list[tuple[float, float]]] = {"disk": [], "cache": []}
    began = [0.0, 0.0]

    def between(done: int, faults: object) -> None:
        took = time.perf_counter() - began[0]
        where, following = (("cache", "disk"), ("disk", "cache"))[done % 2]
        if done > 1:
            seconds[where].append((took, began[1]))
        time.sleep(0.2)  # what is read ahead is there
        if following == "cache":
            _plain(path)
        else:
            _drop(path)
        began[1] = _plain(path)
        if following == "disk":
            _drop(path)
        began[0] = time.perf_counter()

    trainer.train(tick=between)
    figure = {"model": model, "file": os.path.getsize(path), "budget": budget, "peak": _peak(), "read": read}
    for where, pairs in seconds.items():
        of_rounds, of_reads = np.median(np.array(pairs), axis=0)
        figure[where] = {"round": read / of_rounds, "plain": figure["file"] / of_reads, "seconds": pairs}
    return figure | {"limit": memory_limit(), "computed": _computed(trainer)}


def _peak() -> int:
    """Bytes that this process had at most; what getrusage tells may be of the process that started it."""
    found = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
    return 1024 * int(found[1]) if found else 0


def _drop(path: str) -> None:
    """Have the system forget a file's pages."""
    with open(path, "rb") as file:
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def _plain(path: str) -> float:
    """Seconds of reading a file from one end to the other."""
    buffer = bytearray(_PLAIN)
    with open(path, "rb", buffering=0) as file:
        start = time.perf_counter()
        while os.readv(file.fileno(), [buffer]):
            pass
        return time.perf_counter() - start


def _computed(trainer: Any) -> float:
    """Bytes a second of gradients alone, of the subsets that stay in memory."""
    gradients = trainer.devices._gradients
    shards = gradients.shards
    kept = shards.subsets[shards._block < shards.division.kept]
    work = shards.work(kept)
    fastest = float("inf")
    for _ in range(5):
        start = time.perf_counter()
        gradients.compute(trainer.parameters, work)
        fastest = min(fastest, time.perf_counter() - start)
    return float(shards.sizes[: len(kept)].sum()) * shards.division.row / fastest


if __name__ == "__main__":
    name, place, allowed, number, times = sys.argv[1:]
    print(json.dumps(alone(name, place, int(allowed), number, int(times))))
