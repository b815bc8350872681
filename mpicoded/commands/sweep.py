"""``mpicoded sweep``: a grid of experiments, listed, run one after another, or one by its number as job arrays do."""

import argparse
import itertools
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from mpicoded.commands.grid import FINISHED, Grid, Point, assignments, make
from mpicoded.commands.job import STOPPED, Finished, Options
from mpicoded.commands.launch import program
from mpicoded.commands.run import start
from mpicoded.commands.text import table
from mpicoded.errors import InputError
from mpicoded.experiment import Experiment

_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGHUP)


def sweep(arguments: argparse.Namespace, overrides: Sequence[str], words: Sequence[str]) -> int:
    """List the grid, print its array, run all or one; ``words`` are the whole command. The exit code."""

    def grid() -> Grid:
        return make(arguments.configs, arguments.vary, overrides, arguments.output)

    if arguments.index is not None:
        return _run_one(grid, arguments.index, Options(arguments.quiet, resuming=True))
    found = grid()
    found.check(arguments.ranks or 1)
    states = [point.state() for point in found.points]
    for line in found.repeated:
        _tell("warning", line)
    if arguments.run:
        return _run_all(found, states, [word for word in words if word != "--run"], arguments.quiet)
    print(_array(states) if arguments.array else _listing(found, states))
    return 0


def _listing(grid: Grid, states: Sequence[str]) -> str:
    several = len({point.config for point in grid.points}) > 1
    rows = [["", *["config"] * several, *grid.keys, "result", "state"]]
    for number, (point, state) in enumerate(zip(grid.points, states, strict=True)):
        rows.append([str(number), *[Path(point.config).stem] * several, *point.values, point.target, state])
    return f"{table(rows)}\n{len(states)} experiments, {states.count(FINISHED)} finished"


def _array(states: Sequence[str]) -> str:
    """The unfinished ones as sbatch's --array takes them; where there are none, a word that it refuses."""
    left = [number for number, state in enumerate(states) if state != FINISHED]
    ranges = []
    for _, run in itertools.groupby(enumerate(left), lambda item: item[1] - item[0]):
        first, *rest = (number for _, number in run)
        ranges.append(f"{first}-{rest[-1]}" if rest else str(first))
    if not left:
        _tell("warning", f"all {len(states)} experiments are finished")
    return ",".join(ranges) or "none"


def _run_one(grid: Callable[[], Grid], number: int, options: Options) -> int:
    """Run, resume or leave one experiment, on all the ranks that there are. What is wrong they find out together."""
    found: Point | InputError
    try:
        points = grid().points
        last = len(points) - 1
        found = points[number] if number <= last else InputError(f"--index {number}: the grid's last one is {last}")
    except InputError as error:
        found = error

    def load() -> Experiment:
        if isinstance(found, InputError):
            raise found
        if found.state() == FINISHED:
            raise Finished
        try:
            Path(found.target).parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(f"the folder of {found.target} cannot be made: {error.strerror}") from None
        return found.experiment

    return start(load, "" if isinstance(found, InputError) else found.target, options)


def _run_all(grid: Grid, states: Sequence[str], words: Sequence[str], quiet: bool) -> int:
    """Run what is unfinished, each in a process of its own, until one is stopped. A failure does not end the others."""
    failed, left = [], [number for number, state in enumerate(states) if state != FINISHED]
    child = _Child()
    with child.listening():
        for number in left:
            if not quiet:
                point = grid.points[number]
                label = " ".join([Path(point.config).stem, *assignments(grid.keys, point.values)])
                print(f"[{number}] {label}: {states[number]}", flush=True)
            code = child.run([*program(), *words, "--index", str(number)])
            if code == STOPPED or child.signalled:
                _tell("warning", "the sweep was stopped: the same command goes on")
                return STOPPED
            failed += [number] if code else []
    if not quiet:
        print(f"{len(states)} experiments: {len(states) - len(left)} were finished, {len(left) - len(failed)} were run")
    if failed:
        _tell("error", f"{len(failed)} of {len(left)} experiments failed: {', '.join(map(str, failed))}")
    return 1 if failed else 0


class _Child:
    """A program at a time, which gets the signals that this one gets."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        self.signalled = 0

    def run(self, command: Sequence[str]) -> int:
        """Run a program to its end; its exit code, negative where a signal has ended it."""
        # In a session of its own: what the terminal sends to all would reach it twice.
        self._process = subprocess.Popen(command, stdin=subprocess.DEVNULL, start_new_session=True)
        if self.signalled:  # in the meantime
            self._process.send_signal(self.signalled)
        return self._process.wait()

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Pass signals on, but for those that are ignored, as nohup does."""
        before = {number: signal.getsignal(number) for number in _SIGNALS}
        for number in [number for number, handler in before.items() if handler is not signal.SIG_IGN]:
            signal.signal(number, self._pass_on)
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _pass_on(self, number: int, frame: FrameType | None) -> None:
        self.signalled = number
        if self._process is not None:
            self._process.send_signal(number)


def _tell(what: str, line: str) -> None:
    print(f"mpicoded: {what}: {line}", file=sys.stderr, flush=True)
