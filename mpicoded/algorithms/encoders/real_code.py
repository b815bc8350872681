"""A real cyclic code: sparse weights whose messages lack the highest frequencies, so that what has them is an error.

The messages of an odd number n of devices in a circle are a periodic signal. Honest ones lack the 2s frequencies
nearest to n/2, the parity; an error at fewer places has some of them. This is a real DFT code (Marshall 1984), where
DRACO's is complex: half as many numbers travel. Along 2s+1 neighbours there is one such filter alone, with positive
weights not far from binomial ones, so that a message is a weighted mean. An even number of devices leaves one place of
the circle empty, where the message is known to be zero.
"""

from collections.abc import Callable
from math import pi

import numpy as np

from mpicoded.algorithms.shapes import Array, Bool, Float, Int

_NOISE = 8.0  # rounding of messages and their projections, in epsilons; up to 4.4 was met


def places(devices: int) -> int:
    """The length of the circle, an odd number."""
    return devices | 1


def windows(devices: int, liars: int) -> Float[Array, "gaps weights"]:
    """The 2s+1 weights of sum 1 along neighbours, none of whose frequencies is in the parity.

    The last row is for neighbours without an empty place between them. Where there is one, after g of them, it is row
    g - 1. The plain ones are q-binomial coefficients, q = exp(2 pi i / n): the product of (1 + z q^k) over the
    half-integers -s < k < s. Two of them side by side make the others.
    """
    k = np.arange(1, 2 * liars + 1, dtype=np.longdouble)
    step = np.arccos(np.longdouble(-1)) / places(devices)
    plain = np.cumprod(np.append(1, np.sin((2 * liars + 1 - k) * step) / np.sin(k * step)))
    plain /= plain.sum()
    rows = [plain]
    for gap in range(2 * liars, 0, -1) if places(devices) > devices else ():
        before, after = plain[gap - 1 : gap + 1]
        pair = before * np.append(plain, 0) - after * np.append(np.longdouble(0), plain)
        rows.insert(0, np.delete(pair, gap) / (before - after))
    return np.asarray(rows, np.float64)


def tolerance(devices: int, liars: int, dtype: str) -> float:
    """The most that rounding leaves at the parity's frequencies, relative to the messages: what is more is an error.

    Weights beside an empty place have both signs, and make messages whose terms are larger than themselves.
    """
    return float(_NOISE * np.finfo(dtype).eps * np.abs(windows(devices, liars)).sum(axis=1).max())


def hidden(devices: int, liars: int, dtype: str) -> float:
    """The error of the mean, relative to the messages' root mean square, that lies can hide in the rounding.

    Two sets of s places look alike where the difference of what is wrong there is next to nothing at the parity's
    frequencies f. On 2s neighbours, the worst places, a signal is the polynomial through its 2s values there, and its
    value at frequency 0 is the sum of those times Lagrange's product over g != f of
    sin(pi g / n) / sin(pi (f - g) / n).
    """
    if not liars:
        return 0.0
    number = np.arange(2 * liars)
    frequencies = places(devices) / 2 + number - liars + 0.5
    away = np.sin(pi * (number[:, None] - number) / places(devices)) + np.eye(len(number))
    ratios = np.where(np.eye(len(number), dtype=bool), 1, np.sin(pi * frequencies / places(devices)) / away)
    return tolerance(devices, liars, dtype) * float(np.linalg.norm(ratios.prod(axis=1)))


class Locator:
    """Finds the places of errors in signals that should have none of the parity's frequencies."""

    def __init__(self, length: int, liars: int) -> None:
        self.length, self.liars = length, liars
        self._signs = (-1.0) ** np.arange(length)
        self._waves = self._signs * _waves(np.arange(2 * liars) - liars + 0.5, length)
        positive = self._waves[liars:]
        self.parity = np.sqrt(2 / length) * np.concatenate([positive.real, positive.imag])  # orthonormal rows
        self._points = _waves(np.ones(1), length)[0]

    def places(
        self, signals: Float[Array, "length signals"], erased: Bool[Array, " length"], noise: float
    ) -> Bool[Array, " length"] | None:
        """A mask of the places with errors, the erased ones among them, that explains all; None where none is found.

        What is left unexplained is less than ``noise`` times the signals. Twice the errors and the erasures together
        are 2s at most. The largest errors are found first and erased, so that their rounding does not hide others;
        then errors that explain nothing are dropped.

        Signals are first taken to be as large as what is left without the s largest, which could be lies. Where nothing
        explains them so, the largest may be honest (gradients are uneven, and lies can be small): then to be as large
        as those that are kept.
        """
        if erased.sum() > 2 * self.liars:
            return None
        surely = self._size(signals, erased)
        found = self._explanation(signals, erased, noise, lambda gone: surely)
        if found is not None:
            return found
        return self._explanation(signals, erased, noise, lambda gone: self._largest(signals, gone))

    def _explanation(
        self,
        signals: Float[Array, "length signals"],
        erased: Bool[Array, " length"],
        noise: float,
        size: Callable[[Bool[Array, " length"]], float],
    ) -> Bool[Array, " length"] | None:
        """``places`` where signals are of this size without those at some places."""
        gone = erased.copy()
        while not self._explained(signals, gone, allowed := noise * size(gone)):
            rest = np.where(gone[:, None], 0, signals)
            rounding = noise * float(np.linalg.norm(rest))
            more = self._search(rest, gone, allowed if self._explained(rest, gone, rounding) else rounding)
            if more is None:
                return None
            gone[more] = True
        for place in np.flatnonzero(gone & ~erased):
            gone[place] = False
            gone[place] = not self._explained(signals, gone, noise * size(gone))
        return gone if 2 * gone.sum() - erased.sum() <= 2 * self.liars else None

    def certain(
        self,
        signals: Float[Array, "length signals"],
        erased: Bool[Array, " length"],
        gone: Bool[Array, " length"],
        noise: float,
    ) -> Bool[Array, " length"]:
        """Which of the places found must be in every other explanation too: those of errors that are large enough.

        Two explanations differ by a signal at 2s places with next to nothing at the parity's frequencies; how large it
        can be is told by the smallest singular value at neighbouring ones.
        """
        errors = np.zeros(signals.shape)
        errors[gone] = np.linalg.lstsq(self.parity[:, gone], self.parity @ signals, rcond=None)[0]
        smallest = np.linalg.svd(self.parity[:, : 2 * self.liars], compute_uv=False)[-1:]
        size = self._size(signals, erased) + float(np.linalg.norm(signals))
        sure = np.linalg.norm(errors, axis=1) * smallest.min(initial=1) > 2 * noise * size
        return np.asarray(sure & gone & ~erased)

    def _size(self, signals: Float[Array, "length signals"], erased: Bool[Array, " length"]) -> float:
        """That of all signals if each were as large as the largest but those that can be errors: as honest ones are."""
        norms = np.sort(np.linalg.norm(signals[~erased], axis=1))
        errors = (2 * self.liars - int(erased.sum())) // 2
        heard = norms[norms > 0][: -errors or None]
        return float(np.sqrt(self.length) * heard[-1]) if len(heard) else 0.0

    def _largest(self, signals: Float[Array, "length signals"], gone: Bool[Array, " length"]) -> float:
        """That of all signals if each were as large as the largest at the other places."""
        return float(np.sqrt(self.length) * np.linalg.norm(signals[~gone], axis=1).max(initial=0.0))

    def average(self, gone: Bool[Array, " length"]) -> Float[Array, " length"]:
        """Weights of the sum of all messages that are zero at these places, of least norm."""
        inside = self.parity[:, gone].T
        change = np.linalg.lstsq(inside, -np.ones(len(inside)), rcond=None)[0]
        return np.where(gone, 0, 1 + change @ self.parity)

    def _explained(
        self, signals: Float[Array, "length signals"], places: Bool[Array, " length"], allowed: float
    ) -> bool:
        """Whether errors at these places leave no more than what is allowed for noise."""
        basis = np.linalg.qr(self.parity[:, places], mode="complete")[0][:, places.sum() :]
        left = np.linalg.norm(basis.T @ (self.parity @ np.where(places[:, None], 0, signals)))
        return bool(left <= allowed)

    def _search(
        self, signals: Float[Array, "length signals"], gone: Bool[Array, " length"], allowed: float
    ) -> Int[Array, " errors"] | None:
        """The fewest places that, with those gone, explain the signals up to what is allowed for noise.

        A polynomial that is zero at the errors' points turns any run of their syndromes to zero; its coefficients are
        the last singular vector of all such runs, one matrix for all signals.
        """
        if gone.sum() > 2 * self.liars:
            return None
        syndromes, rankings = self._syndromes(signals, gone), []
        for errors in range(1, len(syndromes) // 2 + 1):
            runs = np.lib.stride_tricks.sliding_window_view(syndromes, errors + 1, axis=0).reshape(-1, errors + 1)
            polynomial = np.linalg.svd(runs)[2][-1].conj()
            values = np.abs(np.polynomial.polynomial.polyval(self._points, polynomial))
            values[gone] = np.inf
            rankings.append(np.argsort(values)[: len(syndromes)])
            if self._explained(signals, self._with(gone, rankings[-1][:errors]), allowed):
                return np.asarray(rankings[-1][:errors])
        for ranking in reversed(rankings):
            found = self._thinned(signals, gone, ranking, allowed)
            if 2 * len(found) <= len(syndromes):
                return found
        return None

    def _thinned(
        self,
        signals: Float[Array, "length signals"],
        gone: Bool[Array, " length"],
        found: Int[Array, " places"],
        allowed: float,
    ) -> Int[Array, " errors"]:
        """Drop, one after the other, the place that explains least beside the others, as long as they explain all."""
        basis = np.linalg.qr(self.parity[:, gone], mode="complete")[0][:, gone.sum() :].T
        columns, target = basis @ self.parity, basis @ (self.parity @ signals)
        while len(found):
            orthogonal, triangle = np.linalg.qr(columns[:, found])
            inverse = np.linalg.pinv(triangle, rcond=0)
            costs = np.linalg.norm(inverse @ (orthogonal.T @ target), axis=1) / np.linalg.norm(inverse, axis=1)
            fewer = np.delete(found, costs.argmin())
            if not self._explained(signals, self._with(gone, fewer), allowed):
                break
            found = fewer
        return found

    @staticmethod
    def _with(gone: Bool[Array, " length"], found: Int[Array, " errors"]) -> Array:
        places = gone.copy()
        places[found] = True
        return places

    def _syndromes(self, signals: Float[Array, "length signals"], gone: Bool[Array, " length"]) -> Array:
        """Fourier coefficients, at the parity's frequencies, of signals times a polynomial that is zero where gone."""
        zeros = np.prod(self._points[:, None] - self._points[gone], axis=1)
        return np.asarray((self._waves[: 2 * self.liars - gone.sum()] * zeros) @ signals)


def _waves(frequencies: Float[Array, " waves"], length: int) -> Array:
    """exp(2 pi i f k / n) for multiples f of 1/2 and places k, of angles that are reduced before they are rounded."""
    half_turns = np.outer(np.rint(2 * frequencies).astype(np.int64), np.arange(length)) % (2 * length)
    return np.exp(1j * pi * half_turns / length)
