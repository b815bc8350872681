"""Filters and rule in pieces: the bits of one after the other."""

import numpy as np
import pytest

from mpicoded.algorithms import aggregators, filters
from mpicoded.algorithms.chain import Chain
from mpicoded.algorithms.component import members
from mpicoded.algorithms.slices import WHOLE

from .building import build, each, family

DIM, BYZANTINE = 20_011, 3
RULES = family(aggregators.Choice, byzantine=BYZANTINE)
FILTERS = {name: build(cls, byzantine=BYZANTINE) for name, cls in members(filters.Choice).items()}


@pytest.mark.parametrize("dim", [7, DIM])
@pytest.mark.parametrize("name", [*FILTERS, "two"])
@each(RULES, but=("clairvoyant",))
def test_a_chain_has_the_bits_of_its_parts(part, name, dim):
    votes = np.random.default_rng(5).normal(1.0, 2.0, (37, dim))
    votes[:BYZANTINE] *= -3
    previous, out = np.full(dim, 0.5), np.empty(dim)
    parts = [FILTERS["clip"], FILTERS["nearest_neighbor_mixing"]] if name == "two" else [FILTERS[name]]
    chain = Chain(parts, part)
    chain.aggregate(*chain.filtered(votes.copy(), np.random.default_rng(3)), previous, out)
    stream = np.random.default_rng(3)
    for item in parts:
        votes = item.apply(votes, stream=stream)
    np.testing.assert_array_equal(out, part.aggregate(votes, previous))


def test_rules_that_say_so_look_at_coordinates_alone():
    found = {name for name, rule in RULES.items() if rule.coordinatewise}
    assert found == {"mean", "coordinate_median", "trimmed_mean", "phocas", "mean_around_median", "clairvoyant"}
    votes = np.random.default_rng(5).normal(1.0, 2.0, (37, 40))
    for name in found:
        whole = RULES[name].aggregate(votes)
        np.testing.assert_array_equal(
            np.concatenate([RULES[name].aggregate(votes[:, i : i + 8]) for i in range(0, 40, 8)]), whole
        )


def test_votes_are_mixed_where_they_are_used():
    """No mixed copy of all votes is made."""
    chain = Chain([FILTERS["nearest_neighbor_mixing"]], RULES["trimmed_mean"])
    votes = np.random.default_rng(5).normal(1.0, 2.0, (37, DIM))
    same, chosen = chain.filtered(votes, np.random.default_rng(3))
    assert same is votes
    assert chosen.shape == (37, 37)
    assert len(WHOLE.pieces(DIM)) == 3


class HalfMixed(filters.NearestNeighborMixing):
    """Half of a vote stays what it was."""

    def apply(self, votes, out=None, stream=None):
        return (votes + super().apply(votes)) / 2


class ClippedTrimmedMean(aggregators.TrimmedMean):
    """It looks at whole votes, and says nothing about that."""

    def aggregate(self, votes, *, out=None, previous=None):
        lengths = np.linalg.norm(votes, axis=1)
        return super().aggregate(votes * np.minimum(1, np.median(lengths) / lengths)[:, None])


@pytest.mark.parametrize("item", [HalfMixed(byzantine=BYZANTINE), filters.NearestNeighborMixing(byzantine=BYZANTINE)])
@pytest.mark.parametrize("rule", [ClippedTrimmedMean(byzantine=BYZANTINE), RULES["trimmed_mean"]])
def test_parts_of_others_do_what_they_say(item, rule):
    """Also where they take their arguments in another order, or do not put their result where it was wanted."""
    votes = np.random.default_rng(5).normal(1.0, 2.0, (37, DIM)) * np.linspace(1, 9, 37)[:, None]
    previous, out = np.full(DIM, 0.5), np.empty(DIM)
    chain = Chain([item], rule)
    chain.aggregate(*chain.filtered(votes, np.random.default_rng(3)), previous, out)
    np.testing.assert_array_equal(out, rule.aggregate(item.apply(votes)))
    assert (previous == 0.5).all()
