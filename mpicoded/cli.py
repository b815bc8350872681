"""The command line. Nothing heavy is imported before it is known what to do."""

import argparse
import gc
import io
import os
import signal
import sys
import time
from collections.abc import Sequence

from mpicoded.arguments import parser, predicts
from mpicoded.errors import InputError, one_line
from mpicoded.transport.launched import launched

_THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


def main(words: Sequence[str] | None = None) -> int:
    """Run a command; the exit code. Bad input is one line on standard error and exit code 2."""
    # Ranks share a node's cores, so each has one BLAS thread unless the user says otherwise; NumPy reads this
    # when it is first imported.
    for name in _THREADS:
        os.environ.setdefault(name, "1")
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # no terminal's encoding is a reason to fail
    whole_process = words is None
    words = list(sys.argv[1:] if words is None else words)
    try:
        arguments, rest = parser().parse_known_args(words)
        if rest and arguments.command not in ("run", "sweep", "plan", "allocation"):
            raise InputError(f"unknown argument {rest[0]!r} (see mpicoded {arguments.command} --help)")
        code = _dispatch(arguments, rest, words, whole_process)
        if whole_process:
            signal.signal(signal.SIGUSR1, signal.SIG_IGN)  # that a job's time is up: too late, MPI is being left
            gc.freeze()  # or Python would look through all that is in memory once more, to give it back piece by piece
        sys.stdout.flush()  # here, where a reader that has left is no error yet
        return code
    except MemoryError as error:
        print(f"mpicoded: error: out of memory: {one_line(error)}", file=sys.stderr, flush=True)
        return 1
    except InputError as error:
        if (launched() or (1, 0))[1] == 0:
            print(f"mpicoded: error: {one_line(error)}", file=sys.stderr, flush=True)
        else:
            time.sleep(1)  # launchers end all ranks when the first one fails: let rank 0 say why before that
        return 2
    except KeyboardInterrupt:
        print("mpicoded: interrupted", file=sys.stderr, flush=True)
        return 130
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # the reader has seen enough
        return 0


def _dispatch(arguments: argparse.Namespace, rest: list[str], words: list[str], whole_process: bool) -> int:
    command = arguments.command
    processes, rank = launched() or (1, 0)
    if processes > 1 and command == "data":
        raise InputError("data is made by one process: start it without mpiexec")
    together = command in ("run", "resume") or (command == "sweep" and arguments.index is not None)
    if processes > 1 and command == "sweep" and arguments.run:
        raise InputError("sweep --run starts its ranks by itself: start it without mpiexec, with --ranks")
    alone = ("list", "show", "export", "merge", "report", "plan", "allocation", "sweep")
    if rank > 0 and command in alone and not together:
        return 0
    if together and arguments.ranks is not None:
        if processes > 1:
            raise InputError(f"--ranks starts an mpiexec of its own, but this is one of {processes} processes already")
        from mpicoded.commands.launch import relaunch

        relaunch(arguments.ranks, _without_ranks(words), arguments, rest)
    if together and whole_process:
        _load_run()
    if command == "run":
        from mpicoded.commands.job import Options
        from mpicoded.commands.run import run

        options = Options(arguments.quiet, arguments.restart, arguments.time_limit, arguments.watchdog)
        return run(arguments.config, arguments.output, rest, options)
    if command == "resume":
        from mpicoded.commands.job import Options
        from mpicoded.commands.run import resume

        limits = {"limit": arguments.time_limit, "watchdog": arguments.watchdog}
        options = Options(arguments.quiet, trusted=arguments.trust, **limits)
        return resume(arguments.result, options)
    if command == "sweep":
        from mpicoded.commands.sweep import sweep

        return sweep(arguments, rest, words)
    if command == "plan":
        from mpicoded.commands.plan import plan

        ranks = arguments.ranks or (processes if launched() else None)
        return plan(arguments.config, ranks, rest, arguments if predicts(arguments) else None)
    if command == "allocation":
        from mpicoded.commands.allocation import allocation

        return allocation(arguments.config, rest, arguments.output, arguments.round)
    if command == "data":
        from mpicoded.commands.data import make

        return make(arguments)
    if command == "list":
        from mpicoded.commands.listing import listing

        return listing(arguments.family, arguments.markdown, arguments.reference)
    if command == "export":
        return _export(arguments)
    if command == "merge":
        from mpicoded.commands.merge import run as merge

        return merge(arguments.files, arguments.output)
    if command == "report":
        from mpicoded.commands.report import report

        return report(arguments.files, arguments.output, arguments.title)
    if command == "show":
        if arguments.follow:
            if len(arguments.files) != 1 or arguments.timings or arguments.config:
                raise InputError("show --follow takes one result file, and nothing else")
            from mpicoded.commands.follow import follow

            return follow(arguments.files[0])
        from mpicoded.commands.show import show

        return show(arguments.files, arguments.timings, arguments.config)
    from mpicoded.commands.doctor import doctor

    return doctor()


def _load_run() -> None:
    """Load what a run is made of. It stays to the end: Python looks for garbage in it neither meanwhile nor later."""
    gc.disable()
    try:
        import mpicoded.commands.run  # noqa: F401
    finally:
        gc.freeze()
        gc.enable()


def _export(arguments: argparse.Namespace) -> int:
    files, output = arguments.files, arguments.output
    if arguments.follow and not arguments.tensorboard:
        raise InputError("export --follow goes with --tensorboard")
    if arguments.csv or arguments.tensorboard:
        if arguments.trust:
            raise InputError("export --trust goes with parameters, not with histories")
        from mpicoded.commands import tables

        if arguments.csv:
            return tables.export_csv(files, output)
        return tables.export_tensorboard(files, output, arguments.follow)
    if len(files) != 1:
        raise InputError(f"export of parameters takes one result file, got {len(files)} (histories: --csv)")
    from mpicoded.commands.export import export

    return export(files[0], output, arguments.trust)


def _without_ranks(words: list[str]) -> list[str]:
    kept = []
    skip = False
    for word in words:
        if skip or word == "--ranks" or word.startswith("--ranks="):
            skip = word == "--ranks" and not skip
            continue
        kept.append(word)
    return kept
