"""What device and server remember: the same on both sides, nearer to the message in each round."""

from itertools import pairwise

import numpy as np
import pytest

from mpicoded.algorithms import compressors, memories
from mpicoded.algorithms.allocations import Balanced, Cyclic, Partition, Uniform
from mpicoded.algorithms.compressors import Natural, NoCompression, Qsgd, RandK, Sign, TopK, receive
from mpicoded.algorithms.memories import Ef21, NoMemory
from mpicoded.algorithms.randomness import Streams
from mpicoded.errors import InputError

from .building import each, family

MEMORIES = family(memories.Choice)
DIM, DEVICES = 24, 10
CONTRACTIVE = {
    **family(compressors.Choice, kept=6),
    "none, float32": NoCompression(dtype="float32"),
    "rand_k, shared": RandK(kept=6, shared=True),
    "rand_k, all": RandK(kept=DIM),
    "qsgd, 7": Qsgd(levels=7),
    "qsgd, 127": Qsgd(levels=127),
    "top_k, one": TopK(kept=1),
}


def draw(shape, seed=0, dtype=float):
    return np.random.default_rng(seed).normal(1.0, 2.0, shape).astype(dtype)


class Devices:
    """Some devices, or the server's picture of all: messages → records → states, as a round has it."""

    def __init__(self, compressor, ids, dim=DIM, dtype=float):
        self.compressor, self.ids, self.dim = compressor, np.asarray(ids), dim
        self.state = np.zeros((len(self.ids), dim), dtype)

    def streams(self, round):
        return Streams(3, round, self.ids, nonce=round + 100)

    def pack(self, messages, round):
        residual = messages.copy()
        assert Ef21().residual(residual, self.state) is None
        return self.compressor.compress(residual, self.streams(round)).copy()

    def remember(self, records, round, arrived=None):
        arrived = np.ones(len(records), bool) if arrived is None else arrived
        received = np.full_like(self.state, np.nan)
        _, bad = receive(self.compressor, records.copy(), self.dim, self.streams(round), arrived, DEVICES, received)
        assert Ef21().update(self.state, received, self.compressor.damping(self.dim), DEVICES) is None
        return bad


def squared_errors(compressor, messages, rounds):
    """||g_i - x_i||^2 of every device, for zero memory and after each round, while the messages stay what they are."""
    devices = Devices(compressor, np.arange(len(messages)), messages.shape[1])
    errors = [np.sum(messages**2, axis=1)]
    for round in range(rounds):
        devices.remember(devices.pack(messages, round), round)
        errors.append(np.sum((devices.state - messages) ** 2, axis=1))
    return np.array(errors)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@each(CONTRACTIVE)
def test_devices_and_server_remember_the_same(part, dtype):
    """On two ranks and at the server, to the last bit: also of records that are bad or never came."""
    server, ranks = (
        Devices(part, range(5), dtype=dtype),
        [Devices(part, ids, dtype=dtype) for ids in ([0, 1], [2, 3, 4])],
    )
    for round in range(12):
        messages = draw((5, DIM), round, dtype)
        parts = [rank.pack(messages[rank.ids], round) for rank in ranks]
        if round % 3 == 1:
            parts[1].view(np.uint8).reshape(3, -1)[1] = 0xFF  # what an attack makes of a record
        arrived = np.array([True, round % 4 != 2, True, True, True])
        bad = server.remember(np.concatenate(parts), round, arrived)
        assert bad.tolist() == [False, False, False, round % 3 == 1, False]
        for rank, records in zip(ranks, parts, strict=True):
            rank.remember(records, round, arrived[rank.ids])
        np.testing.assert_array_equal(np.concatenate([rank.state for rank in ranks]), server.state)
    assert server.state.any(axis=1).all()


@each(CONTRACTIVE)
def test_what_was_not_received_is_not_remembered(part):
    devices = Devices(part, range(3))
    devices.remember(devices.pack(draw((3, DIM)), 0), 0)
    before = devices.state.copy()
    devices.remember(devices.pack(draw((3, DIM), 1), 1), 1, np.array([True, False, True]))
    np.testing.assert_array_equal(devices.state[1], before[1])
    assert (devices.state != before).any(axis=1).tolist() == [True, False, True]


def test_residual_and_update_by_their_formulas():
    messages, state, received = draw((3, 4)), draw((3, 4), 1), draw((3, 4), 2)
    residual, updated = messages.copy(), state.copy()
    Ef21().residual(residual, updated)
    np.testing.assert_array_equal(residual, messages - state)
    np.testing.assert_array_equal(updated, state)
    Ef21().update(updated, received.copy(), 0.25, DEVICES)
    np.testing.assert_array_equal(updated, state + 0.25 * received)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_what_lies_have_made_too_long_for_any_rule_starts_from_zero(dtype):
    """Where distances between so many votes would overflow; whichever devices are looked at beside it."""
    longest = np.sqrt(np.finfo(dtype).max / (16 * DEVICES) / DIM)
    factors = np.array([[1.0], [0.6], [0.3], [-0.6]])
    for rows in ([0, 1, 2, 3], [1], [2, 3]):
        state = (0.5 * longest * np.ones((4, DIM)) * np.sign(factors)).astype(dtype)[rows]
        received = (longest * np.ones((4, DIM)) * factors).astype(dtype)[rows]
        expected = (state + received) * (np.abs(factors) < 0.5)[rows]
        assert np.isfinite(expected).all()
        Ef21().update(state, received, 1.0, DEVICES)
        np.testing.assert_array_equal(state, expected)


@pytest.mark.parametrize("compressor", [TopK(kept=1), TopK(kept=7), TopK(kept=24), Sign()], ids=repr)
def test_the_error_of_a_deterministic_compressor_shrinks_in_every_round(compressor):
    """||x - g'||^2 <= (1 - alpha) ||x - g||^2, for every device."""
    rate = 1 - compressor.contraction(DIM)
    errors = squared_errors(compressor, draw((20, DIM)), 30)
    assert (errors[1:] <= rate * errors[:-1] * (1 + 1e-9) + 1e-25).all()


def test_top_k_has_sent_all_after_as_many_rounds_as_it_takes():
    errors = squared_errors(TopK(kept=7), draw((20, DIM)), 4)  # 7 + 7 + 7 + 3
    assert (errors[3] > 1e-6 * errors[0]).all()
    assert (errors[4] < 1e-28 * errors[0]).all()


@each({name: part for name, part in CONTRACTIVE.items() if not part.common})
def test_the_mean_error_shrinks_at_least_as_the_contraction_says(part):
    """Of 4000 devices with one message, for six rounds: within five standard errors."""
    rate = 1 - part.contraction(DIM)
    errors = squared_errors(part, np.tile(draw(DIM), (4000, 1)), 6)
    for before, after in pairwise(errors):
        above = after - rate * before
        assert above.mean() <= 5 * np.std(above) / np.sqrt(len(above)) + 1e-12 * errors[0].mean()


@each(CONTRACTIVE)
def test_a_message_that_stays_is_remembered_in_the_end(part):
    errors = squared_errors(part, draw((5, DIM)), 300)
    assert (errors[-1] < 1e-12 * errors[0]).all()


def test_without_damping_unbiased_compressors_would_not_converge(monkeypatch):
    monkeypatch.setattr(Qsgd, "damping", lambda self, dim: 1.0)
    errors = squared_errors(Qsgd(levels=1), draw((5, DIM)), 60)
    assert (errors[-1] > errors[0]).any()


@pytest.mark.parametrize("allocation", [Cyclic(redundancy=3)], ids=repr)
def test_tasks_that_vary_cannot_be_remembered(allocation):
    text = (
        r"^memory ef21: allocation cyclic gives a device another task in each round, .*; "
        r"use a fixed one \(cyclic with permute = false, balanced\)$"
    )
    with pytest.raises(InputError, match=text):
        Ef21().check(allocation, TopK(kept=3), DIM)
    NoMemory().check(allocation, TopK(kept=3), DIM)


@pytest.mark.parametrize(
    "allocation",
    [Cyclic(redundancy=3, permute=False), Balanced(redundancy=3), Uniform(redundancy=3), Partition()],
    ids=repr,
)
@each(CONTRACTIVE)
def test_fixed_tasks_and_contractive_compressors_can_be_remembered(part, allocation):
    Ef21().check(allocation, part, DIM)


def test_compressors_that_do_not_contract_cannot_be_fed_back():
    text = r"^memory ef21: compressor sign is not contractive as it is set, .* \(sign: scaled = true\)$"
    with pytest.raises(InputError, match=text):
        Ef21().check(Partition(), Sign(scaled=False), DIM)
    NoMemory().check(Partition(), Sign(scaled=False), DIM)
    Ef21().check(Partition(), Natural(), DIM)


@each(MEMORIES)
def test_a_memory_says_whether_it_has_a_state(part):
    messages, state, received = draw((3, 4)), draw((3, 4), 1), draw((3, 4), 2)
    residual, updated = messages.copy(), state.copy()
    part.residual(residual, updated)
    part.update(updated, received, 0.5, DEVICES)
    assert part.remembers == (residual != messages).any() == (updated != state).any()


def test_no_memory_has_none():
    assert [name for name, part in MEMORIES.items() if not part.remembers] == ["none"]
