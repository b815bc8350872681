"""Files that appear whole or not at all, whatever the disk does."""

import errno
import os
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest

from mpicoded.data.whole import read_tree, whole_file, write_tree


def test_wherever_the_space_ends_the_old_file_stays_and_hdf5_does_not_crash(tmp_path, monkeypatch):
    """HDF5 may crash when it closes a file after a failed write; in another process, to see it if it did."""
    words = [sys.executable, __file__, str(tmp_path), "24"]
    ended = subprocess.run(words, capture_output=True, text=True, check=False, timeout=120)
    assert ended.returncode == 0, ended.stderr
    assert "24 times" in ended.stdout


def fill_at_every_byte(folder: Path, times: int) -> None:
    """Write a file again and again, with room for ever more of it."""
    tree = {f"part {k}": {"a": np.arange(200.0) * k, "b": np.zeros((6, 40)), "n": k} for k in range(12)}
    target, real, written = folder / "tree.h5", os.pwrite, 0

    def limited(file: int, data: memoryview, at: int) -> int:
        nonlocal written
        room = min(len(data), budget - written)
        if room <= 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        written += room
        return real(file, data[:room], at)

    def write() -> None:
        nonlocal written
        written = 0
        with whole_file(target) as file:
            write_tree(file, tree, checked=True)

    os.pwrite = limited  # type: ignore[assignment]
    budget = 1 << 30
    write()
    total, before = written, target.read_bytes()
    for budget in np.linspace(0, total - 1, times).astype(int).tolist():  # noqa: B007, which sees no closures
        with pytest.raises(OSError, match=r"No space left on device: '.*tree.h5'"):
            write()
        assert os.listdir(folder) == ["tree.h5"]
        assert target.read_bytes() == before
    print(f"{times} times")


def test_a_write_of_more_than_a_call_takes_and_an_interrupt_in_it(tmp_path, monkeypatch):
    real = os.pwrite
    monkeypatch.setattr(os, "pwrite", lambda file, data, at: real(file, data[:1000], at))
    with whole_file(tmp_path / "a.h5") as file:
        file["x"] = np.arange(5000)
    with h5py.File(tmp_path / "a.h5") as file:
        np.testing.assert_array_equal(file["x"], np.arange(5000))

    def interrupted(*words):
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "pwrite", interrupted)
    with pytest.raises(KeyboardInterrupt), whole_file(tmp_path / "a.h5") as file:
        file["x"] = np.arange(5)
    assert os.listdir(tmp_path) == ["a.h5"]
    with h5py.File(tmp_path / "a.h5") as file:
        assert len(file["x"]) == 5000


@pytest.mark.parametrize("place", [("a", 3), ("b", (2, 5)), ("g/c", (1, 1, 1))])
def test_a_checksum_tells_a_changed_number_in_any_row(tmp_path, place):
    tree = {
        "a": np.arange(9.0),
        "b": np.ones((4, 6)),
        "g": {"c": np.arange(8).reshape(2, 2, 2), "none": np.ones((3, 0))},
    }
    with whole_file(tmp_path / "a.h5") as file:
        write_tree(file, tree, checked=True)
    with h5py.File(tmp_path / "a.h5", "r+") as file:
        found = read_tree(file, {"b": slice(1, 3)}, checked=True)
        np.testing.assert_array_equal(found["b"], np.ones((2, 6)))
        assert found["g"]["none"].shape == (3, 0)
        name, where = place
        file[name][where] += 1
        with pytest.raises(ValueError, match="checksum"):
            read_tree(file, {"b": slice(1, 3)}, checked=True)
        if name == "b":  # other rows are as they were
            assert len(read_tree(file, {"b": slice(0, 2)}, checked=True)["b"]) == 2


if __name__ == "__main__":
    fill_at_every_byte(Path(sys.argv[1]), int(sys.argv[2]))
