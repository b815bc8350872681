"""Real result files: two attacks by two redundancies by two seeds with data of their own, and two more."""

import os
from pathlib import Path

import pytest

from mpicoded.cli import main

ROOT = Path(__file__).parents[2]
QUICKSTART = str(ROOT / "configs" / "quickstart.toml")


@pytest.fixture(scope="session")
def made(tmp_path_factory):
    """The folder with them; tests write elsewhere."""
    folder = tmp_path_factory.mktemp("results")
    before = Path.cwd()
    os.chdir(folder)
    try:
        for seed in (3, 4):
            assert main(["data", "linear_regression", "-o", f"data_{seed}.h5", "--seed", str(seed)]) == 0
            words = ["--rounds", "30", "--data.path", f"data_{seed}.h5", "--seed", str(seed), "--quiet"]
            vary = ["--vary", "attack.name=sign_flip,ipm", "--vary", "allocation.redundancy=20,5"]
            assert main(["sweep", QUICKSTART, *vary, "-o", "sweep", "--run", *words]) == 0
        words = ["--rounds", "40", "--data.path", "data_3.h5", "--identities", "fixed", "--byzantine", "4"]
        assert main(["run", QUICKSTART, "--quiet", "-o", "fixed.h5", *words]) == 0
        partition = ["--allocation.name", "partition", "--data.path", "data_3.h5", "--rounds", "30"]
        assert main(["run", QUICKSTART, "--quiet", "-o", "uncoded.h5", *partition]) == 0
    finally:
        os.chdir(before)
    return folder


@pytest.fixture
def here(made, tmp_path, monkeypatch):
    """A folder to write in, in which they are as well."""
    for path in made.iterdir():
        (tmp_path / path.name).symlink_to(path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def sweep(here):
    """The paths of the eight files of the sweep."""
    return sorted(str(path.relative_to(here)) for path in (here / "sweep").iterdir())
