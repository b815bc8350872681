"""Shape checks for all of ``mpicoded.algorithms``, and how tests start real ranks."""

import os

os.environ["MPICODED_CHECK_SHAPES"] = "1"
for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(_name, "1")  # as the command line does, so that bits can be compared

import json
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import jaxtyping
import pytest
from hypothesis import settings

jaxtyping.install_import_hook("mpicoded.algorithms", "beartype.beartype")

from mpicoded.commands.launch import environment, find_launcher, is_open_mpi
from mpicoded.training.devices import Devices, Plan

settings.register_profile("mpicoded", derandomize=True, deadline=None)
settings.load_profile("mpicoded")

ROOT = Path(__file__).parent.parent
CONFIGS = ROOT / "configs"
CHECKED_ROUNDS = 2  # of each run: later ones have the same shapes, and checking takes longer than computing


class Checks:
    """Whether shapes are checked: but for tests that are marked as unchecked, and for the later rounds of a run."""

    wanted = True
    plan = Devices.plan

    @classmethod
    def turn(cls, on: bool) -> None:
        jaxtyping.config.update("jaxtyping_disable", not (on and cls.wanted))


def pytest_runtest_setup(item: pytest.Item) -> None:
    Checks.wanted = item.get_closest_marker("unchecked") is None
    Checks.turn(True)


@pytest.fixture(scope="session")
def checks() -> type[Checks]:
    """For fixtures of many runs, to check the shapes in some of them."""
    return Checks


def plan(self: Devices, *words: object) -> Plan:
    self.planned = getattr(self, "planned", 0) + 1  # type: ignore[attr-defined]
    Checks.turn(self.planned <= CHECKED_ROUNDS)
    return Checks.plan(self, *words)


Devices.plan = plan  # type: ignore[method-assign]


class Ended(NamedTuple):
    """How a program ended."""

    code: int
    out: str
    err: str


def child_environment(ranks: int = 1) -> dict[str, str]:
    launcher = find_launcher()
    variables = environment(ranks, launcher is not None and is_open_mpi(launcher[1]))
    variables.pop("MPICODED_CHECK_SHAPES", None)
    variables["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{variables['PATH']}"
    return variables


def start(command: list[str], folder: Path, timeout: float, ranks: int = 1) -> Ended:
    """Run a program to its end; past the timeout its whole process group is ended."""
    process = subprocess.Popen(
        command,
        cwd=folder,
        env=child_environment(ranks),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        out, err = process.communicate(timeout=timeout)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        out, err = process.communicate()
        pytest.fail(f"{command} did not end within {timeout} s\n{out}\n{err}")
    return Ended(process.returncode, out, err)


def program_in(folder: Path) -> Callable[..., Ended]:
    """``program("run", "x.toml", ranks=3)``: mpicoded in a folder; no ranks, no MPI.

    ``survives``: under an MPI that goes on when a rank dies; the test is skipped where this one cannot.
    """

    def call(*words: object, ranks: int | None = None, timeout: float = 120, survives: bool = False) -> Ended:
        return python("-m", "mpicoded", *words, ranks=ranks, timeout=timeout, survives=survives)

    def python(*words: object, ranks: int | None = None, timeout: float = 120, survives: bool = False) -> Ended:
        command = [sys.executable, *map(str, words)]
        if ranks is not None:
            launcher = find_launcher()
            assert launcher is not None, "the tests need an mpiexec"
            if survives and not is_open_mpi(launcher[1]):
                pytest.skip("only Open MPI's launcher has --with-ft")
            tolerant = ["--with-ft", "ulfm"] if survives else []
            command = [launcher[0], *tolerant, "-n", str(ranks), *command]
        return start(command, folder, timeout, ranks or 1)

    def several(commands: list[list[str]], ranks: int) -> list[list[tuple[int, str, list[str]]]]:
        """Of each command line, on each rank: exit code, what was said on standard error, the files in the folder."""
        with tempfile.TemporaryDirectory() as place:
            Path(place, "commands.json").write_text(json.dumps(commands))
            ended = python(Path(__file__).with_name("several.py"), place, ranks=ranks)
            assert ended.code == 0, ended.err
            each = [json.loads(Path(place, f"{rank}.json").read_text()) for rank in range(ranks)]
        return list(zip(*each, strict=True))

    call.python = python  # type: ignore[attr-defined]
    call.several = several  # type: ignore[attr-defined]
    call.environment = child_environment  # type: ignore[attr-defined]
    call.start = lambda command, ranks: start(command, folder, 120, ranks)  # type: ignore[attr-defined]
    return call


@pytest.fixture
def program(tmp_path: Path) -> Callable[..., Ended]:
    """Programs in a folder of the test's own."""
    return program_in(tmp_path)


@pytest.fixture(scope="module")
def common_program(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Ended]:
    """Programs in a folder of all of a module's tests: its attribute ``folder``."""
    folder = tmp_path_factory.mktemp("common")
    call = program_in(folder)
    call.folder = folder  # type: ignore[attr-defined]
    return call


def pytest_report_header() -> str:
    return f"launcher: {find_launcher()}"
