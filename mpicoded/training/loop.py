"""The training loop: the same code for one process and for any number of ranks.

The server gives orders, and all ranks obey, its own too: do a round, evaluate, hand over what devices remember.

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

from mpicoded.algorithms.arrays import replace, rows
from mpicoded.algorithms.memories import Turn
from mpicoded.algorithms.processors import Processor
from mpicoded.algorithms.randomness import generator
from mpicoded.algorithms.shapes import Array, Bool, Float
from mpicoded.data.layout import Description
from mpicoded.errors import RunError
from mpicoded.experiment import Experiment
from mpicoded.training.adversary import Adversary
from mpicoded.training.aggregation import aggregation
from mpicoded.training.checkpoint import Keeper, Wish
from mpicoded.training.clock import PHASES, Clock
from mpicoded.training.coding import Coding
from mpicoded.training.devices import Devices, Gradients, Plan
from mpicoded.training.evaluation import Evaluator, Measured
from mpicoded.training.faults import Faults
from mpicoded.training.history import History, Scores
from mpicoded.training.links import Downlink, Uplink
from mpicoded.training.mishaps import Mishaps
from mpicoded.training.samples import read
from mpicoded.training.tolerance import Estimate
from mpicoded.transport.base import Kind, Loss, Node, Order, RanksMissing, Transport, block, block_sizes, devices_on

_MEMORY = ("shards", "peak")


class Progress(NamedTuple):
    """What rank 0 tells the outside after an evaluation."""

    row: dict[str, float]
    parameters: Float[Array, " dim"]
    timings: dict[str, Array]  # seconds by phase, of each rank
    memory: dict[str, Array]  # bytes, of each rank
    faults: Faults  # of the messages so far
    suspicion: Array  # of each device
    scores: Scores  # the same after earlier rounds
    estimates: list[Estimate]  # of each round, where there are any
    lost: list[Loss]  # ranks that have died
    finished: bool


class Trainer:
    """One rank's part of a run. Building it reads the samples, together with the ranks of the node if they are given.

    No rank waits in it for one that has failed there.
    """

    def __init__(
        self, experiment: Experiment, description: Description, transport: Transport, node: Node | None = None
    ) -> None:
        self.experiment, self.transport = experiment, transport
        self.clock = Clock()
        self.hosted = first, stop = block(experiment.devices, transport.rank, transport.size)
        dtype = np.dtype(experiment.compute.dtype)
        samples = read(experiment, description, transport, node)
        self.apart = samples.apart
        dim = experiment.model.dim(description.features, description.classes)
        self.parameters = experiment.model.initial(
            description.features, description.classes, generator(experiment.seed, "initial")
        ).astype(dtype)
        gradients = Gradients(experiment.model, samples.shards, dim, description.classes)
        whole = experiment.evaluate != "test"
        self._evaluator = Evaluator(transport, description, gradients, samples.holders, samples.test, whole)
        # The server is waited for. The others plan while they wait for it, for no longer than that takes (see _step).
        self._coding = coding = Coding(experiment, description.subsets, 32 if transport.leads else 1)
        self._processor = gradients.processor
        self.devices = Devices(experiment, coding, first, stop, gradients, self.clock)
        where = self._processor  # of messages, until they are sent
        if experiment.compute.device != "cpu":
            from mpicoded.training import route

            self.devices.fetches = bool(route.works_on_cpu(experiment))
            where = Processor() if self.devices.fetches else where
        self.downlink = Downlink(experiment, transport, dim)
        adversary = Adversary(experiment, transport, coding, dim, where)
        self._mishaps = Mishaps(experiment, transport.rank, self.clock)
        self.uplink = Uplink(experiment, transport, coding, adversary, self._mishaps, dim, self.clock, where)
        self.aggregation = aggregation(experiment, transport, coding, self.parameters, self.clock, self._processor)
        self.server = self.aggregation.server
        self.devices.compute_into(self.aggregation.room)
        self._total = coding.each * experiment.devices
        self._told_before = np.zeros(dim if experiment.memory.looks_back else 0, dtype)
        self._shard_bytes = samples.nbytes
        self.round = 0  # steps done
        self.where = "before the first round"
        self.history = History(transport)  # the server's
        self._about_ranks = np.zeros((transport.size, len(PHASES) + len(_MEMORY)))

    def settle(self) -> str:
        """Find out how messages get from GPUs to the server's, which takes all ranks; in words.

        Without it they go by way of the CPUs.
        """
        if self.experiment.compute.device == "cpu":
            return ""
        from mpicoded.training import route

        direct, why = route.find(self.experiment, self.transport, self._processor)
        self.uplink.direct = self.uplink.adversary.direct = direct
        return f"messages go {'from GPU to GPU' if direct else 'by way of the CPU'} ({why})"

    def train(
        self,
        report: Callable[[Progress], None] = lambda progress: None,
        tick: Callable[[int, Faults | None], None] = lambda round, faults: None,
        keeper: Keeper | None = None,
    ) -> bool:
        """All rounds that are left; whether they were done, and not stopped before.

        At the server ``report`` gets each row of the history, ``tick`` the rounds done and the faults.
        """
        try:
            # A diverging run is a result, not a reason for warnings from every rank; a bad record may hold anything.
            with np.errstate(all="ignore"):
                return self._lead(report, tick, keeper) if self.transport.leads else self._follow()
        except BaseException as error:
            error.add_note(self.where)
            raise

    def _lead(
        self,
        report: Callable[[Progress], None],
        tick: Callable[[int, Faults | None], None],
        keeper: Keeper | None,
    ) -> bool:
        start = perf_counter()
        for round in range(self.round, self.experiment.rounds + 1):
            self.round, self.where = round, f"after round {round}"
            wish = keeper.wish(round) if keeper is not None else Wish.GO_ON
            if keeper is not None and wish is not Wish.GO_ON:
                with self.clock.phase("write"):
                    keeper.keep(round, self.state(self._seconds(start)))
            if wish is Wish.STOP:
                self._order(Kind.END, False)
                return False
            last = round == self.experiment.rounds
            if last or round % self.experiment.evaluate_every == 0:
                self._evaluate(round, self._seconds(start), last, report)
            if not last:
                self.where = f"in round {round + 1}"
                self._round(round)
                tick(round + 1, self.server.faults if self.server is not None else None)
        self._order(Kind.END, True)
        return True

    def _seconds(self, start: float) -> float:
        """That rounds have taken, those of this process since ``start``."""
        return self.history.seconds + perf_counter() - start - self.clock.outside()

    def _follow(self) -> bool:
        while (order := self.transport.hear()).kind is not Kind.END:
            self.round = order.round
            self.where = f"in round {order.round + 1}" if order.kind is Kind.STEP else f"after round {order.round}"
            self._obey(order)
            self.where = f"waiting for orders after round {order.round + (order.kind is Kind.STEP)}"
        return bool(order.value)

    def _order(self, kind: Kind, value: int = 0) -> Any:
        """Have all ranks do something; what comes of it at the server. What ranks miss is asked of the others."""
        order = Order(kind, self.round, value)
        while True:
            self.transport.tell(order)
            try:
                return self._obey(order)
            except RanksMissing:
                continue

    def _obey(self, order: Order) -> Any:
        match order.kind:
            case Kind.STEP:
                return self._step(order.round)
            case Kind.STATE:
                return self.uplink.state()
            case Kind.LOSSES:
                with self.clock.phase("evaluate"):
                    self.transport.broadcast(self.parameters)  # in full, whatever the devices are told
                    return self._evaluator.losses(order.round, self.parameters, self._about_this_rank())
            case Kind.GRADIENT:
                with self.clock.phase("evaluate"):
                    self.transport.broadcast(self.parameters)  # not all who are asked now were asked for losses
                    return self._evaluator.gradient_norm(order.round, self.parameters, order.value)
            case Kind.END:
                return None

    def state(self, seconds: float = 0.0) -> dict[str, Any]:
        """The state before the next round. Only the server asks for it, of all ranks."""
        if self.server is None:
            raise RuntimeError(f"rank {self.transport.rank} is not the server")
        devices = self._order(Kind.STATE)
        return {
            "parameters": self.parameters,
            "server": self.aggregation.state(self._told()),
            "devices": devices,
            "told_before": self._told_before,
            "history": self.history.state(seconds),
        }

    def restore(self, round: int, state: dict[str, Any]) -> None:
        """Go on after so many rounds; ``devices`` are the rows of those of this rank. Every rank does it by itself."""
        self.round, self.where = round, f"after round {round}"
        self.parameters[:] = state["parameters"]
        self.uplink.restore(state["devices"])
        self._told_before[:] = state["told_before"]
        if self.server is not None or self.aggregation.needs_state:
            self.aggregation.restore(state["server"])
        if self.server is not None:
            self.history.restore(state["history"])

    def _round(self, round: int) -> None:
        """A round, on all ranks: only the server calls it."""
        self.round = round
        self._check_left()  # not only the server would have too few votes: attackers who try do what it does
        with self.clock.phase("broadcast"):
            self.downlink.write(self.parameters, round)
            self.transport.tell(Order(Kind.STEP, round))
        self._step(round)
        self._check_left()

    def _check_left(self) -> None:
        """Raise RunError where too many ranks have died for another round."""
        dead = [loss.rank for loss in self.transport.lost]
        if self.server is not None and dead:
            left = self.experiment.devices - int(block_sizes(self.experiment.devices, self.transport.size)[dead].sum())
            if left < self.server.fewest:
                need = f"code, filters and rule need {self.server.fewest}"
                raise RunError(f"{left} devices are left after the death of ranks {sorted(dead)}, but {need}")

    def _step(self, round: int) -> None:
        """This rank's part of a round."""
        with self.clock.phase("broadcast"):
            parameters, nonce = self.downlink.told()
        self._mishaps.die(round)
        turn = self._turn(round)
        plan = self.devices.plan(round, turn.whole)
        before_work = perf_counter()
        messages = self._messages(plan, round, parameters, "sent")
        before = self._messages(plan, round, self._told_before, "before") if turn.looks_back else None
        if self.experiment.memory.looks_back:
            self._told_before[...] = parameters
        self._mishaps.delay(round, perf_counter() - before_work)
        records, sent = self.uplink.pack(messages, before, plan.keys, turn, nonce)
        up = self.aggregation.round(records, sent, turn, nonce)
        if not self.transport.leads and round + 1 < self.experiment.rounds:  # while the server still works
            self.devices.plan(round + 1, self._turn(round + 1).whole)
        if self.server is not None:
            there = None if np.count_nonzero(self.transport.present) == self.transport.size else self._told()
            told = self.experiment.devices if there is None else int(there.sum())
            gradients = (1 + turn.looks_back) * self._coding.computed(round, there)
            self.history.count(gradients, up, told * self.downlink.nbytes, self.downlink.saturated)

    def _turn(self, round: int) -> Turn:
        experiment = self.experiment
        return experiment.memory.turn(experiment.seed, round, experiment.compressor, self._total)

    def _messages(
        self, plan: Plan, round: int, parameters: Float[Array, " dim"], use: str
    ) -> Float[Array, "messages dim"]:
        """What this rank's devices compute, some perhaps on wrong targets."""
        spoiled = self.uplink.adversary.spoiled(round)
        messages = self.devices.messages(plan, round, parameters, spoiled=spoiled, use=use)
        if (mislabelled := self.uplink.adversary.mislabelled(round)) is not None:
            wrong = self.devices.messages(plan, round, parameters, wrong=True, use="mislabelled")
            places = np.flatnonzero(mislabelled)
            replace(messages, places, rows(wrong, places))
        return messages

    def _told(self) -> Bool[Array, " devices"]:
        """The devices of the ranks that took part in the last order."""
        return devices_on(self.transport.present, self.experiment.devices)

    def measure(self) -> dict[str, float]:
        """What there is of loss, accuracy and gradient norm. Only the server asks for it, of all ranks."""
        found: Measured = self._order(Kind.LOSSES)
        there = self.transport.present
        self._about_ranks[there] = found.extra
        if self.experiment.evaluate == "test":
            return found.values
        norm = float("nan") if found.exponent is None else self._order(Kind.GRADIENT, found.exponent)
        return found.values | {"gradient_norm": norm}

    def _about_this_rank(self) -> Float[Array, " numbers"]:
        unit = 1 if sys.platform == "darwin" else 1024
        peak = unit * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return np.array([*self.clock.seconds, self._shard_bytes, peak])

    def _evaluate(self, round: int, seconds: float, last: bool, report: Callable[[Progress], None]) -> None:
        values, server = self.measure(), self.server
        if server is None:
            return
        scores = server.suspicion.scores
        row = self.history.append(round, values, seconds, server.faults, scores)
        with self.clock.phase("write"):
            timings = Clock.table(self._about_ranks[:, : len(PHASES)])
            memory = dict(zip(_MEMORY, self._about_ranks[:, len(PHASES) :].T.astype(np.int64), strict=True))
            told = (server.faults, scores, self.history.scores, server.tolerance.notes, self.transport.lost)
            report(Progress(row, self.parameters, timings, memory, *told, last))
