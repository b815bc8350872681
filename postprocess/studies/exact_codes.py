"""How exact the cyclic code is under lies that are hard to tell from rounding.

N devices, one subset each, gradients of 20 normal numbers of mean 1. The s liars are neighbours in the code's circle
or anywhere. They send: other normal numbers; their own message negated; all the same; errors of sizes from 1e-6 to 1e9
at once; or an error that looks almost like one of s other devices (the last singular vector of the parity at 2s
neighbours, from a tenth of the rounding that the decoder lets pass to a hundred times). Given is the largest
||vote - mean|| / ||mean|| that was met. A round in which the decoder says that it cannot tell counts apart: its vote is
the median.
"""

from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

import numpy as np

from mpicoded.algorithms.allocations import Cyclic
from mpicoded.algorithms.encoders import CyclicCode
from mpicoded.algorithms.encoders.cyclic_code import CyclicDecoder
from mpicoded.algorithms.encoders.real_code import Locator, hidden, places, tolerance
from mpicoded.algorithms.randomness import generator
from mpicoded.data.results import Results
from postprocess.studies.study import Study
from postprocess.studies.tables import Cell, Table, Tolerance

DEVICES, LIARS, DIM = (10, 20, 30, 45, 50, 75, 100), (1, 2, 3, 4, 5, 6, 8, 10, 15, 20), 20
LIMITS = {"float64": 1e-6, "float32": 1e-3}
"""Where a code's bound is above, it is refused."""

Array = np.ndarray[Any, Any]


def lies(messages: Array, order: Array, liars: int, rng: np.random.Generator) -> Iterator[tuple[Array, Array]]:
    """Who lies, and all the messages then."""
    devices = len(messages)
    chosen = order[(rng.integers(devices) + np.arange(liars)) % devices]
    for who in (chosen, rng.permutation(devices)[:liars]):
        sizes = 10.0 ** rng.uniform(-6, 9, (liars, 1))
        for lie in (
            rng.normal(size=(liars, DIM)),
            -messages[who],
            np.tile(rng.normal(size=DIM), (liars, 1)),
            messages[who] + sizes * rng.normal(size=(liars, DIM)),
        ):
            yield who, _with(messages, who, lie)
    parity = Locator(places(devices), liars).parity
    for times in (0.1, 0.3, 1, 3, 10, 100):
        for half in (slice(0, liars), slice(0, 2 * liars, 2)):
            start = int(rng.integers(devices - 2 * liars + 1))
            _, sizes, vectors = np.linalg.svd(parity[:, start : start + 2 * liars])
            error = np.zeros(2 * liars)
            error[half] = vectors[-1][half]
            # The rounding that is let pass is relative to all messages together.
            size = times * tolerance(devices, liars, messages.dtype.name) * np.linalg.norm(messages) / sizes[-1]
            direction = rng.normal(size=DIM)
            who = order[start : start + 2 * liars]
            wrong = messages[who] + error[:, None] * size * direction / np.linalg.norm(direction)
            yield who[half], _with(messages, who, wrong)


def _with(messages: Array, who: Array, lie: Array) -> Array:
    changed = messages.copy()
    with np.errstate(over="ignore"):
        changed[who] = lie
    return changed


def worst(devices: int, liars: int, dtype: str, trials: Sequence[int], seed: int = 1) -> tuple[float, int, int]:
    """The largest relative error, the rounds that were given up, and all rounds."""
    error, given_up, rounds = 0.0, 0, 0
    for trial in trials:
        rng = generator(seed, "study", trial, devices, liars)
        assignment = Cyclic(redundancy=2 * liars + 1).assignment(devices, devices, trial, seed)
        code = CyclicCode(byzantine=liars)
        gradients = rng.normal(1, 1, (devices, DIM)).astype(dtype)
        mean = gradients.mean(axis=0, dtype=np.float64)
        messages = code.code(assignment, 0, devices).weights.astype(dtype) @ gradients
        decoder = code.decoder(assignment)
        assert isinstance(decoder, CyclicDecoder)
        for _, received in lies(messages, decoder.order, liars, rng):
            votes, _, accused = decoder.decode(received, np.ones(devices, bool), rng)
            rounds += 1
            if accused is None:
                given_up += 1
            else:
                error = max(error, float(np.linalg.norm(votes[0] - mean) / np.linalg.norm(mean)))
    return error, given_up, rounds


def cell(devices: int, liars: int, dtype: str, trials: Sequence[int], found: list[Results]) -> str:
    """Largest error met / bound, and the rounds given up."""
    if 2 * liars >= devices:
        return ""
    bound, limit = hidden(devices, liars, dtype), LIMITS[dtype]
    if bound > 1e4 * limit:
        return f"refused / {bound:.0e}"
    error, given_up, rounds = worst(devices, liars, dtype, trials)
    text = f"{'refused: ' * (bound > limit)}{error:.0e} / {bound:.0e}"
    return text + (f" ({given_up} of {rounds})" if given_up else "")


def tables(trials: Sequence[int]) -> list[Table]:
    """One for each type, a row for each number of devices."""
    found = []
    for dtype in LIMITS:
        rows: list[tuple[str | Cell, ...]] = [
            (str(devices), *(Cell((), partial(cell, devices, liars, dtype, trials)) for liars in LIARS))
            for devices in DEVICES
        ]
        found.append(Table((f"{dtype}: N \\ s", *map(str, LIARS)), rows))
    return found


STUDY = Study(tables, range(3), "1 minute", Tolerance(relative=9))  # errors of rounding: another machine has others
