from itertools import pairwise

import numpy as np
import pytest

from mpicoded.algorithms.randomness import generator
from mpicoded.data.subsets import split

LABELS = np.random.default_rng(0).integers(0, 10, 2000)
KINDS = ("iid", "by_label", "dirichlet")


def cut(y, subsets, kind, alpha=1.0, seed=0):
    order, offsets = split(y, subsets, kind, generator(seed, "split"), alpha)
    return [order[start:stop] for start, stop in pairwise(offsets)]


def skew(alpha, seed):
    """Mean distance of the subsets' shares of labels from the shares of all samples, weighed by size."""
    everywhere = np.bincount(LABELS, minlength=10) / len(LABELS)
    parts = cut(LABELS, 20, "dirichlet", alpha, seed)
    distances = [
        len(part) * np.abs(np.bincount(LABELS[part], minlength=10) / max(len(part), 1) - everywhere).sum()
        for part in parts
    ]
    return sum(distances) / len(LABELS)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("subsets", [1, 2, 7, 100, 2000])
@pytest.mark.parametrize("alpha", [1e-300, 0.05, 1.0, 1e6])
def test_every_sample_is_in_exactly_one_subset(kind, subsets, alpha):
    parts = cut(LABELS, subsets, kind, alpha)
    assert len(parts) == subsets
    np.testing.assert_array_equal(np.sort(np.concatenate(parts)), np.arange(2000))


@pytest.mark.parametrize("kind", KINDS)
def test_offsets_rise_from_zero_to_the_samples(kind):
    order, offsets = split(LABELS, 30, kind, generator(0, "split"), 0.1)
    assert (order.dtype.kind, offsets.dtype) == ("i", np.int64)
    assert (offsets[0], offsets[-1], offsets.shape) == (0, 2000, (31,))
    assert (np.diff(offsets) >= 0).all()


@pytest.mark.parametrize("kind", ["iid", "by_label"])
@pytest.mark.parametrize("samples", [1, 10, 11, 99, 2000])
def test_equal_sizes_differ_by_one_at_most(kind, samples):
    for subsets in {1, samples // 3 or 1, samples - 1 or 1, samples}:
        sizes = [len(part) for part in cut(LABELS[:samples], subsets, kind)]
        assert max(sizes) - min(sizes) <= 1
        assert min(sizes) >= 1


def test_iid_subsets_hold_all_labels():
    assert all(len(np.unique(LABELS[part])) == 10 for part in cut(LABELS, 10, "iid"))


def test_iid_is_no_slice_of_the_samples_order():
    parts = cut(LABELS, 4, "iid")
    assert all(np.abs(np.corrcoef(part, np.arange(len(part)))[0, 1]) < 0.2 for part in parts)


def test_by_label_subsets_hold_one_or_two_labels():
    labels = np.random.default_rng(1).permutation(np.repeat(np.arange(10), 200))
    held = [len(np.unique(labels[part])) for part in cut(labels, 30, "by_label")]
    assert max(held) <= 2
    assert np.mean(held) < 1.5
    assert [len(np.unique(labels[part])) for part in cut(labels, 10, "by_label")] == [1] * 10


def test_by_label_sorts_the_targets_of_a_regression():
    targets = np.random.default_rng(1).standard_normal(100)
    parts = cut(targets, 7, "by_label")
    assert all(targets[a].max() <= targets[b].min() for a, b in pairwise(parts))


def test_by_label_deals_the_samples_of_a_label_at_random():
    labels = np.zeros(100, int)
    assert not np.array_equal(np.sort(cut(labels, 2, "by_label")[0]), np.arange(50))


def test_dirichlet_skew_grows_as_alpha_falls():
    measured = [np.mean([skew(alpha, seed) for seed in range(5)]) for alpha in (100.0, 10.0, 1.0, 0.1, 0.01)]
    assert measured == sorted(measured)
    assert measured[0] < 0.3  # almost iid; 2 is the most that there can be
    assert measured[-1] > 1.4


def test_dirichlet_shares_have_the_spread_of_the_distribution():
    """Each share is Beta(alpha, (M - 1) alpha), of variance (1/M)(1 - 1/M)/(M alpha + 1)."""
    labels = np.zeros(10_000, int)
    shares = [[len(part) / 10_000 for part in cut(labels, 10, "dirichlet", 0.5, seed)] for seed in range(200)]
    assert np.mean(np.square(np.array(shares) - 0.1)) == pytest.approx(0.1 * 0.9 / 6, rel=0.1)


def test_dirichlet_leaves_subsets_empty_where_the_skew_is_great():
    sizes = [len(part) for part in cut(LABELS, 100, "dirichlet", 0.01)]
    assert min(sizes) == 0
    assert sum(sizes) == 2000


@pytest.mark.parametrize("alpha", [1e7, 1e9])
def test_dirichlet_of_great_alpha_deals_equal_sizes(alpha):
    sizes = [len(part) for part in cut(np.repeat([0, 1], 500), 10, "dirichlet", alpha)]
    assert max(sizes) - min(sizes) <= 4


def test_dirichlet_does_not_leave_the_rounding_to_one_subset():
    """Two samples a label: were each share rounded down, the last subset would get nearly all of them."""
    parts = cut(np.repeat(np.arange(500), 2), 10, "dirichlet", 1.0)
    assert max(len(part) for part in parts) < 200


@pytest.mark.parametrize("kind", KINDS)
def test_same_seed_same_split_and_other_seed_another(kind):
    one, same, other = (cut(LABELS, 9, kind, 0.3, seed) for seed in (1, 1, 2))
    assert all(map(np.array_equal, one, same))
    assert not all(map(np.array_equal, one, other))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("subsets", [-1, 0, 6])
def test_subsets_must_be_from_one_to_the_samples(refused, kind, subsets):
    with refused(f"got {subsets}", "subsets must be from 1 to the 5 samples"):
        cut(LABELS[:5], subsets, kind)


@pytest.mark.parametrize("alpha", [0.0, -1.0, np.nan, -np.inf, 1e308, np.inf])
def test_alpha_must_be_positive_and_no_overflow(refused, alpha):
    with refused(f"got {alpha}", "alpha must be > 0"):
        cut(LABELS, 5, "dirichlet", alpha)


def test_dirichlet_refuses_a_regression(refused):
    with refused("split dirichlet", "needs labels, but the target is a real number"):
        cut(LABELS * 1.0, 5, "dirichlet")
