"""Runs with ``compute.device = "cuda"``: as on the CPU, on a stand-in for CuPy here and on a GPU where there is one."""

import importlib.util
import os
import sys
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from mpicoded.algorithms import aggregators, attacks, compressors, filters, processors
from mpicoded.algorithms.chain import Chain
from mpicoded.algorithms.component import members
from mpicoded.algorithms.processors import Cuda
from mpicoded.algorithms.slices import LONG
from mpicoded.cli import main
from mpicoded.configs import decode
from mpicoded.data import datasets, layout
from mpicoded.errors import InputError
from mpicoded.training.loop import Trainer
from mpicoded.transport.launched import local_rank
from mpicoded.transport.local import LocalTransport

ROUNDS = 6
WIDE = 9000  # features: more than a piece of the CPU's
LAD = {"allocation": {"name": "cyclic", "redundancy": 5}}
CRA_DL = {"allocation": {"name": "balanced", "redundancy": 6}}
LABEL_FLIP = {"attack": {"name": "label_flip"}}
SUBSET = {"attack": {"name": "code_aware", "lies": "subset", "scale": -3.0}}
COMPRESSED = {"compressor": {"name": "rand_k", "kept": 4}}
KRUM = {"aggregator": {"name": "krum", "byzantine": 2}}
FIELDS = {"byzantine": 2, "tau": 1.0}


def tables_of(choice: Any) -> dict[str, dict[str, Any]]:
    """A config's table for every member of a family."""
    each = members(choice).items()
    return {
        name: {"name": name} | {field: FIELDS[field] for field in cls.__struct_fields__ if field in FIELDS}
        for name, cls in each
    }


RULES, FILTERS = tables_of(aggregators.Choice), tables_of(filters.Choice)
KEPT = {"rand_k": {"kept": 4}, "top_k": {"kept": 4}}
TOP = {"compressor": {"name": "top_k", "kept": 4}}
SHARED = {"compressor": {"name": "rand_k", "kept": 4, "shared": True}}
FIXED = {"allocation": {"name": "cyclic", "redundancy": 5, "permute": False}, "identities": "fixed"}
RARE = {"probability": 0.4}
UNBIASED = {"compressor": {"name": "qsgd", "levels": 7}}
MEMORIES = {
    "momentum": {"memory": {"name": "momentum", "beta": 0.5}},
    "momentum, compressed": {"memory": {"name": "momentum"}, **TOP},
    "server_momentum": {"memory": {"name": "server_momentum"}, **SHARED},
    "server_momentum, silent": {
        "memory": {"name": "server_momentum"},
        "attack": {"name": "silent"},
        "identities": "resampled",  # what was remembered of those who fall silent must stay
    },
    "server_momentum, alone": {"memory": {"name": "server_momentum"}},
    "ef21": {"memory": {"name": "ef21"}, **TOP},
    "ef21, unbiased": {"memory": {"name": "ef21"}, **SHARED},
    "ef21, alone": {"memory": {"name": "ef21"}},
    "ef21, not finite": {"memory": {"name": "ef21"}, "attack": {"name": "non_finite"}, **TOP},
    "dm21": {"memory": {"name": "dm21", "variance_reduced": True}, "compressor": {"name": "sign"}},
    "dm21, colluding": {"memory": {"name": "dm21"}, "attack": {"name": "min_max"}, **TOP},
    "marina": {"memory": {"name": "marina", **RARE}, **UNBIASED},
    "marina, own": {"memory": {"name": "marina", "anchor": "own", **RARE}, "attack": {"name": "silent"}, **SHARED},
    "dasha_page": {"memory": {"name": "dasha_page", **RARE}, "compressor": {"name": "natural"}},
    "dasha_page, not finite": {
        "memory": {"name": "dasha_page", **RARE},
        "attack": {"name": "non_finite", "coordinates": 1},
        **UNBIASED,
    },
}
NNM = {"name": "nearest_neighbor_mixing", "byzantine": 2}
AUTO = {"aggregator": {"name": "trimmed_mean", "byzantine": "auto"}}
CODE = LAD | {"encoder": {"name": "cyclic_code"}, "aggregator": {"name": "mean"}}
RUNS = {
    "LAD, linear": ("linear", LAD),
    "LAD, softmax": ("ragged", LAD),
    "CRA-DL, linear": ("linear", CRA_DL),
    "CRA-DL, softmax": ("ragged", CRA_DL),
    "without intercept": ("ragged", LAD | {"model": {"name": "softmax_regression", "intercept": False}}),
    "one sample a subset": ("single", LAD),
    "mini-batches, linear": ("linear", LAD, {"batch_size": 2}),
    "mini-batches, softmax": ("ragged", CRA_DL, {"batch_size": 3}),
    "label_flip, linear": ("linear", LAD | LABEL_FLIP),
    "label_flip, softmax": ("ragged", CRA_DL | LABEL_FLIP, {"batch_size": 3}),
    "a spoiled subset": ("linear", LAD | SUBSET),
    "float32": ("ragged", LAD | {"compute": {"dtype": "float32"}}),
    "compressed": ("linear", LAD | COMPRESSED),
    "compressed, shared": ("linear", LAD | SHARED),
    "compressed, shorter": ("linear", LAD | {"compressor": {"name": "rand_k", "kept": 4, "dtype": "float32"}}),
    "compressed, colluding": ("linear", LAD | COMPRESSED | {"attack": {"name": "alie"}}),
    "compressed, a record changed": ("linear", LAD | COMPRESSED | {"attack": {"name": "bit_flip", "bits": 1}}),
    "compressed, a code": ("linear", CODE | SHARED),
    "out of core, linear": ("linear", LAD, {"memory": "1 kB"}),
    "out of core, softmax": ("ragged", CRA_DL, {"memory": "55 kB"}),
    "a memory that looks back": ("ragged", CRA_DL | COMPRESSED | {"memory": {"name": "marina"}}, {"batch_size": 4}),
    "sharded": ("wide", {"transport": {"name": "sharded"}, **KRUM}),
    "an estimate": ("linear", AUTO),
    **{f"rule {name}": ("wide", {"aggregator": table}) for name, table in RULES.items()},
    **{f"filter {name}": ("wide", {"filters": [table], **KRUM}) for name, table in FILTERS.items()},
    **{f"attack {name}": ("linear", LAD | {"attack": {"name": name}}) for name in members(attacks.Choice)},
    "attack non_finite, some": ("linear", LAD | {"attack": {"name": "non_finite", "coordinates": 2}}),
    "attack min_max, compressed": ("linear", LAD | COMPRESSED | {"attack": {"name": "min_max", "deviation": "unit"}}),
    "attack optimal_alie, rule and filter": ("linear", {**KRUM, "filters": [NNM], "attack": {"name": "optimal_alie"}}),
    "attack optimal_ipm, an estimate": ("linear", {**AUTO, "attack": {"name": "optimal_ipm", "evaluations": 6}}),
    **{
        f"compressor {name}": ("linear", LAD | {"compressor": {"name": name, **KEPT.get(name, {})}})
        for name in members(compressors.Choice)
        if name != "none"
    },
    "compressor none, float32": ("linear", LAD | {"compressor": {"name": "none", "dtype": "float32"}}),
    "compressor none, float16": ("linear", LAD | {"compressor": {"name": "none", "dtype": "float16"}}),
    "compressor qsgd, 7": ("linear", LAD | {"compressor": {"name": "qsgd", "levels": 7}}),
    "compressor top_k, a record changed": ("linear", LAD | TOP | {"attack": {"name": "malformed", "bytes": 1}}),
    "compressor top_k, silent": ("linear", LAD | TOP | {"attack": {"name": "silent"}}),
    "compressor qsgd, softmax": ("ragged", CRA_DL | {"compressor": {"name": "qsgd", "levels": 127}}),
    **{f"memory {name}": ("linear", FIXED | table) for name, table in MEMORIES.items()},
    "a code that is decoded": ("linear", CODE),
    "memory ef21, a code": ("linear", CODE | FIXED | {"memory": {"name": "ef21"}, **SHARED}),
    "a code that is decoded, colluding": ("linear", CODE | {"attack": {"name": "optimal_ipm", "evaluations": 6}}),
}
OTHERS = [
    name for name in RUNS if not name.startswith(("attack", "compressor", "memory"))
]  # these: test_gpu_messages.py
STAYING = ["CRA-DL, softmax", "label_flip, softmax", "a spoiled subset", "float32", "rule krum"]


MLP = {"name": "torch", "module": "mpicoded.networks:mlp", "options": {"features": 6, "classes": 4, "hidden": [5]}}
NETWORKS = {
    "a network, side by side": ("ragged", LAD | {"model": MLP}, {"batch_size": 3}),
    "a network, subset by subset": ("ragged", CRA_DL | LABEL_FLIP | {"model": MLP | {"batched": False}}),
}


def seen() -> int:
    """How many GPUs the CuPy that is installed sees."""
    return processors.gpus()[0] if importlib.util.find_spec("cupy") else 0


def on_a_gpu(test):
    """Marks a test that waits for one."""
    return pytest.mark.gpu(pytest.mark.skipif(not seen(), reason="CuPy sees no GPU")(test))


@pytest.fixture(scope="module")
def paths(tmp_path_factory) -> dict[str, str]:
    """A linear problem, one of single samples, and ragged classification with empty subsets and a test split."""
    folder = tmp_path_factory.mktemp("data")
    made = {name: str(folder / f"{name}.h5") for name in ("linear", "single", "wide", "ragged")}
    datasets.linear_regression(made["linear"], subsets=15, features=7, samples_per_subset=3, seed=1)
    datasets.linear_regression(made["single"], subsets=15, features=7, seed=1)
    datasets.linear_regression(made["wide"], subsets=15, features=WIDE, samples_per_subset=2, seed=1)
    rng = np.random.default_rng(5)
    test = (rng.standard_normal((600, 6)), rng.integers(0, 4, 600))
    samples = datasets.Samples(rng.standard_normal((400, 6)), rng.integers(0, 4, 400), 4, test=test)
    made_so = {"subsets": 15, "kind": "dirichlet", "alpha": 0.05, "seed": 2, "made_by": "test"}
    datasets.write_split(made["ragged"], samples, **made_so)
    sizes = np.diff(layout.describe(made["ragged"]).offsets)
    assert (sizes == 0).any()
    assert len(set(sizes)) > 8  # padded
    return made


def trainer_of(paths: dict[str, str], run: str, device: str) -> Trainer:
    data, tables, *more = (RUNS | NETWORKS)[run]
    model = "softmax_regression" if data == "ragged" else "linear_regression"
    settings = {
        "devices": 15,
        "byzantine": 2,
        "rounds": ROUNDS,
        "evaluate_every": 2,
        "seed": 3,
        "data": {"path": paths[data], **(more[0] if more else {})},
        "model": {"name": model},
        "attack": {"name": "sign_flip"},
        "aggregator": {"name": "trimmed_mean", "byzantine": 2},
        "optimizer": {"step_size": {"ragged": 0.1, "wide": 1e-7}.get(data, 1e-4)},
    }
    tables = tables | {"compute": tables.get("compute", {}) | {"device": device}}
    experiment, description = decode(settings | tables, "test"), layout.describe(paths[data])
    experiment.check(description, 1)
    return Trainer(experiment, description, LocalTransport())


def trained(paths: dict[str, str], run: str, device: str, stay: bool) -> tuple[dict[str, list[float]], np.ndarray]:
    """What training has measured, and the parameters at its end. ``stay``: messages do, on the GPU."""
    rows, trainer = [], trainer_of(paths, run, device)
    if stay:
        assert "from GPU to GPU" in trainer.settle()
    trainer.train(lambda progress: rows.append(progress.row))
    names = ("loss", "gradient_norm", *(["accuracy"] if "accuracy" in rows[0] else []))
    return {name: [row[name] for row in rows] for name in names}, trainer.parameters


def assert_same_as_on_the_cpu(paths: dict[str, str], run: str, stay: bool = False, most: float = 1e-12) -> None:
    expected, end = trained(paths, run, "cpu", stay=False)
    measured, found = trained(paths, run, "cuda", stay)
    assert len(set(expected["loss"])) == len(expected["loss"])  # it moves
    tolerance = 1e-4 if run == "float32" else most
    for name, values in expected.items():
        np.testing.assert_allclose(measured[name], values, rtol=tolerance, err_msg=name)
    np.testing.assert_allclose(found, end, rtol=tolerance, atol=tolerance)
    assert ("accuracy" in expected) == ((RUNS | NETWORKS)[run][0] == "ragged")


@pytest.mark.parametrize("run", OTHERS)
def test_a_run_on_the_stand_in_is_that_on_the_cpu(paths, standin, run):
    assert_same_as_on_the_cpu(paths, run)
    assert standin.cuda.stream.synchronised > 0


@on_a_gpu
@pytest.mark.parametrize("run", OTHERS)
def test_a_run_on_a_gpu_is_that_on_the_cpu(paths, run):
    assert_same_as_on_the_cpu(paths, run, most=1e-9)


@on_a_gpu
@pytest.mark.parametrize("run", NETWORKS)
def test_a_network_on_a_gpu_is_that_on_the_cpu(paths, run):
    torch = pytest.importorskip("torch")
    if not torch.cuda.is_available():
        pytest.skip("this PyTorch was built without CUDA")
    assert_same_as_on_the_cpu(paths, run, most=1e-8)


@pytest.mark.parametrize("run", STAYING)
def test_messages_stay_on_the_stand_in_of_one_process(paths, standin, run):
    assert_same_as_on_the_cpu(paths, run, stay=True)


@on_a_gpu
@pytest.mark.parametrize("run", STAYING)
def test_messages_stay_on_the_gpu_of_one_process(paths, run):
    assert_same_as_on_the_cpu(paths, run, stay=True, most=1e-9)


def test_samples_gradients_and_messages_are_on_the_gpu(paths, standin):
    trainer = trainer_of(paths, "CRA-DL, softmax", "cuda")
    devices = trainer.devices
    gradients = devices._gradients
    for array in (gradients.shards.x, gradients.shards.y, gradients._buffer, trainer._evaluator._test.x):
        assert isinstance(array, standin.Array)
        with pytest.raises(TypeError, match="Implicit conversion"):
            np.asarray(array)
    assert isinstance(devices.messages(devices.plan(0), 0, trainer.parameters), standin.Array)
    devices.fetches = True
    messages = devices.messages(devices.plan(0), 0, trainer.parameters)
    assert type(messages) is np.ndarray
    assert messages.flags.writeable


@pytest.mark.parametrize("run", [name for name in RUNS if name.startswith(("rule", "filter")) or name == "sharded"])
def test_the_votes_go_to_the_gpu_once_a_round_and_stay_there(paths, standin, run):
    trainer = trainer_of(paths, run, "cuda")
    trainer._round(0)
    standin.moved.clear()
    trainer._round(1)
    votes = [way for way, shape in standin.moved if shape == (15, WIDE)]
    assert votes == ["down", "up"]  # the messages of the rank, the votes of all
    vectors = [way for way, shape in standin.moved if shape == (WIDE,)]
    assert vectors == ["up", "down"]  # parameters, vote
    assert all(np.prod(shape) <= 2 * 16 * 16 for _, shape in standin.moved if shape not in ((15, WIDE), (WIDE,)))


@pytest.mark.parametrize("run", ["compressed", "compressed, shared"])
def test_of_compressed_messages_records_alone_are_moved(paths, standin, run):
    trainer = trainer_of(paths, run, "cuda")
    trainer._round(0)
    standin.moved.clear()
    trainer._round(1)
    assert not [shape for _, shape in standin.moved if len(shape) == 2 and shape[-1] == 7]  # no message


@pytest.mark.parametrize("run", ["rule centered_clipping", "memory ef21", "memory ef21, alone", "memory dasha_page"])
def test_a_run_goes_on_from_the_vote_and_the_memories_before_a_checkpoint(paths, standin, run):
    whole, first, second = (trainer_of(paths, run, "cuda") for _ in range(3))
    for trainer, rounds in ((whole, range(4)), (first, range(2))):
        for round in rounds:
            trainer._round(round)
    second.restore(2, first.state() | {"devices": first.uplink.state()})
    for round in (2, 3):
        second._round(round)
    np.testing.assert_array_equal(second.parameters, whole.parameters)


def test_a_rule_of_a_plug_in_that_knows_whole_votes_only_works_there(standin):
    class Whole(aggregators.Mean):
        def aggregate(self, votes, previous=None, out=None):
            return super().aggregate(votes, previous, out)

    votes, found = standin.asarray(np.arange(12.0).reshape(3, 4)), standin.empty(4)
    Chain((), Whole(), LONG).aggregate(votes, None, found, found)
    np.testing.assert_array_equal(found.get(), [4, 5, 6, 7])


@pytest.mark.parametrize("run", ["out of core, linear", "out of core, softmax"])
def test_what_is_read_in_every_round_is_computed_on_the_gpu_too(paths, standin, run):
    shards = trainer_of(paths, run, "cuda").devices._gradients.shards
    assert shards.division.read_rows
    batches = list(shards.batches(shards.work(shards.subsets)))
    assert len(batches) > 1
    assert {type(array) for batch in batches for array in (batch.x, batch.y)} == {standin.Array}


def test_what_was_fetched_before_stays(paths, standin):
    """Messages of two computations are used together where devices mislabel or look back."""
    trainer = trainer_of(paths, "LAD, linear", "cuda")
    trainer.devices.fetches = True
    plan = trainer.devices.plan(0)
    first = trainer.devices.messages(plan, 0, trainer.parameters)
    kept = first.copy()
    second = trainer.devices.messages(plan, 0, trainer.parameters + 1)
    assert not np.array_equal(first, second)
    np.testing.assert_array_equal(first, kept)


@pytest.mark.parametrize(
    ("variables", "number"),
    [
        ({}, 0),
        ({"OMPI_COMM_WORLD_LOCAL_RANK": "3", "SLURM_LOCALID": "0"}, 3),  # mpirun's daemon on a node is srun's task 0
        ({"MPI_LOCALRANKID": "2", "SLURM_LOCALID": "0"}, 2),
        ({"SLURM_LOCALID": "1"}, 1),
        ({"SLURM_LOCALID": "many"}, 0),
    ],
    ids=str,
)
def test_a_rank_knows_its_number_on_its_host(monkeypatch, variables, number):
    for name in list(os.environ):
        if name.startswith(("OMPI_", "MPI_", "PMI_", "MV2_", "PALS_", "FLUX_", "SLURM_")):
            monkeypatch.delenv(name)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert local_rank() == number


@pytest.mark.parametrize(("visible", "gpus"), [("4,6", [0, 1, 0, 1, 0]), ("7", [0] * 5), ("0,1,2,3,4,5", range(5))])
def test_ranks_of_a_host_take_its_gpus_in_turn(monkeypatch, standin, visible, gpus):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert [Cuda(number).index for number in range(5)] == list(gpus)


@pytest.fixture
def words(paths, tmp_path, monkeypatch) -> list[str]:
    """A run on a GPU, to be refused."""
    monkeypatch.chdir(tmp_path)
    Path("x.toml").write_text(
        f'devices = 5\nrounds = 3\n[data]\npath = "{paths["linear"]}"\n[model]\nname = "linear_regression"\n'
        '[aggregator]\nname = "mean"\n[optimizer]\nstep_size = 1e-4\n[compute]\ndevice = "cuda"\n'
    )
    return ["run", "x.toml"]


def said(words: list[str], capsys) -> str:
    """The one line of a run that was refused."""
    assert main(words) == 2
    captured = capsys.readouterr()
    (line,) = captured.err.splitlines()
    assert not captured.out
    assert not Path("x.h5").exists()
    assert line.startswith('mpicoded: error: compute.device = "cuda"')
    return line


def test_without_cupy_the_extra_is_named(words, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "cupy", None)
    assert "not installed" in (line := said(words, capsys))
    assert 'pip install "mpicoded[cupy]"' in line
    assert main([*words, "--compute.device", "cpu"]) == 0


@pytest.mark.parametrize(
    ("visible", "need"), [("", "CUDA_VISIBLE_DEVICES is ''"), (None, "CUDA_VISIBLE_DEVICES is not set")]
)
def test_without_a_gpu_it_is_said_what_is_visible(words, monkeypatch, standin, capsys, visible, need):
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    monkeypatch.setattr(standin, "_visible", list)
    line = said(words, capsys)
    assert "no GPU is visible (cudaErrorNoDevice: no CUDA-capable device is detected)" in line
    assert line.endswith(need)


def test_a_gpu_that_does_not_compute_is_named(words, monkeypatch, standin, capsys):
    def broken(self, other):
        raise RuntimeError("libnvrtc.so.12:\ncannot open shared object file")

    monkeypatch.setattr(standin.Array, "__matmul__", broken)
    assert "GPU 0 of 1 does not compute: libnvrtc.so.12: cannot open" in said(words, capsys)


@pytest.mark.mpi
@pytest.mark.skipif(seen() > 0, reason="CuPy sees a GPU")
def test_all_ranks_refuse_alike(program, paths, tmp_path):
    config = f'devices = 5\nrounds = 3\n[data]\npath = "{paths["linear"]}"\n[model]\nname = "linear_regression"\n'
    (tmp_path / "x.toml").write_text(config + '[aggregator]\nname = "mean"\n[optimizer]\nstep_size = 1e-4\n')
    ((first, second),) = program.several([["run", "x.toml", "--compute.device", "cuda"]], ranks=2)
    assert first[0] == second[0] == 2
    assert first[1].startswith('mpicoded: error: compute.device = "cuda"')
    assert first[1].count("\n") == 1
    assert not second[1]
    assert "x.h5" not in first[2]


@pytest.mark.mpi
@pytest.mark.parametrize("ranks", [2, 3])
def test_messages_go_from_gpu_to_gpu_where_the_mpi_can(program, paths, ranks):
    ended = program.python(Path(__file__).with_name("gpu_ranks.py"), paths["linear"], ranks=ranks)
    assert ended.code == 0, ended.err
    assert ended.out.count("all good") == ranks


def test_the_log_and_the_result_say_how_messages_go(words, standin, capsys):
    assert main(words) == 0
    said = "MPI: none (one process); messages go from GPU to GPU (there is one process)"
    assert said in capsys.readouterr().out
    with h5py.File("x.h5") as file:
        assert f"MPI: {file.attrs['mpi']}" == said
    assert main([*words, "-o", "y.h5", "--compressor.name", "sign"]) == 0
    assert (
        "messages go by way of the CPU (compressor sign packs records on the GPU, and the CPU sends them)"
        in capsys.readouterr().out
    )
    assert main([*words, "-o", "z.h5", "--compute.device", "cpu"]) == 0
    assert "messages go" not in capsys.readouterr().out


def test_replicas_that_are_compared_bit_by_bit_need_the_cpu(paths):
    settings = {
        "devices": 15,
        "rounds": 1,
        "data": {"path": paths["linear"]},
        "model": {"name": "linear_regression"},
        "allocation": {"name": "repetition", "copies": 5},
        "encoder": {"name": "majority_vote"},
        "aggregator": {"name": "mean"},
        "optimizer": {"step_size": 1e-4},
    }
    description = layout.describe(paths["linear"])
    decode(settings, "test").check(description, 1)
    with pytest.raises(InputError, match="majority_vote compares messages bit by bit"):
        decode(settings | {"compute": {"device": "cuda"}}, "test").check(description, 1)


def test_the_last_word_about_the_device_counts(words, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "cupy", None)
    assert main([*words, "--compute.device", "cuda", "--compute.device", "cpu"]) == 0


def test_doctor_counts_what_cupy_sees(monkeypatch, standin):
    from mpicoded.commands import doctor

    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: name if name == "cupy" else find(name))
    monkeypatch.setattr(doctor, "_driver", lambda: 2)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
    assert doctor._gpu() == (True, f"2 CUDA device(s); CuPy {standin.__version__} sees 2")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    good, text = doctor._gpu()
    assert not good
    assert "sees none (cudaErrorNoDevice" in text
    monkeypatch.setattr(doctor, "_driver", lambda: None)
    assert doctor._gpu()[0]
