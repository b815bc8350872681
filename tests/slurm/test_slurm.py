"""The shipped batch script under a real SLURM: two nodes give what one process gives, bit for bit."""

import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest

from mpicoded.commands.launch import find_launcher, is_open_mpi
from mpicoded.data.results import load_results

pytestmark = [pytest.mark.slurm, pytest.mark.timeout(600)]  # the first may have packages to install

ROOT = Path(__file__).parents[2]
CLUSTER = Path(__file__).with_name("cluster.sh")
CONFIG = str(ROOT / "configs/quickstart.toml")
VENV = Path(sys.executable).parent.parent  # not resolved: a venv's Python is a link to another place
JOB_SECONDS = 150  # SLURM ends a job by its time limit some time in the minute after it
MPICODED = [sys.executable, "-m", "mpicoded"]

# The nodes only pretend to have their CPUs: ranks cannot be bound to them, and have to yield while they wait,
# which Open MPI does by itself only where it knows of too few.
PRETENDED = {"PRTE_MCA_hwloc_default_binding_policy": "none", "OMPI_MCA_mpi_yield_when_idle": "1"}

JOBS = {
    "mpirun": ({}, ["--rounds", "50"]),
    "srun": ({"LAUNCH": "srun"}, ["--rounds", "50"]),
    # With sbatch's --export the launchers pass on only these variables, unless the script says otherwise.
    "export": ({"SBATCH_EXPORT": ",".join(["VENV", *PRETENDED])}, ["--rounds", "50"]),
    "misspelt": ({}, ["--aggregator.byzantin", "3"]),
}


class Job(NamedTuple):
    """A job that has ended."""

    exit_code: int
    output: str
    result: Path  # where the script puts it


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """The environment in which sbatch and srun use a cluster of this module's own."""
    if reason := _why_not():
        pytest.skip(reason)
    launcher = find_launcher()
    if launcher is None:
        pytest.skip("no mpiexec")
    folder = tmp_path_factory.mktemp("slurm")
    # Nothing of a launcher or a cluster that started the tests themselves.
    ours = {
        key: value
        for key, value in os.environ.items()
        if not key.startswith(("MPICODED_", "OMPI_", "PMI", "PRTE_", "SBATCH_", "SLURM_"))
    }
    ours |= {
        "SLURM_TEST_DIR": str(folder),
        "SLURM_CONF": str(folder / "slurm.conf"),
        "VENV": str(VENV),
        "SRUN_MPI": "pmix" if is_open_mpi(launcher[1]) else "pmi2",
        **PRETENDED,
    }
    try:
        started = _run([CLUSTER, "start"], folder, ours, 180)
        assert started.returncode == 0, started.stderr
        yield ours
    finally:
        _run([CLUSTER, "stop"], folder, ours, 60)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The submit folder: the data, and ``alone.h5``, the run of one process."""
    folder = tmp_path_factory.mktemp("submit")
    for words in (
        ["data", "linear_regression", "-o", "linear.h5", "--seed", "3"],
        ["run", CONFIG, "--rounds", "50", "-o", "alone.h5"],
    ):
        done = _run([*MPICODED, *words], folder, dict(os.environ), 60)
        assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture(scope="module")
def jobs(environment: dict[str, str], folder: Path) -> dict[str, Job]:
    """All jobs, submitted together: while some start, others wait."""
    numbers = {}
    for name, (variables, words) in JOBS.items():
        options = ["--parsable", "--time=1", "--nodes=2", "--ntasks-per-node=2"]
        command = ["sbatch", *options, ROOT / "slurm/run.sbatch", CONFIG, *words]
        submitted = _run(command, folder, environment | variables, 30)
        assert submitted.returncode == 0, submitted.stderr
        numbers[name] = submitted.stdout.strip()
    return {name: _ended(number, folder, environment) for name, number in numbers.items()}


@pytest.mark.parametrize("name", ["mpirun", "srun", "export"])
def test_two_nodes_give_what_one_process_gives(name: str, jobs: dict[str, Job], folder: Path) -> None:
    job = jobs[name]
    assert job.exit_code == 0, job.output
    assert "\x1b" not in job.output  # Open MPI gives ranks a terminal, but here it is a file
    ours, alone = load_results(job.result), load_results(folder / "alone.h5")
    assert ours.finished
    assert len(ours.hosts) == 4
    assert len(set(ours.hosts)) == 2
    np.testing.assert_array_equal(ours.history["loss"], alone.history["loss"])
    np.testing.assert_array_equal(ours.parameters, alone.parameters)


def test_bad_config_is_one_line_and_a_failed_job(jobs: dict[str, Job]) -> None:
    job = jobs["misspelt"]
    assert job.exit_code == 2, job.output
    (line,) = [line for line in job.output.splitlines() if "mpicoded: error" in line]
    assert line.startswith("mpicoded: error: ")
    assert "byzantin" in line
    assert "Traceback" not in job.output
    assert not job.result.exists()


def test_srun_without_the_mpi_plugin_is_refused(environment: dict[str, str], folder: Path) -> None:
    words = ["run", CONFIG, "-o", "mismatch.h5"]
    done = _run(["srun", "--mpi=none", "--nodes=1", "--ntasks=3", *MPICODED, *words], folder, environment, 60)
    assert done.returncode != 0
    assert done.stderr.count("do not belong together") == 1, done.stderr
    assert not (folder / "mismatch.h5").exists()


def test_a_job_whose_time_is_up_goes_back_into_the_queue_and_on(environment: dict[str, str], folder: Path) -> None:
    """The signal of the end of its time comes early here, so that nobody has to wait for it."""
    rounds = ["--rounds", "1500"]
    options = ["--parsable", "--time=5", "--nodes=2", "--ntasks-per-node=2"]
    command = ["sbatch", *options, ROOT / "slurm/run.sbatch", CONFIG, *rounds, "-o", "long.h5"]
    submitted = _run(command, folder, environment, 30)
    assert submitted.returncode == 0, submitted.stderr
    number = submitted.stdout.strip()
    deadline = time.monotonic() + 60
    while not (folder / "long.h5").exists():  # it trains
        assert time.monotonic() < deadline
        time.sleep(0.1)
    _run(["scancel", "--batch", "--signal=USR1", number], folder, environment, 30)
    job = _ended(number, folder, environment)
    assert job.exit_code == 0, job.output
    assert "stopped by SIGUSR1 after round" in job.output
    assert "resuming" in job.output
    alone = _run([*MPICODED, "run", CONFIG, *rounds, "-o", "long_alone.h5"], folder, dict(os.environ), 60)
    assert alone.returncode == 0, alone.stderr
    whole, resumed = load_results(folder / "long_alone.h5"), load_results(folder / "long.h5")
    assert resumed.finished
    assert not (folder / "long.h5.checkpoint").exists()
    np.testing.assert_array_equal(resumed.parameters, whole.parameters)
    np.testing.assert_array_equal(resumed.history["loss"], whole.history["loss"])


def _why_not() -> str | None:
    """Why a cluster cannot be started here, if so."""
    if sys.platform != "linux" or os.geteuid() != 0 or not shutil.which("apt-get"):
        return "starting a SLURM controller needs root on a Debian machine"
    namespaces = subprocess.run(["unshare", "--uts", "--mount", "true"], capture_output=True, timeout=10)
    if namespaces.returncode != 0:
        return "unshare is not permitted: nodes cannot have host names of their own"
    return None


def _ended(number: str, folder: Path, environment: dict[str, str]) -> Job:
    # Not "sbatch --wait", which looks 2, 10, 42, ... s after the start.
    for _ in range(JOB_SECONDS * 5):
        said = _run(["scontrol", "--oneliner", "show", "job", number], folder, environment, 30).stdout
        found = re.search(r" JobState=(\w+) .* ExitCode=(\d+):", said)
        assert found is not None, said
        if found[1] not in ("PENDING", "RUNNING", "COMPLETING"):
            break
        time.sleep(0.2)
    output = folder / f"mpicoded-{number}.out"
    text = output.read_text() if output.exists() else ""
    assert found[1] in ("COMPLETED", "FAILED"), f"{said}\n{text}"
    return Job(int(found[2]), text, folder / f"quickstart-{number}.h5")


def _run(
    command: Sequence[str | Path], folder: Path, variables: dict[str, str], timeout: float
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, cwd=folder, env=variables, capture_output=True, text=True, timeout=timeout)
