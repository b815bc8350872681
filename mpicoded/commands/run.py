"""``mpicoded run`` and ``mpicoded resume``: one experiment, from a config to a result file."""

import hashlib
import itertools
import os
import platform
import sys
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from mpicoded import experiment as experiments
from mpicoded import plugins
from mpicoded.commands.reporter import Reporter
from mpicoded.data import checkpoints, layout
from mpicoded.data.results import is_result, load_results
from mpicoded.errors import InputError, one_line
from mpicoded.experiment import Experiment
from mpicoded.training.checkpoint import Keeper
from mpicoded.training.loop import Trainer
from mpicoded.transport.base import Transport
from mpicoded.transport.connect import connect

_EXPECTED = (InputError, OSError, MemoryError, KeyboardInterrupt, SystemExit)  # one line says all of these


class Options(NamedTuple):
    """What the command line says beside the experiment."""

    quiet: bool = False
    restart: bool = False  # begin anew where a run could be resumed
    limit: float | None = None  # seconds after which the run must have stopped
    resuming: bool = False


class Refused(InputError):
    """Bad input that all ranks know of: each may leave by itself."""


class Finished(Exception):
    """There is nothing to do."""


STOPPED = 75
"""The exit code of a run that a signal has stopped, to be resumed (EX_TEMPFAIL, "try again", of sysexits.h)."""


def run(config: str, output: str | None, overrides: Sequence[str], options: Options) -> int:
    """Train as the config says, on the processes that there are."""
    return _job(lambda: experiments.load(config, overrides), output or f"{Path(config).stem}.h5", options)


def resume(path: str, options: Options) -> int:
    """Run an unfinished result file's experiment to its end: from its checkpoint, or from round 0 where it has none."""

    def load() -> Experiment:
        saved = checkpoints.find(checkpoints.path_of(path))
        if saved is not None and not Path(path).exists():
            return experiments.loads(saved.toml, path)
        results = load_results(path)
        if results.finished:
            raise Finished
        return experiments.loads(results.toml, path)

    return _job(load, path, options._replace(resuming=True))


def _job(load: Callable[[], Experiment], target: str, options: Options) -> int:
    """Run, and turn any failure on any rank into the end of the whole job with one readable error."""
    transport = connect()
    try:
        return _run(transport, load, target, options)
    except Refused:
        raise
    except BaseException as error:
        if not isinstance(error, _EXPECTED):
            traceback.print_exc()
        interrupted = isinstance(error, KeyboardInterrupt)
        what = "interrupted" if interrupted else "error"
        where = " ".join([f"on rank {transport.rank} of {platform.node()}", *getattr(error, "__notes__", [])])
        text = "" if interrupted else f": {type(error).__name__}: {one_line(error)}"
        print(f"mpicoded: {what} {where}{text}", file=sys.stderr, flush=True)
        code = 130 if interrupted else 1
        transport.abort(code)  # or the others would wait for this rank
        return code


def _run(transport: Transport, load: Callable[[], Experiment], target: str, options: Options) -> int:
    error, digest, trainer, foreign, place = None, "", None, "", checkpoints.path_of(target)
    try:
        experiment = load()
        foreign = " ".join(itertools.chain(*plugins.packages(experiment).items()))
        description = layout.describe(experiment.data.path)
        experiment.check(description, transport.size)
        if transport.rank == 0:  # the only one that writes
            _check_target(target, experiment.data.path)
            if not options.resuming and not options.restart:
                _check_unfinished(target, place)
        trainer = Trainer(experiment, description, transport)
        digest = hashlib.sha256((experiment.to_toml() + description.fingerprint()).encode()).hexdigest()
        if options.resuming:
            digest += _go_on(trainer, place, digest)
    except Finished:
        digest = "finished"
    except InputError as problem:
        error = one_line(problem)
    # Every rank has checked everything by itself; they agree before the first collective call of the training.
    first, first_foreign = transport.texts(digest)[0], transport.texts(foreign)[0]
    if error is None and first:  # rank 0 has no error either
        if foreign != first_foreign:
            error = f"this rank has the plug-ins {foreign or '(none)'}, rank 0 has {first_foreign or '(none)'}"
        elif digest != first:
            error = "this rank loaded another config or dataset than rank 0"
    if (error := transport.agree(error)) is not None:
        raise Refused(error)
    if trainer is None:
        if transport.rank == 0 and not options.quiet:
            print(f"{target} is finished: nothing to do", flush=True)
        return 0
    if options.restart and transport.rank == 0:
        place.unlink(missing_ok=True)
    hosts = transport.texts(platform.node())
    saved = checkpoints.Checkpoint(experiment.to_toml(), digest.partition(" ")[0], 0)
    keeper = Keeper(
        transport,
        *experiment.checkpoint_interval(),
        lambda round, state: checkpoints.save(place, saved._replace(round=round), state),
        options.limit,
    )
    with keeper.listening():
        if transport.rank != 0:
            return 0 if trainer.train(keeper=keeper) else STOPPED
        reporter = Reporter(experiment, description, transport, hosts, target, options.quiet, trainer.rows)
        if trainer.train(reporter.report, reporter.tick, keeper):
            place.unlink(missing_ok=True)
            return 0
        reporter.stop(trainer.round, keeper.cause)
    return STOPPED


def _go_on(trainer: Trainer, place: Path, digest: str) -> str:
    """Bring a trainer to where its checkpoint is; what ranks compare of it."""
    saved = checkpoints.find(place)
    if saved is None:
        return ""
    if saved.digest != digest:
        raise InputError(f"checkpoint {place} is of another experiment, or its dataset has changed: remove it")
    trainer.restore(saved.round, checkpoints.load(place, *trainer.hosted))
    return f" {saved.round}"


def _check_unfinished(target: str, place: Path) -> None:
    """No work is thrown away without being asked for it."""
    saved = checkpoints.find(place)
    if saved is not None:
        raise InputError(
            f"output {target} is of a run that was stopped after round {saved.round}: mpicoded resume {target} goes "
            "on with it, mpicoded run --restart begins anew"
        )


def _check_target(target: str, data: str) -> None:
    """The output can be written, and nothing but an older result of ours stands in its place."""
    folder = Path(target).resolve().parent
    if not folder.is_dir():
        raise InputError(f"output {target}: the folder {folder} does not exist")
    if not os.access(folder, os.W_OK) or Path(target).is_dir():
        raise InputError(f"output {target} cannot be written")
    if os.path.exists(target):
        if os.path.samefile(target, data):
            raise InputError(f"output {target} is the data file")
        if not is_result(target):
            raise InputError(f"output {target} exists and is not a result file of mpicoded: it is left as it is")
