"""How much memory a rank may use for samples: as the experiment says, or as the system does."""

import os
from collections.abc import Iterator
from pathlib import Path

from mpicoded.experiment import Experiment

_GROUPS = Path("/sys/fs/cgroup")
_TOLD = Path("/proc/self/cgroup")
_UNLIMITED = 1 << 60  # what version 1 has for "max" is near 2^63
_FOR_SAMPLES = 3 / 4  # of a limit; gradients, messages and what the libraries take later on need the rest


def allowance(experiment: Experiment, ranks: int) -> int | None:
    """Bytes that this one of so many ranks of a node may use for samples; None: as many as it needs."""
    told, limit = experiment.data.budget(), memory_limit()
    if told is not None or limit is None:
        return told
    return max(0, int(limit * _FOR_SAMPLES) // ranks - _resident())


def memory_limit(groups: Path = _GROUPS, told: Path = _TOLD) -> int | None:
    """The memory limit of this process' control group (cgroup), or of one around it, the smallest; None without."""
    try:
        lines = told.read_text().splitlines()
    except OSError:  # another system than Linux
        return None
    limits = [limit for line in lines for limit in _limits(groups, line)]
    return min((limit for limit in limits if limit < _UNLIMITED), default=None)


def _limits(groups: Path, line: str) -> Iterator[int]:
    """Those that a line of /proc/self/cgroup leads to. A container may see the groups from a place within them."""
    number, _, rest = line.partition(":")
    controllers, _, group = rest.partition(":")
    if number != "0" and "memory" not in controllers.split(","):
        return
    root, name = (groups, "memory.max") if number == "0" else (groups / "memory", "memory.limit_in_bytes")
    inside = Path(group.lstrip("/"))
    for folder in (inside, *inside.parents):
        try:
            text = (root / folder / name).read_text().strip()
        except OSError:
            continue
        if text.isdigit():
            yield int(text)


def _resident() -> int:
    """Bytes that this process has now."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")
