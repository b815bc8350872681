"""``mpicoded run`` and ``mpicoded resume``: one experiment, from a config to a result file."""

import platform
import sys
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path

from mpicoded import configs
from mpicoded.commands.job import Finished, Job, Options, Refused
from mpicoded.data import checkpoints
from mpicoded.errors import InputError, RunError, one_line
from mpicoded.experiment import Experiment
from mpicoded.transport.connect import connect

_EXPECTED = (InputError, RunError, OSError, MemoryError, KeyboardInterrupt, SystemExit)  # one line says all of these


def run(config: str, output: str | None, overrides: Sequence[str], options: Options) -> int:
    """Train as the config says, on the processes that there are."""
    return start(lambda: configs.load(config, overrides), output or f"{Path(config).stem}.h5", options)


def resume(path: str, options: Options) -> int:
    """Run an unfinished result file's experiment to its end: from its checkpoint, or from round 0 where it has none."""

    def load() -> Experiment:
        experiment = unfinished(path)
        if experiment is None:
            raise Finished
        if (code := experiment.model.imports) and not options.trusted:
            raise InputError(f"{path} has mpicoded run {code}: if you trust that code, mpicoded resume {path} --trust")
        return experiment

    return start(load, path, options._replace(resuming=True))


def unfinished(path: str) -> Experiment | None:
    """The experiment of a result file, or of its checkpoint alone; None where it is finished. Raises InputError."""
    saved = checkpoints.find(checkpoints.path_of(path))
    if saved is not None and not Path(path).exists():
        return configs.loads(saved.toml, path)
    from mpicoded.data.results import load_results  # for runs that go on

    results = load_results(path)
    return None if results.finished else configs.loads(results.toml, path)


def start(load: Callable[[], Experiment], target: str, options: Options) -> int:
    """Run, and turn any failure on any rank into the end of the whole job with one readable error."""
    mine = Job(connect(), target, options)
    try:
        return mine.run(load)
    except Refused:
        raise
    except BaseException as error:
        if not isinstance(error, _EXPECTED):
            traceback.print_exc()
        rank, interrupted = mine.transport.rank, isinstance(error, KeyboardInterrupt)
        what = "interrupted" if interrupted else "error"
        where = " ".join([f"on rank {rank} of {platform.node()}", *getattr(error, "__notes__", [])])
        text = "" if interrupted else f": {type(error).__name__}: {one_line(error)}"
        print(f"mpicoded: {what} {where}{text}{mine.way_on()}", file=sys.stderr, flush=True)
        code = 130 if interrupted else 1
        mine.fail(code)
        return code
