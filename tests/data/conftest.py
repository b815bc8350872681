"""Bad input is one line that says what is wrong: as an InputError here, on standard error from the program."""

import gzip
import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import h5py
import numpy as np
import pytest

from mpicoded.cli import main
from mpicoded.data import layout
from mpicoded.errors import InputError

BAD_GZIP = {
    "no gzip": b"hello",
    "truncated": gzip.compress(bytes(range(200)))[:-20],
    "bad sum": gzip.compress(bytes(range(200)))[:-8] + bytes(8),
    "bad block": bytes([0x1F, 0x8B, 8, 0, 0, 0, 0, 0, 0, 255]) + b"\x07" * 20,
}


class Made(NamedTuple):
    """A data file that ``mpicoded data`` wrote."""

    description: layout.Description
    x: Any
    y: Any
    test_x: Any
    test_y: Any
    optimum: Any
    made_by: str


@pytest.fixture
def make(tmp_path: Path) -> Callable[..., Made]:
    def make(*words: object) -> Made:
        path = str(tmp_path / "out.h5")
        assert main(["data", *map(str, words), "-o", path]) == 0
        description = layout.describe(path)
        train = layout.read_rows(description, "", [(0, description.samples)], np.float64)
        test = (None, None)
        if description.test_samples:
            test = layout.read_rows(description, "test/", [(0, description.test_samples)], np.float64)
        with h5py.File(path) as file:
            optimum = file["optimum"][()] if "optimum" in file else None
            return Made(description, *train, *test, optimum, file.attrs["made_by"])

    return make


@pytest.fixture
def refuses(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Callable[..., None]:
    """``mpicoded data`` ends with exit code 2, one line on standard error, and no output file."""

    def refuses(says: str, *words: object) -> None:
        assert main(["data", *map(str, words), "-o", str(tmp_path / "out.h5")]) == 2
        out, line = capsys.readouterr()
        assert out == ""
        assert line.startswith("mpicoded: error: ")
        assert line.count("\n") == 1
        assert says in line
        assert not list(tmp_path.glob("out.h5*"))

    return refuses


@pytest.fixture
def refused() -> Callable[..., AbstractContextManager[None]]:
    """The block raises an InputError of one line that holds the name, and what is wrong outside of it."""

    @contextmanager
    def refused(name: str | os.PathLike[str], says: str = "") -> Iterator[None]:
        with pytest.raises(InputError) as raised:
            yield
        line = str(raised.value)
        assert str(name) in line
        assert "\n" not in line
        rest = line.replace(str(name), "")  # the path holds the name of the test
        assert says in rest
        assert any(letter.isalpha() for letter in rest)

    return refused


@pytest.fixture(params=BAD_GZIP)
def bad_gzip(request: pytest.FixtureRequest) -> bytes:
    return BAD_GZIP[request.param]
