"""The bytes in the history are those that MPI was given, and a message is really smaller."""

import json
from pathlib import Path

import pytest

from mpicoded.data import datasets
from mpicoded.transport.base import order_layout


@pytest.mark.mpi
@pytest.mark.parametrize("ranks", [1, 3])
def test_bytes_are_those_that_mpi_moved(program, tmp_path, ranks):
    datasets.linear_regression(str(tmp_path / "data.h5"), subsets=10, features=37)
    ended = program.python(Path(__file__).with_name("moved.py"), "data.h5", ranks=ranks)
    assert ended.code == 0, ended.err
    found = json.loads(ended.out)
    assert len(found) == 18 + 6
    dense = {run["memory"]: run["dense_rounds"] for run in found}
    assert dense | {"marina": 0} == {"none": 0, "server_momentum": 0, "dasha_page": 1, "marina": 0}
    assert 1 < dense["marina"] < 6  # as its coin fell; the others are a record of the compressor's
    for run in found:
        sent = 10 if run["attack"] == "none" else 7
        rounds = 6 - run["dense_rounds"]
        expected = sent * (rounds * run["itemsize"] + run["dense_rounds"] * 37 * 8)
        assert run["bytes_up"] == run["gatherv"] == expected, run
        largest = -(-10 // ranks)
        assert run["bytes_overhead"] == run["gather"] == 6 * ranks * (16 + -(-largest // 8)), run
        nonce = 8 if run["compressor"].get("shared") else 0
        order = 64 * -(-order_layout(ranks).itemsize // 64)  # with what lies before the parameters, which go with it
        assert set(run["bcast"]) == {7 * (order + 37 * 4 + nonce)}, run  # a round each, and to leave
        assert run["bytes_down"] == 6 * 10 * (37 * 4 + nonce), run
    sizes = {json.dumps(run["compressor"]): run["itemsize"] for run in found if run["memory"] == "none"}
    assert list(sizes.values()) == [296, 74, 24, 64, 23, 56, 19, 13, 5]
