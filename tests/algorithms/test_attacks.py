"""Every attack forges messages that a device could send; each one computes what its paper says."""

import math

import numpy as np
import pytest
from scipy import stats

from mpicoded.algorithms import attacks
from mpicoded.algorithms.attacks import (
    Alie,
    Gaussian,
    Ipm,
    NoAttack,
    NonFinite,
    SampleDuplicate,
    Seen,
    SignFlip,
    alie_z,
)
from mpicoded.algorithms.randomness import Streams

from .building import each, family

ATTACKS = family(attacks.Choice)
ATTACKERS = np.array([1, 4, 7])
STREAMS = Streams(3, 5, ATTACKERS)


def draw(rows, dim=6, dtype=float, seed=0):
    messages = np.random.default_rng(seed).normal(1.0, 2.0, (rows, dim)).astype(dtype)
    messages.flags.writeable = False
    return messages


def see(honest=None):
    return Seen(len(ATTACKERS) + (7 if honest is None else len(honest)), honest)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("dim", [1, 7])
@each(ATTACKS)
def test_forged_messages_fit_in_place_of_the_own_ones(part, dim, dtype):
    own = draw(3, dim, dtype)
    forged = part.forge(own, see(draw(7, dim, dtype, 1)), STREAMS)
    assert forged.dtype == dtype
    assert forged.shape in ((3, dim), (dim,))
    assert np.isfinite(forged).all() == (not isinstance(part, NonFinite))


@each(ATTACKS)
def test_a_message_does_not_depend_on_the_rank_that_forges_it(part):
    own, honest = draw(3), draw(7, seed=1)
    whole = np.broadcast_to(part.forge(own, see(honest), STREAMS), own.shape)
    for rows in ([0], [2], [0, 1], [1, 2], [0, 2]):
        seen = Seen(10, honest)
        np.testing.assert_array_equal(
            np.broadcast_to(part.forge(own[rows], seen, STREAMS.of(ATTACKERS[rows])), (len(rows), 6)), whole[rows]
        )


@each(ATTACKS)
def test_the_same_round_forges_the_same_messages(part):
    messages = [part.forge(draw(3), see(draw(7, seed=1)), Streams(3, 5, ATTACKERS)) for _ in range(2)]
    np.testing.assert_array_equal(*messages)


@each({name: part for name, part in ATTACKS.items() if not part.colludes})
def test_loners_need_not_see_the_honest_messages(part):
    expected = part.forge(draw(3), see(draw(7, seed=1)), STREAMS)
    np.testing.assert_array_equal(part.forge(draw(3), see(), STREAMS), expected)


@each({name: part for name, part in ATTACKS.items() if part.colludes})
def test_colluders_look_at_the_honest_messages(part):
    one, other = (part.forge(draw(3), see(draw(7, seed=seed)), STREAMS) for seed in (1, 2))
    assert not np.array_equal(one, other)


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
