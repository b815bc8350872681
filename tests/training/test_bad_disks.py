"""A disk that is full or read-only, and files that vanish or change: a clear error, and what was whole stays whole."""

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import h5py
import numpy as np
import pytest

from mpicoded.cli import main
from mpicoded.commands.job import STOPPED
from mpicoded.commands.launch import environment, find_launcher, is_open_mpi
from mpicoded.data import checkpoints, datasets, layout
from mpicoded.data.results import load_results
from mpicoded.errors import InputError

CONFIG = """
devices = 6
byzantine = 1
rounds = {rounds}
checkpoint_every = {every}
identities = "fixed"
evaluate_every = 100
[data]
path = "data.h5"
[allocation]
name = "cyclic"
redundancy = 2
[memory]
name = "momentum"
"""
LONG = 100_000_000  # rounds: until something ends it
RANKS = [None, pytest.param(3, marks=pytest.mark.mpi)]


def make(folder: Path, rounds: int = LONG, every: str = '"0.2s"', features: int = 500) -> None:
    folder.mkdir(exist_ok=True)
    (folder / "run.toml").write_text(CONFIG.format(rounds=rounds, every=every))
    datasets.linear_regression(str(folder / "data.h5"), subsets=6, features=features, seed=1)


def assert_whole(folder: Path) -> None:
    """Result and checkpoint open in plain h5py, nothing half-written lies beside them, and the run can be resumed."""
    with h5py.File(folder / "out.h5") as file:
        assert file["parameters"].shape == (500,)
    with h5py.File(folder / "out.h5.checkpoint") as file:
        assert file["state/devices"].shape == (6, 500)
    checkpoints.load(folder / "out.h5.checkpoint", 0, 6, True)
    assert [path.name for path in folder.iterdir() if ".part" in path.name] == []


@contextlib.contextmanager
def training(folder: Path, ranks: int | None, *before: str) -> Iterator[subprocess.Popen[str]]:
    """A run for ever in this folder, once its first checkpoint is there."""
    words = [sys.executable, "-m", "mpicoded", "run", "run.toml", "-o", "out.h5", "--quiet"]
    launcher = find_launcher()
    if ranks:
        assert launcher is not None
        words = [launcher[0], "-n", str(ranks), *words]
    process = subprocess.Popen(
        [*before, *words],
        cwd=folder,
        env=environment(ranks or 1, launcher is not None and is_open_mpi(launcher[1])),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        until(lambda: (folder / "out.h5.checkpoint").exists() or process.poll() is not None, 60)
        assert process.poll() is None, process.communicate()
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


def until(holds: Callable[[], object], seconds: float) -> None:
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.02)


def assert_ends_with_one_line(process: subprocess.Popen[str], *says: str) -> None:
    """Soon, with code 1 (of a launcher: any but 0) and one line of ours."""
    try:
        _, err = process.communicate(timeout=10)
    except subprocess.TimeoutExpired:
        pytest.fail("it did not end within 10 s")
    ours = [line for line in err.splitlines() if "mpicoded: " in line]
    assert len(ours) == 1, err
    assert "Traceback" not in err
    assert ours[0].startswith("mpicoded: error on rank 0 of ")
    for text in says:
        assert text in ours[0]
    assert process.returncode == 1, err


@contextlib.contextmanager
def disk(folder: Path, size: str) -> Iterator[None]:
    """A small disk of its own at this folder, where this user may mount one."""
    folder.mkdir()
    made = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={size}", "none", folder], capture_output=True, text=True, check=False
    )
    if made.returncode:
        pytest.skip(f"no disk can be mounted here: {made.stderr.strip()}")
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", folder], check=True)


@pytest.mark.skipif(not shutil.which("mount"), reason="no mount")
@pytest.mark.parametrize("ranks", RANKS)
def test_a_disk_that_fills_ends_the_run_and_the_run_goes_on_when_there_is_room(tmp_path, ranks, monkeypatch):
    with disk(folder := tmp_path / "disk", "2m"):
        make(folder)
        with training(folder, ranks) as process:
            filler = folder / "filler"
            with contextlib.suppress(OSError), open(filler, "wb", buffering=0) as file:
                while True:
                    file.write(bytes(1 << 12))
            assert_ends_with_one_line(process, "No space left on device")
        assert_whole(folder)
        filler.unlink()
        monkeypatch.chdir(folder)
        before = checkpoints.find(Path("out.h5.checkpoint")).round
        for _ in range(10):  # a slow machine may come to no round in the first
            assert main(["resume", "out.h5", "--quiet", "--time-limit", "0.6s"]) == STOPPED
            if checkpoints.find(Path("out.h5.checkpoint")).round > before:
                break
        else:
            pytest.fail("it does not go on")
        monkeypatch.chdir(tmp_path)


@pytest.mark.skipif(not shutil.which("mount"), reason="no mount")
def test_a_disk_that_becomes_read_only_ends_the_run(tmp_path, capsys, monkeypatch):
    with disk(folder := tmp_path / "disk", "20m"):
        make(folder)
        remount = ["mount", "-o", "remount,ro", folder]
        with training(folder, None) as process:
            until(lambda: subprocess.run(remount, capture_output=True, check=False).returncode == 0, 20)
            assert_ends_with_one_line(process, "Read-only file system")
        monkeypatch.chdir(folder)
        for words in (["run", "run.toml", "-o", "new.h5"], ["resume", "out.h5"]):
            assert main(words) == 2
            assert capsys.readouterr().err.endswith("cannot be written: Read-only file system\n")
        assert main(["data", "linear_regression", "-o", "new.h5"]) == 2
        assert "cannot write new.h5" in capsys.readouterr().err
        monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize("ranks", RANKS)
def test_an_output_folder_that_is_deleted_ends_the_run(tmp_path, ranks):
    make(folder := tmp_path / "here")
    with training(folder, ranks) as process:
        while folder.exists():
            shutil.rmtree(folder, ignore_errors=True)
        assert_ends_with_one_line(process, "No such file or directory")


def test_files_that_are_deleted_are_written_again_and_data_are_not_missed(tmp_path):
    make(tmp_path)
    with training(tmp_path, None) as process:
        for name in ("out.h5.checkpoint", "out.h5", "data.h5"):
            (tmp_path / name).unlink()
        until(lambda: (tmp_path / "out.h5.checkpoint").exists() and (tmp_path / "out.h5").exists(), 20)
        process.send_signal(signal.SIGTERM)
        _, err = process.communicate(timeout=10)
        assert process.returncode == STOPPED, err
    assert_whole(tmp_path)
    assert "data file data.h5 does not exist" in resumed(tmp_path)


def test_data_that_change_in_the_run_are_noticed_when_it_is_resumed(tmp_path):
    make(tmp_path)
    path = tmp_path / "data.h5"
    good = path.read_bytes()
    with training(tmp_path, None) as process:
        os.truncate(path, len(good) // 2)
        time.sleep(0.5)
        process.send_signal(signal.SIGTERM)
        _, err = process.communicate(timeout=10)
        assert process.returncode == STOPPED, err
    assert "data file data.h5 is damaged" in resumed(tmp_path)
    datasets.linear_regression(str(path.with_name("other.h5")), subsets=6, features=500, seed=2)
    path.with_name("other.h5").replace(path)
    assert "its dataset or its model's code has changed" in resumed(tmp_path)
    path.write_bytes(good)
    with h5py.File(path) as file:  # as the same command makes it of another source
        x, y, offsets, made_by = file["x"][()], file["y"][()], file["offsets"][()], file.attrs["made_by"]
        optimum = file["optimum"][()], file.attrs["optimum_loss"]
    x[0, 0] += 1
    layout.write(path, x, y, offsets, made_by=made_by, optimum=optimum)
    assert "its dataset or its model's code has changed" in resumed(tmp_path)


def resumed(folder: Path) -> str:
    """The one line that resuming ends with."""
    words = [sys.executable, "-m", "mpicoded", "resume", "out.h5"]
    ended = subprocess.run(words, cwd=folder, capture_output=True, text=True, check=False, timeout=20)
    assert ended.returncode == 2
    assert ended.stderr.count("\n") == 1
    return ended.stderr


@pytest.mark.parametrize("change", ["cut", "other values"])
def test_data_that_change_while_a_run_starts_are_refused(tmp_path, monkeypatch, capsys, change):
    make(tmp_path, rounds=5)
    monkeypatch.chdir(tmp_path)
    real = layout.describe

    def describe_and_change(path: str) -> layout.Description:
        found = real(path)
        with open(path, "r+b") as file:
            if change == "cut":  # HDF5 would read zeros there, once it has opened the file
                file.truncate(os.path.getsize(path) - 800)
            else:
                file.seek(os.path.getsize(path) // 2)
                file.write(np.ones(1).tobytes())
        return found

    monkeypatch.setattr(layout, "describe", describe_and_change)
    assert main(["run", "run.toml"]) == 2
    assert "data file data.h5 " in capsys.readouterr().err
    assert not Path("run.h5").exists()


def test_data_that_are_cut_while_they_are_read_are_refused(tmp_path):
    """The file was whole when it was opened; HDF5 reads zeros behind its new end, without a word."""
    make(tmp_path, rounds=5)
    path = str(tmp_path / "data.h5")
    found = layout.describe(path)
    real = layout.opened

    @contextlib.contextmanager
    def open_and_cut(*words, **more):
        with real(*words, **more) as file:
            os.truncate(path, os.path.getsize(path) - 8000)
            yield file

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(layout, "opened", open_and_cut)
        with pytest.raises(InputError, match="has changed while it was read"):
            layout.read_rows(found, "", [(0, 6)], np.float64)


def test_a_file_that_may_not_be_read_or_written_is_said_to_be_so(request, monkeypatch, capsys):
    if os.geteuid() != 0:
        pytest.skip("only root can be somebody else for a while")
    folder = Path(tempfile.mkdtemp())  # not of pytest's, which are for their owner alone
    request.addfinalizer(lambda: shutil.rmtree(folder))
    make(folder, rounds=4, every="2")
    monkeypatch.chdir(folder)
    assert main(["run", "run.toml", "-o", "done.h5", "--quiet"]) == 0
    for name, copy in (("run.toml", "open.toml"), ("data.h5", "other.h5"), ("done.h5", "secret.h5")):
        shutil.copy(name, copy)
    for name in ("run.toml", "other.h5", "secret.h5"):
        os.chmod(name, 0)
    os.chmod(folder, 0o755)
    capsys.readouterr()
    os.seteuid(65534)
    try:
        for words, says in {
            ("run", "run.toml"): "config run.toml cannot be read: Permission denied",
            ("plan", "run.toml"): "config run.toml cannot be read: Permission denied",
            ("run", "open.toml", "--data.path", "other.h5"): "data file other.h5 cannot be read: Permission denied",
            ("show", "secret.h5"): "result file secret.h5 cannot be read: Permission denied",
            ("resume", "secret.h5"): "result file secret.h5 cannot be read: Permission denied",
            ("run", "open.toml"): "output open.h5 cannot be written: Permission denied",
        }.items():
            assert main(list(words)) == 2
            line = capsys.readouterr().err
            assert line.count("\n") == 1
            assert says in line
    finally:
        os.seteuid(0)


LIMITED = """
import resource, sys
from mpicoded.cli import main
from mpicoded.commands import run
connect = run.connect
def connect_and_limit():
    transport = connect()  # whose shared memory is in files, too
    resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[1]), resource.RLIM_INFINITY))
    return transport
run.connect = connect_and_limit
sys.exit(main(sys.argv[2:]))
"""


@pytest.mark.mpi
def test_a_limit_on_files_is_told_by_one_rank_alone(program, tmp_path):
    """The checkpoint, of what 6 devices and the server remember, is beyond the limit; the result file is not."""
    make(tmp_path, rounds=1000, every="100", features=2000)
    (tmp_path / "limited.py").write_text(LIMITED)
    ended = program.python("limited.py", 60_000, "run", "run.toml", "-o", "out.h5", "--quiet", ranks=3)
    ours = [line for line in ended.err.splitlines() if "mpicoded: " in line]
    assert len(ours) == 1, ended.err
    assert "after round 100: OSError: the checkpoint cannot be written: [Errno 27] File too large" in ours[0]
    assert ended.code == 1
    assert not load_results(tmp_path / "out.h5").finished
    assert "resume" not in ours[0]
    assert sorted(os.listdir(tmp_path)) == ["data.h5", "limited.py", "out.h5", "run.toml"]
