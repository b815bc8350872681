"""Where and with what was measured, and tables of text."""

import argparse
import datetime
import os
import platform
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from mpicoded import __version__


def surroundings(options: argparse.Namespace) -> dict[str, Any]:
    """What a reader of the figures must know besides them."""
    return {
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "machine": {
            "processor": _processor(),
            "cores": os.cpu_count(),
            "system": platform.platform(),
            "threads": os.environ["OMP_NUM_THREADS"],
        },
        "versions": {"mpicoded": __version__, "numpy": np.__version__, "python": platform.python_version()},
        "options": {"dtype": options.dtype, "quick": options.quick, "small": options.small},
        "benchmarks": {},
    }


def table(title: str, header: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """Columns as wide as they need: the first one to the left, all others to the right."""
    lines = [list(header), *map(list, rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    text = ["  ".join([line[0].ljust(widths[0]), *map(str.rjust, line[1:], widths[1:])]) for line in lines]
    return "\n".join([title, text[0], "-" * len(text[0]), *text[1:]])


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()
