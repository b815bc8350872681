import tracemalloc

import numpy as np
import pytest

from mpicoded.algorithms.models import LinearRegression, SoftmaxRegression
from mpicoded.algorithms.randomness import Streams
from mpicoded.data import datasets, layout, shards
from mpicoded.data.shards import Shards, padded

RAGGED = np.array([3, 0, 17, 18, 1, 40, 0, 18, 5, 16, 17, 33, 1, 2, 0, 35])
EQUAL = np.full(16, 12)
SINGLE = np.ones(16, int)
SIZES = {"ragged": RAGGED, "equal": EQUAL, "single": SINGLE}
MODELS = {
    "linear": LinearRegression(),
    "softmax": SoftmaxRegression(),
    "softmax without intercept": SoftmaxRegression(intercept=False),
}
CLASSES, SEED = 3, 7


def make(path, sizes, features=17, classes=0, test_samples=0):
    rng = np.random.default_rng(sum(sizes))
    samples = sum(sizes)

    def targets(count):
        return rng.integers(0, classes, count) if classes else rng.standard_normal(count)

    x, y = rng.standard_normal((samples, features)), targets(samples)
    test = (rng.standard_normal((test_samples, features)), targets(test_samples)) if test_samples else None
    offsets = np.concatenate([[0], np.cumsum(sizes)])
    layout.write(path, x, y, offsets, made_by="a test", classes=classes, test=test)
    return layout.describe(str(path)), x, y, test


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """A data set by its sizes and classes: description, x, y."""
    made = {}

    def get(sizes, classes=0):
        if (sizes, classes) not in made:
            path = tmp_path_factory.mktemp("data") / "data.h5"
            made[sizes, classes] = make(path, SIZES[sizes], classes=classes)[:3]
        return made[sizes, classes]

    return get


def classes_of(model):
    return CLASSES if isinstance(model, SoftmaxRegression) else 0


def parameters_of(model, dtype):
    rng = np.random.default_rng(5)
    return rng.standard_normal(model.dim(17, classes_of(model))).astype(dtype)


def everything(description):
    return np.arange(description.subsets)


def selections(subsets, count=8):
    """Random pairs of what a rank holds and what of it is wanted in a round."""
    rng = np.random.default_rng(11)
    for _ in range(count):
        held = np.flatnonzero(rng.random(subsets) < rng.uniform(0.2, 1))
        wanted = held[rng.random(len(held)) < rng.uniform(0.2, 1)]
        yield held, wanted


def computed(held, model, parameters, wanted, streams=None, batch_size=None):
    """Loss and gradient of each wanted subset; zero for those that are in no batch."""
    work = held.work(wanted, batch_size)
    gradients = np.zeros((len(wanted), len(parameters)), parameters.dtype)
    losses = np.zeros(len(wanted), parameters.dtype)
    for batch in held.batches(work, streams):
        model.gradients(parameters, batch.x, batch.y, batch.weights, out=gradients[batch.slots])
        losses[batch.slots] = model.losses(parameters, batch.x, batch.y, batch.weights)
    return {int(subset): (losses[i], gradients[i]) for i, subset in enumerate(work.subsets)}


def one_by_one(description, x, y, model, parameters):
    """f_k = (M / all samples) × the sum over subset k's samples, one sample at a time."""
    losses = np.zeros(description.subsets)
    gradients = np.zeros((description.subsets, len(parameters)))
    for k, (start, stop) in enumerate(zip(description.offsets[:-1], description.offsets[1:], strict=True)):
        for i in range(start, stop):
            losses[k] += model.losses(parameters, x[None, i : i + 1], y[None, i : i + 1])[0]
            gradients[k] += model.gradients(parameters, x[None, i : i + 1], y[None, i : i + 1])[0]
    scale = description.subsets / description.samples
    return scale * losses, scale * gradients


def test_padded_size_is_at_least_the_size_and_at_most_an_eighth_larger():
    sizes = np.arange(100_000)
    larger = padded(sizes)
    assert (larger >= sizes).all()
    assert (larger - sizes <= sizes / 8).all()


def test_padded_sizes_are_few_and_stay_as_they_are():
    larger = padded(np.arange(100_000))
    np.testing.assert_array_equal(padded(larger), larger)
    assert len(np.unique(larger)) < 130
    assert (np.diff(larger) >= 0).all()


def test_sizes_up_to_sixteen_and_round_ones_are_not_padded():
    sizes = np.array([*range(17), 18, 20, 32, 36, 15 << 20, 2**33])
    np.testing.assert_array_equal(padded(sizes), sizes)


@pytest.mark.parametrize("sizes", SIZES)
@pytest.mark.parametrize("classes", [0, CLASSES])
def test_held_rows_are_those_of_the_subsets(data, sizes, classes):
    description, x, y = data(sizes, classes)
    for held, _ in selections(16, 20):
        part = Shards.read(description, held, np.float64)
        rows = [np.arange(*description.offsets[k : k + 2]) for k in held]
        rows = np.concatenate([*rows, []]).astype(int)
        np.testing.assert_array_equal(part.x, x[rows])
        np.testing.assert_array_equal(part.y, y[rows])
        np.testing.assert_array_equal(part.sizes, SIZES[sizes][held])
        np.testing.assert_array_equal(part.subsets, held)


def test_rank_without_subsets_has_nothing_to_do(data):
    description, *_ = data("ragged")
    nothing = np.empty(0, np.int64)
    part = Shards.read(description, nothing, np.float64)
    assert (part.nbytes, part.x.shape) == (0, (0, 17))
    assert list(part.batches(part.work(nothing))) == []
    assert list(part.batches(part.work(nothing, 4), Streams(SEED, 0))) == []


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("classes", [0, CLASSES])
def test_nbytes_are_the_bytes_of_the_shards(data, dtype, classes):
    description, *_ = data("ragged", classes)
    held = np.array([0, 2, 3, 5, 15])
    target = 8 if classes else np.dtype(dtype).itemsize
    part = Shards.read(description, held, dtype)
    assert part.nbytes == RAGGED[held].sum() * (17 * np.dtype(dtype).itemsize + target)
    assert part.x.base is None
    assert part.y.base is None


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_reading_takes_the_memory_of_the_shards_and_no_more(tmp_path, dtype):
    description, *_ = make(tmp_path / "data.h5", np.full(40, 1000), features=20)
    held = np.arange(0, 40, 3)
    Shards.read(description, held[:1], dtype)
    tracemalloc.start()
    try:
        part = Shards.read(description, held, dtype)
        current, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert part.nbytes <= current <= part.nbytes + 30_000
    assert peak <= part.nbytes * 1.02 + 30_000


@pytest.mark.parametrize("sizes", SIZES)
@pytest.mark.parametrize("batch_size", [None, 4])
def test_batches_cover_every_wanted_subset_that_has_samples_exactly_once(data, sizes, batch_size):
    description, *_ = data(sizes)
    for held, wanted in selections(16, 20):
        part = Shards.read(description, held, np.float64)
        work = part.work(wanted, batch_size)
        np.testing.assert_array_equal(np.sort(work.subsets), wanted)
        np.testing.assert_array_equal(part.subsets[work.places], work.subsets)
        slots = [np.arange(len(wanted))[chunk] for chunk, _ in work.chunks]
        covered = work.subsets[np.concatenate([*slots, []]).astype(int)]
        np.testing.assert_array_equal(np.sort(covered), wanted[SIZES[sizes][wanted] > 0])
        for batch, rows in zip(part.batches(work, batch_size and Streams(SEED, 1)), slots, strict=True):
            assert batch.x.shape == (*batch.y.shape, 17)
            assert batch.weights.shape == batch.y.shape
            assert len(batch.y) == len(rows)


def test_there_is_one_batch_for_each_padded_size(data):
    description, *_ = data("ragged")
    part = Shards.read(description, everything(description), np.float64)
    work = part.work(everything(description))
    assert [size for _, size in work.chunks] == sorted(set(padded(RAGGED)) - {0})
    assert len(part.work(everything(description), 4).chunks) == 1


@pytest.mark.parametrize("sizes", SIZES)
@pytest.mark.parametrize("name", MODELS)
def test_losses_and_gradients_equal_a_plain_loop(data, sizes, name):
    model = MODELS[name]
    description, x, y = data(sizes, classes_of(model))
    parameters = parameters_of(model, np.float64)
    losses, gradients = one_by_one(description, x, y, model, parameters)
    part = Shards.read(description, everything(description), np.float64)
    for subset, (loss, gradient) in computed(part, model, parameters, everything(description)).items():
        assert loss == pytest.approx(losses[subset], rel=1e-12)
        np.testing.assert_allclose(gradient, gradients[subset], rtol=1e-12, atol=1e-12)
        assert RAGGED[subset] > 0 or sizes != "ragged" or not gradient.any()


@pytest.mark.parametrize("sizes", SIZES)
@pytest.mark.parametrize("name", MODELS)
def test_mean_over_subsets_is_the_average_over_all_samples(data, sizes, name):
    model = MODELS[name]
    description, x, y = data(sizes, classes_of(model))
    parameters = parameters_of(model, np.float64)
    part = Shards.read(description, everything(description), np.float64)
    found = computed(part, model, parameters, everything(description)).values()
    assert np.mean([loss for loss, _ in found]) == pytest.approx(model.losses(parameters, x[None], y[None])[0])
    average = model.gradients(parameters, x[None], y[None])[0]
    np.testing.assert_allclose(np.mean([gradient for _, gradient in found], axis=0), average, atol=1e-12)


def test_loss_at_the_stored_optimum_is_the_stored_loss(tmp_path):
    path = str(tmp_path / "data.h5")
    datasets.linear_regression(path, subsets=10, features=17, samples_per_subset=20, sigma_h=1.0)
    description = layout.describe(path)
    optimum = np.linalg.lstsq(*layout.read_rows(description, "", [(0, 200)], np.float64), rcond=None)[0]
    part = Shards.read(description, np.arange(10), np.float64)
    losses = [loss for loss, _ in computed(part, LinearRegression(), optimum, np.arange(10)).values()]
    assert np.mean(losses) == pytest.approx(description.optimum_loss, rel=1e-12)


@pytest.mark.parametrize("batch_size", [None, 1, 5], ids=["full", "mini-batch of 1", "mini-batch of 5"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("sizes", SIZES)
@pytest.mark.parametrize("name", MODELS)
def test_bits_do_not_depend_on_the_other_subsets(data, name, sizes, dtype, batch_size):
    model = MODELS[name]
    description, *_ = data(sizes, classes_of(model))
    parameters = parameters_of(model, dtype)
    streams = batch_size and Streams(SEED, 3)
    part = Shards.read(description, everything(description), dtype)
    expected = computed(part, model, parameters, everything(description), streams, batch_size)
    for held, wanted in selections(16):
        part = Shards.read(description, held, dtype)
        for subset, (loss, gradient) in computed(part, model, parameters, wanted, streams, batch_size).items():
            assert loss.dtype == gradient.dtype == dtype
            assert loss.tobytes() == expected[subset][0].tobytes()
            assert gradient.tobytes() == expected[subset][1].tobytes()


@pytest.mark.parametrize("name", ["linear", "softmax"])
def test_bits_do_not_depend_on_how_many_subsets_fit_in_a_batch(data, name, monkeypatch):
    model = MODELS[name]
    parameters = parameters_of(model, np.float64)
    for sizes in SIZES:
        description, *_ = data(sizes, classes_of(model))
        found = []
        for workspace in (32 << 20, 5000, 1):
            monkeypatch.setattr(shards, "_WORKSPACE_BYTES", workspace)
            part = Shards.read(description, everything(description), np.float64)
            results = computed(part, model, parameters, everything(description))
            found.append([b"".join(part.tobytes() for part in results[k]) for k in everything(description)])
        assert found[0] == found[1] == found[2]


def test_copies_for_padding_stay_within_the_workspace(data, monkeypatch):
    monkeypatch.setattr(shards, "_WORKSPACE_BYTES", 6_000)
    description, *_ = data("ragged")
    part = Shards.read(description, everything(description), np.float64)
    sizes = [batch.x.nbytes for batch in part.batches(part.work(everything(description)))]
    assert max(sizes) <= 6_000
    assert len(sizes) > len(set(padded(RAGGED)) - {0})


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("sizes", ["equal", "single"])
@pytest.mark.parametrize("wanted", [slice(None), slice(3, 9), slice(15, 16)])
def test_neighbours_of_equal_size_are_not_copied(data, sizes, dtype, wanted):
    description, *_ = data(sizes)
    part = Shards.read(description, everything(description), dtype)
    subsets = everything(description)[wanted]
    (batch,) = part.batches(part.work(subsets))
    assert np.shares_memory(batch.x, part.x)
    assert np.shares_memory(batch.y, part.y)
    assert batch.x.flags.c_contiguous
    assert batch.weights.strides == (0, 0)
    assert batch.weights.dtype == dtype


def test_neighbours_in_memory_are_not_copied_even_where_the_file_has_others_between(data):
    description, *_ = data("equal")
    part = Shards.read(description, np.array([1, 4, 9]), np.float64)
    (batch,) = part.batches(part.work(np.array([1, 4, 9])))
    assert np.shares_memory(batch.x, part.x)


def test_padding_has_weight_zero_and_finite_values(data):
    description, *_ = data("ragged")
    part = Shards.read(description, everything(description), np.float64)
    work = part.work(everything(description))
    for batch in part.batches(work):
        for row, subset in enumerate(work.subsets[batch.slots]):
            size = RAGGED[subset]
            np.testing.assert_allclose(batch.weights[row, :size], 16 / RAGGED.sum(), rtol=1e-15)
            assert not batch.weights[row, size:].any()
        assert np.isfinite(batch.x).all()


def drawn(part, wanted, streams, batch_size=6):
    """The mini-batch of each subset, as bytes."""
    work = part.work(wanted, batch_size)
    found = {}
    for batch in part.batches(work, streams):
        for row, subset in enumerate(work.subsets[batch.slots]):
            found[int(subset)] = batch.x[row].tobytes() + batch.y[row].tobytes()
    return found


def test_mini_batch_depends_on_seed_round_and_subset_only(data):
    description, *_ = data("ragged")
    everyone = Shards.read(description, everything(description), np.float64)
    expected = drawn(everyone, everything(description), Streams(SEED, 3))
    for held, wanted in selections(16, 20):
        part = Shards.read(description, held, np.float64)
        found = drawn(part, wanted, Streams(SEED, 3))
        assert found == {int(k): expected[k] for k in wanted if RAGGED[k] > 0}
    other_round = drawn(everyone, everything(description), Streams(SEED, 4))
    other_seed = drawn(everyone, everything(description), Streams(SEED + 1, 3))
    for subset in np.flatnonzero(RAGGED > 5):
        assert len({expected[subset], other_round[subset], other_seed[subset]}) == 3


def test_mini_batches_of_two_subsets_are_drawn_apart(data):
    description, x, _ = data("equal")
    part = Shards.read(description, everything(description), np.float64)
    work = part.work(everything(description), 6)
    (batch,) = part.batches(work, Streams(SEED, 0))
    rows = [[int(np.flatnonzero((x == sample).all(axis=1))[0]) for sample in block] for block in batch.x]
    assert (np.array(rows) // 12 == np.arange(16)[:, None]).all()  # a subset's own samples
    assert len({tuple(row) for row in np.array(rows) % 12}) == 16


@pytest.mark.parametrize("name", ["linear", "softmax"])
@pytest.mark.parametrize("batch_size", [1, 3])
def test_mean_of_the_mini_batches_approaches_the_full_gradient(data, name, batch_size):
    model, rounds = MODELS[name], 250
    description, *_ = data("ragged", classes_of(model))
    parameters = parameters_of(model, np.float64)
    part = Shards.read(description, everything(description), np.float64)
    full = computed(part, model, parameters, everything(description))
    found = [
        computed(part, model, parameters, everything(description), Streams(SEED, round), batch_size)
        for round in range(rounds)
    ]
    for subset, (_, gradient) in full.items():
        samples = np.array([one[subset][1] for one in found])
        error = np.abs(samples.mean(axis=0) - gradient)
        # Singles are exact; for the others 5 standard errors, and a little for the rounding.
        assert (error <= 5 * samples.std(axis=0) / np.sqrt(rounds) + 1e-12).all()
        assert RAGGED[subset] <= 1 or samples.std(axis=0).max() > 0


@pytest.mark.parametrize("parts", range(1, 8))
@pytest.mark.parametrize("test_samples", [1, 255, 256, 257, 700, 1792])
def test_parts_of_the_test_split_cover_it_once_and_in_order(tmp_path, parts, test_samples):
    description, _, _, test = make(tmp_path / "data.h5", [2, 1], 3, CLASSES, test_samples)
    held = [Shards.read_test(description, part, parts, np.float64) for part in range(parts)]
    np.testing.assert_array_equal(np.concatenate([part.x for part in held]), test[0])
    np.testing.assert_array_equal(np.concatenate([part.y for part in held]), test[1])
    blocks = np.concatenate([part.subsets for part in held])
    np.testing.assert_array_equal(blocks, np.arange(len(blocks)))
    assert max(part.sizes.max(initial=0) for part in held) <= 256
    weights = [batch.weights for part in held for batch in part.batches(part.work(part.subsets))]
    assert sum(weight.sum() for weight in weights) == test_samples


def test_parts_of_the_test_split_differ_by_one_block_at_most(tmp_path):
    description, *_ = make(tmp_path / "data.h5", [2, 1], 3, CLASSES, 256 * 11)
    blocks = [len(Shards.read_test(description, part, 4, np.float32).subsets) for part in range(4)]
    assert sum(blocks) == 11
    assert max(blocks) - min(blocks) <= 1
