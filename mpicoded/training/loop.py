"""The training loop: the same code for one process and for any number of ranks.

server                                   ranks (each hosts one or more devices)
broadcast parameters ────────────────▶   assignment of this round → gradients of the assigned subsets
                                         → encode → [attack] → compress
decompress ◀──────────────── gather ──   fixed-size typed records
filters → rule → optimiser step
"""

import resource
import sys
from collections.abc import Callable
from time import perf_counter
from typing import Any, NamedTuple

import numpy as np

from mpicoded.algorithms.memories import Turn
from mpicoded.algorithms.randomness import generator
from mpicoded.algorithms.shapes import Array, Float
from mpicoded.data.layout import Description
from mpicoded.data.shards import Shards
from mpicoded.errors import one_line
from mpicoded.experiment import Experiment
from mpicoded.training.adversary import Adversary
from mpicoded.training.checkpoint import Keeper, Wish
from mpicoded.training.clock import Clock
from mpicoded.training.coding import Coding
from mpicoded.training.devices import Devices, Gradients, Plan
from mpicoded.training.evaluation import Evaluator
from mpicoded.training.faults import Faults
from mpicoded.training.links import Downlink, Uplink
from mpicoded.training.placement import placement
from mpicoded.training.server import Server
from mpicoded.training.tolerance import Estimate
from mpicoded.transport.base import Transport, block

_COUNTS = ("up", "down", "overhead", "saturated")  # bytes and numbers of the rounds so far


class Progress(NamedTuple):
    """What rank 0 tells the outside after an evaluation."""

    row: dict[str, float]
    parameters: Float[Array, " dim"]
    timings: dict[str, Array]  # seconds by phase, of each rank
    memory: dict[str, Array]  # bytes, of each rank
    faults: Faults  # of the messages so far
    suspicion: Array  # of each device
    estimates: list[Estimate]  # of each round, where there are any
    finished: bool


class Trainer:
    """One rank's part of a run. Building it reads this rank's shards and makes no collective call."""

    def __init__(self, experiment: Experiment, description: Description, transport: Transport) -> None:
        self.experiment, self.transport = experiment, transport
        self.clock = Clock()
        self.hosted = first, stop = block(experiment.devices, transport.rank, transport.size)
        dtype = np.dtype(experiment.compute.dtype)
        evaluator, held = placement(experiment, description, transport.size)
        shards = Shards.read(description, np.flatnonzero(held[transport.rank]), dtype)
        test = None
        if description.test_samples and experiment.model.task == "classification":
            test = Shards.read_test(description, transport.rank, transport.size, dtype)
        dim = experiment.model.dim(description.features, description.classes)
        self.parameters = experiment.model.initial(
            description.features, description.classes, generator(experiment.seed, "initial")
        ).astype(dtype)
        gradients = Gradients(experiment.model, shards, dim, description.classes)
        self.evaluate = Evaluator(transport, description, gradients, evaluator, test)
        self.devices = Devices(experiment, description.subsets, first, stop, gradients, self.clock)
        self.downlink = Downlink(experiment, transport, dim)
        coding = Coding(experiment, description.subsets)
        adversary = Adversary(experiment, transport, coding, dim, dtype)
        self.uplink = Uplink(experiment, transport, coding, adversary, dim, self.clock)
        self.server = Server(experiment, self.parameters, coding, self.clock) if transport.rank == 0 else None
        self._total = coding.each * experiment.devices
        self._told_before = np.zeros(dim if experiment.memory.looks_back else 0, dtype)
        self._shard_bytes = shards.nbytes + (test.nbytes if test is not None else 0)
        self.round = 0  # steps done
        self.rows: list[dict[str, float]] = []  # the history so far, at rank 0
        self._counts = dict.fromkeys(_COUNTS, 0)
        self._seconds_before = 0.0

    def train(
        self,
        report: Callable[[Progress], None] = lambda progress: None,
        tick: Callable[[int, Faults | None], None] = lambda round, faults: None,
        keeper: Keeper | None = None,
    ) -> bool:
        """All rounds that are left; whether they were done, and not stopped before.

        On rank 0 ``report`` gets each row of the history, ``tick`` the rounds done and the faults.
        """
        start = perf_counter()
        where = f"before round {self.round + 1}"
        try:
            # A diverging run is a result, not a reason for warnings from every rank.
            with np.errstate(over="ignore", invalid="ignore"):
                for round in range(self.round, self.experiment.rounds + 1):
                    where = f"after round {round}"
                    self.round = round
                    seconds = self._seconds_before + perf_counter() - start - self.clock.outside()
                    wish = keeper.wish(round) if keeper is not None else Wish.GO_ON
                    if keeper is not None and wish is not Wish.GO_ON:
                        with self.clock.phase("write"):
                            self._keep(keeper, seconds)
                    if wish is Wish.STOP:
                        return False
                    last = round == self.experiment.rounds
                    if last or round % self.experiment.evaluate_every == 0:
                        self._evaluate(round, seconds, last, report)
                    if not last:
                        where = f"in round {round + 1}"
                        self._round(round)
                        tick(round + 1, self.server.faults if self.server is not None else None)
        except BaseException as error:
            error.add_note(where)
            raise
        return True

    def _keep(self, keeper: Keeper, seconds: float) -> None:
        """Save what the next round depends on. Collective; a failure to write is one of all ranks."""
        state, error = self.state(seconds), None
        if state is not None:
            try:
                keeper.save(self.round, state)
            except OSError as problem:
                error = f"the checkpoint cannot be written: {one_line(problem)}"
        if (error := self.transport.agree(error)) is not None:
            raise OSError(error)
        keeper.saved(self.round)

    def state(self, seconds: float = 0.0) -> dict[str, Any] | None:
        """The state before the next round, at rank 0; None elsewhere. Collective."""
        devices = self.uplink.state()
        if self.server is None or devices is None:
            return None
        columns = {name: np.array([row[name] for row in self.rows]) for name in (self.rows or [{}])[0]}
        overhead = self._counts["overhead"] + self.transport.overhead_bytes
        return {
            "server": self.server.state(),
            "devices": devices,
            "told_before": self._told_before,
            "history": columns,
            "seconds": seconds,
            **self._counts,
            "overhead": overhead,
        }

    def restore(self, round: int, state: dict[str, Any]) -> None:
        """Go on after so many rounds; ``devices`` are the rows of those of this rank. Every rank does it by itself."""
        self.round = round
        self.parameters[:] = state["server"]["parameters"]
        self.uplink.restore(state["devices"])
        self._told_before[:] = state["told_before"]
        self._seconds_before = float(state["seconds"])
        self._counts = {name: int(state[name]) for name in _COUNTS}
        if self.server is not None:
            self.server.restore(state["server"])
            columns = {name: values.tolist() for name, values in state["history"].items()}
            self.rows = [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]

    def _round(self, round: int) -> None:
        with self.clock.phase("broadcast"):
            parameters, nonce = self.downlink.tell(self.parameters, round)
        turn = self._turn(round)
        plan = self.devices.plan(round, turn.whole)
        messages = self._messages(plan, round, parameters)
        before = self._messages(plan, round, self._told_before) if turn.looks_back else None
        if self.experiment.memory.looks_back:
            self._told_before[...] = parameters
        records, sent = self.uplink.pack(messages, before, plan.keys, turn, nonce)
        with self.clock.phase("gather"):
            gathered = self.transport.gather(records, round, self.experiment.devices, sent)
        if self.server is not None and gathered is not None:
            self._counts["up"] += int(gathered.arrived.sum()) * gathered.records.itemsize
            self._counts["down"] += self.experiment.devices * self.downlink.nbytes
            self._counts["saturated"] += self.downlink.saturated
            self.server.step(gathered, turn, nonce)

    def _turn(self, round: int) -> Turn:
        experiment = self.experiment
        return experiment.memory.turn(experiment.seed, round, experiment.compressor, self._total)

    def _messages(self, plan: Plan, round: int, parameters: Float[Array, " dim"]) -> Float[Array, "messages dim"]:
        """What this rank's devices compute, some perhaps on wrong targets."""
        spoiled = self.uplink.adversary.spoiled(round)
        messages = self.devices.messages(plan, round, parameters, spoiled=spoiled)
        if (mislabelled := self.uplink.adversary.mislabelled(round)) is not None:
            messages[mislabelled] = self.devices.messages(plan, round, parameters, wrong=True)[mislabelled]
        return messages

    def _evaluate(self, round: int, seconds: float, last: bool, report: Callable[[Progress], None]) -> None:
        with self.clock.phase("evaluate"):
            self.transport.broadcast(self.parameters)  # in full, whatever the devices are told
            values = self.evaluate(self.parameters)
            one_each = np.ones(self.transport.size, np.int64)
            seconds_by_phase = self.transport.collect(self.clock.seconds[None, :], one_each)
            unit = 1 if sys.platform == "darwin" else 1024
            peak = unit * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
            memory = self.transport.collect(np.array([[self._shard_bytes, peak]]), one_each)
        if values is None or seconds_by_phase is None or memory is None or self.server is None:
            return
        server = self.server
        by_rank = {"shards": memory[:, 0], "peak": memory[:, 1]}
        row = {
            "round": round,
            **values,
            "bytes_up": self._counts["up"],
            "bytes_down": self._counts["down"],
            "bytes_overhead": self._counts["overhead"] + self.transport.overhead_bytes,
            "seconds": seconds,
            "bad_records": int(server.faults.bad.sum()),
            "missing_records": int(server.faults.missing.sum()),
            "saturated": server.faults.saturated + self._counts["saturated"],
        }
        self.rows.append(row)
        with self.clock.phase("write"):
            timings = Clock.table(seconds_by_phase)
            told = (server.faults, server.suspicion.scores, server.tolerance.notes)
            report(Progress(row, self.parameters, timings, by_rank, *told, last))
