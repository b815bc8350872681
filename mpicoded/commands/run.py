"""``mpicoded run`` and ``mpicoded resume``: one experiment, from a config to a result file."""

import importlib.metadata
import os
import platform
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path

import h5py

import mpicoded
from mpicoded import experiment as experiments
from mpicoded.algorithms import allocations
from mpicoded.commands.text import readable_bytes
from mpicoded.data import layout
from mpicoded.data.results import ResultWriter, load_results
from mpicoded.errors import InputError
from mpicoded.experiment import Experiment
from mpicoded.training.loop import Progress, Trainer
from mpicoded.transport.base import Transport
from mpicoded.transport.connect import connect
from mpicoded.transport.launched import launched

_REPORT_SECONDS = 2.0  # at least this long between two lines, and between two writes of the file


def run(config: str, output: str | None, overrides: Sequence[str], quiet: bool) -> int:
    """Train as the config says, on the processes that there are."""
    target = output or f"{Path(config).stem}.h5"
    return _guarded(connect(), lambda: experiments.load(config, overrides), target, quiet)


def resume(path: str, quiet: bool) -> int:
    """Run an unfinished result file's experiment to its end (from round 0: there are no checkpoints yet)."""
    results = load_results(path)
    if results.finished:
        print(f"{path} is finished: nothing to do", flush=True)
        return 0
    return _guarded(connect(), lambda: experiments.loads(results.toml, path), path, quiet)


def _guarded(transport: Transport, load: Callable[[], Experiment], target: str, quiet: bool) -> int:
    """Run, and turn any failure on any rank into the end of the whole job with one readable error."""
    try:
        return _run(transport, load, target, quiet)
    except InputError:
        raise
    except Exception as error:
        traceback.print_exc()
        notes = " ".join(getattr(error, "__notes__", []))
        where = f"rank {transport.rank} on {platform.node()}"
        print(f"mpicoded: error on {where} {notes}: {type(error).__name__}: {error}", file=sys.stderr, flush=True)
        transport.abort(error)
        return 1


def _run(transport: Transport, load: Callable[[], Experiment], target: str, quiet: bool) -> int:
    error = None
    try:
        experiment = load()
        description = layout.describe(experiment.data.path)
        experiment.check(description, transport.size)
        _check_target(target)
        trainer = Trainer(experiment, description, transport)
    except InputError as problem:
        error = str(problem)
    # Every rank has checked everything by itself; they agree before the first collective call of the training.
    if (error := transport.agree(error)) is not None:
        if transport.rank == 0:
            raise InputError(error)
        return 2
    hosts = transport.texts(platform.node())
    if transport.rank != 0:
        trainer.train()
        return 0
    reporter = _Reporter(experiment, description, transport, hosts, target, quiet)
    trainer.train(reporter.report, reporter.tick)
    return 0


def _check_target(target: str) -> None:
    folder = Path(target).resolve().parent
    if not folder.is_dir():
        raise InputError(f"output {target}: the folder {folder} does not exist")
    if not os.access(folder, os.W_OK) or Path(target).is_dir():
        raise InputError(f"output {target} cannot be written")


class _Reporter:
    """Writes the result file and tells the user how the run goes, on rank 0."""

    def __init__(
        self,
        experiment: Experiment,
        description: layout.Description,
        transport: Transport,
        hosts: list[str],
        target: str,
        quiet: bool,
    ) -> None:
        allocation = allocations.report(
            experiment.allocation, experiment.devices, description.subsets, experiment.seed
        )
        self._experiment, self._target, self._quiet = experiment, target, quiet
        alone = launched() is None
        self._bar = sys.stdout.isatty() if alone else "MPICODED_TERMINAL" in os.environ
        self._said = self._written = time.monotonic() - _REPORT_SECONDS
        self._row: dict[str, float] = {}
        self._first: dict[str, float] = {}
        warnings = _warnings(experiment, allocation, description.subsets)
        held = experiment.allocation.assignment(
            experiment.devices, description.subsets, 0, experiment.seed
        )
        self._writer = ResultWriter(
            target,
            experiment.to_toml(),
            versions=versions(),
            mpi=transport.description,
            hosts=hosts,
            allocation={
                "redundancy": allocation.redundancy,
                "copies_spread": allocation.copies,
                "overlap": allocation.overlap,
                "lost": allocation.lost,
                "storage": allocation.storage,
            },
            copies=held.sum(axis=0),
            warnings=warnings,
        )
        nodes = len(set(hosts))
        self._say(f"data        {description}")
        self._say(
            f"allocation  {experiment.allocation.name()}: {allocation.redundancy} subsets a device, {allocation.copies} "
            f"copies a subset, pairs share {allocation.overlap}, {allocation.lost} lost, stored {allocation.storage}"
        )
        self._say(
            f"running     {experiment.devices} devices ({experiment.byzantine} Byzantine, {experiment.attack.name()}) on "
            f"{len(hosts)} {'rank' if len(hosts) == 1 else 'ranks'}, {nodes} {'host' if nodes == 1 else 'hosts'}, "
            f"MPI: {transport.description}"
        )
        for line in warnings:
            print(f"mpicoded: warning: {line}", file=sys.stderr, flush=True)

    def report(self, progress: Progress) -> None:
        """Take a row of the history."""
        self._writer.append(progress.row)
        self._row = progress.row
        self._first = self._first or progress.row
        if progress.row["bad_messages"] and not any("bad messages" in line for line in self._writer.warnings):
            line = f"bad messages (missing, NaN, inf or too large) were replaced by zero from round {progress.row['round']} on"
            self._writer.warnings.append(line)
            print(f"mpicoded: warning: {line}", file=sys.stderr, flush=True)
        now = time.monotonic()
        if progress.finished or now - self._written >= _REPORT_SECONDS:
            self._writer.write(
                progress.parameters, progress.timings, progress.memory, finished=progress.finished
            )
            self._written = time.monotonic()
        if progress.finished:
            self._finish()
        elif self._bar or now - self._said >= _REPORT_SECONDS:
            self._status(progress.row["round"])

    def tick(self, round: int) -> None:
        """Say something now and then also between two evaluations."""
        if time.monotonic() - self._said >= _REPORT_SECONDS:
            self._status(round)

    def _status(self, round: float) -> None:
        self._said = time.monotonic()
        values = "  ".join(
            f"{name} {self._row[name]:.4g}" for name in ("loss", "suboptimality", "accuracy") if name in self._row
        )
        line = f"round {int(round):>{len(str(self._experiment.rounds))}}/{self._experiment.rounds}  {values}"
        if not self._quiet:
            print(f"\r\x1b[K{line}" if self._bar else line, end="" if self._bar else "\n", flush=True)

    def _finish(self) -> None:
        if self._bar and not self._quiet:
            print("\r\x1b[K", end="")
        row, first = self._row, self._first
        for name in ("loss", "suboptimality", "accuracy"):
            if name in row:
                self._say(f"{name:<12}{first[name]:.4g} → {row[name]:.4g}")
        rate = row["round"] / row["seconds"] if row["seconds"] else float("inf")
        self._say(
            f"finished    {int(row['round'])} rounds in {row['seconds']:.3g} s ({rate:.0f} a second), "
            f"{readable_bytes(row['bytes_up'])} up, {readable_bytes(row['bytes_down'])} down"
        )
        self._say(f"result      {self._target}")

    def _say(self, line: str) -> None:
        if not self._quiet:
            print(line, flush=True)


def _warnings(experiment: Experiment, allocation: allocations.Report, subsets: int) -> list[str]:
    found = []
    if allocation.lost:
        found.append(
            f"{allocation.lost} of {subsets} subsets are on no device: training never sees their data and settles at the "
            "optimum of the others (allocation balanced loses none)"
        )
    tolerated = [
        part.byzantine
        for part in (*experiment.filters, experiment.aggregator)
        if hasattr(part, "byzantine") and part.byzantine < experiment.byzantine
    ]
    if tolerated:
        found.append(
            f"{experiment.byzantine} devices are Byzantine, but rule or filter tolerates {min(tolerated)}"
        )
    return found


def versions() -> dict[str, str]:
    """Versions of what the result depends on."""
    found = {"mpicoded": mpicoded.__version__, "python": platform.python_version(), "hdf5": h5py.version.hdf5_version}
    for package in ("numpy", "scipy", "h5py", "msgspec", "mpi4py"):
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found
