"""Rates of what is done with numbers, whichever device they come from: votes, parameters, what colluding attackers see.

Phases are measured at two numbers of coordinates, and a line is drawn through them.
"""

from collections.abc import Callable, Mapping, Sequence
from math import log2
from time import perf_counter
from typing import Any

import msgspec
import numpy as np

from mpicoded.algorithms.component import Component, VotesTaker, nested
from mpicoded.algorithms.processors import Processor, processor
from mpicoded.algorithms.shapes import Array, Float
from mpicoded.algorithms.slices import WHOLE, Sums
from mpicoded.errors import InputError
from mpicoded.experiment import Experiment, check_votes
from mpicoded.training.adversary import Adversary
from mpicoded.training.clock import PHASES, Clock
from mpicoded.training.coding import Coding
from mpicoded.training.combiner import Combiner
from mpicoded.training.costs import BY_COLUMNS, Line
from mpicoded.training.faults import Faults
from mpicoded.training.links import Downlink
from mpicoded.transport.local import LocalTransport

_SECONDS, _CALLS = 0.1, 30  # for one measurement
_LONG, _TOO_LONG = 0.04, 0.5  # seconds of a call from which on no larger one is needed, or tried
_FEW = 256  # columns
_FEWEST = 8  # rows: so few are not worth more columns
_NUMBERS = 1 << 23  # in all votes: more than most caches hold
_VOTES = 1000  # of more, rules that compare votes with one another are measured with fewer

Seconds = Mapping[str, float]


class Alone(LocalTransport):
    """One rank of many. What the others would say is noise."""

    def __init__(self, rank: int, size: int) -> None:
        super().__init__()
        self.rank, self.size, self.leads = rank, size, rank == 0
        self.present = np.ones(size, bool)
        self._filled: Array | None = None

    def share(self, rows: Array, counts: Array, out: Array) -> Array:
        """Noise, the same each time."""
        if self._filled is not out:
            out[...] = noise(len(out), out.shape[1], out.dtype)
            self._filled = out
        return out[: int(counts.sum())]


class _Counting(Sums):
    """Sums over all coordinates, of which it is counted how many numbers each has, by phase."""

    def __init__(self, clock: Clock, votes: int, devices: int) -> None:
        self.found: dict[str, list[int]] = {}
        self._clock, self._votes, self._devices = clock, votes, devices

    def total(self, partials: Any) -> Array:
        """The sum. What has a number for each vote would have one for each device."""
        result = super().total(partials)
        more = self._devices - self._votes
        lengths = [length + more if length >= self._votes else length for length in np.shape(result)]
        self.found.setdefault(self._clock.current, []).append(int(np.prod(lengths)))
        return result


def noise(rows: int, columns: int, dtype: np.dtype[Any]) -> Float[Array, "rows columns"]:
    """Votes that agree, more or less."""
    drawn: Array = 1 + np.random.default_rng(0).standard_normal((rows, columns), np.float32)
    return drawn.astype(dtype, copy=False)


def timed(
    clock: Clock, call: Callable[[], object], before: Callable[[], object] = lambda: None
) -> tuple[Seconds, float]:
    """The seconds of each phase of a call, and of what it does outside all phases: medians of several."""
    call()  # pages are there, tables are filled, loops compiled
    rows: list[Array] = []
    start = perf_counter()
    while not rows or (len(rows) < _CALLS and perf_counter() - start < _SECONDS):
        before()
        clock.reset()
        begin = perf_counter()
        call()
        outside = perf_counter() - begin - sum(clock.seconds)
        rows.append(np.append(clock.seconds, outside))
    found: list[float] = np.median(rows, axis=0).tolist()
    return dict(zip(PHASES, found[:-1], strict=True)), found[-1]


def _by_columns(
    phases: Sequence[str], rows: int, dim: int, make: Callable[[int, Clock], Callable[[], object]]
) -> tuple[dict[str, Line], float]:
    """Lines of these phases of what is made for a number of columns: of so many that they decide, and of a quarter."""
    most = min(dim, max(_FEW, _NUMBERS // max(rows, _FEWEST)))
    few, clock = max(1, min(dim, _FEW) // 4), Clock()
    less, outside = timed(clock, make(few, clock))
    while True:
        columns = min(most, 4 * few + 20)  # no power of two: rows so far apart share few places in the caches
        more, _ = timed(clock, make(columns, clock))
        short, long = (sum(found[phase] for phase in phases) for found in (less, more))
        if columns == most or long > _TOO_LONG or (long > _LONG and long > 2 * short):
            return {phase: Line.through((few, less[phase]), (columns, more[phase])) for phase in phases}, outside
        few, less = columns, more


def by_numbers(experiment: Experiment, coding: Coding, dim: int, liars: Array) -> dict[str, Line]:
    """Lines of telling the parameters and of the step; of the attack, where it needs the messages of all devices."""
    dtype = np.dtype(experiment.compute.dtype)

    def steps(columns: int, clock: Clock) -> Callable[[], object]:
        downlink, parameters = Downlink(experiment, LocalTransport(), columns), np.zeros(columns, dtype)
        vote, state = noise(1, columns, dtype)[0], experiment.optimizer.initial(parameters)

        def call() -> None:
            with clock.phase("broadcast"):
                downlink.write(parameters, 0)
                downlink.told()
            with clock.phase("step"):
                experiment.optimizer.step(parameters, vote, state, 0)

        return call

    def lies(columns: int, clock: Clock) -> Callable[[], object]:
        ranks = experiment.devices
        transport = Alone(int(liars.argmax()), ranks)
        adversary, messages = (
            Adversary(experiment, transport, coding, columns, Processor()),
            noise(coding.each, columns, dtype),
        )

        def call() -> None:
            with clock.phase("attack"):
                adversary.act(messages, 0)

        return call

    found, _ = _by_columns(("broadcast", "step"), 1, dim, steps)
    if experiment.attacked and experiment.attack.colludes:
        found |= _by_columns(("attack",), coding.each * experiment.devices, dim, lies)[0]
    return found


def voting(
    experiment: Experiment, coding: Coding, dim: int, counts: bool
) -> tuple[dict[str, Line], dict[str, list[int]], float]:
    """Lines of what is done with all votes, by columns; where it ``counts``, what slices sum; seconds outside phases.

    Where a rule compares a great many votes with one another, it is measured with fewer, of which as large a share
    lies. What twice as many take more, is taken to go on so.
    """
    alone = experiment.aggregator.by_coordinates() and not (experiment.filters or experiment.estimates)
    if experiment.devices > _VOTES and not (alone or experiment.encoder.decodes):
        try:
            fewer = [_fewer(experiment, votes) for votes in (_VOTES // 2, _VOTES)]
        except InputError:  # so that the rule would not work
            pass
        else:
            half, whole = (_combining(part, Coding(part, part.devices), dim, counts, experiment) for part in fewer)
            scale = experiment.devices / _VOTES
            lines = {
                phase: Line(*(extrapolated(a, b, scale) for a, b in zip(half[0][phase], line, strict=True)))
                for phase, line in whole[0].items()
            }
            return lines, whole[1], whole[2]
    return _combining(experiment, coding, dim, counts, experiment)


def extrapolated(half: float, whole: float, scale: float) -> float:
    """``whole`` for so many times as many votes: the power of votes by which it is more than for half as many."""
    power = log2(whole / half) if half > 0 and whole > 0 else 1.0
    return float(whole * scale ** min(max(power, 1.0), 3.0))


def _fewer(experiment: Experiment, votes: int) -> Experiment:
    """The same with fewer devices, of which as large a share is Byzantine. Raises InputError where that cannot be."""

    def scaled(part: Any) -> Any:
        fields = {"byzantine": max(0, part.byzantine * votes // experiment.devices - 2)} if _told(part) else {}
        cls: type[Component] = type(part)
        inside = {name: scaled(getattr(part, name)) for name in nested(cls)}
        return msgspec.structs.replace(part, **fields, **inside)

    filters, aggregator = tuple(map(scaled, experiment.filters)), scaled(experiment.aggregator)
    check_votes([item.tolerating(0) for item in filters], aggregator.tolerating(0), votes)
    byzantine = experiment.byzantine * votes // experiment.devices
    return msgspec.structs.replace(
        experiment, devices=votes, byzantine=byzantine, filters=filters, aggregator=aggregator
    )


def _told(part: Any) -> bool:
    return isinstance(part, VotesTaker) and isinstance(getattr(part, "byzantine", None), int)


def _combining(
    experiment: Experiment, coding: Coding, dim: int, counts: bool, whole: Experiment
) -> tuple[dict[str, Line], dict[str, list[int]], float]:
    """The combiner's phases with the votes of this experiment; sums as with those of the whole one."""
    rows, dtype = coding.each * experiment.devices, np.dtype(experiment.compute.dtype)
    where = processor(experiment.compute.device, 0)
    usable, arrived = np.ones(rows, bool), np.ones(experiment.devices, bool)

    def make(columns: int, clock: Clock, sums: Sums = WHOLE) -> Callable[[], object]:
        combiner, votes = Combiner(experiment, coding, clock, columns, where, sums), noise(rows, columns, dtype)
        faults, counts = Faults(experiment.devices, 0), np.zeros(experiment.devices, np.int64)

        def call() -> None:
            combiner.combine(votes, usable, arrived, 0)
            faults.note(0, arrived, ~arrived, counts)

        return call

    lines, outside = _by_columns(BY_COLUMNS, rows, dim, make)
    found: dict[str, list[int]] = {}
    if counts:
        clock = Clock()
        counting = _Counting(clock, rows, whole.devices)
        make(min(dim, _FEW), clock, counting)()
        found = counting.found
    return lines, found, outside
