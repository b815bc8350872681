"""Whatever is wrong with what a user gives: one line that says what, code 2, on any number of ranks; none hangs.

All cases run in one process; on 3 ranks one of each kind, and all with MPICODED_ALL=1.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from mpicoded.cli import main

sys.path.insert(0, str(Path(__file__).parent))
import bad_configs  # noqa: F401, adds its cases
import bad_hdf5  # noqa: F401
from cases import CASES, make_good

ALL = "MPICODED_ALL" in os.environ
KINDS: dict[str, list[str]] = {}
for _case in CASES:
    KINDS.setdefault(_case.partition(":")[0].partition(",")[0], []).append(_case)
SOME = [name for cases in KINDS.values() for name in (cases[len(cases) // 3],)]


@pytest.fixture(scope="module")
def good(tmp_path_factory) -> Path:
    folder, before = tmp_path_factory.mktemp("good"), Path.cwd()
    os.chdir(folder)
    try:
        make_good(folder, main)
    finally:
        os.chdir(before)
    return folder


@pytest.fixture
def spoiled(good, tmp_path, monkeypatch):
    """A case's words and line; its files are in the current folder."""

    def spoil(case: str):
        shutil.copytree(good, tmp_path, dirs_exist_ok=True)
        monkeypatch.chdir(tmp_path)
        return CASES[case]()

    return spoil


def test_there_are_many_cases():
    assert len(CASES) >= 60
    assert all(len(cases) >= 5 for cases in KINDS.values())


@pytest.mark.timeout(30)
@pytest.mark.parametrize("case", CASES)
def test_bad_input_is_one_line_and_code_2(spoiled, capsys, case):
    words, says = spoiled(case)
    before = sorted(os.listdir())
    capsys.readouterr()
    code = main(words)
    out, line = capsys.readouterr()
    assert (code, line.count("\n")) == (2, 1), (out, line)
    assert line.startswith("mpicoded: error: ")
    assert says in line
    assert len(line) < 1500
    assert sorted(os.listdir()) == before


@pytest.mark.mpi
@pytest.mark.parametrize("case", CASES if ALL else SOME)
def test_bad_input_on_3_ranks_is_one_line_and_code_2(spoiled, program, case):
    words, says = spoiled(case)
    before = sorted(os.listdir())
    ended = program(*words, ranks=3, timeout=30)
    ours = [line for line in ended.err.splitlines() if "mpicoded: " in line]
    assert len(ours) == 1, ended.err
    assert ours[0].startswith("mpicoded: error: ")
    assert ("start it without mpiexec" if words[0] == "data" else says) in ours[0]
    assert "Traceback" not in ended.err
    assert ended.code == 2
    assert sorted(os.listdir()) == before


@pytest.mark.parametrize("seed", range(20) if ALL else [0])
def test_random_damage_does_no_harm_or_is_one_line_and_code_2(tmp_path, seed):
    """In a process of its own, since HDF5 may crash or never end; its last line is the case that it was at."""
    words = [sys.executable, str(Path(__file__).with_name("fuzz.py")), str(tmp_path), str(seed), "0", "250"]
    ended = subprocess.run(words, capture_output=True, text=True, check=False, timeout=250)
    assert ended.returncode == 0, ended.stdout[-3000:] + ended.stderr
    assert "250 cases, 0 wrong" in ended.stdout
