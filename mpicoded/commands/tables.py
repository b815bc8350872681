"""``mpicoded export --csv`` and ``--tensorboard``: histories for other programs."""

import csv
import io
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from mpicoded.commands.follow import versions
from mpicoded.data.compare import differences
from mpicoded.data.merged import load_all
from mpicoded.data.naming import COLUMNS
from mpicoded.data.results import Results
from mpicoded.data.whole import replaced
from mpicoded.errors import InputError

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
    try:
        with replaced(target) as file:
            file.write(memoryview(text.getvalue().encode()))
    except OSError as error:
        raise InputError(f"output {target} cannot be written: {error.strerror}") from None
    print(f"{target}: {sum(len(result.history['round']) for result in results)} rows of {len(results)} results")
    return 0


def export_tensorboard(paths: Sequence[str], target: str, following: bool) -> int:
    """Event files for TensorBoard: a run for each result, a scalar for each column of its history.

    ``following``: go on until the one run that is given is finished. What an earlier export has left is replaced.
    """
    if following and len(paths) != 1:
        raise InputError(f"export --follow takes one result file, got {len(paths)}")
    try:
        from tensorboardX import SummaryWriter
    except ImportError:
        raise InputError('export --tensorboard needs tensorboardX: pip install "mpicoded[tensorboard]"') from None
    if following:
        _write_events(Path(target, Path(paths[0]).stem), versions(paths[0]), SummaryWriter)
    else:
        names: set[Path] = set()
        for result in load_all(paths):
            run = Path(target, *(Path(part).stem for part in result.path.split(":") if part != ".."))
            if run in names:
                raise InputError(f"export --tensorboard: two of the files would be the run {run}: rename one")
            names.add(run)
            _write_events(run, [result], SummaryWriter)
    print(f"{target}: tensorboard --logdir {target}")
    return 0


def _write_events(run: Path, results: Iterable[Results], writer: Any) -> None:
    """The rows of one result, as far as they have come each time."""
    try:
        run.mkdir(parents=True, exist_ok=True)
        for old in run.glob(f"events.out.tfevents.*{_OURS}"):
            old.unlink()
        with writer(logdir=str(run), filename_suffix=_OURS) as out:
            rows, begun = 0, 0.0
            for result in results:
                if rows == 0:
                    out.add_text("experiment", f"```toml\n{result.toml}\n```")
                begun = begun or _written(result.path) - float(result.history["seconds"][-1])
                for row in range(rows, len(result.history["round"])):
                    step, when = int(result.history["round"][row]), begun + float(result.history["seconds"][row])
                    for name in result.history.keys() - {"round"}:
                        out.add_scalar(name, float(result.history[name][row]), step, walltime=when)
                rows = len(result.history["round"])
                out.flush()
    except OSError as error:
        raise InputError(f"output {run} cannot be written: {error.strerror}") from None


def _written(path: str) -> float:
    """When a result was written, in seconds since the epoch."""
    return Path(path if Path(path).exists() else path.rpartition(":")[0]).stat().st_mtime
