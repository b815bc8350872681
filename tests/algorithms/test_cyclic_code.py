"""The cyclic code gives the mean whatever s devices send, and says where it cannot."""

from itertools import combinations

import numpy as np
import pytest

from mpicoded.algorithms.allocations import Balanced, Cyclic, Repetition
from mpicoded.algorithms.compressors import NoCompression, Qsgd, RandK
from mpicoded.algorithms.encoders import CyclicCode
from mpicoded.algorithms.encoders.cyclic_code import order_of
from mpicoded.algorithms.encoders.real_code import Locator, hidden, places, tolerance, windows
from mpicoded.algorithms.encoders.tasks import tasks_of
from mpicoded.algorithms.randomness import Streams
from mpicoded.errors import InputError

CODES = [(5, 1, 1, True), (7, 3, 1, True), (8, 2, 2, False), (12, 3, 1, True), (15, 2, 4, True), (15, 7, 1, False)]
CODES += [(16, 7, 1, True), (31, 6, 1, True), (100, 3, 2, True)]
codes = pytest.mark.parametrize(("devices", "liars", "size", "permute"), CODES)


def encode(devices, liars, size=1, permute=True, dtype=np.float64, dim=11, seed=0):
    """The code's parts, honest messages and what should come out."""
    subsets = devices * size
    allocation = Cyclic(redundancy=(2 * liars + 1) * size, permute=permute)
    assignment = allocation.assignment(devices, subsets, seed, 4)
    encoder = CyclicCode(byzantine=liars)
    gradients = np.random.default_rng(seed).normal(1, 2, (subsets, dim)).astype(dtype)
    messages = encoder.code(assignment, 0, devices).weights.astype(dtype) @ gradients
    return encoder.decoder(assignment), messages, gradients.mean(axis=0, dtype=np.float64)


def decode(decoder, messages, usable=None):
    usable = np.ones(len(messages), bool) if usable is None else usable
    return decoder.decode(np.where(usable[:, None], messages, 0), usable, np.random.default_rng(9))


def liars_of(order, liars, rng):
    """Neighbours in the circle, and any devices."""
    start = rng.integers(len(order))
    return [order[(start + np.arange(liars)) % len(order)], rng.permutation(len(order))[:liars]]


def lies(messages, who, rng):
    """What they may send."""
    shape = (len(who), messages.shape[1])
    sizes = 10.0 ** rng.uniform(-8, 9, (len(who), 1))
    one = np.zeros(shape)
    one[0, 0] = 1
    yield rng.normal(size=shape)
    yield -messages[who]
    yield np.tile(rng.normal(size=shape[1]), (len(who), 1))
    yield messages[who] + sizes * rng.normal(size=shape)
    yield messages[who] + one  # one device alone, in one number
    yield 1e152 * rng.normal(size=shape)
    yield np.where(np.arange(len(who))[:, None] % 2, 1e152, 1) * rng.normal(size=shape)


@codes
def test_the_mean_is_exact_whatever_the_liars_send(devices, liars, size, permute):
    decoder, messages, mean = encode(devices, liars, size, permute)
    bound = max(hidden(devices, liars, "float64"), 2e-14)
    rng = np.random.default_rng(1)
    for who in liars_of(decoder.order, liars, rng):
        for lie in lies(messages, who, rng):
            received = messages.copy()
            received[who] = lie
            decoded = decode(decoder, received)
            assert np.linalg.norm(decoded.votes[0] - mean) <= bound * np.linalg.norm(mean)
            accused = set(np.flatnonzero(decoded.accused))
            assert accused <= set(who.tolist())
            changed = np.abs(received - messages).max(axis=1) > 1e-9
            if liars <= 3 and devices <= 16 and np.abs(received).max() < 1e3:
                assert accused >= set(np.flatnonzero(changed))


@codes
def test_missing_messages_count_half(devices, liars, size, permute):
    decoder, messages, mean = encode(devices, liars, size, permute)
    rng = np.random.default_rng(2)
    for lying in range(liars + 1):
        usable = np.ones(devices, bool)
        chosen = rng.permutation(devices)[: 2 * liars - lying]
        usable[chosen[lying:]] = False
        received = messages.copy()
        received[chosen[:lying]] *= -1
        decoded = decode(decoder, received, usable)
        np.testing.assert_allclose(decoded.votes[0], mean, rtol=1e-6)
        assert set(np.flatnonzero(decoded.accused)) <= set(chosen[:lying].tolist())


@pytest.mark.parametrize(("devices", "liars"), [(9, 2), (20, 2), (41, 1)])
def test_single_precision(devices, liars):
    decoder, messages, mean = encode(devices, liars, dtype=np.float32, dim=2000)
    rng = np.random.default_rng(3)
    for who in liars_of(decoder.order, liars, rng):
        received = messages.copy()
        received[who] = rng.normal(size=(liars, 2000))
        decoded = decode(decoder, received)
        assert decoded.votes.dtype == np.float32
        np.testing.assert_allclose(decoded.votes[0], mean, atol=1e-5)


def test_more_liars_than_the_code_can_tell_give_the_median_and_accuse_nobody():
    decoder, messages, _ = encode(15, 3)
    received = messages.copy()
    received[[0, 2, 4, 6]] = np.random.default_rng(0).normal(size=(4, 11))
    decoded = decode(decoder, received)
    np.testing.assert_allclose(decoded.votes, np.median(received, axis=0)[None])
    assert decoded.accused is None
    usable = np.arange(15) >= 7  # more missing than 2s
    np.testing.assert_allclose(decode(decoder, messages, usable).votes, np.median(messages[usable], axis=0)[None])
    np.testing.assert_array_equal(decode(decoder, messages, np.zeros(15, bool)).votes, np.zeros((1, 11)))
    assert [CyclicCode(byzantine=3).corrupted(np.ones((15, 1), bool), f) for f in (0, 3, 4)] == [0, 0, 1]


@pytest.mark.parametrize(("devices", "liars"), [(5, 1), (9, 2), (10, 2), (21, 10), (30, 14), (45, 6)])
def test_weights_by_their_spectrum(devices, liars):
    """Of sum 1, along 2s+1 neighbours, and without the 2s frequencies nearest to n/2."""
    length = places(devices)
    rows = windows(devices, liars)
    np.testing.assert_allclose(rows.sum(axis=1), 1, rtol=1e-13)
    assert (rows[-1] > 0).all()
    assert len(rows) == (1 if devices % 2 else 2 * liars + 1)
    for gap, weights in enumerate(rows[:-1], 1):
        spectrum = np.fft.fft(np.insert(weights, gap, 0), length)
        assert np.abs(spectrum[(length + 1) // 2 - liars :][: 2 * liars]).max() < 1e-13
    spectrum = np.fft.fft(rows[-1], length)
    assert np.abs(spectrum[(length + 1) // 2 - liars :][: 2 * liars]).max() < 1e-15
    if 2 * liars + 1 == devices:
        np.testing.assert_allclose(rows[-1], 1 / devices, rtol=1e-15)


@pytest.mark.parametrize(("devices", "liars"), [(7, 1), (7, 2), (9, 2), (9, 3), (11, 2)])
def test_what_can_be_hidden_by_all_sets_of_places(devices, liars):
    """The largest mean of a signal at 2s places whose part at the parity's frequencies is 1: neighbours are worst."""
    parity = Locator(devices, liars).parity
    np.testing.assert_allclose(parity @ parity.T, np.eye(2 * liars), atol=1e-14)
    means = {
        chosen: np.linalg.norm(np.linalg.solve(parity[:, chosen].T, np.ones(2 * liars))) / np.sqrt(devices)
        for chosen in combinations(range(devices), 2 * liars)
    }
    expected = hidden(devices, liars, "float64") / tolerance(devices, liars, "float64")
    assert max(means.values()) == pytest.approx(expected, rel=1e-9)
    assert means[tuple(range(2 * liars))] == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize(("devices", "load"), [(5, 3), (9, 3), (9, 7), (9, 8), (9, 9), (40, 7)])
def test_the_circle_is_found_in_permuted_windows(devices, load):
    for seed in range(5):
        held = tasks_of(Cyclic(redundancy=load).assignment(devices, devices, seed, 0)).held
        inside = held[order_of(held)]
        assert ((inside & ~np.roll(inside, 1, axis=0)).sum(axis=0) <= 1).all()
        assert set(order_of(held)) == set(range(devices))


def check(devices, liars, compressor=None, dtype="float64", assignment=None):
    if assignment is None:
        assignment = Cyclic(redundancy=2 * liars + 1).assignment(devices, devices, 0, 0)
    CyclicCode(byzantine=liars).check(assignment, compressor or NoCompression(), dtype)


def test_refused_where_lies_could_hide_in_the_rounding():
    check(100, 3)
    check(15, 7, dtype="float32")
    for devices, liars, dtype, nearest in ((100, 20, "float64", 3), (100, 4, "float64", 3), (45, 14, "float64", 16)):
        with pytest.raises(InputError, match=rf"byzantine = {liars} on {devices} .* that works is {nearest};"):
            check(devices, liars, dtype=dtype)
    with pytest.raises(InputError, match=r"in float32: lies could hide a relative error of .*, more than 0\.001"):
        check(45, 3, dtype="float32")


def test_refused_where_windows_are_no_circle():
    for assignment, copies in (
        (Cyclic(redundancy=5).assignment(9, 9, 0, 0), "5 to 5"),
        (Balanced(redundancy=3).assignment(9, 9, 0, 0), "3 to 3"),
        (Repetition(copies=3).assignment(9, 9, 0, 0), "3 to 3"),
        (np.eye(9, dtype=bool), "1 to 1"),
    ):
        with pytest.raises(InputError, match=f"byzantine = 1 needs subsets that 3 neighbours .* {copies} copies"):
            check(9, 1, assignment=assignment)
    with pytest.raises(InputError, match="11 neighbours of 9"):
        check(9, 5, assignment=np.ones((9, 9), bool))


@pytest.mark.parametrize(
    "compressor",
    [Qsgd(levels=4), RandK(kept=2), RandK(kept=2, shared=True, dtype="float32"), NoCompression(dtype="float32")],
)
def test_refused_with_a_compressor_that_loses_digits(compressor):
    with pytest.raises(InputError, match=f"none or rand_k with shared = true.*got {compressor.name()}"):
        check(9, 1, compressor)
    check(9, 1, NoCompression(dtype="float64"))


def test_shared_coordinates_are_decoded_exactly():
    compressor = RandK(kept=4, shared=True)
    check(9, 2, compressor)
    decoder, messages, mean = encode(9, 2)
    streams = Streams(0, 0, np.arange(9), 77)
    received = messages.copy()
    received[[1, 5]] *= -3
    decompressed = compressor.decompress(compressor.compress(received, streams), 11, streams)
    expected = compressor.decompress(compressor.compress(np.tile(mean, (9, 1)), streams), 11, streams)[0]
    decoded = decode(decoder, decompressed)
    np.testing.assert_allclose(decoded.votes[0], expected, rtol=1e-12, atol=1e-12)
    np.testing.assert_array_equal(np.flatnonzero(decoded.accused), [1, 5])


def test_errors_that_look_almost_like_others_do_no_harm():
    """Liars and honest neighbours whose errors together would leave next to nothing at the parity's frequencies."""
    devices, liars = 45, 5
    decoder, messages, mean = encode(devices, liars)
    _, sizes, vectors = np.linalg.svd(Locator(devices, liars).parity[:, : 2 * liars])
    direction = np.random.default_rng(0).normal(size=11)
    for times in np.geomspace(0.01, 1e4, 12):
        for half in (slice(0, liars), slice(0, 2 * liars, 2)):
            size = times * tolerance(devices, liars, "float64") * np.linalg.norm(messages) / sizes[-1]
            received = messages.copy()
            who = decoder.order[: 2 * liars][half]
            received[who] += (vectors[-1][half] * size)[:, None] * direction / np.linalg.norm(direction)
            decoded = decode(decoder, received)
            assert np.linalg.norm(decoded.votes[0] - mean) <= 1e-6 * np.linalg.norm(mean)
            assert decoded.accused is not None
            assert set(np.flatnonzero(decoded.accused)) <= set(who.tolist())


@pytest.mark.parametrize(("liars", "seed"), [(17, 12), (17, 16), (20, 1), (20, 2)])
def test_errors_of_all_sizes_at_once(liars, seed):
    """12 and 16 are draws that take a wider tolerance, and dropping what explains nothing."""
    decoder, messages, mean = encode(45, liars)
    rng = np.random.default_rng(seed)
    who = rng.permutation(45)[:liars]
    received = messages.copy()
    received[who] += 10.0 ** rng.uniform(-6, 9, (liars, 1)) * rng.normal(size=(liars, 11))
    decoded = decode(decoder, received)
    assert decoded.accused is not None
    np.testing.assert_allclose(decoded.votes[0], mean, atol=1e-6)


@pytest.mark.parametrize(("devices", "liars", "dtype"), [(45, 16, "float64"), (30, 8, "float64"), (45, 21, "float32")])
@pytest.mark.parametrize("ratio", [1e3, 1e6])
def test_one_large_gradient_and_small_lies(devices, liars, dtype, ratio):
    """The largest messages are honest ones here, not lies."""
    rng = np.random.default_rng(0)
    encoder = CyclicCode(byzantine=liars)
    assignment = Cyclic(redundancy=2 * liars + 1, permute=False).assignment(devices, devices, 0, 0)
    decoder, weights = encoder.decoder(assignment), encoder.code(assignment, 0, devices).weights.astype(dtype)
    for _ in range(10):
        gradients = rng.normal(1, 1, (devices, 11))
        gradients[rng.integers(devices)] *= ratio
        messages = weights @ gradients.astype(dtype)
        largest = np.linalg.norm(messages, axis=1).max()
        mean = gradients.astype(dtype).mean(axis=0, dtype=np.float64)
        messages[rng.permutation(devices)[:liars]] = 0
        decoded = decode(decoder, messages)
        assert decoded.accused is not None
        assert np.linalg.norm(decoded.votes[0] - mean) <= {"float64": 1e-6, "float32": 1e-3}[dtype] * largest


def test_large_errors_do_not_excuse_themselves():
    """They leave little next to their own size, but much next to honest messages."""
    locator, signals = Locator(45, 5), np.ones((45, 4))
    signals[:5] += 1e8 * np.linalg.svd(locator.parity[:, :5])[2][-1][:, None]
    assert np.linalg.norm(locator.parity @ signals) < 1e-2 * np.linalg.norm(signals)
    gone = locator.places(signals, np.zeros(45, bool), 1e-2)
    np.testing.assert_array_equal(np.flatnonzero(gone), np.arange(5))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(("devices", "liars", "size"), [(15, 7, 1), (16, 5, 1), (20, 2, 10), (45, 20, 1), (100, 3, 10)])
def test_rounding_is_well_within_the_tolerance(devices, liars, size, dtype):
    parity = Locator(places(devices), liars).parity
    for seed, dim in enumerate((1, 3, 50, 5000)):
        decoder, messages, _ = encode(devices, liars, size, dtype=dtype, dim=dim, seed=seed)
        projected = messages[decoder.order].astype(np.longdouble) @ np.random.default_rng(0).normal(size=(dim, 4))
        left = np.linalg.norm((parity[:, :devices] @ projected).astype(float))
        size_of_all = np.linalg.norm(projected.astype(float))
        assert left <= 0.7 * tolerance(devices, liars, np.dtype(dtype).name) * size_of_all
