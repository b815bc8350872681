"""The loop over real MPI against one process, and what a round may cost in Python."""

import itertools
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest

from mpicoded.algorithms import aggregators, attacks
from mpicoded.algorithms.component import members
from mpicoded.configs import decode
from mpicoded.data import datasets, layout
from mpicoded.data.results import load_results
from mpicoded.training.loop import Trainer
from mpicoded.transport.local import LocalTransport

sys.path.insert(0, str(Path(__file__).parent))
import matrix

CONFIGS = Path(__file__).parents[2] / "configs"


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> list[Path]:
    """A linear problem, and ragged classification with empty subsets and a test split."""
    folder = tmp_path_factory.mktemp("data")
    matrix.make_files(folder)
    return matrix.files_of(folder, 20)


@pytest.mark.unchecked
@pytest.mark.parametrize("compressor", matrix.COMPRESSORS, ids=str)
@pytest.mark.parametrize("allocation", [{"name": "cyclic", "redundancy": 4}, {"name": "balanced", "redundancy": 4}])
def test_every_attack_on_every_compressor_ends_finite_with_every_rule(files, compressor, allocation):
    turn = matrix.COMPRESSORS.index(compressor) + len(allocation["name"])
    for number, (attack, rule) in enumerate(
        itertools.product(members(attacks.Choice).values(), members(aggregators.Choice).values())
    ):
        if not matrix.ALL and (number + number // len(members(aggregators.Choice)) + turn) % 9:
            continue  # two rules or so, other ones for each attack, compressor and allocation; pairs: test_combinations
        tables = {
            "allocation": allocation,
            "attack": matrix.table(attack),
            "compressor": compressor,
            "aggregator": matrix.table(rule),
        }
        end = matrix.run(matrix.experiment_of(str(files[number % 2]), number, tables), LocalTransport())
        assert np.isfinite(end).all(), tables


NNM = '[{name = "nearest_neighbor_mixing", byzantine = 20}]'
SETTINGS = {
    "lad": ("lad_linear", "linear.h5", []),
    "cra_dl": ("cra_dl_linear", "linear_1000.h5", []),
}


@pytest.mark.mpi
@pytest.mark.parametrize("name", SETTINGS)
def test_the_papers_shapes_have_the_same_bits_on_1_2_3_5_and_7_ranks(program, tmp_path, name):
    config, data, extra = SETTINGS[name]
    many = ("--subsets", 1000, "--sigma-h", 0.25) if name == "cra_dl" else ()
    numbers = (None, 3, 7) if name == "cra_dl" else (None, 1, 2, 3, 5, 7)
    assert program("data", "linear_regression", "-o", data, "--seed", 3, *many).code == 0
    words = ["--rounds", 12, "--attack.name", "alie", "--filters", NNM, *extra]
    results = {}
    for ranks in numbers:
        ended = program("run", CONFIGS / f"{config}.toml", "-o", f"{ranks}.h5", *words, ranks=ranks)
        assert ended.code == 0, ended.err
        results[ranks] = load_results(tmp_path / f"{ranks}.h5")
        assert len(results[ranks].hosts) == (ranks or 1)
    for result in results.values():
        np.testing.assert_array_equal(result.parameters, results[None].parameters)
        for key in ("loss", "suboptimality", "gradient_norm", "bytes_up", "bytes_down"):
            np.testing.assert_array_equal(result.history[key], results[None].history[key])


@pytest.mark.mpi
def test_a_rank_a_device_has_the_same_bits(program, tmp_path):
    assert program("data", "linear_regression", "-o", "linear.h5", "--subsets", 96, "--features", 100).code == 0
    small = ("--devices", 8, "--byzantine", 2, "--aggregator.byzantine", 2, "--allocation.redundancy", 24)
    words = ["--rounds", 12, "--attack.name", "alie", "--filters", NNM.replace("20", "2"), *small]
    for ranks in (1, 8):
        ended = program("run", CONFIGS / "lad_linear.toml", "-o", f"{ranks}.h5", *words, ranks=ranks)
        assert ended.code == 0, ended.err
    one, eight = load_results(tmp_path / "1.h5"), load_results(tmp_path / "8.h5")
    np.testing.assert_array_equal(one.parameters, eight.parameters)
    np.testing.assert_array_equal(one.history["loss"], eight.history["loss"])


def trainer_of(path: str, devices: int, **tables) -> Trainer:
    description = layout.describe(path)
    experiment = decode(
        {
            "devices": devices,
            "byzantine": devices // 5,
            "rounds": 8,
            "data": {"path": path},
            "model": {"name": "linear_regression"},
            "attack": {"name": "alie"},
            "filters": [{"name": "nearest_neighbor_mixing"}],
            "optimizer": {"step_size": 1e-4},
        }
        | tables,
        "test",
    )
    experiment.check(description, 1)
    return Trainer(experiment, description, LocalTransport())


def lines_of_a_round(path: str, devices: int, **tables) -> int:
    """Lines of Python of ours that are executed in a round, the second one."""
    trainer = trainer_of(path, devices, **tables)
    with np.errstate(all="ignore"):  # as in training
        return _lines_of_the_second(trainer)


def _lines_of_the_second(trainer) -> int:
    trainer._round(0)
    trainer.server.suspicion.state()  # scores the rounds that wait for others to be scored with
    count = 0

    def trace(frame, event, argument):
        nonlocal count
        if "mpicoded" not in frame.f_code.co_filename:
            return None
        count += event == "line"
        return trace

    sys.settrace(trace)
    try:
        trainer._round(1)
    finally:
        sys.settrace(None)
    return count


@pytest.fixture(scope="module")
def of_20_and_200(tmp_path_factory) -> dict[int, str]:
    folder = tmp_path_factory.mktemp("data")
    paths = {devices: str(folder / f"{devices}.h5") for devices in (20, 200)}
    for devices, path in paths.items():
        datasets.linear_regression(path, subsets=devices, features=30, samples_per_subset=4)
    return paths


@pytest.mark.parametrize("allocation", ["cyclic", "balanced", "uniform"])
@pytest.mark.parametrize("batch", [{}, {"batch_size": 2}])
def test_a_round_runs_as_many_lines_of_python_for_200_devices_as_for_20(of_20_and_200, allocation, batch):
    """No Python loop over devices or subsets: the lines executed in a round do not depend on their number."""
    few, many = (
        lines_of_a_round(
            path,
            devices,
            data={"path": path} | batch,
            allocation={"name": allocation, "redundancy": 10},
            aggregator={"name": "trimmed_mean"},
        )
        for devices, path in of_20_and_200.items()
    )
    assert few > 30
    assert few == many


@pytest.mark.parametrize("attack", ["alie", "bit_flip", "malformed", "silent"])
@pytest.mark.parametrize("compressor", matrix.COMPRESSORS, ids=str)
def test_no_compressor_loops_over_devices(of_20_and_200, compressor, attack):
    few, many = (
        lines_of_a_round(
            path,
            devices,
            data={"path": path},
            allocation={"name": "balanced", "redundancy": 10},
            aggregator={"name": "trimmed_mean"},
            attack={"name": attack},
            compressor=compressor,
            memory={"name": "ef21" if compressor.get("scaled", True) else "none"},
        )
        for devices, path in of_20_and_200.items()
    )
    assert abs(few - many) < 100  # whether there was a bad record makes some lines; a loop would make 180 at least


def test_bytes_are_those_of_the_buffers(tmp_path):
    path = str(tmp_path / "data.h5")
    datasets.linear_regression(path, subsets=10, features=7)
    rows = []
    trainer_of(path, 10, compute={"dtype": "float32"}).train(lambda progress: rows.append(progress.row))
    assert [row["round"] for row in rows] == [0, 8]
    assert rows[-1]["bytes_up"] == 8 * 10 * 7 * 4
    assert rows[-1]["bytes_down"] == 8 * 10 * 7 * 4
    assert rows[-1]["bytes_overhead"] == 0


def test_a_message_of_nan_is_replaced_counted_and_survived(tmp_path, monkeypatch):
    path = str(tmp_path / "data.h5")
    datasets.linear_regression(path, subsets=20, features=7)
    trainer = trainer_of(path, 20, attack={"name": "none"})
    honest = trainer.devices.messages

    def broken(plan, round, parameters, **words):
        messages = honest(plan, round, parameters, **words)
        messages[3] = np.nan
        messages[4, 0] = np.inf
        messages[5] = 1e200  # finite, but its distances are not
        return messages

    monkeypatch.setattr(trainer.devices, "messages", broken)
    rows = []
    trainer.train(lambda progress: rows.append(progress.row))
    assert rows[-1]["bad_records"] == 3 * 8
    assert np.isfinite(trainer.parameters).all()
    assert rows[-1]["loss"] < rows[0]["loss"]


def test_a_diverging_run_ends_and_says_so(tmp_path):
    path = str(tmp_path / "data.h5")
    datasets.linear_regression(path, subsets=20, features=7)
    rows = []
    trainer = trainer_of(path, 20, optimizer={"step_size": 1e150}, aggregator={"name": "mean"})
    trainer.train(lambda progress: rows.append(progress.row))
    assert rows[-1]["round"] == 8
    assert rows[-1]["bad_records"] > 0


@pytest.mark.mpi
def test_a_rank_holds_only_the_shards_of_its_devices(program, tmp_path):
    """Measured: bytes of samples, and the resident memory of the processes, for a dataset of 80 MB.

    What several of them hold they share, and each brings in a part of it.
    """
    made = program("data", "linear_regression", "-o", "big.h5", "--features", 1000, "--samples-per-subset", 100)
    assert made.code == 0
    peaks = {}
    for name, words in {
        "balanced": ("--allocation.name", "balanced", "--allocation.redundancy", 1),
        "cyclic": ("--allocation.redundancy", 3, "--allocation.permute", "false"),
        "permuted": ("--allocation.redundancy", 3),
        "alone": ("--allocation.redundancy", 3),
    }.items():
        short = ("--data.path", "big.h5", "--rounds", 2, "--optimizer.step_size", "1e-6")
        ranks = None if name == "alone" else 4
        ended = program("run", CONFIGS / "lad_linear.toml", "-o", f"{name}.h5", *short, *words, ranks=ranks)
        assert ended.code == 0, ended.err
        memory = load_results(tmp_path / f"{name}.h5").memory
        subset = 100 * 1001 * 8
        assert (memory["shards"] == (100 if name == "alone" else 25) * subset).all()
        peaks[name] = memory["peak"].max()
    assert peaks["balanced"] < peaks["alone"] - 0.6 * 75 * subset
    assert peaks["cyclic"] < peaks["alone"] - 0.6 * 73 * subset  # a rank's 25 windows of 3 reach two further


@pytest.mark.mpi
@pytest.mark.parametrize(
    ("failure", "said"),
    [
        ("bug", "in round 10: ZeroDivisionError: injected"),
        ("input", "in round 10: InputError: injected"),
        ("exit", "in round 10: SystemExit: 3"),
        ("interrupt", "in round 10"),
    ],
)
def test_an_exception_on_rank_2_ends_the_job_and_names_the_rank(program, tmp_path, failure, said):
    shutil.copy(Path(__file__).with_name("boom.py"), tmp_path)
    assert program("data", "linear_regression", "-o", "linear.h5").code == 0
    ended = program.python(
        "boom.py", failure, "run", CONFIGS / "quickstart.toml", "--rounds", 1_000_000, ranks=4, timeout=30
    )
    assert ended.code not in (0, 2)
    (line,) = (line for line in ended.err.splitlines() if line.startswith("mpicoded: "))
    assert "on rank 2 of " in line
    assert said in line
    assert ("Traceback" in ended.err) == (failure == "bug")
    assert not load_results(tmp_path / "quickstart.h5").finished
