"""Messages on a GPU: forged, compressed and decompressed there, as on the CPU; and how little leaves it."""

from functools import partial
from typing import Any

import msgspec
import numpy as np
import pytest
from test_gpu import RUNS, WIDE, assert_same_as_on_the_cpu, on_a_gpu, paths, trainer_of

from mpicoded.algorithms import attacks, compressors, memories
from mpicoded.algorithms.attacks import Attack, MinMax, MinSum, NonFinite, Seen, SignFlip
from mpicoded.algorithms.component import known_with, members
from mpicoded.algorithms.compressors import Compressor, NoCompression, Qsgd, RandK, Sign, TopK, base
from mpicoded.algorithms.slices import LONG
from mpicoded.data import layout
from mpicoded.testing.attacks import STREAMS, see
from mpicoded.testing.attacks import draw as drawn_messages
from mpicoded.testing.vectors import draw, every_dtype, extremes, streams
from mpicoded.training import route
from mpicoded.training.loop import Trainer
from mpicoded.transport.local import LocalTransport

__all__ = ["paths"]  # a fixture


def compressor(cls: type[Compressor], dim: int, **fields: Any) -> Compressor:
    """One that keeps a quarter, if it keeps some."""
    return cls(**({"kept": -(-dim // 4)} if "kept" in cls.__struct_fields__ else {}) | fields)


COMPRESSORS = {name: partial(compressor, cls) for name, cls in members(compressors.Choice).items()} | {
    "none, float32": partial(compressor, NoCompression, dtype="float32"),
    "none, float16": partial(compressor, NoCompression, dtype="float16"),
    "rand_k, shared": partial(compressor, RandK, shared=True),
    "rand_k, shared, float16": partial(compressor, RandK, shared=True, dtype="float16"),
    **{f"qsgd, {levels}": partial(compressor, Qsgd, levels=levels) for levels in (4, 7, 127, 32767)},
    "top_k, float16": partial(compressor, TopK, dtype="float16"),
    "sign, unscaled": partial(compressor, Sign, scaled=False),
}
ATTACKS = {name: cls() for name, cls in members(attacks.Choice).items()} | {
    "non_finite, some": NonFinite(value="-inf", coordinates=1),
    "min_max, unit": MinMax(deviation="unit"),
    "min_sum, sign": MinSum(deviation="sign"),
}
FORGING = {name: part for name, part in ATTACKS.items() if part.sends and not part.tampers}
ALL_RUNS = [name for name in RUNS if name.startswith(("attack", "compressor", "memory"))]


@every_dtype
@pytest.mark.parametrize("dim", [1, 37, 3000])
@pytest.mark.parametrize("name", COMPRESSORS)
def test_records_made_there_are_those_of_the_cpu(standin, monkeypatch, name, dim, dtype):
    monkeypatch.setattr(base, "_BLOCK_THERE", 5000)  # a row, or all
    one, own, vectors = COMPRESSORS[name](dim=dim), streams([0, 2, 3, 8, 9]), draw((5, dim), dtype)
    records = one.compress(standin.asarray(vectors), own)
    assert type(records) is np.ndarray
    assert records.tobytes() == one.compress(vectors, own).tobytes()
    out = standin.empty((5, dim), dtype)
    assert one.decompress(records, dim, own, out) is out
    np.testing.assert_array_equal(out.get(), one.decompress(records, dim, own, np.empty((5, dim), dtype)))


@every_dtype
@pytest.mark.parametrize("name", COMPRESSORS)
def test_numbers_of_any_size_are_packed_there_as_on_the_cpu(standin, name, dtype):
    one = COMPRESSORS[name](dim=37)
    vectors = draw((20, 37), dtype) * dtype(1e30) if isinstance(one, TopK) else np.stack(list(extremes(37, dtype)))
    vectors[0, 3], vectors[1, 5], vectors[2, 7] = np.nan, np.inf, -np.inf
    own = streams(len(vectors))
    with np.errstate(all="ignore"):
        expected, found = one.compress(vectors, own), one.compress(standin.asarray(vectors), own)
        sound = one.sound(expected, 37)
        assert found[sound].tobytes() == expected[sound].tobytes()
        np.testing.assert_array_equal(one.sound(found, 37), sound)
        assert one.saturated(found).tolist() == one.saturated(expected).tolist()


def test_top_k_keeps_as_many_of_equal_numbers_there(standin):
    one, vectors = TopK(kept=3), np.array([[1.0, -2, 2, 2, 0, -2], [0, 0, 0, 0, 0, 0], [5, 1, 1, 1, 1, 1]])
    out = standin.empty((3, 6))
    one.decompress(one.compress(standin.asarray(vectors), streams(3)), 6, streams(3), out)
    np.testing.assert_array_equal(np.sort(np.abs(out.get()), axis=1)[:, 3:], [[2, 2, 2], [0, 0, 0], [1, 1, 5]])


@every_dtype
@pytest.mark.parametrize("dim", [1, 7, 3000])
@pytest.mark.parametrize("name", FORGING)
def test_messages_forged_there_are_those_of_the_cpu(standin, name, dim, dtype):
    part, own, honest = FORGING[name], drawn_messages(3, dim, dtype), drawn_messages(7, dim, dtype, 1)
    assert part.on_gpu
    assert known_with(part, "on_gpu", "forge")
    there = see(standin.asarray(honest))._replace(sums=LONG)
    forged = part.forge(standin.asarray(own), there, STREAMS)
    assert isinstance(forged, standin.Array)
    assert forged.dtype == dtype
    tolerance = 1e-5 if dtype == np.float32 else 1e-12
    np.testing.assert_allclose(forged.get(), part.forge(own, see(honest), STREAMS), tolerance, tolerance)


@pytest.mark.parametrize("run", ALL_RUNS)
def test_a_run_with_it_on_the_stand_in_is_that_on_the_cpu_and_goes_the_way_that_it_says(paths, standin, run):
    trainer = trainer_of(paths, run, "cuda")
    said = trainer.settle()
    assert not trainer.devices.fetches
    compressed, attack = not trainer.experiment.sends_vectors, trainer.experiment.attack
    coded = trainer.experiment.encoder.decodes
    assert ("packs records on the GPU, and the CPU sends them" in said) == compressed
    assert ("from GPU to GPU" in said) == (not compressed and attack.sends and not attack.tampers and not coded)
    assert isinstance(trainer.uplink._state, standin.Array)
    assert isinstance(trainer.aggregation.receiver.memory, np.ndarray if coded else standin.Array)
    assert_same_as_on_the_cpu(paths, run, stay="from GPU to GPU" in said)


SENT = {  # by how much more than a record at most leaves the GPU
    "none, float32": 1,
    "none, float16": 4,
    "rand_k": 1,
    "rand_k, shared, float16": 4,
    "qsgd": 1.01,
    "qsgd, 7": 1.01,
    "natural": 1,
    "top_k": 1.5,
    "top_k, float16": 4,
    "sign": 1,
}


@pytest.mark.parametrize("name", SENT)
def test_little_more_than_records_leaves_the_gpu(standin, name):
    one, vectors = COMPRESSORS[name](dim=8000), standin.asarray(draw((20, 8000)))
    if name.startswith(("rand_k", "top_k")):
        one = type(one)(kept=80, dtype=one.dtype)
    for key in standin.carried:
        standin.carried[key] = 0
    records = one.compress(vectors, streams(20))
    assert standin.carried["down"] <= SENT[name] * records.nbytes
    standin.carried["up"] = standin.carried["down"] = 0
    one.decompress(records, 8000, streams(20), standin.empty((20, 8000)))
    numbers = 20 * 80 * 16 if name.startswith("rand_k") else 0  # places, drawn on the CPU, and scaled numbers
    assert standin.carried["up"] <= max(1.01 * records.nbytes, numbers)
    assert standin.carried["down"] == 0


@pytest.mark.parametrize("name", [name for name in FORGING if name not in ("none", "label_flip")])
def test_of_forged_messages_none_leaves_the_gpu_of_one_process(paths, standin, monkeypatch, name):
    monkeypatch.setitem(RUNS, "forged", ("wide", {"attack": {"name": FORGING[name].name()}}))
    trainer = trainer_of(paths, "forged", "cuda")
    assert "from GPU to GPU" in trainer.settle()
    trainer._round(0)
    standin.moved.clear()
    trainer._round(1)
    down = [shape for way, shape in standin.moved if way == "down"]
    assert (WIDE,) in down  # the vote
    assert all(np.prod(shape) <= 15 * 15 for shape in down if shape != (WIDE,))
    up = [shape for way, shape in standin.moved if way == "up" and np.prod(shape) > 15 * 15]
    drawn = name.startswith(("gaussian", "fang_trimmed"))
    assert sorted(up) == ([(2, WIDE)] if drawn else []) + [(WIDE,)]  # random numbers and the parameters


@pytest.mark.parametrize("run", ["compressor top_k", "compressor qsgd", "attack alie"])
def test_faults_still_work_on_the_cpu(paths, standin, monkeypatch, run):
    more = {"faults": [{"name": "bit_flips", "ranks": [0]}]}
    monkeypatch.setitem(RUNS, "spoilt", ("linear", RUNS[run][1] | more))
    assert_same_as_on_the_cpu(paths, "spoilt")
    trainer = trainer_of(paths, "spoilt", "cuda")
    assert "a fault works on the CPU" in trainer.settle()
    assert trainer.devices.fetches


class Negated(SignFlip):
    """One that knows NumPy only."""

    def forge(self, own, seen, streams):
        assert type(own) is np.ndarray
        return np.negative(own)


class OfMean(Attack):
    """The same, of what it sees."""

    colludes = True

    def forge(self, own, seen: Seen, streams):
        return -3 * np.mean(np.asarray(seen.honest), axis=0)


@pytest.mark.parametrize("attack", [Negated(), OfMean()])
def test_an_attack_of_a_plug_in_that_knows_numpy_only_gets_numpy_s(paths, standin, attack):
    ends = []
    for device in ("cpu", "cuda"):
        experiment = trainer_of(paths, "attack sign_flip", device).experiment
        told = msgspec.structs.replace(experiment, attack=attack)
        trainer = Trainer(told, layout.describe(paths["linear"]), LocalTransport())
        assert device == "cpu" or "from GPU to GPU" in trainer.settle()
        trainer.train()
        ends.append(trainer.parameters)
    np.testing.assert_allclose(*ends, 1e-12, 1e-12)


@pytest.mark.parametrize("run", [name for name in ALL_RUNS if name.startswith("memory")])
def test_what_is_remembered_there_is_what_the_cpu_remembers(paths, standin, run):
    """Also of devices whose records are not usable, which no vote shows."""
    there, here = (trainer_of(paths, run, device) for device in ("cuda", "cpu"))
    for trainer in (there, here):
        trainer.settle()
        for round in range(4):
            trainer._round(round)
    states = [(trainer.uplink.state(), trainer.aggregation.state(np.ones(15, bool))) for trainer in (there, here)]
    (devices, server), (expected, known) = states
    np.testing.assert_allclose(devices, expected, 1e-10, 1e-10)
    np.testing.assert_allclose(server["memory"], known["memory"], 1e-10, 1e-10)


def test_a_compressor_of_a_plug_in_that_knows_numpy_only_gets_numpy_s(paths):
    class Halved(TopK):
        def compress(self, vectors, streams, out=None):
            return super().compress(vectors / 2, streams, out)

    class Told(Halved):
        on_gpu = True

    experiment = trainer_of(paths, "compressor top_k", "cpu").experiment
    for part, why in ((Halved(kept=3), "works on the CPU"), (Told(kept=3), ""), (NoCompression(), "")):
        assert route.works_on_cpu(msgspec.structs.replace(experiment, compressor=part)).endswith(why)


def test_every_part_of_the_package_has_a_run():
    choices = {"attack": attacks.Choice, "compressor": compressors.Choice, "memory": memories.Choice}
    for family, choice in choices.items():
        assert {f"{family} {name}" for name in members(choice)} - {f"{family} none"} <= set(ALL_RUNS)


@on_a_gpu
@pytest.mark.parametrize("run", ALL_RUNS)
def test_a_run_with_it_on_a_gpu_is_that_on_the_cpu(paths, run):
    assert_same_as_on_the_cpu(paths, run, most=1e-9)


@on_a_gpu
@every_dtype
@pytest.mark.parametrize("name", COMPRESSORS)
def test_records_made_on_a_gpu_are_those_of_the_cpu(name: str, dtype: Any) -> None:
    import cupy

    one, own, vectors = COMPRESSORS[name](dim=3000), streams(5), draw((5, 3000), dtype)
    records, expected = one.compress(cupy.asarray(vectors), own), one.compress(vectors, own)
    for field in records.dtype.names:
        if records.dtype[field].base.kind == "f":  # sums may be rounded otherwise
            np.testing.assert_allclose(records[field], expected[field], 1e-5 if dtype == np.float32 else 1e-12)
        elif field != "digits":
            assert records[field].tobytes() == expected[field].tobytes()
    out = cupy.empty((5, 3000), dtype)
    one.decompress(expected, 3000, own, out)
    np.testing.assert_array_equal(out.get(), one.decompress(expected, 3000, own, np.empty((5, 3000), dtype)))
