"""``mpicoded run`` and ``mpicoded resume``: one experiment, from a config to a result file."""

import hashlib
import itertools
import os
import platform
import sys
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path

from mpicoded import experiment as experiments
from mpicoded import plugins
from mpicoded.commands.reporter import Reporter
from mpicoded.data import layout
from mpicoded.data.results import is_result, load_results
from mpicoded.errors import InputError, one_line
from mpicoded.experiment import Experiment
from mpicoded.training.loop import Trainer
from mpicoded.transport.base import Transport
from mpicoded.transport.connect import connect

_EXPECTED = (InputError, OSError, MemoryError, KeyboardInterrupt, SystemExit)  # one line says all of these


class Refused(InputError):
    """Bad input that all ranks know of: each may leave by itself."""


class Finished(Exception):
    """There is nothing to do."""


def run(config: str, output: str | None, overrides: Sequence[str], quiet: bool) -> int:
    """Train as the config says, on the processes that there are."""
    return _job(lambda: experiments.load(config, overrides), output or f"{Path(config).stem}.h5", quiet)


def resume(path: str, quiet: bool) -> int:
    """Run an unfinished result file's experiment to its end (from round 0: there are no checkpoints yet)."""

    def load() -> Experiment:
        results = load_results(path)
        if results.finished:
            raise Finished
        return experiments.loads(results.toml, path)

    return _job(load, path, quiet)


def _job(load: Callable[[], Experiment], target: str, quiet: bool) -> int:
    """Run, and turn any failure on any rank into the end of the whole job with one readable error."""
    transport = connect()
    try:
        return _run(transport, load, target, quiet)
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


def _run(transport: Transport, load: Callable[[], Experiment], target: str, quiet: bool) -> int:
    error, digest, trainer, foreign = None, "", None, ""
    try:
        experiment = load()
        foreign = " ".join(itertools.chain(*plugins.packages(experiment).items()))
        description = layout.describe(experiment.data.path)
        experiment.check(description, transport.size)
        if transport.rank == 0:  # the only one that writes
            _check_target(target, experiment.data.path)
        trainer = Trainer(experiment, description, transport)
        digest = hashlib.sha256((experiment.to_toml() + description.fingerprint()).encode()).hexdigest()
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
        if transport.rank == 0 and not quiet:
            print(f"{target} is finished: nothing to do", flush=True)
        return 0
    hosts = transport.texts(platform.node())
    if transport.rank != 0:
        trainer.train()
        return 0
    reporter = Reporter(experiment, description, transport, hosts, target, quiet)
    trainer.train(reporter.report, reporter.tick)
    return 0


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
