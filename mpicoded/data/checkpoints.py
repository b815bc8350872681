"""Checkpoints: everything that the next round depends on, in an HDF5 file beside the result.

``OUT.h5.checkpoint`` holds a tree of arrays and numbers as groups, datasets and attributes. Root attributes: ``format``
= "mpicoded-checkpoint", ``version``, ``experiment`` (the resolved config), ``digest`` (of config and data), ``round``
(steps done). Each dataset of the state has the CRC-32 of its content as attribute, for each row where it has rows. The
file is replaced whole, so that a kill at any instant leaves the old or the new one.
"""

import os
from pathlib import Path
from typing import Any, NamedTuple

from mpicoded.data.whole import has_format, opened, read_tree, whole_file, write_tree
from mpicoded.errors import InputError

FORMAT, VERSION = "mpicoded-checkpoint", 4


class Checkpoint(NamedTuple):
    """What a checkpoint is of."""

    toml: str
    digest: str
    round: int


def path_of(result: str | os.PathLike[str]) -> Path:
    """Where the checkpoint of a run with this result file is."""
    return Path(f"{os.fspath(result)}.checkpoint")


def save(path: Path, checkpoint: Checkpoint, state: dict[str, Any]) -> None:
    """Put a checkpoint in place of the last one."""
    with whole_file(path) as file:
        file.attrs.update(
            format=FORMAT,
            version=VERSION,
            experiment=checkpoint.toml,
            digest=checkpoint.digest,
            round=checkpoint.round,
        )
        write_tree(file.create_group("state"), state, checked=True)


def find(path: Path) -> Checkpoint | None:
    """What the checkpoint at this place is of, None where there is none. Raises InputError where it is none of ours."""
    if not os.path.lexists(path):
        return None
    if not has_format(path, FORMAT):
        raise InputError(f"{path} is not a checkpoint of mpicoded, or it is damaged")
    with opened(path, "checkpoint") as file:
        if file.attrs["version"] != VERSION:
            raise InputError(f"checkpoint {path} has version {file.attrs['version']}, this program reads {VERSION}")
        found = Checkpoint(str(file.attrs["experiment"]), str(file.attrs["digest"]), int(file.attrs["round"]))
        if found.round < 0:
            raise ValueError(f"its round is {found.round}")
        return found


def load(path: Path, first: int, stop: int, serves: bool) -> dict[str, Any]:
    """The state for a rank that hosts devices first … stop-1: rows of ``devices`` are those of its own.

    ``serves``: whether the rank is the server, or aggregates with it; the others do not read what only servers need.
    """
    with opened(path, "checkpoint") as file:
        others = () if serves else ("server", "history")
        return read_tree(file["state"], {"devices": slice(first, stop)}, checked=True, leave_out=others)
