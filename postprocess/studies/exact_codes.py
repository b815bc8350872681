"""How exact the cyclic code is under lies that are hard to tell from rounding, written as Markdown tables.

    python -m postprocess.studies exact_codes [--trials 3] [--seed 1] > tables.md

N devices, one subset each, gradients of 20 normal numbers of mean 1. The s liars are neighbours in the code's circle
or anywhere. They send: other normal numbers; their own message negated; all the same; errors of sizes from 1e-6 to 1e9
at once; or an error that looks almost like one of s other devices (the last singular vector of the parity at 2s
neighbours, from a tenth of the rounding that the decoder lets pass to a hundred times). Given is the largest
||vote - mean|| / ||mean|| that was met. A round in which the decoder says that it cannot tell counts apart: its vote is
the median.
"""

import argparse
from collections.abc import Iterator
from typing import Any

import numpy as np

from mpicoded.algorithms.allocations import Cyclic
from mpicoded.algorithms.encoders import CyclicCode
from mpicoded.algorithms.encoders.cyclic_code import CyclicDecoder
from mpicoded.algorithms.encoders.real_code import Locator, hidden, places, tolerance
from mpicoded.algorithms.randomness import generator

DEVICES, LIARS, DIM = (10, 20, 30, 45, 50, 75, 100), (1, 2, 3, 4, 5, 6, 8, 10, 15, 20), 20

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


def worst(devices: int, liars: int, dtype: str, trials: int, seed: int) -> tuple[float, int, int]:
    """The largest relative error, the rounds that were given up, and all rounds."""
    error, given_up, rounds = 0.0, 0, 0
    for trial in range(trials):
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


def main() -> None:
    """Write the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=3)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    for dtype, limit in (("float64", 1e-6), ("float32", 1e-3)):
        print(f"\n{dtype}: largest error met / bound (rounds given up); refused where the bound is above {limit:g}\n")
        print("| N \\ s |", " | ".join(map(str, LIARS)), "|")
        print("|---|" + "---|" * len(LIARS))
        for devices in DEVICES:
            cells = []
            for liars in LIARS:
                bound = hidden(devices, liars, dtype) if 2 * liars < devices else np.inf
                if 2 * liars >= devices:
                    cells.append("")
                elif bound > 1e4 * limit:
                    cells.append(f"refused / {bound:.0e}")
                else:
                    error, given_up, rounds = worst(devices, liars, dtype, options.trials, options.seed)
                    cells.append(
                        ("refused: " if bound > limit else "")
                        + f"{error:.0e} / {bound:.0e}"
                        + (f" ({given_up} of {rounds})" if given_up else "")
                    )
            print(f"| {devices} |", " | ".join(cells), "|", flush=True)


if __name__ == "__main__":
    main()
