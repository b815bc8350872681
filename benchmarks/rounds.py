"""Rounds per second of small linear regressions: beside the same arithmetic as bare NumPy, and ByzFL's own loop.

ByzFL's clients and server do the same problem without redundancy: each of the honest clients has the samples of its
share of the subsets, and the lies are made from theirs, as in its own benchmark (how to install it: see peers.py).
"""

import argparse
import importlib
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import h5py
import numpy as np

from benchmarks.peers import without_torchvision
from benchmarks.report import table
from mpicoded.commands.launch import environment, find_launcher, is_open_mpi

N, F, P = 100, 20, 100
_EVERY = 500  # rounds between two looks at the clock; a run of thirty such stretches loads the compiled loop, if it can


class Setting(NamedTuple):
    """A problem and how it is coded."""

    subsets: int
    allocation: str
    redundancy: int
    step_size: float
    scale: float
    aim: float  # ByzFL's time over ours, on 2 ranks


SETTINGS = {
    "LAD, M = 100, d = 20": Setting(100, "cyclic", 20, 1e-4, -2.0, 40),
    "CRA-DL, M = 1000, r = 40": Setting(1000, "balanced", 40, 1e-3, -1.0, 20),
}


def measure(options: argparse.Namespace) -> list[dict[str, Any]]:
    """Seconds of a round, each way at its fastest of several turns."""
    turns, seconds = (2, 1.0) if options.quick else (2, 3.0)
    found = []
    with tempfile.TemporaryDirectory() as folder:
        for name, setting in SETTINGS.items():
            data = Path(folder, f"{setting.subsets}.h5")
            _mpicoded(1, "data", "linear_regression", "-o", data, "--subsets", setting.subsets, "--seed", 3)
            ways = _ways(setting, data, options.dtype)
            best = dict.fromkeys(ways, float("inf"))
            for _ in range(turns):
                for way, call in ways.items():
                    best[way] = min(best[way], call(seconds))
            found.append({"setting": name, "aim": setting.aim, **best})
    return found


def show(figures: list[dict[str, Any]]) -> str:
    rows = []
    for figure in figures:
        for way in ("1 process", "2 ranks", "bare NumPy", "ByzFL"):
            if way in figure:
                ratios = [f"{figure[other] / figure[way]:.2f}" if other in figure else "" for other in _BESIDE]
                rows.append([figure["setting"], way, f"{1 / figure[way]:.0f}", f"{figure[way] * 1e3:.3f}", *ratios])
    header = ("setting", "way", "rounds/s", "ms", *(f"{other}'s time over its" for other in _BESIDE))
    return table(f"Rounds of {N} devices, {P} parameters, {F} sign flips, trimmed mean", header, rows)


_BESIDE = ("bare NumPy", "ByzFL")


def _ways(setting: Setting, data: Path, dtype: str) -> dict[str, Callable[[float], float]]:
    with h5py.File(data) as file:
        x, y = file["x"][:].astype(dtype), file["y"][:].astype(dtype)
    ways: dict[str, Callable[[float], float]] = {
        "1 process": lambda seconds: _run(setting, data, dtype, 1, seconds),
        "bare NumPy": lambda seconds: _loop(_bare(setting, x, y), seconds),
    }
    if find_launcher() is not None:
        ways["2 ranks"] = lambda seconds: _run(setting, data, dtype, 2, seconds)
    try:
        step = _byzfl(setting, x, y)
    except ImportError:
        return ways
    ways["ByzFL"] = lambda seconds: _loop(step, seconds)
    return ways


def _loop(step: Callable[[int], None], seconds: float) -> float:
    """Seconds of a step, the fastest stretch of several."""
    step(0)
    best, round, end = float("inf"), 0, time.perf_counter() + seconds
    while time.perf_counter() < end:
        start, count = time.perf_counter(), 0
        while time.perf_counter() < start + seconds / 5:
            round, count = round + 1, count + 1
            step(round)
        best = min(best, (time.perf_counter() - start) / count)
    return best


def _run(setting: Setting, data: Path, dtype: str, ranks: int, seconds: float) -> float:
    """A run of the program, from its result file: the fastest stretch between two evaluations."""
    config = data.with_suffix(".toml")
    rounds = _EVERY * (30 if seconds > 1 else 4)
    config.write_text(
        f"devices = {N}\nbyzantine = {F}\nrounds = {rounds}\nevaluate_every = {_EVERY}\n"
        f'data.path = "{data}"\nmodel.name = "linear_regression"\ncompute.dtype = "{dtype}"\n'
        f'allocation = {{ name = "{setting.allocation}", redundancy = {setting.redundancy} }}\n'
        f'attack = {{ name = "sign_flip", scale = {setting.scale} }}\n'
        f'aggregator = {{ name = "trimmed_mean", byzantine = {F} }}\noptimizer.step_size = {setting.step_size}\n'
    )
    result = data.with_suffix(".result.h5")
    _mpicoded(ranks, "run", config, "-o", result, "--restart", "--quiet")
    with h5py.File(result) as file:
        return float(np.diff(file["history/seconds"][:]).min() / _EVERY)


def _mpicoded(ranks: int, *words: object) -> None:
    program = [sys.executable, "-m", "mpicoded", *map(str, words)]
    variables = None
    if ranks > 1:
        found = find_launcher()
        assert found is not None
        program, variables = [found[0], "-n", str(ranks), *program], environment(ranks, is_open_mpi(found[1]))
    subprocess.run(program, env=variables, check=True, stdout=subprocess.DEVNULL)


def _bare(setting: Setting, x: np.ndarray, y: np.ndarray) -> Callable[[int], None]:
    """What a researcher would write first: dense weights, one sort, no check of anything."""
    parameters = np.zeros(P, x.dtype)
    random, subsets, r = np.random.default_rng(0), setting.subsets, setting.redundancy
    windows = (np.arange(N)[:, None] + np.arange(r)) % N
    held = np.zeros((N, subsets), bool)
    for device in range(N):
        held[device, random.choice(subsets, r, replace=False)] = True
    fixed = held.astype(x.dtype) / r

    def step(round: int) -> None:
        weights = fixed
        if setting.allocation == "cyclic":
            tasks, rows = random.permutation(N), random.permutation(N)
            weights = np.zeros((N, subsets), x.dtype)
            weights[rows[:, None], tasks[windows]] = 1 / r
        gradients = (x @ parameters - y)[:, None] * x
        messages = weights @ gradients
        messages[random.permutation(N)[:F]] *= setting.scale
        ordered = np.sort(messages, axis=0)
        parameters[:] -= setting.step_size * ordered[F : N - F].mean(axis=0)

    return step


def _byzfl(setting: Setting, x: np.ndarray, y: np.ndarray) -> Callable[[int], None]:
    """A step as its own benchmark does it. Raises ImportError where it is not installed."""
    byzfl, torch = without_torchvision("byzfl"), importlib.import_module("torch")
    models = importlib.import_module("byzfl.fed_framework.models")
    torch.set_num_threads(1)
    x, y = x.astype(np.float32), y.astype(np.float32)  # it knows no other
    models.mpicoded_line = lambda: torch.nn.Linear(P, 1, bias=False)
    each = setting.subsets // N
    common = {"model_name": "mpicoded_line", "device": "cpu"}
    clients = []
    for first in range(0, each * (N - F), each):
        rows = slice(first, first + each)
        samples = torch.utils.data.TensorDataset(torch.from_numpy(x[rows]), torch.from_numpy(y[rows, None]))
        loader = torch.utils.data.DataLoader(samples, batch_size=each)
        told = {"loss_name": "MSELoss", "LabelFlipping": False, "nb_labels": 2, "momentum": 0.0}
        client = byzfl.Client(
            common | told | {"training_dataloader": loader, "store_per_client_metrics": False, "optimizer_name": None}
        )
        clients.append(client)
    server = byzfl.Server(
        common
        | {"optimizer_name": "SGD", "learning_rate": setting.step_size, "weight_decay": 0.0, "milestones": []}
        | {"learning_rate_decay": 1.0, "test_loader": loader, "pre_agg_list": []}
        | {"aggregator_info": {"name": "TrMean", "parameters": {"f": F}}}
    )
    liars = byzfl.ByzantineClient({"name": "SignFlipping", "f": F, "parameters": {}})

    def step(round: int) -> None:
        for client in clients:
            client.compute_gradients()
        honest = [client.get_flat_gradients_with_momentum() for client in clients]
        server.update_model_with_gradients(honest + liars.apply_attack(honest))
        model = server.get_dict_parameters()
        for client in clients:
            client.set_model_state(model)

    return step
