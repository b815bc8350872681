import ast
from pathlib import Path

import numpy as np
import pytest

import mpicoded
from mpicoded.transport.base import block, block_sizes, decode_text, encode_text

PICKLING = {
    *("send", "bsend", "ssend", "isend", "ibsend", "issend", "recv", "irecv", "sendrecv", "mrecv"),
    *("bcast", "gather", "scatter", "allgather", "alltoall", "reduce", "allreduce", "scan", "exscan"),
}
OURS = ("transport", "self.transport", "self._transport")  # Transport.gather is not MPI's gather


@pytest.mark.mpi
@pytest.mark.parametrize("ranks", [1, 2, 3, 5])
def test_every_collective_moves_what_it_must_and_pickles_nothing(program, ranks):
    ended = program.python(Path(__file__).with_name("ranks.py"), ranks, ranks=ranks)
    assert ended.code == 0, ended.err
    assert "all good" in ended.out


def pickling_calls(source: str) -> list[str]:
    return [
        ast.unparse(node.func)
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and node.func.attr in PICKLING
        and ast.unparse(node.func.value) not in OURS
    ]


def test_no_lower_case_mpi_call_in_the_package():
    for path in Path(mpicoded.__file__).parent.rglob("*.py"):
        assert pickling_calls(path.read_text()) == [], path


@pytest.mark.parametrize("call", ["comm.bcast(x)", "MPI.COMM_WORLD.gather(x, 0)", "self._comm.allreduce(1)"])
def test_a_lower_case_mpi_call_would_be_noticed(call):
    assert len(pickling_calls(f"def f(self):\n    return {call}")) == 1


@pytest.mark.parametrize(("total", "parts"), [(7, 3), (100, 7), (5, 5), (3, 1)])
def test_blocks_cover_everything_once(total, parts):
    edges = [block(total, part, parts) for part in range(parts)]
    assert [e[0] for e in edges[1:]] == [e[1] for e in edges[:-1]]
    assert (edges[0][0], edges[-1][1]) == (0, total)
    assert (block_sizes(total, parts) == [b - a for a, b in edges]).all()
    assert np.ptp(block_sizes(total, parts)) <= 1


def test_texts_survive_the_wire():
    assert decode_text(encode_text("größer → 1")) == "größer → 1"


def test_a_launcher_of_another_mpi_is_refused(program, tmp_path, monkeypatch):
    monkeypatch.setenv("PMI_SIZE", "3")  # what MPICH's mpiexec tells a process of Open MPI, which is then alone
    monkeypatch.setenv("PMI_RANK", "0")
    (tmp_path / "c.toml").write_text("")
    ended = program("run", "c.toml")
    assert ended.code == 2
    assert "do not belong together" in ended.err
    assert len(ended.err.splitlines()) == 1
