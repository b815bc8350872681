"""Subsets that are read in every round: the bits of those in memory, within the budget, and never a wrong number."""

import gc
import os
import shutil
import threading
import time
from itertools import pairwise
from pathlib import Path

import h5py
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mpicoded.algorithms.models import LinearRegression, SoftmaxRegression
from mpicoded.algorithms.randomness import Streams
from mpicoded.data import layout, streaming
from mpicoded.data.rowfile import RowFile, Run
from mpicoded.data.shards import Shards
from mpicoded.data.streaming import Streamed, divide, row_bytes
from mpicoded.errors import InputError

FEATURES, CLASSES, SEED = 17, 3, 7
SIZES = {
    "equal": np.full(40, 30),
    "single": np.ones(60, int),
    "ragged": np.random.default_rng(0).integers(0, 60, 40),
    "few and empty": np.tile([0, 5, 20], 20),
}
MODELS = {"linear": LinearRegression(), "softmax": SoftmaxRegression()}


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A dataset by its sizes, and whether it has labels."""
    found = {}

    def get(sizes, labels=False):
        if (sizes, labels) not in found:
            path = str(tmp_path_factory.mktemp("data") / "data.h5")
            rng, rows = np.random.default_rng(1), int(SIZES[sizes].sum())
            y = rng.integers(0, CLASSES, rows) if labels else rng.standard_normal(rows)
            offsets, words = np.concatenate([[0], np.cumsum(SIZES[sizes])]), {"classes": CLASSES} if labels else {}
            layout.write(path, rng.standard_normal((rows, FEATURES)), y, offsets, made_by="a test", **words)
            found[sizes, labels] = layout.describe(path)
        return found[sizes, labels]

    return get


@pytest.fixture
def copied(made, tmp_path):
    """A dataset of the test's own."""

    def get(sizes="equal", labels=False):
        shutil.copy(made(sizes, labels).path, tmp_path / "copied.h5")
        return layout.describe(str(tmp_path / "copied.h5"))

    return get


def computed(part, model, parameters, wanted, streams=None, batch_size=None):
    """Gradient and loss of each wanted subset, by number."""
    work = part.work(wanted, batch_size)
    gradients, losses = np.zeros((len(wanted), len(parameters)), parameters.dtype), np.zeros(len(wanted))
    for batch in part.batches(work, streams):
        model.gradients(parameters, batch.x, batch.y, batch.weights, out=gradients[batch.slots])
        losses[batch.slots] = model.losses(parameters, batch.x, batch.y, batch.weights)
    order = np.argsort(work.subsets)
    return gradients[order], losses[order]


def least(description, held, dtype):
    """The smallest budget."""
    with pytest.raises(InputError) as raised:
        divide(description, held, dtype, 0)
    return int(str(raised.value).split('"')[1].split()[0])


@pytest.mark.unchecked
@pytest.mark.parametrize(("name", "dtype"), [("linear", np.float64), ("linear", np.float32), ("softmax", np.float32)])
@pytest.mark.parametrize("sizes", SIZES)
def test_gradients_and_losses_have_the_bits_of_those_in_memory(made, sizes, name, dtype):
    model, description, rng = MODELS[name], made(sizes, name == "softmax"), np.random.default_rng(SEED)
    parameters = rng.standard_normal(model.dim(FEATURES, description.classes)).astype(dtype)
    everything = np.arange(description.subsets)
    for held in (everything, np.flatnonzero(rng.random(len(everything)) < 0.5)):
        whole, few = Shards.read(description, held, dtype), least(description, held, dtype)
        for budget in (few, few + whole.nbytes // 3, 2 * whole.nbytes):
            part = Streamed(description, held, dtype, budget)
            assert part.nbytes <= budget
            for round in range(3):
                wanted = held[rng.random(len(held)) < (0.5, 1, 0.5)[round]]
                for streams, batch_size in ((None, None), (Streams(SEED, round), 4)):
                    words = model, parameters, wanted, streams, batch_size
                    for found, expected in zip(computed(part, *words), computed(whole, *words), strict=True):
                        np.testing.assert_array_equal(found, expected)


@given(
    sizes=st.lists(st.integers(0, 40), min_size=1, max_size=30).filter(any),
    more=st.integers(0, 3000),
    beside=st.integers(0, 100),
    block=st.integers(1, 2000),
)
def test_a_division_covers_all_subsets_once_and_stays_within_the_budget(sizes, more, beside, block):
    offsets = np.concatenate([[0], np.cumsum(sizes)])
    words = {"task": "regression", "features": 3, "classes": 0, "offsets": offsets, "test_samples": 0}
    rest = {"optimum_loss": None, "made_by": "", "content": "", "stamp": (0, 0, 0), "path": ""}
    description, held = layout.Description(**words, **rest), np.arange(len(sizes))
    assert row_bytes(description, np.float32) == 16
    budget = least(description, held, np.float32) + beside + more
    before, streaming._BLOCK = streaming._BLOCK, block
    try:
        division = divide(description, held, np.float32, budget, beside)
    finally:
        streaming._BLOCK = before
    assert division.edges[0] == 0
    assert division.edges[-1] == len(sizes)
    blocks = [sum(sizes[first:stop]) for first, stop in pairwise(division.edges)]
    assert all(first < stop for first, stop in pairwise(division.edges))
    assert max(blocks) == division.block_rows
    assert sum(blocks[: division.kept]) == division.kept_rows
    assert sum(blocks[division.kept :]) == division.read_rows
    assert 16 * (division.kept_rows + 2 * division.block_rows) == division.nbytes <= budget - beside
    if division.kept < len(blocks):  # no more has room
        assert division.nbytes + 16 * blocks[division.kept] > budget - beside - 16 * 9 / 8 * max(sizes) - 16


def test_a_budget_that_is_too_small_is_refused_with_the_least_that_is_not(made):
    description, held = made("equal"), np.arange(40)
    row = 8 * (FEATURES + 1)
    with pytest.raises(InputError, match=f'its largest subset, of {30 * row}, .* set memory = "{60 * row + 5} B" or'):
        Streamed(description, held, np.float64, 60 * row + 4, beside=5)
    assert Streamed(description, held, np.float64, 60 * row + 5, beside=5).nbytes == 60 * row
    sizes = SIZES["ragged"]
    assert sizes.max() == 58  # which is worked as a copy of 60 rows
    assert least(made("ragged"), np.arange(len(sizes)), np.float64) == (2 * 58 + 60) * row


class Asked:
    """Rows that are read from files."""

    def __init__(self, monkeypatch):
        self.rows, real = [], RowFile.read

        def read(file, runs, x, y):
            self.rows += [row for start, stop, _ in runs for row in range(start, stop)]
            real(file, runs, x, y)

        monkeypatch.setattr(RowFile, "read", read)

    def settled(self, count):
        """The rows that were asked for since the last time, so many and no more."""
        until = time.monotonic() + 20
        while len(self.rows) < count and time.monotonic() < until:
            time.sleep(0.001)
        time.sleep(0.02)
        found, self.rows[:] = list(self.rows), []
        return found


def test_only_what_is_wanted_and_not_in_memory_is_read_and_the_next_round_ahead(made, monkeypatch):
    description, asked = made("equal"), Asked(monkeypatch)
    monkeypatch.setattr(streaming, "_BLOCK", 60 * 8 * (FEATURES + 1))  # two subsets
    part = Streamed(description, np.arange(40), np.float64, 16 * 30 * 8 * (FEATURES + 1))
    assert (part.division.kept, len(part.division.edges)) == (6, 21)  # of 20 blocks
    once, two = list(range(1200)), list(range(360, 480))
    assert asked.settled(1320) == once + two  # all once, and two blocks of the first round
    for _ in range(3):
        for batch in part.batches(part.work(np.arange(40))):
            assert np.isfinite(batch.x).all()
        assert asked.settled(840) == [*range(480, 1200), *two]
    wanted = np.array([0, 1, 13, 20, 21, 39])  # of what was read ahead, one block has what is wanted
    list(part.batches(part.work(wanted)))
    again = [*range(390, 420), *range(600, 660)]  # ahead
    assert asked.settled(180) == [*range(600, 660), *range(1170, 1200), *again]


def write_as(path, kind, x, y):
    """The same rows in another form."""
    with h5py.File(path, "r+") as file:
        del file["x"], file["y"]
        if kind == "chunked":
            file.create_dataset("x", data=x, chunks=(7, 5), compression="gzip")
        elif kind == "of its own":  # which h5py has a name for, and NumPy has not
            own = h5py.h5t.IEEE_F64LE.copy()
            own.set_ebias(1000)
            space = h5py.h5s.create_simple(x.shape)
            h5py.h5d.create(file.id, b"x", own, space).write(h5py.h5s.ALL, h5py.h5s.ALL, x)
        else:
            file["x"] = x.astype({"float32": "<f4", "big-endian": ">f8", "half": "<f2"}.get(kind, "<f8"))
        file["y"] = y.astype({"big-endian": ">i4", "chunked": "<i2"}.get(kind, "<i8"))


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("kind", ["float64", "float32", "big-endian", "half", "chunked", "of its own"])
def test_rows_are_those_of_hdf5_in_whatever_form_they_are(copied, monkeypatch, kind, dtype):
    from mpicoded.data import rowfile

    monkeypatch.setattr(rowfile, "_CONVERTED", 1 << 10)
    description = copied(labels=True)
    x, y = layout.read_rows(description, "", [(0, description.samples)], np.float64)
    x *= np.exp(np.random.default_rng(0).uniform(-80, 5, x.shape))  # some are subnormal in float32
    write_as(description.path, kind, x, y)
    description = layout.describe(description.path)
    expected = layout.read_rows(description, "", [(0, description.samples)], dtype)
    file = RowFile(description)
    assert (file._slow is None) == (kind not in ("chunked", "of its own"))
    rows = np.empty((description.samples, FEATURES), dtype), np.empty(description.samples, np.int64)
    rows[0][...], rows[1][...] = np.nan, -1
    runs = [Run(0, 1, 0), Run(1, 601, 1), Run(602, 1200, 602)]
    file.read(runs, *rows)
    for found, told in zip(rows, expected, strict=True):
        np.testing.assert_array_equal(np.delete(found, 601, axis=0), np.delete(told, 601, axis=0))
    assert np.isnan(rows[0][601]).all()
    assert rows[1][601] == -1


def test_reads_that_the_system_cuts_short_go_on(made, monkeypatch):
    description, preadv, calls = made("equal"), os.preadv, []

    def short(file, buffers, offset):
        calls.append(offset)
        return preadv(file, [buffers[0][:1001]], offset)

    monkeypatch.setattr(os, "preadv", short)
    x, y = np.empty((1200, FEATURES)), np.empty(1200)
    RowFile(description).read([Run(0, 1200, 0)], x, y)
    assert len(calls) > 1200 * (FEATURES + 1) * 8 / 1001
    for found, told in zip((x, y), layout.read_rows(description, "", [(0, 1200)], np.float64), strict=True):
        np.testing.assert_array_equal(found, told)


def test_rows_behind_a_user_block_are_found(copied, tmp_path):
    description = copied()
    path = str(tmp_path / "block.h5")
    with h5py.File(description.path) as old, h5py.File(path, "w", userblock_size=1024) as new:
        for name in old:
            old.copy(name, new)
        new.attrs.update(old.attrs)
    moved, found = layout.describe(path), []
    for one in (description, moved):
        x, y = np.empty((1200, FEATURES)), np.empty(1200)
        RowFile(one).read([Run(0, 1200, 0)], x, y)
        found.append(np.column_stack([x, y]))
    np.testing.assert_array_equal(*found)


@pytest.mark.parametrize("row", [3, 700, 1199])
@pytest.mark.parametrize(("name", "value"), [("x", np.nan), ("x", -np.inf), ("y", np.inf), ("y", -1), ("y", CLASSES)])
def test_values_that_cannot_be_used_are_refused_at_once_and_as_ever(copied, name, value, row):
    labels = isinstance(value, int)
    description = copied(labels=labels)
    with h5py.File(description.path, "r+") as file:
        file[name][row] = value
    description, said = layout.describe(description.path), []
    held = np.arange(40)
    for read in (Shards.read, lambda *words: Streamed(*words, 10_000 * 4)):
        with pytest.raises(InputError) as raised:
            read(description, held, np.float64)
        said.append(str(raised.value))
    if labels:  # the lowest and highest of a block
        said = [text.partition("found")[0] for text in said]
    assert said[0] == said[1]


def test_too_large_for_float32_is_refused(copied):
    description = copied()
    with h5py.File(description.path, "r+") as file:
        file["x"][900, 3] = 1e39
    description = layout.describe(description.path)
    with pytest.raises(InputError, match="x holds NaN or infinite values"):
        Streamed(description, np.arange(40), np.float32, 30_000)


def cut(path):
    os.truncate(path, os.path.getsize(path) // 2)


def change(path):
    with open(path, "r+b") as file:
        file.seek(-5, os.SEEK_END)
        file.write(b"x")


def twice(part):
    """All batches of two rounds: what the first ones are of may have been read before."""
    for _ in range(2):
        list(part.batches(part.work(part.subsets)))


@pytest.mark.parametrize("damage", [cut, change])
def test_a_file_that_changes_during_training_is_an_error_and_no_numbers(copied, damage):
    description, held = copied(), np.arange(40)
    part = Streamed(description, held, np.float64, 40_000)
    damage(description.path)
    with pytest.raises(InputError, match=r"copied\.h5 (is shorter than it was|has changed while it was read)"):
        twice(part)
    with pytest.raises(InputError, match="has changed"):
        Streamed(description, held, np.float64, 40_000)


def test_a_file_that_is_replaced_is_still_read_as_it_was(copied, made):
    description, held = copied(), np.arange(40)
    part, model = Streamed(description, held, np.float64, 40_000), MODELS["linear"]
    expected = computed(part, model, np.ones(FEATURES), held)
    os.remove(description.path)
    layout.write(description.path, np.ones((2, 1)), np.ones(2), [0, 1, 2], made_by="another")
    for _ in range(2):
        for found, told in zip(computed(part, model, np.ones(FEATURES), held), expected, strict=True):
            np.testing.assert_array_equal(found, told)


def test_whatever_goes_wrong_in_the_thread_is_raised_where_its_rows_are_wanted(made, monkeypatch):
    description, held = made("equal"), np.arange(40)
    part = Streamed(description, held, np.float64, 40_000)
    list(part.batches(part.work(held)))

    def full(*words):
        raise MemoryError("injected")

    monkeypatch.setattr(os, "preadv", full)
    with pytest.raises(InputError, match="cannot be read: injected"):
        twice(part)
    monkeypatch.undo()
    assert len(list(part.batches(part.work(held)))) > 1  # and it goes on


def test_a_computation_that_is_given_up_leaves_its_buffer(made):
    description, held = made("equal"), np.arange(40)
    part, model = Streamed(description, held, np.float64, 40_000), MODELS["linear"]
    for count in range(1, 12):
        batches = part.batches(part.work(held))
        for _ in range(count):
            next(batches)
        batches.close()
    whole = Shards.read(description, held, np.float64)
    found, expected = (computed(shards, model, np.ones(FEATURES), held) for shards in (part, whole))
    np.testing.assert_array_equal(found[0], expected[0])


def test_the_thread_ends_with_what_it_reads_for(made):
    def threads():
        return [thread for thread in threading.enumerate() if thread.name == "reading ahead"]

    def files():
        return [link for link in map(os.path.realpath, Path("/proc/self/fd").iterdir()) if link == description.path]

    description = made("equal")
    gc.collect()
    while threads():  # of other tests
        time.sleep(0.001)
    parts = [Streamed(description, np.arange(40), np.float64, 40_000) for _ in range(5)]
    list(parts[0].batches(parts[0].work(np.arange(40))))
    assert [thread.daemon for thread in threads()] == 5 * [True]
    del parts
    gc.collect()
    while threads():
        time.sleep(0.001)
    gc.collect()
    assert not Path("/proc/self/fd").exists() or not files()


def test_a_rank_without_subsets_has_nothing_to_do(made):
    nothing = np.empty(0, np.int64)
    part = Streamed(made("ragged"), nothing, np.float64, 0)
    assert part.nbytes == 0
    assert list(part.batches(part.work(nothing))) == []


def test_other_subsets_are_read_in_the_same_way(made):
    description, model = made("ragged"), MODELS["linear"]
    part = Streamed(description, np.arange(5), np.float32, 60_000).others(description, np.arange(5, 40))
    assert isinstance(part, Streamed)
    whole = Shards.read(description, np.arange(5, 40), np.float32)
    ones = np.ones(FEATURES, np.float32)
    np.testing.assert_array_equal(*(computed(each, model, ones, np.arange(5, 40))[0] for each in (part, whole)))
