from pathlib import Path

import pytest


@pytest.mark.mpi
@pytest.mark.parametrize("ranks", [2, 5])
def test_what_comes_late_is_never_taken_for_another_round(program, ranks):
    ended = program.python(Path(__file__).with_name("stars.py"), ranks=ranks)
    assert ended.code == 0, ended.err
    assert "all good" in ended.out
