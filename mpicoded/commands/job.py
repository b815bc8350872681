"""One rank's part of a run: agree with the others, train, survive, leave."""

import hashlib
import itertools
import os
import platform
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from mpicoded import plugins
from mpicoded.commands.text import resume_command
from mpicoded.commands.watchdog import Standing, Watchdog
from mpicoded.data import checkpoints, layout
from mpicoded.data.whole import check_writable
from mpicoded.errors import InputError, one_line
from mpicoded.experiment import Experiment
from mpicoded.training.checkpoint import Keeper
from mpicoded.training.coding import Coding
from mpicoded.training.loop import Trainer
from mpicoded.transport.base import Node, Patience, ServerLost, Transport
from mpicoded.wiring import Root

if TYPE_CHECKING:
    from mpicoded.commands.reporter import Reporter


class Options(NamedTuple):
    """What the command line says beside the experiment."""

    quiet: bool = False
    restart: bool = False  # begin anew where a run could be resumed
    limit: float | None = None  # seconds after which the run must have stopped
    watchdog: float | None = None  # seconds without progress that end the job
    resuming: bool = False
    trusted: bool = False  # code that a result file names may be run


class Refused(InputError):
    """Bad input that all ranks know of: each may leave by itself."""


class Finished(Exception):
    """There is nothing to do."""


STOPPED = 75
"""The exit code of a run that a signal has stopped, to be resumed (EX_TEMPFAIL, "try again", of sysexits.h)."""


class Job:
    """One rank's part of a run, from the config to the exit code."""

    def __init__(self, transport: Transport, target: str, options: Options) -> None:
        self.transport = transport
        self._target, self._options = target, options
        self._place = checkpoints.path_of(target)
        self._digest = ""  # of config and data
        # Ranks that died in the job that this one resumes; what is resumed after the server's death is this job itself.
        self._lost_before: dict[str, Any] | None = None if options.resuming else {}
        self._reporter: Reporter | None = None
        self._trainer: Trainer | None = None
        self._node: Node | None = None
        self._apart = ""  # see Samples
        self._watchdog: Watchdog | None = None

    def run(self, load: Callable[[], Experiment]) -> int:
        """Check everything, train, and leave; the exit code."""
        if not self._check(load):
            if self.transport.leads and not self._options.quiet:
                print(f"{self._target} is finished: nothing to do", flush=True)
            return 0
        self._prepare()
        experiment = self._experiment
        if self._options.restart and self.transport.leads:
            self._place.unlink(missing_ok=True)
        keeper = Keeper(self.transport, *experiment.checkpoint_interval(), self._save, self._options.limit)
        self._watchdog = watchdog = Watchdog(
            self.transport.rank,
            self.transport.size,
            self._target,
            self._options.watchdog,
            self._standing,
            self.way_on,
            self.transport.abort,
        )
        if self.transport.leads:
            watchdog.clear()
        self._hosts = self.transport.texts(platform.node())
        with keeper.listening(), watchdog.watching():
            code = self._train(keeper)
        self.transport.close(code)
        return code

    def _standing(self) -> Standing:
        trainer = self._trainer
        if trainer is None:
            return Standing(0, "finding another server")
        phase = f", {trainer.clock.current}" if trainer.clock.current else ""
        return Standing(trainer.clock.entered, trainer.where + phase)

    def fail(self, code: int) -> None:
        """Leave after an error of this rank, which has been said."""
        if self._watchdog is not None and not self._experiment.transport.survives:
            self._watchdog.hush()
        self.transport.fail(code)

    def way_on(self) -> str:
        """How to go on after a failure, where there is a way."""
        try:
            saved = checkpoints.find(self._place)
        except InputError:
            saved = None
        if saved is None or saved.digest != self._digest:
            return ""
        return f"; {resume_command(self._experiment, self._target)} goes on after round {saved.round}"

    def _check(self, load: Callable[[], Experiment]) -> bool:
        """Check everything on every rank, and that all have the same; whether there is anything to do.

        Raises Refused, on all ranks.
        """
        error, told, foreign, transport, options = None, "", "", self.transport, self._options
        try:
            self._experiment = experiment = load()
            foreign = " ".join(itertools.chain(*plugins.packages(experiment).items()))
            self._description = description = layout.describe(experiment.data.path)
            experiment.check(description, transport.size)
            if transport.leads:  # the only one that writes
                _check_target(self._target, experiment.data.path)
                if not options.resuming and not options.restart:
                    _check_unfinished(experiment, self._target, self._place)
            if isinstance(experiment.transport, Root) and experiment.transport.incomplete:
                waits = patience(experiment, experiment.transport, description.subsets)
                self.transport = transport.patient(experiment.devices, waits)
            prints = description.fingerprint() + experiment.model.fingerprint()
            self._digest = hashlib.sha256((experiment.to_toml() + prints).encode()).hexdigest()
            told = self._digest
        except Finished:
            told = "finished"
        except (InputError, MemoryError) as problem:
            error = _said(problem)
        # Every rank has checked everything by itself; they agree before any of them waits for another.
        first, first_foreign = transport.texts(told)[0], transport.texts(foreign)[0]
        if first == "finished":  # as rank 0 sees it; another host may still see the file as it was before
            return False
        if error is None and first:  # rank 0 has no error either
            if foreign != first_foreign:
                error = f"this rank has the plug-ins {foreign or '(none)'}, rank 0 has {first_foreign or '(none)'}"
            elif told != first:
                error = "this rank loaded another config, dataset or model's code than rank 0"
        if (error := transport.agree(error)) is not None:
            raise Refused(error)
        return True

    def _prepare(self) -> None:
        """Read the samples, together with the other ranks of the node, and the checkpoint if there is one.

        Raises Refused, on all ranks.
        """
        error, told, transport = None, "", self.transport
        self._node = None if self._experiment.transport.survives else transport.node()
        try:
            self._trainer = Trainer(self._experiment, self._description, transport, self._node)
            told = "after round" + (self._go_on(self._trainer) if self._options.resuming else "")
            self._apart = self._trainer.apart
        except (InputError, MemoryError) as problem:
            error = _said(problem)
        first = transport.texts(told)[0]
        if error is None and first and told != first:
            error = "this rank found another checkpoint than rank 0"
        if (error := transport.agree(error)) is not None:
            raise Refused(error)
        self._apart = next((text for text in transport.texts(self._apart) if text), "")
        if self._trainer is not None and (way := self._trainer.settle()):
            transport.description += f"; {way}"

    def _train(self, keeper: Keeper) -> int:
        """Train, if need be with another server than before."""
        while True:
            trainer = self._trainer
            if trainer is None:  # the server has died, and with it what the last rounds have made of the parameters
                self._trainer = trainer = Trainer(self._experiment, self._description, self.transport)
                self._go_on(trainer)
            try:
                if not self.transport.leads:
                    return 0 if trainer.train(keeper=keeper) else STOPPED
                from mpicoded.commands.reporter import Reporter  # for the one rank that writes

                words = (self._experiment, self._description, self.transport, self._hosts, self._target)
                before = trainer.history.rows, self._lost_before or {}, self._apart
                self._reporter = reporter = Reporter(*words, self._options.quiet, *before)
                if trainer.train(reporter.report, reporter.tick, keeper):
                    self._place.unlink(missing_ok=True)
                    return 0
                reporter.stop(trainer.round, keeper.cause)
                return STOPPED
            except ServerLost:
                self._trainer = None
                del trainer
                self.transport.recover()
                keeper.begin_again()

    def _save(self, round: int, state: dict[str, Any]) -> None:
        """Write a checkpoint: the server's part."""
        saved = checkpoints.Checkpoint(self._experiment.to_toml(), self._digest, round)
        lost = self._reporter.lost() if self._reporter is not None else {}
        checkpoints.save(self._place, saved, state | {"lost_ranks": lost})

    def _go_on(self, trainer: Trainer) -> str:
        """Bring a trainer to where the checkpoint is, if there is one; what ranks compare of it."""
        saved = checkpoints.find(self._place)
        if saved is None:
            self._lost_before = self._lost_before or {}  # what is found later is of this job
            return ""
        if saved.digest != self._digest or saved.round > self._experiment.rounds:
            why = "is of another experiment, or its dataset or its model's code has changed"
            raise InputError(f"checkpoint {self._place} {why}: remove it")
        serves = self.transport.leads or trainer.aggregation.needs_state
        state = checkpoints.load(self._place, *trainer.hosted, serves)
        if self._lost_before is None:
            self._lost_before = state["lost_ranks"]
        try:
            trainer.restore(saved.round, state)
        except Exception as error:  # what a state of another form makes it raise has no end
            why = f"{type(error).__name__}: {one_line(error)}"
            raise InputError(f"checkpoint {self._place} does not hold the state of this experiment: {why}") from None
        return f" {saved.round}"


def _said(problem: Exception) -> str:
    return f"out of memory: {one_line(problem)}" if isinstance(problem, MemoryError) else one_line(problem)


def patience(experiment: Experiment, transport: Root, subsets: int) -> Patience:
    """How long the server waits, as the experiment says."""
    waits = transport.hurries and transport.below == "wait"
    return Patience(
        deadline=transport.deadline,
        quickest=transport.quickest,
        fewest=Coding(experiment, subsets).fewest() if waits else 0,
        survives=transport.survives,
    )


def _check_unfinished(experiment: Experiment, target: str, place: Path) -> None:
    """No work is thrown away without being asked for it."""
    saved = checkpoints.find(place)
    if saved is not None:
        raise InputError(
            f"output {target} is of a run that was stopped after round {saved.round}: "
            f"{resume_command(experiment, target)} goes on with it, mpicoded run --restart begins anew"
        )


def _check_target(target: str, data: str) -> None:
    """The output can be written, and nothing but an older result of ours stands in its place."""
    folder = Path(target).resolve().parent
    if not folder.is_dir():
        raise InputError(f"output {target}: the folder {folder} does not exist")
    if os.path.isdir(target):
        raise InputError(f"output {target} cannot be written: it is a folder")
    try:
        check_writable(checkpoints.path_of(target))  # its name is the longer one
    except OSError as error:
        raise InputError(f"output {target} cannot be written: {error.strerror}") from None
    if os.path.exists(target):
        from mpicoded.data.results import is_result  # for the one rank that writes

        if os.path.samefile(target, data):
            raise InputError(f"output {target} is the data file")
        if not is_result(target):
            raise InputError(f"output {target} exists and is not a result file of mpicoded: it is left as it is")
