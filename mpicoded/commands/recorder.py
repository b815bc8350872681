"""What rank 0 records of a run in its result file."""

import os
import platform
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

import h5py
import numpy as np

import mpicoded
from mpicoded import plugins
from mpicoded.algorithms import allocations
from mpicoded.algorithms.shapes import Array
from mpicoded.data.results import ResultWriter
from mpicoded.experiment import Experiment
from mpicoded.training.faults import Faults
from mpicoded.training.history import Scores
from mpicoded.training.loop import Progress
from mpicoded.training.tolerance import Estimate
from mpicoded.transport.base import Loss, block_sizes

_WRITE_SECONDS = 2.0  # at least this long between two writes of the file


class Recorder:
    """Turns what the loop reports into the groups of the result file, and has it written now and then."""

    def __init__(
        self,
        experiment: Experiment,
        allocation: allocations.Report,
        mpi: str,
        hosts: list[str],
        target: str,
        rows: Sequence[dict[str, float]],
        warnings: list[str],
        lost_before: Mapping[str, Any],
        parts: Mapping[str, tuple[int, ...]],
        data: str,
    ) -> None:
        self.rank = np.repeat(np.arange(len(hosts)), block_sizes(experiment.devices, len(hosts)))  # of each device
        self.host = np.array(hosts, object)[self.rank]
        self.warnings, self._hosts = warnings, hosts
        self._estimated, self._lost_before = experiment.estimates, lost_before
        self._writer = ResultWriter(
            target,
            experiment.to_toml(),
            versions=versions() | plugins.packages(experiment) | _code(experiment),
            mpi=mpi,
            hosts=hosts,
            allocation={
                "redundancy": allocation.redundancy,
                "copies_spread": allocation.copies,
                "overlap": allocation.overlap,
                "lost": allocation.lost,
                "storage": allocation.storage,
            },
            copies=allocation.holders,
            warnings=warnings,
            parts=parts,
            complete=experiment.model.complete(),
            data=data,
        )
        self._writer.rows.extend(rows)
        self._written = time.monotonic() - _WRITE_SECONDS
        self._pending: Progress | None = None  # taken, not written yet

    def take(self, progress: Progress) -> None:
        """Take a row of the history, and write the file where it is time to."""
        self._writer.append(progress.row)
        self._pending = progress
        if progress.finished or time.monotonic() - self._written >= _WRITE_SECONDS:
            self.write()
        else:  # the parameters go on
            self._pending = progress._replace(parameters=progress.parameters.copy())

    def write(self) -> None:
        """Write what was taken and is not written."""
        progress, self._pending = self._pending, None
        if progress is None:
            return
        self._writer.write(
            progress.parameters,
            progress.timings,
            progress.memory,
            self._bad_records(progress.faults),
            self._suspicion(progress.suspicion, progress.scores),
            self._estimates(progress.estimates),
            finished=progress.finished,
            lost_ranks=self.lost(progress.lost),
        )
        self._written = time.monotonic()

    def _bad_records(self, faults: Faults) -> dict[str, Any]:
        """What the result file says of them."""
        round, device, missing = faults.events.T
        return {
            "bad": faults.bad,
            "missing": faults.missing,
            "first_round": faults.first_round,
            "last_round": faults.last_round,
            "rank": self.rank,
            "host": self.host,
            "most_at_once": faults.most_at_once,
            "undecoded": faults.undecoded,
            "skipped": faults.skipped,
            "events": {
                "round": round,
                "device": device,
                "rank": self.rank[device],
                "host": self.host[device],
                "missing": missing,
                "left_out": faults.count - len(device),
            },
        }

    def lost(self, lost: Sequence[Loss]) -> dict[str, Any]:
        """Which ranks have died, where and in which round, before this process (see ``lost_before``) and in it."""
        now = {
            "rank": np.array([loss.rank for loss in lost], np.int64),
            "host": np.array([self._hosts[loss.rank] for loss in lost], object),
            "round": np.array([loss.round + 1 for loss in lost], np.int64),
        }
        before = self._lost_before
        return {name: np.concatenate([before[name], now[name]]) for name in now} if before else now

    def _suspicion(self, scores: Array, earlier: Scores) -> dict[str, Any]:
        by_rank = np.bincount(self.rank, scores) / np.bincount(self.rank)
        return {
            "score": scores,
            "rank": self.rank,
            "host": self.host,
            "rank_score": by_rank,
            "over_time": {"round": earlier.round, "score": earlier.score},
        }

    def _estimates(self, notes: list[Estimate]) -> dict[str, Any]:
        """A column for each number, a row for each round; those that there are."""
        if not notes:
            return {}
        columns = dict(zip(Estimate._fields, np.array(notes, np.int64).T, strict=True))
        return columns if self._estimated else {"proven": columns["proven"]}


def _code(experiment: Experiment) -> dict[str, str]:
    """Of the code that the model imports, if it does."""
    if not experiment.model.imports:
        return {}
    from importlib import metadata

    checksum = f"sha256 {experiment.model.fingerprint()}"
    return {"torch": metadata.version("torch"), experiment.model.imports: checksum}


def versions() -> dict[str, str]:
    """Versions of what the result depends on."""
    found = {
        "mpicoded": mpicoded.__version__,
        "python": platform.python_version(),
        "hdf5": h5py.version.hdf5_version,
    }
    wheels = _wheels()
    for package in ("numpy", "scipy", "h5py", "msgspec", "mpi4py"):
        loaded = getattr(sys.modules.get(package), "__version__", None)
        if (version := loaded or wheels.get(package) or _registered(package)) is not None:
            found[package] = version
    return found


def _wheels() -> dict[str, str]:
    """Versions by package, from names of folders such as ``numpy-2.1.0.dist-info``; the first on the path counts.

    importlib.metadata says the same, but reads it as e-mails, and takes 15 ms to load and do so.
    """
    found: dict[str, str] = {}
    for place in sys.path:
        with suppress(OSError):  # it does not exist, or is an archive
            for entry in os.listdir(place or "."):
                package, _, version = entry.removesuffix(".dist-info").partition("-")
                if entry.endswith(".dist-info"):
                    found.setdefault(package, version)
    return found


def _registered(package: str) -> str | None:
    """The version of a package that came in another way than as a wheel, as Debian's do; None where there is none."""
    from importlib import metadata

    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None
