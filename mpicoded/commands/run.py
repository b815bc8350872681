"""``mpicoded run`` and ``mpicoded resume``: one experiment, from a config to a result file."""

import os
import platform
import sys
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path

from mpicoded import experiment as experiments
from mpicoded.commands.reporter import Reporter
from mpicoded.data import layout
from mpicoded.data.results import is_result, load_results
from mpicoded.errors import InputError
from mpicoded.experiment import Experiment
from mpicoded.training.loop import Trainer
from mpicoded.transport.base import Transport
from mpicoded.transport.connect import connect


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
    except KeyboardInterrupt as error:
        transport.abort(error)  # or the others would wait for this rank
        raise
    except Exception as error:
        traceback.print_exc()
        notes = " ".join(getattr(error, "__notes__", []))
        where = f"rank {transport.rank} on {platform.node()}"
        print(
            f"mpicoded: error on {where} {notes}: {type(error).__name__}: {error}",
            file=sys.stderr,
            flush=True,
        )
        transport.abort(error)
        return 1


def _run(transport: Transport, load: Callable[[], Experiment], target: str, quiet: bool) -> int:
    error = None
    try:
        experiment = load()
        description = layout.describe(experiment.data.path)
        experiment.check(description, transport.size)
        if transport.rank == 0:  # the only one that writes
            _check_target(target, experiment.data.path)
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
