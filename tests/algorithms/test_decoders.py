"""Votes of replicas are exact up to the limit, wherever the liars sit and whatever they say; what is proven is true."""

from collections import Counter
from itertools import combinations
from math import comb

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mpicoded.algorithms.allocations import AllSubsets, Balanced, Cyclic, LatinSquare, Partition, Repetition
from mpicoded.algorithms.compressors import NoCompression, Qsgd, RandK, TopK
from mpicoded.algorithms.encoders import Agreement, MajorityVote, evidence, proven, replicas, worst
from mpicoded.algorithms.encoders.tasks import tasks_of
from mpicoded.algorithms.randomness import Streams
from mpicoded.errors import InputError

from .building import LIGHT

ALLOCATED = {
    "repetition": Repetition(copies=5).assignment(15, 9, 0, 1),
    "repetition, fixed": Repetition(copies=3, permute=False).assignment(12, 12, 0, 0),
    "latin square": LatinSquare().assignment(15, 25, 0, 0),
    "all subsets": AllSubsets(copies=3).assignment(7, 35, 0, 0),
    "cyclic": Cyclic(redundancy=5).assignment(9, 9, 0, 0),
    "even copies": Cyclic(redundancy=4).assignment(7, 7, 0, 0),
    "partition": Partition().assignment(4, 10, 0, 0),
}
every_allocation = pytest.mark.parametrize("assignment", list(ALLOCATED.values()), ids=list(ALLOCATED))
both_types = pytest.mark.parametrize("dtype", [np.float32, np.float64])


def encode(encoder, assignment, dtype=np.float64, dim=5, seed=0):
    """Honest messages, whose they are, what they are about, and the decoder."""
    gradients = np.random.default_rng(seed).normal(1, 2, (assignment.shape[1], dim)).astype(dtype)
    code, decoder = encoder.code(assignment, 0, len(assignment)), encoder.decoder(assignment)
    messages = code.weights.astype(dtype) @ gradients
    owners = np.repeat(np.arange(len(assignment)), encoder.messages(assignment))
    return messages, owners, code.keys, decoder


def decode(decoder, messages, usable=None):
    usable = np.ones(len(messages), bool) if usable is None else usable
    return decoder.decode(np.where(usable[:, None], messages, 0), usable, np.random.default_rng(0))


def bits(numbers):
    return np.ascontiguousarray(numbers).view(f"u{numbers.itemsize}")


def vote_by_loops(messages, owners, keys, usable, devices):
    """Votes, conflicts and accused, one task after the other."""
    votes = np.zeros((keys.max() + 1, messages.shape[1]), messages.dtype)
    conflicts, accused = np.zeros((devices, devices), bool), np.zeros(devices, bool)
    for task in range(len(votes)):
        holders = [m for m in range(len(messages)) if keys[m] == task]
        heard = [m for m in holders if usable[m]]
        if not heard:
            continue
        said = {m: messages[m].tobytes() for m in heard}
        winner, count = Counter(said.values()).most_common(1)[0]
        votes[task] = np.median(messages[heard], axis=0)
        if 2 * count > len(heard):
            votes[task] = np.frombuffer(winner, messages.dtype)
        for one in heard:
            accused[owners[one]] |= 2 * count > len(holders) and said[one] != winner
            for other in heard:
                conflicts[owners[one], owners[other]] |= said[one] != said[other]
    return votes, conflicts, accused


@both_types
@every_allocation
def test_majority_vote_by_loops(assignment, dtype):
    """Lies that coincide, that differ, that are few and many, and replicas that are missing."""
    messages, owners, keys, decoder = encode(MajorityVote(), assignment, dtype)
    rng = np.random.default_rng(1)
    for trial in range(12):
        received = messages.copy()
        wrong = rng.random(len(messages)) < rng.choice([0.1, 0.4, 0.8])
        received[wrong] += rng.integers(1, 3, (wrong.sum(), 1)).astype(dtype)  # one of two lies
        received[wrong, -1] *= rng.integers(0, 2, wrong.sum()).astype(dtype)
        usable = rng.random(len(messages)) < (0.6 if trial % 2 else 1)
        decoded = decode(decoder, received, usable)
        votes, conflicts, accused = vote_by_loops(received, owners, keys, usable, len(assignment))
        np.testing.assert_array_equal(decoded.votes, votes)
        np.testing.assert_array_equal(decoded.conflicts, conflicts)
        np.testing.assert_array_equal(decoded.accused, accused)


def lie(messages, wrong, kind, rng):
    """The messages, of which some say something else."""
    received = messages.copy()
    if kind == "random":
        received[wrong] = rng.normal(size=(wrong.sum(), messages.shape[1]))
    elif kind == "identical":
        received[wrong] += 1
    elif kind == "last bit":
        received[wrong, -1] = np.nextafter(received[wrong, -1], messages.dtype.type(np.inf))
    elif kind == "one lie apiece":
        received[wrong, 0] = np.arange(wrong.sum())
    return received


LIES = ("random", "identical", "last bit", "one lie apiece", "silent")


@both_types
@pytest.mark.parametrize("kind", LIES)
@pytest.mark.parametrize("copies", [3, 5])
def test_votes_are_exact_and_liars_named_up_to_the_limit(copies, kind, dtype):
    """s of the 2s+1 holders of every group lie, or are silent."""
    assignment = Repetition(copies=copies).assignment(15, 15, 0, 3)
    encoder = MajorityVote()
    messages, owners, keys, decoder = encode(encoder, assignment, dtype)
    honest = decode(decoder, messages).votes
    rng = np.random.default_rng(5)
    for _ in range(5):
        liars = np.concatenate([rng.permutation(owners[keys == task])[: copies // 2] for task in range(15 // copies)])
        wrong = np.isin(owners, liars)
        received = lie(messages, wrong, kind, rng)
        decoded = decode(decoder, received, ~wrong if kind == "silent" else None)
        np.testing.assert_array_equal(bits(decoded.votes), bits(honest))
        assert set(np.flatnonzero(decoded.accused)) == (set() if kind == "silent" else set(liars.tolist()))
        assert proven(decoded.conflicts) == (0 if kind == "silent" else len(liars))


def worst_liars(assignment, liars):
    """The first set of devices that is half of the holders, or more, of the most tasks; and of how many."""
    held = tasks_of(assignment).held
    needed = (held.sum(axis=0) + 1) // 2
    sets = list(combinations(range(len(held)), liars))
    lost = [(held[list(chosen)].sum(axis=0) >= needed).sum() for chosen in sets]
    return np.array(sets[int(np.argmax(lost))], int), max(lost)


@every_allocation
def test_as_many_votes_can_be_changed_as_is_said_and_no_more(assignment):
    messages, owners, _, decoder = encode(MajorityVote(), assignment)
    honest = decode(decoder, messages).votes
    for liars in range(1, 4):
        worst_ones, most = worst_liars(assignment, liars)
        assert MajorityVote().corrupted(assignment, liars) == most
        received = lie(messages, np.isin(owners, worst_ones), "identical", None)
        changed = (decode(decoder, received).votes != honest).any(axis=1)
        assert changed.sum() == most


def test_worst_votes_of_byzshield():
    """K = 15, l = 5, r = 3: the paper's table; found by search."""
    assignment = LatinSquare(copies=3).assignment(15, 25, 0, 0)
    assert [MajorityVote().corrupted(assignment, q) for q in range(9)] == [0, 0, 1, 3, 5, 8, 12, 14, 17]


def test_worst_votes_of_repetition_and_all_subsets():
    draco = Repetition(copies=5).assignment(100, 100, 0, 0)
    assert [MajorityVote().corrupted(draco, f) for f in range(60)] == [f // 3 for f in range(60)]
    aspis = AllSubsets(copies=3).assignment(12, 220, 0, 0)
    expected = [comb(f, 3) + comb(f, 2) * (12 - f) for f in range(6)]
    assert [MajorityVote().corrupted(aspis, f) for f in range(6)] == expected


@pytest.mark.parametrize("work", [0, 10**8])
def test_worst_votes_of_any_allocation(work, monkeypatch):
    """Searched it is exact, and otherwise a bound."""
    monkeypatch.setattr(worst, "_WORK", work)
    rng = np.random.default_rng(0)
    for _ in range(30):
        held = rng.random((7, rng.integers(1, 12))) < rng.choice([0.2, 0.5])
        held = tasks_of(held).held
        if not held.size:
            continue
        for liars in range(5):
            exact = worst_liars(held, liars)[1]
            found = worst.most_outvoted(held, liars)
            assert exact <= found <= held.shape[1]
            assert found == exact or not work


def test_zeros_of_different_sign_are_different():
    """Honest replicas have the same bits, so whose differ is no honest one."""
    assignment = Repetition(copies=3).assignment(3, 3, 0, 0)
    decoder = MajorityVote().decoder(assignment)
    decoded = decode(decoder, np.array([[0.0, 1.0], [-0.0, 1.0], [-0.0, 1.0]]))
    assert np.signbit(decoded.votes[0, 0])
    np.testing.assert_array_equal(decoded.accused, [True, False, False])


def test_without_a_majority_of_holders_nobody_is_accused():
    assignment = Repetition(copies=5).assignment(5, 5, 0, 0)
    decoder = MajorityVote().decoder(assignment)
    messages = np.array([[1.0], [1.0], [2.0], [0.0], [0.0]])
    decoded = decode(decoder, messages, np.array([1, 1, 1, 0, 0], bool))
    np.testing.assert_array_equal(decoded.votes, [[1.0]])
    assert not decoded.accused.any()
    assert proven(decoded.conflicts) == 1
    split = decode(decoder, np.array([[1.0], [1.0], [2.0], [4.0], [0.0]]), np.array([1, 1, 1, 1, 0], bool))
    np.testing.assert_array_equal(split.votes, [[1.5]])
    np.testing.assert_array_equal(decode(decoder, messages, np.zeros(5, bool)).votes, [[0.0]])


def test_every_number_of_a_message_is_compared(monkeypatch):
    monkeypatch.setattr(replicas, "_BLOCK_BYTES", 0)  # blocks of 64 numbers
    assignment = Repetition(copies=3).assignment(6, 6, 0, 0)
    messages, owners, keys, decoder = encode(MajorityVote(), assignment, dim=200)
    liar = int(np.flatnonzero(keys == 1)[2])
    honest = decode(decoder, messages).votes
    for place in range(200):
        received = messages.copy()
        received[liar, place] += 1
        decoded = decode(decoder, received)
        np.testing.assert_array_equal(decoded.votes, honest)
        np.testing.assert_array_equal(np.flatnonzero(decoded.accused), [owners[liar]])


@pytest.mark.parametrize("compressor", [Qsgd(levels=4), RandK(kept=2), TopK(kept=2)])
def test_replicas_stay_equal_under_compression(compressor):
    """Those of one key use the same random numbers, and those of different ones do not."""
    assignment = LatinSquare().assignment(9, 9, 0, 0)
    MajorityVote().check(assignment, compressor)
    messages, _, keys, decoder = encode(MajorityVote(), assignment, dim=8)
    streams = Streams(1, 0, keys)
    decompressed = compressor.decompress(compressor.compress(messages, streams), 8, streams)
    assert not decode(decoder, decompressed).conflicts.any()


@pytest.mark.parametrize("encoder", [MajorityVote(), Agreement(byzantine=1)])
def test_refused_where_devices_hold_different_numbers_of_tasks(encoder):
    assignment = np.array([[1, 1, 0, 0], [1, 0, 1, 0], [0, 1, 0, 0]], bool)
    with pytest.raises(InputError, match=f"{encoder.name()}.*device 2 holds 1, device 0 holds 2"):
        encoder.check(assignment, NoCompression())
    with pytest.raises(InputError, match="at least 1"):
        encoder.check(np.zeros((3, 4), bool), NoCompression())


def test_lost_subsets_are_in_no_task():
    assignment = np.array([[0, 1, 1, 0, 1], [0, 1, 1, 0, 0], [0, 0, 0, 0, 1]], bool)
    tasks = tasks_of(assignment)
    np.testing.assert_array_equal(tasks.of, [-1, 0, 0, -1, 1])
    np.testing.assert_array_equal(tasks.held, assignment[:, [1, 4]])
    np.testing.assert_allclose(
        tasks.weights(np.array([1, 0])).dense(), np.array([[0, 0, 0, 0, 2], [0, 2, 2, 0, 0]]) / 5
    )


@every_allocation
def test_agreement_with_few_liars_is_the_mean_of_all(assignment):
    """Fewer liars than half of the holders of any task: all named, whatever they say, and every vote is the mean."""
    copies = int(tasks_of(assignment).held.sum(axis=0).min())
    liars = (copies - 1) // 2
    encoder = Agreement(byzantine=liars)
    messages, owners, _, decoder = encode(encoder, assignment)
    mean = decode(MajorityVote().decoder(assignment), messages).votes.mean(axis=0)
    rng = np.random.default_rng(2)
    for kind in LIES:
        who = rng.permutation(len(assignment))[:liars]
        wrong = np.isin(owners, who)
        if kind == "one lie apiece" and liars:  # in one message only
            wrong[np.flatnonzero(wrong)[1:]] = False
            who = who[np.isin(who, owners[wrong])]
        decoded = decode(decoder, lie(messages, wrong, kind, rng), ~wrong if kind == "silent" else None)
        heard = min(copies - (liars if kind == "silent" else 0), copies)
        if heard > liars:
            np.testing.assert_allclose(decoded.votes, np.tile(mean, (decoder.votes, 1)), rtol=1e-13)
        assert set(np.flatnonzero(decoded.accused)) == (set() if kind == "silent" else set(who.tolist()))


def distorted(messages, owners, keys, assignment, liars, against):
    """Aspis' fixed disagreement: liars say the same wrong thing about tasks whose honest holders are all in a set."""
    held = tasks_of(assignment).held
    others = np.ones(len(assignment), bool)
    others[[*liars, *against]] = False
    attacked = held[liars].any(axis=0) & ~held[others].any(axis=0)
    wrong = np.isin(owners, liars) & attacked[keys]
    return lie(messages, wrong, "identical", None)


@pytest.mark.parametrize("fewer", [0, 1])
def test_two_cliques_leave_the_vote_to_the_majority(fewer):
    """3 of 9 lie about what they share with 3 honest ones, so that either three may be the liars.

    Against 2 honest ones the liars' clique is the larger; it is not trusted either, as the honest one is large enough.
    """
    assignment = AllSubsets(copies=3).assignment(9, 84, 0, 0)
    messages, owners, keys, decoder = encode(Agreement(byzantine=3), assignment)
    received = distorted(messages, owners, keys, assignment, [1, 4, 7], [0, 2, 5][fewer:])
    decoded = decode(decoder, received)
    majority = decode(MajorityVote().decoder(assignment), received)
    np.testing.assert_array_equal(decoded.votes, majority.votes)
    assert not decoded.accused.any()
    honest = decode(decoder, messages).votes
    changed = (decoded.votes != honest).any(axis=1).sum()
    assert 0 < changed <= Agreement(byzantine=3).corrupted(assignment, 3)


def test_liars_against_more_than_themselves_are_outside_the_only_clique():
    """Half or more of a task's holders lie, and the vote is right all the same: the majority vote is not."""
    assignment = AllSubsets(copies=3).assignment(9, 84, 0, 0)
    liars = [1, 4, 7]
    messages, owners, keys, decoder = encode(Agreement(byzantine=3), assignment)
    honest = decode(MajorityVote().decoder(assignment), messages).votes
    received = distorted(messages, owners, keys, assignment, liars, [0, 2, 3, 5, 6, 8])
    decoded = decode(decoder, received)
    np.testing.assert_array_equal(np.flatnonzero(decoded.accused), liars)
    wrong = (decoded.votes != honest).any(axis=1)
    alone = tasks_of(assignment).held[liars].all(axis=0)
    np.testing.assert_array_equal(wrong, alone)  # held by liars only: the mean of the others
    np.testing.assert_allclose(decoded.votes[alone][0], honest[~alone].mean(axis=0), rtol=1e-13)
    majority = decode(MajorityVote().decoder(assignment), received).votes
    assert (majority != honest).any(axis=1).sum() == MajorityVote().corrupted(assignment, 3) > alone.sum()


def test_more_liars_than_assumed_leave_the_vote_to_the_majority(monkeypatch):
    assignment = LatinSquare().assignment(15, 25, 0, 0)
    encoder = Agreement(byzantine=1)
    messages, owners, _, decoder = encode(encoder, assignment)
    received = lie(messages, np.isin(owners, [0, 6]), "random", np.random.default_rng(0))
    majority = decode(MajorityVote().decoder(assignment), received)
    for decoded in (decode(decoder, received),):
        np.testing.assert_array_equal(decoded.votes, majority.votes)
        np.testing.assert_array_equal(decoded.accused, majority.accused)
    assert encoder.corrupted(assignment, 2) == 25
    monkeypatch.setattr(evidence, "_WORK", 1)  # nor is there time for a search
    decoded = decode(Agreement(byzantine=2).decoder(assignment), received)
    np.testing.assert_array_equal(decoded.votes, majority.votes)


def covers(conflicts, most):
    """All sets of devices, at most so many, that touch every conflict."""
    devices = len(conflicts)
    edges = np.argwhere(np.triu(conflicts))
    return [
        set(chosen)
        for count in range(most + 1)
        for chosen in combinations(range(devices), count)
        if np.isin(edges, chosen).any(axis=1).all()
    ]


@LIGHT
@given(st.integers(2, 8), st.floats(0.05, 0.9), st.integers(0, 10**6))
def test_what_conflicts_prove(devices, density, seed):
    """By all sets of devices: never more liars than the fewest that explain, and liars for certain are in each set."""
    upper = np.triu(np.random.default_rng(seed).random((devices, devices)) < density, 1)
    conflicts = upper | upper.T
    fewest = len(covers(conflicts, devices)[0])
    assert fewest / 2 <= proven(conflicts) <= fewest
    for most in range(devices):
        explanations, found = covers(conflicts, most), evidence.certain_liars(conflicts, most)
        assert (found is None) == (not explanations)
        if found is not None:
            certain = set.intersection(*explanations)
            assert set(np.flatnonzero(found[0])) == certain
            assert found[1] == (certain in explanations)


@pytest.mark.parametrize("copies", [3, 5, 9])
def test_liars_of_one_task_are_counted_exactly(copies):
    """Complete multipartite conflicts: the honest agree, liars say the same or all different things."""
    for liars in range((copies - 1) // 2 + 1):
        for said in (np.minimum(np.arange(copies), liars), np.arange(copies) < liars):
            conflicts = said[:, None] != said
            assert proven(conflicts) == liars


def graph_of(devices, edges):
    conflicts = np.zeros((devices, devices), bool)
    one, other = np.array(edges).T
    conflicts[one, other] = conflicts[other, one] = True
    return conflicts


@pytest.mark.parametrize(("devices", "fewest"), [(3, 2), (4, 2), (5, 3), (7, 4), (8, 4)])
def test_circles_of_conflicts(devices, fewest):
    """Half a device more than half of an odd circle is one."""
    assert proven(graph_of(devices, [(i, (i + 1) % devices) for i in range(devices)])) == fewest


def test_the_only_explanation_is_known_for_it_where_a_search_finds_more_than_needed():
    edges = [(0, 1), (0, 2), (0, 4), (1, 5), (1, 6), (2, 3), (2, 7), (3, 4), (4, 5)]
    liars, all_explained = evidence.certain_liars(graph_of(8, edges), 4)
    assert covers(graph_of(8, edges), 3) == [{1, 2, 4}]
    np.testing.assert_array_equal(np.flatnonzero(liars), [1, 2, 4])
    assert all_explained


@pytest.mark.parametrize("allocation", [Balanced(redundancy=4), Cyclic(redundancy=4)])
def test_tasks_are_classes_of_equal_columns(allocation):
    assignment = np.repeat(allocation.assignment(8, 8, 0, 1), 3, axis=1)[:, np.random.default_rng(0).permutation(24)]
    tasks = tasks_of(assignment)
    np.testing.assert_array_equal(tasks.held[:, tasks.of], assignment)
    assert len({column.tobytes() for column in assignment.T}) == tasks.held.shape[1]
    _, first = np.unique(tasks.of, return_index=True)
    assert (np.diff(first) > 0).all()
