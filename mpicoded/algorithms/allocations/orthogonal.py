"""Allocations from inner products over finite fields: orthogonal arrays, and orthogonal Latin squares."""

from functools import lru_cache
from math import isqrt
from typing import Annotated, ClassVar

import msgspec
import numpy as np
from msgspec.structs import replace

from mpicoded.algorithms.allocations.base import Designed
from mpicoded.algorithms.allocations.galois import field, next_prime_power, prime_power, prime_powers
from mpicoded.algorithms.allocations.nearest import FARTHEST, Pair, around, multiples
from mpicoded.algorithms.component import Component, PositiveCount
from mpicoded.algorithms.shapes import Array, Bool
from mpicoded.errors import InputError


class OrthogonalArray(Designed):
    """Every pair of devices shares exactly r^2/M subsets, CRA-DL's own condition; copies are uneven.

    An orthogonal array OA(M, N, s, 2) of Rao and Hamming: task = run x in GF(s)^n, device = factor p_i, its level in
    run x is <p_i, x>, and it has the tasks in which that is one of its first u levels (``held_levels``): r = u M/s, and
    as any two factors take each pair of levels in M/s^2 runs, pairs share u^2 M/s^2. s is a prime power (``levels``;
    unset: the one that loses nothing with the least redundancy), the tasks are s^n, and N is at most (s^n - 1)/(s - 1).
    A task is a block of subsets where these are a multiple. The first s+1 factors are those of a plane and every run
    has level 0 in one of these, so that subsets are lost only where N <= s. Copies cannot be even where overlaps are
    (the variance of copies is N (r/M) (1 - r/M)), so use the encoder's ``unbiased`` weighting; with lost subsets it is
    refused: what it promises could not hold.
    """

    source: ClassVar[str] = "CRA-DL, arXiv 2506.01989; arrays: Rao 1947"
    acronym: ClassVar[str] = "OA"
    cost: ClassVar[str] = "N × M × held_levels / levels subsets computed"
    held_levels: PositiveCount = 1  # u: of a factor's levels, those whose tasks its device has
    levels: Annotated[int, msgspec.Meta(ge=2)] | None = None  # s, a prime power; unset: the cheapest that fits

    def check(self, devices: int, subsets: int) -> None:
        """An array with as many runs and factors, and no more levels held than there are."""
        super().check(devices, subsets)
        if self.levels is not None and prime_power(self.levels) is None:
            below = next(levels for levels in range(self.levels - 1, 1, -1) if prime_power(levels))
            named = f"{below} or {next_prime_power(self.levels)}"
            raise InputError(
                f"allocation orthogonal_array: levels must be a prime power, got {self.levels}; the nearest is {named}"
            )
        if self.levels is not None and self.held_levels > self.levels:
            raise InputError(
                f"allocation orthogonal_array: held_levels must be at most the {self.levels} levels, got "
                f"{self.held_levels}"
            )
        if self._arrays(devices, subsets):
            return
        most = max((levels for levels, _ in replace(self, held_levels=1)._arrays(devices, subsets)), default=0)
        if most:
            raise InputError(
                f"allocation orthogonal_array: held_levels must be at most {most}, the levels of the array for "
                f"{devices} devices and {subsets} subsets, got {self.held_levels}"
            )
        kind = f" of {self.levels} levels" if self.levels else ""
        if not kind and self.held_levels > 1:
            kind = f" of at least the {self.held_levels} levels that are held"
        raise self.refuse(
            f"no array{kind} has {devices} devices and {subsets} subsets, or a divisor of those (s^n subsets, n from 2 "
            "on, for at most (s^n - 1)/(s - 1) devices, s a prime power)",
            devices,
            subsets,
            self._pairs(devices, subsets),
        )

    def check_encoder(self, encoder: Component, devices: int, subsets: int) -> None:
        """No ``unbiased`` weighting where subsets are lost: dividing by copies cannot bring them back."""
        lost = self.lost(devices, subsets)
        if not lost or getattr(encoder, "weighting", None) != "unbiased":
            return
        more = next(
            count
            for count in range(devices + 1, subsets + 1)
            if self._arrays(count, subsets) and not self.lost(count, subsets)
        )
        wider = next(
            part
            for part in (replace(self, held_levels=held) for held in range(self.held_levels + 1, subsets + 1))
            if part._arrays(devices, subsets) and not part.lost(devices, subsets)
        )
        raise InputError(
            f"encoder {encoder.name()}: weighting unbiased cannot be, as allocation orthogonal_array leaves {lost} of "
            f'{subsets} subsets on none of the {devices} devices; use weighting = "plain", or lose none with {more} '
            f"devices or held_levels = {wider.held_levels}"
        )

    def lost(self, devices: int, subsets: int) -> int:
        """How many subsets are on no device, whatever the seed."""
        return self._costs(devices, subsets)[0][0]

    def design(self, devices: int, subsets: int) -> Bool[Array, "devices tasks"]:
        """Factors × runs, where the level is held."""
        _, levels, dimension = self._costs(devices, subsets)[0][1:]
        factors = field(levels).directions(dimension)[:devices]
        return np.asarray(field(levels).inner(factors, field(levels).vectors(dimension)) < self.held_levels)

    def _costs(self, devices: int, subsets: int) -> list[tuple[int, int, int, int]]:
        """Lost subsets, redundancy, levels and dimension of each array; the best one first."""
        return sorted(
            (
                subsets // levels**2 * _uncovered(levels, self.held_levels, min(devices, levels + 1)),
                self.held_levels * subsets // levels,
                levels,
                dimension,
            )
            for levels, dimension in self._arrays(devices, subsets)
        )

    def _arrays(self, devices: int, subsets: int) -> list[tuple[int, int]]:
        """(s, n) of the arrays that these numbers allow: for each s the one of the smallest blocks."""
        found = {}
        for levels in prime_powers(isqrt(subsets)):
            if self.levels in (None, levels) and self.held_levels <= levels:
                dimension = 2
                while subsets % levels**dimension == 0:
                    if devices <= _most(levels, dimension):
                        found[levels] = dimension
                    dimension += 1
        return list(found.items())

    def _pairs(self, devices: int, subsets: int) -> list[Pair]:
        found: list[Pair] = []
        orders = {*prime_powers(isqrt(subsets + 4 * devices)), next_prime_power(self.held_levels)}
        for levels in orders if self.levels is None else {self.levels}:
            dimension, most = 1, 0
            while levels >= self.held_levels and (most < devices or levels**dimension < subsets):
                dimension += 1
                most = _most(levels, dimension)
                found += multiples(min(devices, most), levels**dimension, subsets)
        return found


def _most(levels: int, dimension: int) -> int:
    """The most factors of an array: the lines through 0 in GF(s)^n."""
    return int((levels**dimension - 1) // (levels - 1))


@lru_cache(maxsize=1024)
def _uncovered(levels: int, held: int, devices: int) -> int:
    """In how many of the s^2 runs of a plane none of the first factors has a held level."""
    if devices > levels:
        return 0
    if held == 1:  # x = 0 has level 0 in all factors, and each factor has it in s-1 more runs of its own
        return (levels - 1) * (levels + 1 - devices)
    runs = field(levels).vectors(2)
    free = np.ones(len(runs), bool)
    for factor in field(levels).directions(2)[:devices]:
        free &= field(levels).inner(factor[None], runs)[0] >= held
    return int(free.sum())


class LatinSquare(Designed):
    """ByzShield: two devices share at most one task, so that few lies are the majority in few tasks only.

    q mutually orthogonal Latin squares of order l, a prime power: task = cell, device = (square a, symbol u), and it
    has the l tasks in whose cells square a shows u. Devices of one square share no task, of two squares exactly one;
    each task has q copies (``copies``; unset: as few as the numbers allow). N = q l and there are l^2 tasks, each a
    block of subsets where these are a multiple. q is at most l+1: the l-1 squares a x + y that are Latin, then the rows
    x and the columns y.
    """

    source: ClassVar[str] = "ByzShield, Konstantinidis and Ramamoorthy 2021"
    acronym: ClassVar[str] = "ByzShield"
    cost: ClassVar[str] = "every subset computed as often as it has copies"
    copies: Annotated[int, msgspec.Meta(ge=2)] | None = None  # devices that compute a task; unset: the fewest that fit

    def check(self, devices: int, subsets: int) -> None:
        """Squares of an order that fits both numbers."""
        super().check(devices, subsets)
        if self._orders(devices, subsets):
            return
        others = [devices // order for order in replace(self, copies=None)._orders(devices, subsets)]
        if others:
            named = " or ".join(map(str, around(others, self.copies or 0)))
            raise InputError(
                f"allocation latin_square: {devices} devices with {subsets} subsets have no squares that make "
                f"{self.copies} copies; the nearest copies are {named}"
            )
        copies = "2 to l+1 copies" if self.copies is None else f"{self.copies} copies"
        raise self.refuse(
            f"needs copies × l devices and l^2 subsets or a multiple, l a prime power, {copies}; got {devices} devices "
            f"and {subsets} subsets",
            devices,
            subsets,
            self._pairs(devices, subsets),
        )

    def design(self, devices: int, subsets: int) -> Bool[Array, "devices tasks"]:
        """(Square, symbol) × cells."""
        order = max(self._orders(devices, subsets))
        latin = np.roll(field(order).directions(2), -2, axis=0)  # x + y, 2x + y, …, then x and y
        shown = field(order).inner(latin[: devices // order], field(order).vectors(2))
        return np.asarray(shown[:, None, :] == np.arange(order)[:, None]).reshape(devices, -1)

    def _orders(self, devices: int, subsets: int) -> list[int]:
        return [
            order
            for order in prime_powers(isqrt(subsets))
            if subsets % order**2 == 0
            and devices % order == 0
            and 2 <= devices // order <= order + 1
            and self.copies in (None, devices // order)
        ]

    def _pairs(self, devices: int, subsets: int) -> list[Pair]:
        orders = set(prime_powers(min(max(2 * devices, isqrt(4 * subsets), 2), FARTHEST)))
        found: list[Pair] = []
        for order in orders | {next_prime_power((self.copies or 2) - 1)}:
            fewer = min(max(devices // order, 2), order + 1)
            for copies in {fewer, min(fewer + 1, order + 1)} if self.copies is None else {self.copies}:
                if copies <= order + 1:
                    found += multiples(copies * order, order**2, subsets)
        return found
