"""The battery of the attacks."""

from typing import Any

import array_api_strict
import numpy as np
import pytest

from mpicoded.algorithms.aggregators import TrimmedMean
from mpicoded.algorithms.arrays import namespace
from mpicoded.algorithms.attacks import Attack, Seen
from mpicoded.algorithms.component import works_on_gpu
from mpicoded.algorithms.randomness import Streams
from mpicoded.algorithms.shapes import Array
from mpicoded.testing.battery import ComponentBattery

ATTACKERS = np.array([1, 4, 7])
STREAMS = Streams(3, 5, ATTACKERS)
_SOME = ([0], [2], [0, 1], [1, 2], [0, 2])  # the attackers of one rank


def draw(rows: int, dim: int = 6, dtype: Any = float, seed: int = 0) -> Array:
    """Messages that nobody may write to."""
    messages = np.random.default_rng(seed).normal(1.0, 2.0, (rows, dim)).astype(dtype)
    messages.flags.writeable = False
    return messages


def packed(rows: int, nbytes: int = 24, seed: int = 0) -> Array:
    """Records of random bytes."""
    return np.random.default_rng(seed).integers(0, 256, (rows, nbytes), dtype=np.uint8)


def tampered(part: Attack, records: Array, streams: Streams = STREAMS) -> Array:
    """What the attack makes of records; those handed in stay as they are."""
    records = records.copy()
    part.tamper(records, streams)
    return records


def see(honest: Array | None = None) -> Seen:
    """What three attackers see; the rule is a trimmed mean."""
    if honest is None:
        return Seen(len(ATTACKERS) + 7, None)
    rule = TrimmedMean(byzantine=len(ATTACKERS))

    def aggregate(forged: Array) -> Array:
        xp = namespace(honest)
        return rule.aggregate(xp.concat([honest, xp.broadcast_to(forged, (len(ATTACKERS), forged.shape[-1]))]))

    return Seen(len(ATTACKERS) + honest.shape[0], honest, aggregate)


class AttackBattery(ComponentBattery):
    """What holds for every attack. Three attackers, seven honest messages."""

    @pytest.mark.parametrize("dtype", ["float32", "float64"])
    @pytest.mark.parametrize("dim", [1, 7])
    def test_forged_messages_fit_in_place_of_the_own_ones(self, part: Attack, dim: int, dtype: Any) -> None:
        forged = part.forge(draw(3, dim, dtype), see(draw(7, dim, dtype, 1)), STREAMS)
        assert forged.dtype == dtype
        assert forged.shape in ((3, dim), (dim,))

    @pytest.mark.parametrize("dtype", ["float32", "float64"])
    @pytest.mark.parametrize("dim", [1, 7, 300])
    def test_other_array_libraries_get_the_same_messages(self, part: Attack, dim: int, dtype: Any) -> None:
        """By the array API standard alone (``mpicoded.algorithms.arrays``), so that messages may lie on a GPU."""
        if not works_on_gpu(part, "forge"):
            pytest.skip("it does not say that it can")
        own, honest = (draw(rows, dim, dtype, rows) for rows in (3, 7))
        strict = array_api_strict.asarray(own.copy())
        forged = part.forge(strict, see(array_api_strict.asarray(honest.copy())), STREAMS)
        assert isinstance(forged, type(strict))
        assert forged.dtype == strict.dtype
        tolerance = 1e-6 if dtype == "float32" else 1e-12
        np.testing.assert_allclose(np.asarray(forged), part.forge(own, see(honest), STREAMS), tolerance, tolerance)
        np.testing.assert_array_equal(np.asarray(strict), own)

    def test_forged_messages_are_finite(self, part: Attack) -> None:
        assert np.isfinite(part.forge(draw(3), see(draw(7, seed=1)), STREAMS)).all()

    def test_own_and_honest_messages_stay_as_they_are(self, part: Attack) -> None:
        own, honest = draw(3).copy(), draw(7, seed=1).copy()
        part.forge(own, see(honest), STREAMS)
        np.testing.assert_array_equal(own, draw(3))
        np.testing.assert_array_equal(honest, draw(7, seed=1))

    def test_a_message_does_not_depend_on_the_rank_that_forges_it(self, part: Attack) -> None:
        own, honest = draw(3), draw(7, seed=1)
        whole = np.broadcast_to(part.forge(own, see(honest), STREAMS), own.shape)
        for rows in _SOME:
            forged = part.forge(own[rows], see(honest), STREAMS.of(ATTACKERS[rows]))
            np.testing.assert_array_equal(np.broadcast_to(forged, (len(rows), 6)), whole[rows])

    def test_the_same_round_forges_the_same_messages(self, part: Attack) -> None:
        messages = [part.forge(draw(3), see(draw(7, seed=1)), Streams(3, 5, ATTACKERS)) for _ in range(2)]
        np.testing.assert_array_equal(*messages)

    def test_a_record_does_not_depend_on_the_rank_that_tampers_with_it(self, part: Attack) -> None:
        whole = tampered(part, packed(3))
        for rows in _SOME:
            some = tampered(part, packed(3)[rows], STREAMS.of(ATTACKERS[rows]))
            np.testing.assert_array_equal(some, whole[rows])

    def test_the_same_round_tampers_in_the_same_way(self, part: Attack) -> None:
        now, again = (tampered(part, packed(3), Streams(3, 5, ATTACKERS)) for _ in range(2))
        np.testing.assert_array_equal(now, again)

    def test_only_those_that_say_so_tamper_with_records(self, part: Attack) -> None:
        assert part.tampers == (tampered(part, packed(3)) != packed(3)).any()
        if part.tampers or not part.sends:
            np.testing.assert_array_equal(part.forge(draw(3), see(), STREAMS), draw(3))

    def test_it_can_be_made_on_a_message_of_one_number(self, part: Attack) -> None:
        for dtype in ("f2", "f4", "f8"):
            part.check(1, np.dtype([("values", dtype, (1,))]))
        assert tampered(part, packed(3, 8)).shape == (3, 8)

    def test_it_fits_a_message_of_many_numbers(self, part: Attack) -> None:
        part.check(1000, np.dtype([("values", "f8", (1000,))]))

    def test_only_colluders_look_at_the_honest_messages(self, part: Attack) -> None:
        one, other = (part.forge(draw(3), see(draw(7, seed=seed)), STREAMS) for seed in (1, 2))
        assert part.colludes == (not np.array_equal(one, other, equal_nan=True))
        if not part.colludes:
            np.testing.assert_array_equal(part.forge(draw(3), see(), STREAMS), one)

    def test_only_colluders_can_know_the_rule(self, part: Attack) -> None:
        assert part.colludes or not part.knows_rule
        if not part.knows_rule:
            seen = see(draw(7, seed=1))
            forged = (part.forge(draw(3), known, STREAMS) for known in (seen, seen._replace(aggregate=None)))
            np.testing.assert_array_equal(*forged)

    def test_where_all_honest_messages_are_equal_forged_ones_are_finite(self, part: Attack) -> None:
        honest = np.tile(draw(1), (7, 1))
        for rows in (honest, np.zeros_like(honest), honest[:4]):
            assert np.isfinite(part.forge(draw(3), see(rows), STREAMS)).all()

    def test_attackers_that_choose_their_devices_choose_different_ones(self, part: Attack) -> None:
        if part.places:
            for devices, byzantine in ((10, 3), (10, 0), (7, 3)):
                chosen = part.place(devices, byzantine)
                assert len(set(chosen.tolist())) == len(chosen) == byzantine
                assert all(0 <= device < devices for device in chosen)
