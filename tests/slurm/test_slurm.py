"""The shipped batch scripts under a real SLURM: two nodes give what one process gives, bit for bit.

MPICODED_ALL=1 also waits for real time limits.
"""

import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest

from mpicoded.commands.launch import find_launcher, is_open_mpi
from mpicoded.data.results import Results, load_results

pytestmark = [pytest.mark.slurm, pytest.mark.timeout(600)]  # the first may have packages to install

ROOT = Path(__file__).parents[2]
CLUSTER = Path(__file__).with_name("cluster.sh")
CONFIG = str(ROOT / "configs/quickstart.toml")
VENV = Path(sys.executable).parent.parent  # not resolved: a venv's Python is a link to another place
JOB_SECONDS = 150  # SLURM ends a job by its time limit some time in the minute after it
LONG = ["--rounds", "1000"]  # long enough to send it signals
NODES = ["--time=5", "--nodes=2", "--ntasks-per-node=2"]
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

STANDIN = {"PYTHONPATH": str(ROOT / "tests/training/standin"), "STANDIN_SAYS": "1"}  # for CuPy
GPU_JOBS = {  # variables, sbatch's options, words
    "as it is": ({}, [], []),
    "on the CPU": ({}, [], ["--compute.device", "cpu"]),
    "mpirun": (STANDIN, [], []),
    "a GPU for each task": (STANDIN | {"LAUNCH": "srun"}, ["--gres=none", "--gpus-per-task=1"], []),
}


class Job(NamedTuple):
    """A job that has ended."""

    exit_code: int
    output: str
    result: Path  # where the script puts it
    restarts: int


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
    _mpicoded(folder, "data", "linear_regression", "-o", "linear.h5", "--seed", "3")
    _mpicoded(folder, "run", CONFIG, "--rounds", "50", "-o", "alone.h5")
    return folder


@pytest.fixture(scope="module")
def jobs(environment: dict[str, str], folder: Path) -> dict[str, Job]:
    """All jobs, submitted together: while some start, others wait."""
    numbers = {}
    for name, (variables, words) in JOBS.items():
        options = ["--time=1", *NODES[1:], "slurm/run.sbatch", CONFIG, *words]
        numbers[name] = _submit(folder, environment | variables, *options)
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


@pytest.fixture(scope="module")
def gpu_jobs(environment: dict[str, str], folder: Path) -> dict[str, Job]:
    """Jobs of the script for GPUs, which SLURM gives out as if the nodes had them."""
    numbers = {}
    for name, (variables, options, words) in GPU_JOBS.items():
        words = [*options, "slurm/gpu.sbatch", CONFIG, "--rounds", "50", *words]
        numbers[name] = _submit(folder, environment | variables, *words)
    return {name: _ended(number, folder, environment) for name, number in numbers.items()}


@pytest.mark.parametrize(("name", "shown"), [("mpirun", "2"), ("a GPU for each task", "1")])
def test_each_rank_gets_a_gpu_of_its_own(name: str, shown: str, gpu_jobs: dict[str, Job], folder: Path) -> None:
    job = gpu_jobs[name]
    assert job.exit_code == 0, job.output
    taken = re.findall(r"GPU (\d) of (\w+), which shows (\d)", job.output)
    assert len(set(taken)) == len(taken) == 4, job.output
    assert sorted(node for _, node, _ in taken) == ["n1", "n1", "n2", "n2"]
    assert {count for _, _, count in taken} == {shown}
    ours, alone = load_results(job.result), load_results(folder / "alone.h5")
    assert ours.experiment["compute"]["device"] == "cuda"
    np.testing.assert_allclose(ours.history["loss"], alone.history["loss"], rtol=1e-9)
    np.testing.assert_allclose(ours.parameters, alone.parameters, rtol=1e-9)


def test_where_there_is_no_gpu_one_line_says_so(gpu_jobs: dict[str, Job]) -> None:
    job = gpu_jobs["as it is"]
    assert job.exit_code == 2, job.output
    (line,) = [line for line in job.output.splitlines() if "mpicoded: error" in line]
    assert re.match(r'mpicoded: error: compute.device = "cuda"(: no GPU is visible| needs CuPy)', line)
    assert "Traceback" not in job.output
    assert not job.result.exists()


def test_a_word_to_the_script_for_gpus_has_it_run_on_the_cpu(gpu_jobs: dict[str, Job], folder: Path) -> None:
    job = gpu_jobs["on the CPU"]
    assert job.exit_code == 0, job.output
    ours, alone = load_results(job.result), load_results(folder / "alone.h5")
    assert ours.experiment["compute"]["device"] == "cpu"
    np.testing.assert_array_equal(ours.parameters, alone.parameters)


def test_srun_without_the_mpi_plugin_is_refused(environment: dict[str, str], folder: Path) -> None:
    words = ["run", CONFIG, "-o", "mismatch.h5"]
    done = _run(["srun", "--mpi=none", "--nodes=1", "--ntasks=3", *MPICODED, *words], folder, environment, 60)
    assert done.returncode != 0
    assert done.stderr.count("do not belong together") == 1, done.stderr
    assert not (folder / "mismatch.h5").exists()


@pytest.fixture(scope="module")
def alone(folder: Path) -> Results:
    """The long run of one process."""
    _mpicoded(folder, "run", CONFIG, *LONG, "-o", "long_alone.h5")
    return load_results(folder / "long_alone.h5")


def test_a_job_whose_time_is_up_goes_back_into_the_queue_and_on(
    environment: dict[str, str], folder: Path, alone: Results
) -> None:
    """It needs three times what it has; the signal of their end comes early here, so that nobody has to wait for it."""
    # It must not be done before it is told: fifty rounds take no longer than scancel.
    early = _submit(folder, environment, *NODES, "slurm/run.sbatch", CONFIG, "--rounds", "2000")
    _until((folder / f"mpicoded-{early}.out").exists)
    _run(["scancel", "--batch", "--signal=USR1", early], folder, environment, 30)  # before its ranks listen
    number = _submit(folder, environment, *NODES, "slurm/run.sbatch", CONFIG, *LONG, "-o", "long.h5")
    for lives in (1, 2):
        _until(lambda lives=lives: _trains(folder / f"mpicoded-{number}.out", lives))
        _run(["scancel", "--batch", "--signal=USR1", number], folder, environment, 30)
    job = _ended(number, folder, environment)
    assert job.exit_code == 0, job.output
    assert job.output.count("stopped by SIGUSR1 after round") == 2
    assert job.output.count("resuming") == job.restarts == 2
    _assert_same(folder / "long.h5", alone)
    job = _ended(early, folder, environment)
    assert (job.exit_code, job.restarts) == (0, 1), job.output
    assert load_results(job.result).finished


@pytest.mark.slow
@pytest.mark.timeout(2400)
@pytest.mark.skipif("MPICODED_ALL" not in os.environ, reason="takes minutes: MPICODED_ALL=1")
def test_a_job_that_needs_three_real_time_limits(
    environment: dict[str, str], folder: Path, jobs: dict[str, Job]
) -> None:
    """It trains for half a minute each time: the script's own minute before the end would be all of this limit."""
    pace = 50 / load_results(jobs["mpirun"].result).history["seconds"][-1]  # or more: two jobs ran at a time
    rounds = ["--rounds", str(int(100 * pace))]
    options = ["--time=1", "--signal=B:USR1@30", *NODES[1:]]
    number = _submit(folder, environment, *options, "slurm/run.sbatch", CONFIG, *rounds, "-o", "limits.h5")
    job = _ended(number, folder, environment, seconds=1800)
    assert job.exit_code == 0, job.output
    assert job.output.count("stopped by SIGUSR1 after round") >= 2, job.output
    _mpicoded(folder, "run", CONFIG, *rounds, "-o", "limits_alone.h5", timeout=600)
    _assert_same(folder / "limits.h5", load_results(folder / "limits_alone.h5"))


@pytest.mark.parametrize("launch", ["srun", "mpirun"])
def test_a_cancelled_job_can_be_resumed(launch: str, environment: dict[str, str], folder: Path, alone: Results) -> None:
    """srun lets the ranks write a checkpoint; mpirun's daemons end at once, and what is left is the last one."""
    result, every = f"cancelled_{launch}.h5", ["--checkpoint_every", "20"] if launch == "mpirun" else []
    words = [*NODES, "slurm/run.sbatch", CONFIG, *LONG, *every, "-o", result]
    number = _submit(folder, environment | {"LAUNCH": launch}, *words)
    _until(lambda: _trains(folder / f"mpicoded-{number}.out", 1))
    if every:
        _until((folder / f"{result}.checkpoint").exists)
    _run(["scancel", number], folder, environment, 30)
    job = _ended(number, folder, environment, state="CANCELLED")
    assert not load_results(folder / result).finished
    assert (folder / f"{result}.checkpoint").exists(), job.output
    if launch == "srun":
        assert "stopped by SIG" in job.output
    _mpicoded(folder, "resume", result)
    _assert_same(folder / result, alone)


def test_an_array_runs_what_is_not_finished(environment: dict[str, str], folder: Path, alone: Results) -> None:
    """Six experiments, two of them finished. The last one is sent back into the queue, and takes no other with it."""
    rounds = [20, 30, 40, 50, 60, 1000]
    grid = [CONFIG, "--vary", f"rounds={','.join(map(str, rounds))}", "-o", "swept"]
    for number in ("1", "4"):
        _mpicoded(folder, "sweep", *grid, "--index", number)
    array = _mpicoded(folder, "sweep", *grid, "--array").strip()
    assert array == "0,2-3,5"
    before = {path: path.stat().st_mtime_ns for path in (folder / "swept").iterdir()}
    options = ["--time=5", "--ntasks-per-node=2", f"--array={array}"]
    number = _submit(folder, environment, *options, "slurm/sweep.sbatch", *grid)
    logs = [folder / f"mpicoded-sweep-{number}_{task}.out" for task in range(6)]
    _until(lambda: _trains(logs[5], 1))
    _run(["scancel", "--batch", "--signal=USR1", f"{number}_5"], folder, environment, 30)
    ended = [_ended(f"{number}_{task}", folder, environment) for task in ("0", "2", "3", "5")]
    assert [(job.exit_code, job.restarts) for job in ended] == [(0, 0), (0, 0), (0, 0), (0, 1)]
    assert [log.exists() for log in logs] == [True, False, True, True, False, True]
    assert [log.read_text().count("running ") for log in logs if log.exists()] == [1, 1, 1, 2]
    assert {path: path.stat().st_mtime_ns for path in before} == before
    assert len(list((folder / "swept").iterdir())) == 6
    for path in (folder / "swept").iterdir():
        result = load_results(path)
        assert result.finished
        rows = len(result.history["loss"])
        assert result.history["round"][-1] == result.experiment["rounds"] == rounds.pop(rounds.index(10 * rows - 10))
        np.testing.assert_array_equal(result.history["loss"], alone.history["loss"][:rows])
    assert _mpicoded(folder, "sweep", *grid, "--array").strip() == "none"
    refused = _run(["sbatch", "--array=none", ROOT / "slurm/sweep.sbatch", *grid], folder, environment, 30)
    assert "Invalid job array specification" in refused.stderr


def _mpicoded(folder: Path, *words: str, timeout: float = 60) -> str:
    done = _run([*MPICODED, *words], folder, dict(os.environ), timeout)
    assert done.returncode == 0, done.stderr
    return done.stdout


def _submit(folder: Path, environment: dict[str, str], *words: str) -> str:
    """Submit with these options, script of ours and words for it; the job's number."""
    words = tuple(str(ROOT / word) if word.startswith("slurm/") else word for word in words)
    submitted = _run(["sbatch", "--parsable", *words], folder, environment, 30)
    assert submitted.returncode == 0, submitted.stderr
    return submitted.stdout.strip()


def _until(holds: Callable[[], bool], seconds: float = 90) -> None:
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.1)


def _trains(log: Path, lives: int) -> bool:
    """Whether a job trains, for so many times: it has said what it runs, and then something of its rounds."""
    return (
        log.exists() and len(re.findall(r"^running (?:.*\n)(?:resuming .*\n)?round ", log.read_text(), re.M)) == lives
    )


def _assert_same(path: Path, whole: Results) -> None:
    result = load_results(path)
    assert result.finished
    assert not path.with_name(f"{path.name}.checkpoint").exists()
    np.testing.assert_array_equal(result.parameters, whole.parameters)
    np.testing.assert_array_equal(result.history["loss"], whole.history["loss"])


def _why_not() -> str | None:
    """Why a cluster cannot be started here, if so."""
    if sys.platform != "linux" or os.geteuid() != 0 or not shutil.which("apt-get"):
        return "starting a SLURM controller needs root on a Debian machine"
    namespaces = subprocess.run(["unshare", "--uts", "--mount", "true"], capture_output=True, timeout=10)
    if namespaces.returncode != 0:
        return "unshare is not permitted: nodes cannot have host names of their own"
    return None


def _ended(
    number: str,
    folder: Path,
    environment: dict[str, str],
    state: str = "COMPLETED|FAILED",
    seconds: float = JOB_SECONDS,
) -> Job:
    """Wait for a job's end, or for that of a task of an array."""
    # Not "sbatch --wait", which looks 2, 10, 42, ... s after the start.
    for _ in range(int(seconds * 5)):
        said = _run(["scontrol", "--oneliner", "show", "job", number], folder, environment, 30).stdout
        found = re.search(r" JobState=(\w+) .* Restarts=(\d+) .* ExitCode=(\d+):", said)
        assert found is not None, said
        if found[1] not in ("PENDING", "RUNNING", "COMPLETING", "SIGNALING", "REQUEUED"):
            break
        time.sleep(0.2)
    output = next(folder.glob(f"mpicoded*-{number}.out"), None)
    text = output.read_text() if output else ""
    assert re.fullmatch(state, found[1]), f"{said}\n{text}"
    return Job(int(found[3]), text, folder / f"quickstart-{number}.h5", int(found[2]))


def _run(
    command: Sequence[str | Path], folder: Path, variables: dict[str, str], timeout: float
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, cwd=folder, env=variables, capture_output=True, text=True, timeout=timeout)
