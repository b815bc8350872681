"""What a run takes beside its rounds: one of a single round, beside the import of NumPy, h5py and MPI alone."""

import argparse
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.report import table
from mpicoded.commands.launch import environment, find_launcher, is_open_mpi
from mpicoded.data import datasets

RANKS = 2
BARE = ("-c", "import numpy, h5py; from mpi4py import MPI")
RUN = ("-m", "mpicoded", "run", "lad.toml", "--restart", "--quiet")
CONFIG = """
devices = 100
byzantine = 20
rounds = 1
data.path = "linear.h5"
model.name = "linear_regression"
allocation = { name = "cyclic", redundancy = 20 }
attack = { name = "sign_flip", scale = -2.0 }
aggregator = { name = "trimmed_mean", byzantine = 20 }
optimizer.step_size = 1e-4
"""


def measure(options: argparse.Namespace) -> list[dict[str, Any]]:
    if (found_launcher := find_launcher()) is None:
        return []
    launcher, version = found_launcher
    variables = environment(RANKS, is_open_mpi(version))
    variables |= {"OMPI_MCA_btl": "^ofi", "OMPI_MCA_osc": "^ucx"}  # as a run sets them, to wait for no network
    variables["PYTHONPATH"] = os.pathsep.join([str(Path.cwd()), variables.get("PYTHONPATH", "")]).rstrip(os.pathsep)
    ways: dict[str, list[tuple[float, float]]] = {"bare imports": [], "run of a round": []}
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "lad.toml").write_text(CONFIG)
        datasets.linear_regression(f"{folder}/linear.h5", subsets=100, features=100)
        for _ in range(6 if options.quick else 30):
            for way, words in zip(ways, (BARE, RUN), strict=True):
                command = [launcher, "-n", str(RANKS), sys.executable, *words]
                before, begin = _processor(), time.perf_counter()
                subprocess.run(command, cwd=folder, env=variables, check=True)
                ways[way].append((time.perf_counter() - begin, _processor() - before))
    return [
        {"way": way, "fastest": min(wall), "median": statistics.median(wall), "processor": min(processor)}
        for way, times in ways.items()
        for wall, processor in [tuple(zip(*times, strict=True))]
    ]


def show(figures: list[dict[str, Any]]) -> str:
    keys = ("fastest", "median", "processor")
    rows = [[figure["way"], *(f"{figure[key]:.3f} s" for key in keys)] for figure in figures]
    if figures:
        bare, run = figures
        rows.append(["ratio", *(f"{run[key] / bare[key]:.2f}" for key in keys)])
    return table(f"{RANKS} ranks, from mpiexec to its end", ("", "fastest", "median", "least processor time"), rows)


def _processor() -> float:
    """Seconds of all processes that were started and have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime
