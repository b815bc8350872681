"""What rank 0 tells the user while a run goes on."""

import os
import sys
import time
from collections.abc import Mapping, Sequence
from typing import Any

from mpicoded import plugins
from mpicoded.algorithms import allocations
from mpicoded.commands.recorder import Recorder
from mpicoded.commands.text import readable_bytes, resume_command
from mpicoded.data import layout
from mpicoded.experiment import Experiment
from mpicoded.training.coding import Coding
from mpicoded.training.faults import Faults
from mpicoded.training.loop import Progress
from mpicoded.transport.base import Transport
from mpicoded.transport.launched import launched

_REPORT_SECONDS = 2.0  # at least this long between two lines


class Reporter:
    """Tells the user how the run goes, on rank 0, and has it recorded in the result file."""

    def __init__(
        self,
        experiment: Experiment,
        description: layout.Description,
        transport: Transport,
        hosts: list[str],
        target: str,
        quiet: bool,
        rows: Sequence[dict[str, float]],
        lost_before: Mapping[str, Any],
        apart: str = "",
    ) -> None:
        allocation = allocations.report(experiment.allocation, experiment.devices, description.subsets, experiment.seed)
        self._experiment, self._target, self._quiet = experiment, target, quiet
        alone = launched() is None
        self._bar = sys.stdout.isatty() if alone else "MPICODED_TERMINAL" in os.environ
        self._said = time.monotonic() - _REPORT_SECONDS
        self._said_bad = self._said_beyond = self._said_saturated = self._said_undecoded = False
        self._said_late = self._said_skipped = False
        self._said_lost = 0
        self._transport, self._hosts = transport, hosts
        warnings = _warnings(experiment, allocation, description.subsets)
        warnings += [apart] if apart else []
        if plugins.packages(experiment):  # where none is used, none was looked for
            warnings += [f"plug-in that cannot be used: {line}" for line in plugins.found().refused]
        found = (experiment, allocation, transport.description, hosts, target)
        parts = experiment.model.parts(description.features, description.classes)
        self._recorder = Recorder(*found, rows, warnings, lost_before, parts, description.made_by)
        self._first = dict(rows[0]) if rows else {}
        self._row = dict(rows[-1]) if rows else {}
        nodes = len(set(hosts))
        self._say("data", str(description))
        self._say(
            "allocation",
            f"{experiment.allocation.name()}: {allocation.redundancy} subsets a device, {allocation.copies} copies "
            f"a subset, pairs share {allocation.overlap}, {allocation.lost} lost, {allocation.storage} stored",
        )
        self._say(
            "running",
            f"{experiment.devices} devices ({experiment.byzantine} Byzantine, attack {experiment.attack.name()}) on "
            f"{len(hosts)} {'rank' if len(hosts) == 1 else 'ranks'}, {nodes} {'host' if nodes == 1 else 'hosts'}, "
            f"MPI: {transport.description}",
        )
        if rows:
            self._say("resuming", f"{target} after round {int(rows[-1]['round'])} or later")
        elif os.path.exists(target):
            self._say("replacing", f"{target}, an older result")
        for line in warnings:
            _warn(line)

    def report(self, progress: Progress) -> None:
        """Take a row of the history."""
        self._row = progress.row
        self._first = self._first or progress.row
        self._note_faults(progress.faults)
        if progress.row["saturated"] and not self._said_saturated:
            self._said_saturated = True
            self._warn(
                "numbers stand at the limit of the type that they travel in (history/saturated): larger ones were cut"
            )
        self._recorder.take(progress)
        if progress.finished:
            self._finish()
        elif self._bar or time.monotonic() - self._said >= _REPORT_SECONDS:
            self._status(progress.row["round"])

    def lost(self) -> dict[str, Any]:
        """Which ranks have died so far, as the result file says it."""
        return self._recorder.lost(self._transport.lost)

    def stop(self, round: int, cause: str) -> None:
        """Say that the run was stopped, and write what was reported."""
        self._recorder.write()
        reason = f" by {cause}" if cause else ""
        _warn(f"stopped{reason} after round {round}: {resume_command(self._experiment, self._target)} goes on")

    def _note_faults(self, faults: Faults) -> None:
        """Warn of the first bad or missing record, and of the first round that had more than are tolerated."""
        if len(faults.events) and not self._said_bad:
            self._said_bad = True
            round, device, missing = faults.events[0].tolist()
            rank, host = self._recorder.rank[device], self._recorder.host[device]
            self._warn(
                f"{'no record' if missing else 'a bad record'} from device {device} (rank {rank}, host {host}) in "
                f"round {round}: replaced by zero, as all that follow are"
            )
        for loss in self._transport.lost[self._said_lost :]:
            self._said_lost += 1
            where = f"rank {loss.rank} on {self._hosts[loss.rank]}"
            self._warn(f"{where} has died in round {loss.round + 1}: the others go on without its devices")
        if faults.leaves_out and not self._said_late:
            dead = [loss.rank for loss in self._transport.lost]
            late = sorted(set(self._recorder.rank[faults.missing > 0].tolist()).difference(dead))
            if late:
                self._said_late = True
                self._warn(f"nothing came in time from devices of {_ranks(late)}: left out of such rounds")
        if faults.skipped and not self._said_skipped:
            self._said_skipped = True
            self._warn(f"too few messages came in round {faults.first_skipped}: no step was made, as in all such")
        if faults.undecoded and not self._said_undecoded:
            self._said_undecoded = True
            self._warn(
                f"round {faults.first_undecoded} could not be decoded: more devices lie or are missing than encoder "
                f"{self._experiment.encoder.name()} corrects; its vote is a guess, as in all such rounds"
            )
        if faults.beyond is not None and not self._said_beyond:
            self._said_beyond = True
            round, count = faults.beyond
            self._warn(
                f"records of {count} devices were bad or missing in round {round}, more than the {faults.tolerated} "
                "that rule and filters tolerate"
            )

    def _warn(self, line: str) -> None:
        self._recorder.warnings.append(line)
        if self._bar:
            self._print("\r\x1b[K")
        _warn(line)

    def tick(self, round: int, faults: Faults | None) -> None:
        """Say something now and then also between two evaluations, and of faults at once."""
        if faults is not None:
            self._note_faults(faults)
        if time.monotonic() - self._said >= _REPORT_SECONDS:
            self._status(round)

    def _status(self, round: float) -> None:
        self._said = time.monotonic()
        values = "  ".join(f"{name} {self._row[name]:.4g}" for name in _measured(self._row))
        line = f"round {int(round):>{len(str(self._experiment.rounds))}}/{self._experiment.rounds}  {values}"
        self._print(f"\r\x1b[K{line}" if self._bar else f"{line}\n")

    def _finish(self) -> None:
        if self._bar:
            self._print("\r\x1b[K")
        row, first = self._row, self._first
        for name in _measured(row):
            self._say(name, f"{first[name]:.4g} → {row[name]:.4g}")
        rate = row["round"] / row["seconds"] if row["seconds"] else float("inf")
        self._say(
            "finished",
            f"{int(row['round'])} rounds in {row['seconds']:.3g} s ({rate:.0f} a second), "
            f"{readable_bytes(row['bytes_up'])} up, {readable_bytes(row['bytes_down'])} down",
        )
        self._say("result", self._target)

    def _say(self, what: str, line: str) -> None:
        self._print(f"{what:<15}{line}\n")

    def _print(self, text: str) -> None:
        if self._quiet:
            return
        try:
            print(text, end="", flush=True)
        except BrokenPipeError:  # nobody reads any more: no reason to stop training
            self._quiet = True
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _ranks(ranks: list[int]) -> str:
    return f"rank {ranks[0]}" if len(ranks) == 1 else f"ranks {', '.join(map(str, ranks))}"


def _warn(line: str) -> None:
    print(f"mpicoded: warning: {line}", file=sys.stderr, flush=True)


def _warnings(experiment: Experiment, allocation: allocations.Report, subsets: int) -> list[str]:
    found = []
    if allocation.lost:
        found.append(
            f"{allocation.lost} of {subsets} subsets are on no device: training never sees their data and settles at "
            "the optimum of the others (allocation balanced loses none)"
        )
    tolerated = Coding(experiment, subsets).tolerated()
    if tolerated < experiment.byzantine and experiment.attacked:
        part = "code, filters and rule tolerate" if experiment.encoder.decodes else "rule or filter tolerates"
        found.append(f"{experiment.byzantine} devices are Byzantine, but {part} {tolerated}")
    memory = experiment.memory
    if memory.wants_fixed and experiment.byzantine and experiment.identities == "resampled":
        found.append(f'memory {memory.name()} {memory.wants_fixed} (identities = "fixed")')
    return found


def _measured(row: Mapping[str, float]) -> list[str]:
    """What is worth saying of a row."""
    loss = "loss" if "loss" in row else "test_loss"
    return [name for name in (loss, "suboptimality", "accuracy") if name in row]
