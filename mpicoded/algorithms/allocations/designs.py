"""Balanced incomplete block designs: N points and M blocks, and every two points are together in lambda blocks.

A point is in r blocks and a block has k points: N r = M k and lambda (N - 1) = r (k - 1). With device = point and task
= block, every pair of devices shares lambda tasks, and every task has k copies.

A difference set is a set D of a group in which every element but 0 is a difference of lambda pairs of D; its design has
the group's elements as points and as blocks, and point i is in block j where j - i is in D.
"""

from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache, partial
from math import isqrt
from typing import Literal, NamedTuple, get_args

import numpy as np

from mpicoded.algorithms.allocations.galois import field, prime_power, prime_powers
from mpicoded.algorithms.shapes import Array, Bool, Int

Family = Literal["projective", "affine", "paley", "difference_set", "steiner"]


class Design(NamedTuple):
    """A design that is known to exist, and how to write it down."""

    family: Family
    devices: int  # N, points
    tasks: int  # M, blocks
    redundancy: int  # r, blocks of a point
    build: Callable[[], Bool[Array, "devices tasks"]]

    @property
    def copies(self) -> int:
        """k, points of a block."""
        return self.devices * self.redundancy // self.tasks

    @property
    def overlap(self) -> int:
        """lambda, blocks that two points share."""
        return self.redundancy * (self.copies - 1) // (self.devices - 1)


@lru_cache(maxsize=8)
def designs(limit: int) -> tuple[Design, ...]:
    """All designs of the families below for up to ``limit`` devices, in the order in which they are preferred."""
    found = [*_geometries(limit), *_residues(limit), *_products(limit)]
    if limit >= 100:
        found.append(Design("steiner", 100, 825, 33, steiner))
    preference = get_args(Family)
    return tuple(sorted(found, key=lambda design: (design.devices, design.redundancy, preference.index(design.family))))


def _geometries(limit: int) -> Iterator[Design]:
    """Points and hyperplanes of projective and affine spaces: dimension 2 is a plane, the hyperplanes its lines."""
    for q in prime_powers(limit):
        dimension = 2
        while q**dimension <= limit:
            points, directions = q**dimension, (q**dimension - 1) // (q - 1)
            yield Design("affine", points, q * directions, directions, partial(affine, q, dimension))
            if (points := points + directions) <= limit:
                yield Design("projective", points, points, directions, partial(projective, q, dimension))
                yield Design("difference_set", points, points, directions, partial(singer, q, dimension))
            dimension += 1


def _residues(limit: int) -> Iterator[Design]:
    """Squares where q = 3 mod 4, fourth powers where a prime is 1 + 4 x^2, and with 0 where it is 9 + 4 x^2, x odd."""
    for q in prime_powers(limit):
        if q % 4 == 3 and q > 3:
            yield Design("paley", q, q, (q - 1) // 2, partial(residues, q, 2))
            yield Design("difference_set", q, q, (q - 1) // 2, partial(residues, q, 2))
        for zero in (0, 1):
            square, rest = divmod(q - (9 if zero else 1), 4)
            odd = square > 0 and rest == 0 and isqrt(square) ** 2 == square and square % 2
            if odd and q > 5 and (prime_power(q) or (0, 0))[1] == 1:
                yield Design("difference_set", q, q, (q - 1) // 4 + zero, partial(residues, q, 4, bool(zero)))


def _products(limit: int) -> Iterator[Design]:
    """Twin prime powers, and bent functions on m pairs of bits."""
    orders = set(prime_powers(limit))
    for q in sorted(orders):
        points = q * (q + 2)
        if q % 2 and q + 2 in orders and points <= limit:
            yield Design("difference_set", points, points, (points - 1) // 2, partial(twins, q))
    pairs = 2
    while (points := 4**pairs) <= limit:
        yield Design("difference_set", points, points, (points - 2**pairs) // 2, partial(bent, pairs))
        pairs += 1


def projective(order: int, dimension: int) -> Bool[Array, "devices tasks"]:
    """Lines through 0 of GF(q)^(n+1), and the hyperplanes <h, x> = 0 that they are in."""
    points = field(order).directions(dimension + 1)
    return np.asarray(field(order).inner(points, points) == 0)


def affine(order: int, dimension: int) -> Bool[Array, "devices tasks"]:
    """Vectors of GF(q)^n, and the hyperplanes <h, x> = c that they are in."""
    values = field(order).inner(field(order).vectors(dimension), field(order).directions(dimension))
    return np.asarray(values[:, :, None] == np.arange(order)).reshape(len(values), -1)


def singer(order: int, dimension: int) -> Bool[Array, "devices tasks"]:
    """Singer 1938: the exponents i of a primitive element w of GF(q^(n+1)) with trace zero over GF(q), modulo N."""
    large = field(order ** (dimension + 1))
    exponents = np.arange((large.order - 1) // (order - 1))
    trace = np.zeros_like(exponents)
    for place in range(dimension + 1):
        trace = large.add(trace, large.powers[exponents * order**place % (large.order - 1)])
    return develop(trace == 0, (len(exponents),))


def residues(order: int, power: int, zero: bool = False) -> Bool[Array, "devices tasks"]:
    """Paley 1933: the squares of GF(q). Fourth powers: Chowla 1944, Lehmer 1953."""
    members = field(order).residues(power)
    members[0] = zero
    return develop(members, (field(order).characteristic,) * field(order).degree)


def twins(order: int) -> Bool[Array, "devices tasks"]:
    """Stanton and Sprott 1958: (x, y) in GF(q) x GF(q+2) with y = 0, or both squares, or neither."""
    small, large = field(order), field(order + 2)
    members = small.residues(2) == large.residues(2)[:, None]
    members[:, 0] = False
    members[0] = True
    return develop(members.ravel(), (small.characteristic,) * small.degree + (large.characteristic,) * large.degree)


def bent(pairs: int) -> Bool[Array, "devices tasks"]:
    """Menon 1962, Dillon 1974: where the bent function x_1 x_2 + x_3 x_4 + … of bits is one."""
    bits = np.arange(4**pairs)[:, None] >> np.arange(2 * pairs) & 1
    members = (bits[:, ::2] * bits[:, 1::2]).sum(axis=1) % 2 == 1
    return develop(members, (2,) * (2 * pairs))


def develop(members: Bool[Array, " elements"], moduli: Sequence[int]) -> Bool[Array, "devices tasks"]:
    """The design of a difference set in a product of cyclic groups; an element is a number in that mixed base."""
    elements = np.arange(len(members))
    difference: Int[Array, "devices tasks"] = np.zeros((len(members), len(members)), np.int64)
    place = 1
    for modulus in moduli:
        digit = elements // place % modulus
        difference += (digit[None, :] - digit[:, None]) % modulus * place
        place *= modulus
    return np.asarray(members[difference])


def steiner() -> Bool[Array, "devices tasks"]:
    """2-(100,4,1): a transversal design on four groups of 25 points, and a 2-(25,4,1) on each group.

    Points are (group, a), a in GF(25) = F5[x]/(x^2 - 2). Blocks: {(0,a), (1,b), (2,a+b), (3,x a+b)} for all a, b, and
    on each group the translates of {00, 01, 10, 22} and of {00, 02, 13, 32} by Z5 x Z5 (derived and checked, methods.md
    section 1).
    """
    elements = np.stack(np.divmod(np.arange(25), 5), axis=1)
    a, b = np.repeat(elements, 25, axis=0), np.tile(elements, (25, 1))
    times_x = np.stack([2 * a[:, 1], a[:, 0]], axis=1)  # (a_0 + a_1 x) x = 2 a_1 + a_0 x
    across = np.stack([a, b, a + b, times_x + b], axis=1)
    base = np.array([[(0, 0), (0, 1), (1, 0), (2, 2)], [(0, 0), (0, 2), (1, 3), (3, 2)]])
    within = (base[:, None] + elements[:, None]).reshape(50, 4, 2)
    group = np.arange(4) * 25
    blocks = np.concatenate([group + across % 5 @ (5, 1), *(start + within % 5 @ (5, 1) for start in group)])
    held = np.zeros((100, len(blocks)), bool)
    held[blocks.T, np.arange(len(blocks))] = True
    return held
