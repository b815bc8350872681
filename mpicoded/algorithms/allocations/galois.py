"""Exact arithmetic in finite fields GF(q), q a prime power, on whole arrays.

An element is a number 0 … q-1 whose digits to the base p are the coefficients of a polynomial over the integers modulo
p, q = p^m. Addition works on digits; multiplication adds logarithms to the base of one primitive element.
"""

from functools import lru_cache
from itertools import count

import numpy as np

from mpicoded.algorithms.shapes import Array, Bool, Int
from mpicoded.errors import InputError


class Field:
    """GF(q). Elements 0 and 1 are what they are called; where q is prime, so are all others."""

    def __init__(self, order: int) -> None:
        found = prime_power(order)
        if found is None:
            raise InputError(f"a finite field has a prime power of elements, got {order}")
        self.order = order
        self.characteristic, self.degree = found
        self._places = [self.characteristic**place for place in range(self.degree)]
        self.powers = _powers(self.characteristic, self.degree)  # of a primitive element: all but 0, once each
        self._logarithms = np.zeros(order, np.int64)
        self._logarithms[self.powers] = np.arange(order - 1)

    def add(self, left: Array, right: Array) -> Array:
        """The sum, digit by digit."""
        if self.degree == 1:
            return (left + right) % self.order
        return sum((left // place + right // place) % self.characteristic * place for place in self._places)

    def subtract(self, left: Array, right: Array) -> Array:
        """The difference, digit by digit."""
        if self.degree == 1:
            return (left - right) % self.order
        return sum((left // place - right // place) % self.characteristic * place for place in self._places)

    def multiply(self, left: Array, right: Array) -> Array:
        """The product: a power whose exponent is the sum of logarithms; 0 where either is 0."""
        exponent = (self._logarithms[left] + self._logarithms[right]) % (self.order - 1)
        return np.where((left == 0) | (right == 0), 0, self.powers[exponent])

    def inner(self, left: Int[Array, "rows n"], right: Int[Array, "columns n"]) -> Int[Array, "rows columns"]:
        """<x, y> = sum_j x_j y_j for all pairs of vectors."""
        total = np.zeros((len(left), len(right)), np.int64)
        for place in range(left.shape[1]):
            total = self.add(total, self.multiply(left[:, None, place], right[None, :, place]))
        return total

    def vectors(self, dimension: int) -> Int[Array, "vectors n"]:
        """All vectors of GF(q)^n; number x is the one with the digits of x to the base q, the last digit first."""
        return self._digits(np.arange(self.order**dimension), dimension)

    def directions(self, dimension: int) -> Int[Array, "points n"]:
        """One vector of each line through 0, (q^n - 1)/(q - 1) in all; any two are independent.

        Those that span the first two dimensions come first: (1, 0, …), then (t, 1, 0, …) for every t.
        """
        numbers = [np.arange(self.order**place, 2 * self.order**place) for place in range(dimension)]
        return self._digits(np.concatenate(numbers), dimension)

    def residues(self, power: int) -> Bool[Array, " elements"]:
        """Which elements are ``power``-th powers of elements other than 0."""
        found = np.zeros(self.order, bool)
        found[self.powers[:: int(np.gcd(power, self.order - 1))]] = True
        return found

    def _digits(self, numbers: Int[Array, " vectors"], dimension: int) -> Int[Array, "vectors n"]:
        return numbers[:, None] // self.order ** np.arange(dimension) % self.order


@lru_cache(maxsize=16)
def field(order: int) -> Field:
    """GF(``order``), made once."""
    return Field(order)


@lru_cache(maxsize=4)
def prime_powers(limit: int) -> tuple[int, ...]:
    """All prime powers from 2 to ``limit``, ascending."""
    sieve = np.ones(limit + 1, bool)
    sieve[:2] = False
    for number in range(2, int(limit**0.5) + 1):
        if sieve[number]:
            sieve[number * number :: number] = False
    primes = np.flatnonzero(sieve).tolist()
    found = list(primes)
    for prime in primes:
        power = prime * prime
        if power > limit:
            break
        while power <= limit:
            found.append(power)
            power *= prime
    return tuple(sorted(found))


def prime_power(number: int) -> tuple[int, int] | None:
    """(p, m) where ``number`` = p^m with p prime, else None."""
    factors = _prime_factors(number)
    return (factors[0], len(factors)) if factors and factors[0] == factors[-1] else None


def next_prime_power(number: int) -> int:
    """The least prime power that is at least this number."""
    return next(candidate for candidate in count(max(number, 2)) if prime_power(candidate))


def _prime_factors(number: int) -> list[int]:
    """Ascending, as often as they divide; none for 1."""
    found, divisor = [], 2
    while divisor * divisor <= number:
        while number % divisor == 0:
            found.append(divisor)
            number //= divisor
        divisor += 1
    return [*found, number] if number > 1 else found


def _powers(prime: int, degree: int) -> Int[Array, " powers"]:
    """1, w, w^2, … of a primitive element w, by doubling: a row of digits times the matrix of w^k is the element times
    w^k.
    """
    order = prime**degree
    matrix = _primitive(prime, degree)
    digits = np.eye(1, degree, dtype=np.int64)
    while len(digits) < order - 1:
        digits = np.concatenate([digits, digits @ matrix % prime])
        matrix = matrix @ matrix % prime
    return digits[: order - 1] @ prime ** np.arange(degree)


def _primitive(prime: int, degree: int) -> Int[Array, "m m"]:
    """The matrix of the first primitive polynomial: of order p^m - 1, no less (Lidl and Niederreiter, theorem 3.16)."""
    order = prime**degree
    factors = _prime_factors(order - 1)
    one = np.eye(degree, dtype=np.int64)
    for number in range(1, order):
        matrix = np.eye(degree, k=1, dtype=np.int64)  # times w: digits move up, and w^m is what the last row says
        matrix[-1] = number // prime ** np.arange(degree) % prime
        if (_power(matrix, order - 1, prime) == one).all() and not any(
            (_power(matrix, (order - 1) // factor, prime) == one).all() for factor in set(factors)
        ):
            return matrix
    raise AssertionError(f"every finite field has a primitive element, GF({order}) too")


def _power(matrix: Int[Array, "m m"], exponent: int, prime: int) -> Int[Array, "m m"]:
    result = np.eye(len(matrix), dtype=np.int64)
    while exponent:
        if exponent & 1:
            result = result @ matrix % prime
        matrix, exponent = matrix @ matrix % prime, exponent >> 1
    return result
