"""What device and server remember, against the papers' formulas in slow loops, and against what lies do to it."""

from itertools import pairwise

import numpy as np
import pytest

from mpicoded.algorithms import compressors, memories
from mpicoded.algorithms.allocations import Balanced, Cyclic, Partition, Uniform
from mpicoded.algorithms.compressors import Natural, NoCompression, Qsgd, RandK, Sign, TopK
from mpicoded.algorithms.memories import DashaPage, Dm21, Ef21, Marina, Momentum, NoMemory, ServerMomentum
from mpicoded.algorithms.memories.base import coins, follow
from mpicoded.algorithms.randomness import Streams
from mpicoded.errors import InputError

from .building import each, family
from .protocol import SEED, Protocol
from .slow_memories import Slow

DIM, DEVICES = 24, 5
MEMORIES = {
    **family(memories.Choice),
    "dm21, variance_reduced": Dm21(eta=0.3, variance_reduced=True),
    "marina, own": Marina(anchor="own", probability=0.3),
    "momentum, 0": Momentum(beta=0.0),
}
COMPRESSORS = {
    **family(compressors.Choice, kept=6),
    "none, float32": NoCompression(dtype="float32"),
    "rand_k, shared": RandK(kept=6, shared=True),
    "rand_k, all": RandK(kept=DIM),
    "qsgd, 7": Qsgd(levels=7),
    "qsgd, 127": Qsgd(levels=127),
    "top_k, one": TopK(kept=1),
}


def fits(memory, compressor, allocation=None):
    try:
        memory.check(allocation or Partition(), compressor, DIM)
    except InputError:
        return False
    return True


PAIRS = {
    f"{name}, {compressor}": (part, COMPRESSORS[compressor])
    for name, part in MEMORIES.items()
    for compressor in ("none", "rand_k", "rand_k, shared", "top_k", "qsgd, 7")
    if fits(part, COMPRESSORS[compressor])
}
every_pair = pytest.mark.parametrize(("memory", "compressor"), list(PAIRS.values()), ids=list(PAIRS))
GROUPS = [[0, 1], [2, 3, 4]]


def draw(shape, seed=0, dtype=float):
    return np.random.default_rng(seed).normal(1.0, 2.0, shape).astype(dtype)


def messages_of(rounds, seed=0, devices=DEVICES, dim=DIM):
    """Of mini-batches at the present and at the previous parameters, and of all samples."""
    return draw((3, rounds, devices, dim), seed)


def expected_votes(memory, compressor, now, before, full):
    devices, dim = now.shape[1:]
    slow = [Slow(memory, compressor, dim) for _ in range(devices)]
    last, votes = np.zeros(dim), []
    for t in range(len(now)):
        heads = coins(SEED, np.array([t]), getattr(memory, "probability", 1.0))[0]

        def lossy(vector, device, t=t):
            streams = Streams(SEED, t, np.array([device]), nonce=t + 100)
            return compressor.decompress(compressor.compress(vector[None], streams), dim, streams)[0].copy()

        votes.append(
            np.array(
                [
                    slow[i].vote(
                        t, now[t, i], before[t, i], full[t, i], heads, last, lambda vector, i=i: lossy(vector, i)
                    )
                    for i in range(devices)
                ]
            )
        )
        last = votes[t].mean(axis=0)
    return np.array(votes)


def run(memory, compressor, now, before, full, groups=GROUPS, **words):
    protocol = Protocol(memory, compressor, groups, now.shape[-1], words.pop("dtype", float))
    votes = []
    for t in range(len(now)):
        turn = protocol.turn()
        votes.append(protocol.step(full[t] if turn.whole else now[t], before[t], **words).copy())
    return np.array(votes), protocol


@every_pair
def test_votes_are_those_of_the_papers_formulas(memory, compressor):
    given = messages_of(10)
    votes, _ = run(memory, compressor, *given)
    expected = expected_votes(memory, compressor, *given)
    assert np.abs(expected).max() > 0.1
    np.testing.assert_allclose(votes, expected, rtol=1e-9, atol=1e-9 * np.abs(expected).max())


@every_pair
def test_devices_and_server_remember_the_same_on_any_ranks(memory, compressor):
    """To the last bit: also of records that are bad or never came."""
    now, before, full = messages_of(5)
    runs = [
        Protocol(memory, compressor, groups, DIM, np.float32)
        for groups in ([[0, 1, 2, 3, 4]], GROUPS, [[0], [1], [2, 3, 4]])
    ]
    for t in range(5):
        arrived = np.array([True, t % 4 != 2, True, True, True])

        def spoil(raw, ids, t=t):
            if t % 3 == 1:
                raw[ids == 3] = 0xFF  # what an attack makes of a record

        votes = [
            part.step(full[t] if part.turn().whole else now[t], before[t], spoil=spoil, arrived=arrived)
            for part in runs
        ]
        assert votes[0].dtype == np.float32
        for other, part in zip(votes[1:], runs[1:], strict=True):
            np.testing.assert_array_equal(other, votes[0])
            np.testing.assert_array_equal(np.concatenate(part.states, axis=1), runs[0].states[0])
            np.testing.assert_array_equal(part.table, runs[0].table)
        assert votes[0].any(axis=1).tolist() == [True, t % 4 != 2, True, t % 3 != 1, True]
        if isinstance(memory, Ef21 | Dm21 | DashaPage):
            np.testing.assert_array_equal(runs[0].states[0][-1], runs[0].table[0])


@every_pair
def test_a_device_that_says_nothing_is_as_it_was_at_the_server_and_others_notice_nothing(memory, compressor):
    given = messages_of(6)
    _, protocol = run(memory, compressor, *(part[:5] for part in given))
    twin = run(memory, compressor, *(part[:5] for part in given))[1]
    before = protocol.table.copy()
    now = given[2][5] if protocol.turn().whole else given[0][5]
    votes = protocol.step(now, given[1][5], arrived=np.array([True, False, True, True, True]))
    others = [0, 2, 3, 4]
    np.testing.assert_array_equal(protocol.table[:, 1], before[:, 1])
    np.testing.assert_array_equal(votes[others], twin.step(now, given[1][5])[others])
    assert not votes[1].any()


@each({name: part for name, part in MEMORIES.items() if part.device_slots})
def test_lies_do_not_touch_what_a_device_knows_of_its_own_gradients(part):
    """A device that was Byzantine for a while goes on from the true momentum, or estimate of the gradient."""
    compressor = RandK(kept=6)
    own = slice(0, part.device_slots - (0 if isinstance(part, Momentum) else 1))
    if isinstance(part, DashaPage):
        own = slice(0, 1)

    def lie(said, ids):
        said[ids == 3] *= -100
        said[ids == 1] = np.inf
        return said

    honest, lied = (run(part, compressor, *messages_of(10), **words)[1] for words in ({}, {"forge": lie}))
    for mine, theirs in zip(honest.states, lied.states, strict=True):
        np.testing.assert_array_equal(theirs[own], mine[own])


def constant(part, compressor, rounds, devices=DEVICES, seed=0):
    """Rounds in which the messages stay what they are; the last votes and the protocol."""
    x = np.broadcast_to(draw((devices, DIM), seed), (rounds, devices, DIM))
    votes, protocol = run(part, compressor, x, x, x, groups=[list(range(devices))])
    return x[0], votes[-1], protocol


FEEDING_BACK = {
    f"{name}, {part.name()}": (MEMORIES[name], part)
    for name in ("ef21", "dm21", "dm21, variance_reduced", "marina, own", "dasha_page")
    for part in ([RandK(kept=12)] if name in ("marina, own", "dasha_page") else [RandK(kept=12), TopK(kept=12)])
}


@pytest.mark.unchecked
@pytest.mark.parametrize(("memory", "compressor"), list(FEEDING_BACK.values()), ids=list(FEEDING_BACK))
def test_a_message_that_stays_is_known_in_the_end(memory, compressor):
    x, votes, _ = constant(memory, compressor, 60)
    np.testing.assert_allclose(votes, x, atol=1e-2)


@every_pair
def test_whatever_is_said_states_stay_finite_and_short_enough(memory, compressor):
    """Not finite, too long, or bytes that mean nothing."""
    x = draw((DEVICES, DIM))
    protocol, rng = Protocol(memory, compressor, GROUPS, DIM), np.random.default_rng(0)
    longest = np.sqrt(np.finfo(float).max / (16 * DEVICES)) / DIM

    def forge(said, ids):
        said[ids == 0] = [np.inf, np.nan, longest, -longest][protocol.round % 4]
        said[ids == 1, :3] = [np.inf, -np.inf, np.nan]  # where rand_k may not look
        said[ids == 2] = longest * rng.uniform(-1, 1)
        return said

    def spoil(raw, ids):
        raw[ids == 3] = rng.integers(0, 256, raw.shape[1])

    with np.errstate(all="ignore"):
        for _ in range(20):
            votes = protocol.step(x, x, forge=forge, spoil=spoil)
            for array in (votes, protocol.table, *protocol.states):
                assert np.isfinite(array).all()
                assert (np.einsum("...i,...i->...", array, array) <= np.finfo(float).max / (16 * DEVICES)).all()


@pytest.mark.unchecked
@pytest.mark.parametrize(("memory", "compressor"), list(FEEDING_BACK.values()), ids=list(FEEDING_BACK))
def test_lies_are_gone_in_the_end(memory, compressor):
    """A hundred times the message, or no number at all, for a while."""
    x, protocol = draw((DEVICES, DIM)), Protocol(memory, compressor, GROUPS, DIM)

    def forge(said, ids):
        said[ids == 1] *= -100
        said[ids == 2, :3] = [np.inf, -np.inf, np.nan]
        return said

    with np.errstate(invalid="ignore"):
        for _ in range(10):
            protocol.step(x, x, forge=forge)
            assert np.isfinite(np.concatenate([protocol.table.ravel(), *map(np.ravel, protocol.states)])).all()
    for _ in range(100):
        votes = protocol.step(x, x)
    np.testing.assert_allclose(votes, x, atol=1e-2)


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
        again = follow(state, received, DEVICES)
        np.testing.assert_array_equal(state, expected)
        np.testing.assert_array_equal(again, ~(np.abs(factors) < 0.5)[rows, 0])


def squared_errors(part, compressor, messages, rounds):
    """||g_i - x_i||^2 of every device, for zero memory and after each round, while the messages stay what they are."""
    protocol = Protocol(part, compressor, [np.arange(len(messages))], messages.shape[1])
    errors = [np.sum(messages**2, axis=1)]
    for _ in range(rounds):
        protocol.step(messages)
        errors.append(np.sum((protocol.table[0] - messages) ** 2, axis=1))
    return np.array(errors)


@pytest.mark.parametrize("compressor", [TopK(kept=1), TopK(kept=7), TopK(kept=24), Sign()], ids=repr)
def test_the_error_of_a_deterministic_compressor_shrinks_in_every_round(compressor):
    """||x - g'||^2 <= (1 - alpha) ||x - g||^2, for every device."""
    rate = 1 - compressor.contraction(DIM)
    errors = squared_errors(Ef21(), compressor, draw((20, DIM)), 30)
    assert (errors[1:] <= rate * errors[:-1] * (1 + 1e-9) + 1e-25).all()


def test_top_k_has_sent_all_after_as_many_rounds_as_it_takes():
    errors = squared_errors(Ef21(), TopK(kept=7), draw((20, DIM)), 4)  # 7 + 7 + 7 + 3
    assert (errors[3] > 1e-6 * errors[0]).all()
    assert (errors[4] < 1e-28 * errors[0]).all()


@each({name: part for name, part in COMPRESSORS.items() if not part.common})
def test_the_mean_error_shrinks_at_least_as_the_contraction_says(part):
    """Of 4000 devices with one message, for six rounds: within five standard errors."""
    rate = 1 - part.contraction(DIM)
    errors = squared_errors(Ef21(), part, np.tile(draw(DIM), (4000, 1)), 6)
    for before, after in pairwise(errors):
        above = after - rate * before
        assert above.mean() <= 5 * np.std(above) / np.sqrt(len(above)) + 1e-12 * errors[0].mean()


def test_without_damping_unbiased_compressors_would_not_converge(monkeypatch):
    monkeypatch.setattr(Qsgd, "damping", lambda self, dim: 1.0)
    errors = squared_errors(Ef21(), Qsgd(levels=1), draw((5, DIM)), 60)
    assert (errors[-1] > errors[0]).any()


@pytest.mark.unchecked
def test_what_compression_has_lost_shrinks_under_lies_too():
    """DASHA: of y_i, what was last said, and g_i, what is known of it, E(g_i - y_i) shrinks by 1 - a in each round."""
    compressor, a = RandK(kept=6), 1 / 7
    protocol = Protocol(DashaPage(), compressor, [np.arange(DEVICES)], DIM)
    x, lies = draw((DEVICES, DIM)), draw((40, DEVICES, DIM), 1)

    def lie(said, ids):
        said[:2] = lies[protocol.round, :2]
        return said

    for _ in range(40):
        protocol.step(x, x, forge=lie)
    (_, z, g) = protocol.states[0]
    np.testing.assert_allclose((z - a * g)[:2] / (1 - a), lies[39, :2], atol=1e-9)
    np.testing.assert_allclose((z - a * g)[2:] / (1 - a), x[2:], atol=1e-9)
    np.testing.assert_allclose(protocol.table[0], g)
    for _ in range(150):
        protocol.step(x, x)
    np.testing.assert_allclose(g, x, atol=1e-6)


def test_dasha_counts_as_said_what_was_received():
    """A message that is lost is as if it had not been said; of one that is no number, what is known is taken."""
    protocol, x = Protocol(DashaPage(), RandK(kept=6), [np.arange(DEVICES)], DIM), draw((DEVICES, DIM))
    for _ in range(4):
        protocol.step(x, x / 2)
    before = protocol.states[0].copy()
    streams = protocol._streams(np.array([1]))
    ones = protocol.compressor.compress(np.ones((1, DIM)), streams)
    unseen = protocol.compressor.decompress(ones, DIM, streams)[0] == 0

    def forge(said, ids):
        said[1, unseen] = np.inf
        said[3] = np.inf
        return said

    with np.errstate(invalid="ignore"):
        protocol.step(x, x / 2, forge=forge, arrived=np.array([True, True, False, True, True]))
    _, z, g = protocol.states[0]
    np.testing.assert_array_equal(z[2:4], before[1, 2:4])
    np.testing.assert_array_equal(g[2:4], before[2, 2:4])
    assert (g[1] != before[2, 1]).any()
    np.testing.assert_array_equal(z[1], g[1])


def test_numbers_of_hand():
    """One coordinate, no loss: what each memory makes of the messages 8, 4, 4 (and 6, 3 at the previous parameters)."""
    now, before = np.array([8.0, 4.0, 4.0])[:, None, None], np.array([0.0, 6.0, 3.0])[:, None, None]
    votes = {
        "momentum": Momentum(beta=0.5),  # 4, 2 + 2, 2 + 2
        "server": ServerMomentum(beta=0.75),  # 2, 1.5 + 1, 1.875 + 1
        "ef21": Ef21(),
        "dm21": Dm21(eta=0.5),  # v 8, 6, 5; u 8, 7, 6
        "vr": Dm21(eta=0.5, variance_reduced=True),  # v 8, 4 + (8 - 6)/2 = 5, 4 + (5 - 3)/2 = 5; u 8, 6.5, 5.75
        "marina": Marina(probability=1e-12),  # 8, 8 - 2, 6 + 1
        "own": Marina(probability=1e-12, anchor="own"),
        "dasha": DashaPage(probability=1e-12),
        "heads": DashaPage(probability=1.0),
    }
    found = {
        name: run(part, NoCompression(), now, before, now, groups=[[0]])[0].ravel().tolist()
        for name, part in votes.items()
    }
    assert found == {
        "momentum": [4, 4, 4],
        "server": [2, 2.5, 2.875],
        "ef21": [8, 4, 4],
        "dm21": [8, 7, 6],
        "vr": [8, 6.5, 5.75],
        "marina": [8, 6, 7],
        "own": [8, 6, 7],
        "dasha": [8, 6, 7],
        "heads": [8, 4, 4],
    }


def quadratic(part, compressor, rounds, step, noise=0.0, seed=0):
    """How far from the optimum gradient descent on 10 different quadratics of 12 parameters ends, start at 1.

    Samples shift a device's gradient by noise that is the same at both points of a round, and weigh its curvature.
    """
    rng = np.random.default_rng(seed)
    devices, dim = 10, 12
    roots = rng.normal(size=(devices, dim, dim))
    curves = np.einsum("nij,nkj->nik", roots, roots) / dim + np.eye(dim)
    centres = 3 * rng.normal(size=(devices, dim))
    pulls = np.einsum("nij,nj->ni", curves, centres)
    optimum = np.linalg.solve(curves.sum(axis=0), pulls.sum(axis=0))
    protocol = Protocol(part, compressor, [np.arange(devices)], dim)
    x = previous = optimum + 1
    distances = []
    for _ in range(rounds):
        turn = protocol.turn()
        weight = 1 + noise * rng.uniform(-1, 1, (devices, 1)) * (not turn.whole)

        def gradients(at, weight=weight):
            return weight * (np.einsum("nij,j->ni", curves, at) - pulls)

        votes = protocol.step(gradients(x), gradients(previous))
        previous, x = x, x - step * votes.mean(axis=0)
        distances.append(float(np.linalg.norm(x - optimum)))
    return float(np.mean(distances[-50:]))


@pytest.mark.unchecked
def test_where_compressed_gradients_stall_differences_converge():
    """rand_k with masks of each device's own, without lies: the optimum is where the mean gradient is zero, but not
    the devices' gradients, whose compression is noise for ever."""
    compressor, step = RandK(kept=3), 0.05
    stalls = quadratic(NoMemory(), compressor, 150, 2 * step)
    assert stalls > 0.1
    for part in (Marina(), Marina(anchor="own"), DashaPage(), Ef21(), Dm21(eta=0.7)):
        assert quadratic(part, compressor, 150, 2 * step) < 0.01 * stalls, part
    assert quadratic(ServerMomentum(), compressor, 150, 2 * step) > 0.1 * stalls  # noise is averaged, not gone


@pytest.mark.unchecked
def test_with_mini_batches_variance_reduction_gets_nearer():
    """Gradients of all samples now and then, against error feedback alone; a look back, against momentum alone."""
    parts = {"ef21": Ef21(), "marina": Marina(), "dasha": DashaPage()}
    parts |= {"dm21": Dm21(), "look back": Dm21(variance_reduced=True)}
    ends = {name: quadratic(part, RandK(kept=3), 200, 0.06, noise=0.5) for name, part in parts.items()}
    assert max(ends["marina"], ends["dasha"]) < 0.1 * ends["ef21"], ends
    assert ends["look back"] < ends["dm21"], ends


@pytest.mark.parametrize("probability", [0.05, 0.5, 1.0])
def test_coins_are_common_and_as_frequent_as_said(probability):
    rounds = np.arange(20_000)
    thrown = coins(7, rounds, probability)
    assert thrown[0]
    assert abs(thrown[1:].mean() - probability) <= 5 * np.sqrt(probability * (1 - probability) / 20_000)
    assert [coins(7, rounds[t : t + 1], probability)[0] for t in range(50)] == thrown[:50].tolist()
    assert (coins(8, rounds, probability) == thrown).all() == (probability == 1)


@every_pair
def test_turns(memory, compressor):
    rounds = np.arange(60)
    turns = [memory.turn(SEED, t, compressor, DEVICES) for t in rounds.tolist()]
    dense = memory.dense(SEED, rounds)
    assert [turn.dense for turn in turns] == dense.tolist()
    assert all(turn.compressor == (NoCompression() if turn.dense else compressor) for turn in turns)
    heads = coins(SEED, rounds, getattr(memory, "probability", 1.0)).tolist()
    assert any(turn.looks_back for turn in turns) == memory.looks_back
    assert not turns[0].looks_back
    match memory:
        case Marina():
            assert 1 < sum(heads) < 50
            assert dense.tolist() == heads == [turn.whole for turn in turns]
            assert [not turn.looks_back for turn in turns] == heads
        case DashaPage():
            assert dense.tolist() == [True] + [False] * 59
            assert [turn.whole for turn in turns] == heads
            assert [not turn.looks_back for turn in turns] == heads
        case _:
            assert not dense.any()
            assert not any(turn.whole for turn in turns)
            assert all(turn.looks_back == memory.looks_back for turn in turns[1:])


TASK = (
    r"^memory {}: allocation cyclic gives a device another task in each round, .*; "
    r"use a fixed one \(cyclic with permute = false, balanced\)$"
)


@each(MEMORIES)
def test_tasks_that_vary_cannot_be_followed(part):
    """A mean over rounds is one over tasks; what follows a device's own gradient needs it to stay the same."""
    compressor = RandK(kept=3)
    if isinstance(part, Ef21 | DashaPage) or part == MEMORIES["marina, own"]:
        with pytest.raises(InputError, match=TASK.format(part.name())):
            part.check(Cyclic(redundancy=3), compressor, DIM)
    else:
        part.check(Cyclic(redundancy=3), compressor, DIM)
    with pytest.raises(InputError, match=TASK.format("dm21")):
        Dm21(eta=1.0).check(Cyclic(redundancy=3), compressor, DIM)
    for allocation in (Cyclic(redundancy=3, permute=False), Balanced(redundancy=3), Uniform(redundancy=3), Partition()):
        part.check(allocation, compressor, DIM)


def test_compressors_that_do_not_contract_cannot_be_fed_back():
    text = r"^memory {}: compressor sign is not contractive as it is set, .* \(sign: scaled = true\)$"
    for part in (Ef21(), Dm21()):
        with pytest.raises(InputError, match=text.format(part.name())):
            part.check(Partition(), Sign(scaled=False), DIM)
        for compressor in COMPRESSORS.values():
            part.check(Partition(), compressor, DIM)
    for part in (NoMemory(), Momentum(), ServerMomentum()):
        part.check(Partition(), Sign(scaled=False), DIM)


@pytest.mark.parametrize("part", [Marina(), Marina(anchor="own"), DashaPage()], ids=repr)
def test_differences_need_an_unbiased_compressor(part):
    for compressor in (TopK(kept=3), Sign(), NoCompression(dtype="float16")):
        with pytest.raises(InputError, match=rf"^memory {part.name()}: compressor {compressor.name()} is biased as it"):
            part.check(Partition(), compressor, DIM)
    for compressor in (RandK(kept=3), Qsgd(), Natural(), NoCompression()):
        part.check(Partition(), compressor, DIM)


@each(MEMORIES)
def test_a_memory_says_what_it_keeps_and_what_lies_do_to_it(part):
    kept = {
        "none": (0, 0),
        "momentum": (1, 0),
        "server_momentum": (0, 1),
        "ef21": (1, 1),
        "dm21": (3, 1),
        "marina": (0, int(part == MEMORIES["marina, own"])),
        "dasha_page": (3, 1),
    }
    assert (part.device_slots, part.server_slots) == kept[part.name()]
    assert part.remembers == (part.name() != "none")
    assert part.wants_fixed.startswith("keeps what a device sent") == (part.server_slots > 0)
    assert bool(part.wants_fixed) == (part.server_slots > 0 or part.name() == "momentum")
