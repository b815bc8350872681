"""``mpicoded export --csv`` and ``--tensorboard``: histories for other programs."""

import csv
import io
import logging
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from mpicoded.commands.follow import News, news
from mpicoded.data.compare import differences
from mpicoded.data.merged import load_all
from mpicoded.data.naming import COLUMNS
from mpicoded.data.results import Results
from mpicoded.data.whole import write_whole
from mpicoded.errors import InputError, understood

_OURS = ".mpicoded"  # how the event files end that we write, and may replace


def export_csv(paths: Sequence[str], target: str) -> int:
    """A row for each row of each history: the file, the settings that differ, and all columns at full precision."""
    results = load_all(paths)
    settings = differences(results)
    columns = [name for name in COLUMNS if any(name in result.history for result in results)]
    text = io.StringIO()
    out = csv.writer(text, lineterminator="\n")
    out.writerow(["file", *settings[0], *columns])
    for result, setting in zip(results, settings, strict=True):
        values = [result.history[name].tolist() if name in result.history else None for name in columns]
        for row in range(len(result.history["round"])):
            out.writerow([result.path, *setting.values(), *("" if one is None else repr(one[row]) for one in values)])
    write_whole(target, text.getvalue().encode())
    print(f"{target}: {sum(len(result.history['round']) for result in results)} rows of {len(results)} results")
    return 0


def export_tensorboard(paths: Sequence[str], target: str, following: bool) -> int:
    """Event files for TensorBoard: a run for each result, a scalar for each column of its history.

    ``following``: go on until the one run that is given is finished. What an earlier export has left is replaced.
    """
    if following and len(paths) != 1:
        raise InputError(f"export --follow takes one result file, got {len(paths)}")
    try:
        import tensorboardX  # noqa: F401
    except ImportError:
        raise InputError('export --tensorboard needs tensorboardX: pip install "mpicoded[tensorboard]"') from None
    logging.getLogger("tensorboardX").setLevel(logging.ERROR)  # one line for each value that is NaN
    if following:
        _write_events(Path(target, Path(paths[0]).stem), news(paths[0]))
    else:
        results = load_all(paths)
        for run, result in zip(_runs([result.path for result in results], target), results, strict=True):
            _write_events(run, [News(result, 0, False)])
    print(f"{target}: tensorboard --logdir {target}")
    return 0


def _runs(paths: Sequence[str], target: str) -> list[Path]:
    """A folder of its own for each result: the path below what all have in common; in merged files the group."""
    places = [_place(path) for path in paths]
    common = os.path.commonpath([file.parent for file, _ in places])
    runs = [Path(target, file.relative_to(common).with_suffix(""), group) for file, group in places]
    if len(set(runs)) < len(runs):
        twice = next(run for run in runs if runs.count(run) > 1)
        raise InputError(f"export --tensorboard: two of the files would be the run {twice}")
    return runs


def _write_events(run: Path, updates: Iterable[News]) -> None:
    """The rows of one result, as far as they have come each time."""
    try:
        out, begun = None, 0.0
        for result, first, anew in updates:
            with understood(f"cannot export {result.path}"):
                if out is None or anew:
                    if out is not None:
                        out.close()
                    out = _writer(run, result)
                    begun = _written(result.path) - float(result.history["seconds"][-1:].sum())
                for row in range(first, len(result.history["round"])):
                    step, when = int(result.history["round"][row]), begun + float(result.history["seconds"][row])
                    for name in result.history.keys() - {"round"}:
                        out.add_scalar(name, float(result.history[name][row]), step, walltime=when)
                out.flush()
        if out is not None:
            out.close()
    except OSError as error:
        raise InputError(f"output {run} cannot be written: {error.strerror}") from None


def _writer(run: Path, result: Results) -> Any:
    """A new event file, in place of those that we have written before."""
    from tensorboardX import SummaryWriter

    run.mkdir(parents=True, exist_ok=True)
    for old in run.glob(f"events.out.tfevents.*{_OURS}"):
        old.unlink()
    made = SummaryWriter(logdir=str(run), filename_suffix=_OURS)
    made.add_text("experiment", f"```toml\n{result.toml}\n```")
    return made


def _written(path: str) -> float:
    """When a result was written, in seconds since the epoch."""
    return _place(path)[0].stat().st_mtime


def _place(path: str) -> tuple[Path, str]:
    """The file of a result, and its group there."""
    file, group = (path, "") if os.path.exists(path) else path.rpartition(":")[::2]
    return Path(os.path.abspath(file)), group
