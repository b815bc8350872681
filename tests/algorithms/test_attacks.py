"""Every attack forges messages that a device could send; each one computes what its paper says."""

import math

import numpy as np
import pytest
from scipy import stats

from mpicoded.algorithms import attacks
from mpicoded.algorithms.aggregators import Krum, TrimmedMean
from mpicoded.algorithms.attacks import (
    Alie,
    BitFlip,
    CodeAware,
    FangKrum,
    FangTrimmed,
    Gaussian,
    Ipm,
    Malformed,
    Mimic,
    MinMax,
    MinSum,
    NoAttack,
    NonFinite,
    OptimalAlie,
    OptimalIpm,
    SampleDuplicate,
    Seen,
    SignFlip,
    Silent,
    alie_z,
)
from mpicoded.algorithms.randomness import Streams
from mpicoded.errors import InputError
from mpicoded.testing import AttackBattery
from mpicoded.testing.attacks import ATTACKERS, STREAMS, draw, packed, see, tampered

from .building import each, family

ATTACKS = family(attacks.Choice)
ATTACKS |= {
    "non_finite, some": NonFinite(value="-inf", coordinates=1),
    "bit_flip, many": BitFlip(bits=20),
    "malformed, some": Malformed(bytes=3),
}
NOT_FINITE = dict.fromkeys(("non_finite", "non_finite, some"), "it is meant not to be")
LIMITED = "there is no more to spoil than a message has"


class TestAttacks(AttackBattery):
    parts = ATTACKS
    but = {
        "test_other_array_libraries_get_the_same_messages": {"non_finite, some": "places take an index"},
        "test_forged_messages_are_finite": NOT_FINITE,
        "test_where_all_honest_messages_are_equal_forged_ones_are_finite": NOT_FINITE,
        "test_it_can_be_made_on_a_message_of_one_number": {"bit_flip, many": LIMITED, "malformed, some": LIMITED},
    }


def against(honest, rule=None, attackers=3):
    """What a rule makes of the honest messages and of a forged one from each attacker."""
    rule = rule or TrimmedMean(byzantine=attackers)
    return lambda forged: rule.aggregate(np.concatenate([honest, np.tile(forged, (attackers, 1))]))


@each({name: part for name, part in ATTACKS.items() if part.tampers})
def test_another_round_tampers_differently(part):
    now, later = (tampered(part, packed(3), Streams(3, round, ATTACKERS)) for round in (5, 6))
    assert not np.array_equal(now, later)


def test_no_attack_sends_the_own_message():
    np.testing.assert_array_equal(NoAttack().forge(draw(3), see(), STREAMS), draw(3))


@pytest.mark.parametrize("scale", [-1.0, -2.5, 0.0, 3.0])
def test_sign_flip_scales_the_own_message(scale):
    np.testing.assert_array_equal(SignFlip(scale=scale).forge(draw(3), see(), STREAMS), scale * draw(3))


def test_sign_flip_flips_by_default():
    np.testing.assert_array_equal(SignFlip().forge(draw(3), see(), STREAMS), -draw(3))


@pytest.mark.parametrize("scale", [0.9, 0.0, -1.0, 10.0])
def test_ipm_is_against_the_honest_mean(scale):
    honest = draw(7, seed=1)
    expected = [-scale * math.fsum(column) / 7 for column in honest.T]
    np.testing.assert_allclose(Ipm(scale=scale).forge(draw(3), see(honest), STREAMS), expected, rtol=1e-12)


def test_ipm_has_its_papers_scale():
    np.testing.assert_allclose(Ipm().forge(draw(1), see(draw(7)), STREAMS), -0.9 * draw(7).mean(axis=0))


@pytest.mark.parametrize("z", [None, 0.0, 1.5, -2.0])
def test_alie_shifts_by_deviations_of_each_coordinate(z):
    honest = draw(7, seed=1)
    forged = Alie(z=z).forge(draw(3), see(honest), STREAMS)
    factor = alie_z(10, 3) if z is None else z
    for column, value in zip(honest.T, forged, strict=True):
        mean = math.fsum(column) / 7
        deviation = math.sqrt(math.fsum((column - mean) ** 2) / 7)
        assert value == pytest.approx(mean - factor * deviation, rel=1e-12)


@pytest.mark.parametrize(("byzantine", "z"), [(20, 0.286), (30, 0.524), (40, 0.903)])
def test_alie_z_of_a_hundred_devices(byzantine, z):
    assert alie_z(100, byzantine) == pytest.approx(z, abs=5e-4)


def test_alie_z_by_its_formula():
    for devices in range(3, 40):
        for byzantine in range((devices + 1) // 2):
            supporters = devices // 2 + 1 - byzantine
            share = (devices - byzantine - supporters) / (devices - byzantine)
            expected = stats.norm.ppf(share) if 0 < share < 1 else 0.0
            assert alie_z(devices, byzantine) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("byzantine", [6, 8, 10])
def test_alie_z_of_a_byzantine_majority_is_zero(byzantine):
    assert alie_z(10, byzantine) == 0.0


def test_alie_stays_inside_the_honest_range():
    honest = draw(80, 50, seed=1)
    forged = Alie().forge(draw(20, 50), Seen(100, honest), STREAMS)
    assert (forged > honest.min(axis=0)).all()
    assert (forged < honest.max(axis=0)).all()


@pytest.mark.parametrize("deviation", [0.5, 30.0])
def test_gaussian_noise_is_normal(deviation):
    seen, streams = Seen(100, None), STREAMS.of(np.arange(0, 100, 5))
    noise = Gaussian(deviation=deviation).forge(draw(20, 5000), seen, streams)
    assert stats.kstest(noise.ravel() / deviation, "norm").pvalue > 1e-3
    assert noise.std() == pytest.approx(deviation, rel=0.01)
    assert abs(noise.mean()) < 4 * deviation / math.sqrt(noise.size)


def test_gaussian_noise_differs_by_device_and_round():
    own = draw(3, 2000)
    now = Gaussian().forge(own, see(), STREAMS)
    then = Gaussian().forge(own, see(), STREAMS._replace(round=STREAMS.round + 1))
    assert np.abs(np.corrcoef(np.concatenate([now, then])) - np.eye(6)).max() < 0.1


def test_gaussian_noise_does_not_depend_on_the_own_message():
    noise = [Gaussian().forge(draw(3, seed=seed), see(), STREAMS) for seed in (0, 1)]
    np.testing.assert_array_equal(*noise)


def test_gaussian_without_deviation_is_zero():
    assert not Gaussian(deviation=0.0).forge(draw(3), see(), STREAMS).any()


def test_sample_duplicate_is_one_honest_message_and_any_of_them():
    honest = draw(7, seed=1)
    chosen = []
    for round in range(100):
        forged = SampleDuplicate().forge(draw(3), see(honest), Streams(3, round, ATTACKERS))
        assert forged.shape == (6,)
        chosen += np.flatnonzero((honest == forged).all(axis=1)).tolist()
    assert len(chosen) == 100
    assert set(chosen) == set(range(7))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("value", ["nan", "inf", "-inf"])
@pytest.mark.parametrize("coordinates", [None, 1, 4, 6])
def test_non_finite_values_stand_at_some_places_of_the_own_message(coordinates, value, dtype):
    own = draw(3, dtype=dtype)
    forged = NonFinite(value=value, coordinates=coordinates).forge(own, see(), STREAMS)
    spoilt = ~np.isfinite(forged)
    assert (spoilt.sum(axis=1) == (coordinates or 6)).all()
    np.testing.assert_array_equal(forged[spoilt], np.full(spoilt.sum(), float(value)))
    np.testing.assert_array_equal(forged[~spoilt], own[~spoilt])


def spread_evenly(changed, each_row):
    """Whether every column is hit as often as chance has it, within five standard errors."""
    rows, columns = changed.shape
    share = each_row / columns
    return np.abs(changed.mean(axis=0) - share).max() < 5 * math.sqrt(share * (1 - share) / rows)


def test_non_finite_places_are_random():
    many, own = STREAMS.of(np.arange(2000)), draw(2000)
    spoilt = np.isnan(NonFinite(coordinates=2).forge(own, see(), many))
    assert spread_evenly(spoilt, 2)


@pytest.mark.parametrize("nbytes", [5, 24])
@pytest.mark.parametrize("bits", [1, 2, 39, 40])
def test_bit_flip_flips_so_many_different_bits(bits, nbytes):
    many, records = STREAMS.of(np.arange(1000)), packed(1000, nbytes)
    flipped = np.unpackbits(tampered(BitFlip(bits=bits), records, many) ^ records, axis=1)
    assert (flipped.sum(axis=1) == bits).all()
    assert spread_evenly(flipped, bits) or bits == flipped.shape[1]


def test_bit_flip_flips_one_bit_by_default():
    assert np.unpackbits(tampered(BitFlip(), packed(3)) ^ packed(3), axis=1).sum(axis=1).tolist() == [1, 1, 1]


@pytest.mark.parametrize("nbytes", [5, 24])
@pytest.mark.parametrize("count", [None, 1, 4, 5])
def test_malformed_overwrites_so_many_bytes_whatever_they_were(count, nbytes):
    many = STREAMS.of(np.arange(1000))
    zeros = tampered(Malformed(bytes=count), np.zeros((1000, nbytes), np.uint8), many)
    ones = tampered(Malformed(bytes=count), np.full((1000, nbytes), 0xFF, np.uint8), many)
    written = zeros == ones
    assert (written.sum(axis=1) == (count or nbytes)).all()
    assert (zeros[~written] == 0).all()
    assert (ones[~written] == 0xFF).all()
    assert spread_evenly(written, count or nbytes) or written.all()
    assert stats.chisquare(np.bincount(zeros[written], minlength=256)).pvalue > 1e-3


def test_silent_devices_send_nothing():
    assert not Silent.sends
    assert [name for name, part in ATTACKS.items() if not part.sends] == ["silent"]


@pytest.mark.parametrize(
    ("part", "most", "text"),
    [
        (NonFinite(coordinates=8), NonFinite(coordinates=7), "non_finite: coordinates must be at most the 7 coordinates"
         " of a message, got 8"),
        (BitFlip(bits=113), BitFlip(bits=112), "bit_flip: bits must be at most the 112 bits of a record, got 113"),
        (Malformed(bytes=15), Malformed(bytes=14), "malformed: bytes must be at most the 14 bytes of a record, got 15"),
    ],
)  # fmt: skip
def test_no_more_is_spoilt_than_there_is(part, most, text):
    record = np.dtype([("values", "f2", (7,))])
    with pytest.raises(InputError, match=f"^attack {text}$"):
        part.check(7, record)
    most.check(7, record)


def spread(honest):
    """Squared distances of all pairs, in plain loops."""
    return [[math.fsum((x - y) ** 2) for y in honest] for x in honest]


@pytest.mark.parametrize("deviation", ["std", "unit", "sign"])
@pytest.mark.parametrize("seed", range(3))
def test_min_max_goes_as_far_as_honest_messages_are_apart(deviation, seed):
    honest = draw(9, seed=seed)
    forged = MinMax(deviation=deviation).forge(draw(3), see(honest), STREAMS)
    allowed = max(map(max, spread(honest)))
    assert max(math.fsum((forged - x) ** 2) for x in honest) == pytest.approx(allowed, rel=1e-9)
    off = forged - honest.mean(axis=0)
    direction = {
        "std": honest.std(axis=0),
        "unit": honest.mean(axis=0),
        "sign": np.sign(honest.mean(axis=0)),
    }[deviation]
    cosine = off @ direction / np.linalg.norm(off) / np.linalg.norm(direction)
    assert cosine == pytest.approx(-1, abs=1e-12)


@pytest.mark.parametrize("deviation", ["std", "unit", "sign"])
def test_min_sum_goes_as_far_as_the_most_central_message_allows(deviation):
    honest = draw(9, seed=1)
    forged = MinSum(deviation=deviation).forge(draw(3), see(honest), STREAMS)
    allowed = min(map(math.fsum, spread(honest)))
    assert math.fsum(math.fsum((forged - x) ** 2) for x in honest) == pytest.approx(allowed, rel=1e-9)


@pytest.mark.parametrize("part", [MinMax(), MinSum(), Mimic(), FangKrum(), OptimalIpm(), OptimalAlie()], ids=str)
def test_where_all_honest_messages_are_equal_there_is_no_spread_to_hide_in(part):
    honest = np.tile(draw(1), (7, 1))
    forged = np.broadcast_to(part.forge(draw(3), see(honest), STREAMS), (3, 6))
    assert np.isfinite(forged).all()
    if isinstance(part, MinMax | MinSum | Mimic):
        np.testing.assert_allclose(forged, honest[:3], rtol=1e-7)


def test_mimic_copies_the_device_furthest_out():
    honest = np.zeros((7, 6))
    honest[:, 2] = [0.1, -0.2, 5.0, 0.3, -0.1, 0.2, -0.3]
    honest[:, 4] = np.linspace(-0.01, 0.01, 7)
    np.testing.assert_array_equal(Mimic().forge(draw(3), see(honest), STREAMS), honest[2])


@pytest.mark.parametrize("seed", range(4))
def test_fang_krum_deceives_krum_as_far_out_as_halving_finds(seed):
    honest = draw(16, 8, seed=seed) - 1  # variety larger than the mean, or Krum would not fall for it
    seen = Seen(20, honest, None)
    forged = FangKrum().forge(honest[:4], seen, STREAMS)
    assert (np.sign(forged) == -np.sign(honest.mean(axis=0))).all()
    assert np.ptp(np.abs(forged)) < 1e-12

    def picked(message):
        return Krum(byzantine=4).aggregate(np.concatenate([np.tile(message, (4, 1)), honest]))

    np.testing.assert_array_equal(picked(forged), forged)
    assert not np.array_equal(picked(2 * forged), 2 * forged)


def test_fang_trimmed_lies_just_outside_the_honest_range_against_the_mean():
    honest = draw(20, 50, seed=1) * np.where(np.arange(50) % 2, -1, 1)
    forged = FangTrimmed(band=2.0).forge(draw(3, 50), see(honest), STREAMS)
    low, high, mean = honest.min(axis=0), honest.max(axis=0), honest.mean(axis=0)
    for column in range(50):
        edge = low[column] if mean[column] > 0 else high[column]
        further = edge * 2 if (edge < 0) == (mean[column] > 0) else edge / 2
        inside = sorted((edge, further))
        assert all(inside[0] <= value <= inside[1] for value in forged[:, column])
        assert (
            (forged[:, column] <= low[column]).all() if mean[column] > 0 else (forged[:, column] >= high[column]).all()
        )
    assert len(np.unique(forged[:, 0])) == 3


@pytest.mark.parametrize("part", [OptimalIpm(evaluations=40), OptimalAlie(evaluations=40)], ids=str)
@pytest.mark.parametrize("rule", [TrimmedMean(byzantine=3), Krum(byzantine=3)], ids=str)
def test_a_line_search_does_more_harm_than_any_factor_of_a_grid_nearly(part, rule):
    """Against all factors up to 20 of both signs; the search may end in a local maximum, so nine tenths will do."""
    honest = draw(9, seed=3)
    mean, deviation = honest.mean(axis=0), honest.std(axis=0)
    aggregate = against(honest, rule)

    def harm(forged):
        return np.linalg.norm(aggregate(forged) - mean)

    found = harm(part.forge(draw(3), Seen(12, honest, aggregate), STREAMS))
    factors = np.linspace(-20, 20, 801)
    grid = [-lam * mean if isinstance(part, OptimalIpm) else mean - lam * deviation for lam in factors]
    assert found >= 0.9 * max(map(harm, grid))


def test_code_aware_takes_consecutive_devices_and_scales_its_message():
    assert CodeAware().place(10, 3).tolist() == [0, 1, 2]
    np.testing.assert_array_equal(CodeAware(scale=-3.0).forge(draw(3), see(), STREAMS), -3 * draw(3))


def test_what_an_attack_needs_is_stated():
    needs = {name: {word for word in WORDS if getattr(part, word)} for name, part in ATTACKS.items()}
    assert needs["optimal_ipm"] == needs["optimal_alie"] == {"colludes", "knows_rule", "sends"}
    assert needs["label_flip"] == {"mislabels", "sends"}
    assert needs["code_aware"] == {"places", "sends"}
    assert needs["silent"] == set()


WORDS = ("colludes", "knows_rule", "mislabels", "places", "tampers", "sends")
