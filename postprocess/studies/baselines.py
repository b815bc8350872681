"""Exact and approximate codes beside each other, in the setting of CRA-DL: where they end, and what they cost.

    python -m postprocess.studies baselines FOLDER [--seeds 3] > table.md

Each seed has data of its own; result files stay in FOLDER, and what is there is not run again.
"""

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from mpicoded.data.results import Results
from postprocess.studies.runs import data, options, run

ATTACKS = {"sign flip": ("sign_flip", ("--attack.scale", -1.0)), "ALIE": ("alie", ())}


class Baseline(NamedTuple):
    """A config, changed by words of the command line."""

    label: str
    config: str
    byzantine: int
    words: tuple[Any, ...] = ()
    subsets: int = 1000


BASELINES = (
    Baseline("plain mean (MA)", "ma_linear", 20),
    Baseline("RBA-DL", "rba_dl_linear", 20, ("--aggregator.byzantine", 20)),
    Baseline("CRA-DL, r = 40", "cra_dl_linear", 20, ("--aggregator.byzantine", 20)),
    Baseline("SGC-DL, r = 40", "sgc_dl_linear", 20),
    Baseline("clairvoyant, r = 40", "cra_dl_linear", 20, ("--aggregator.name", "clairvoyant")),
    Baseline("DRACO, 11 copies", "draco_linear", 5),
    Baseline("DRACO, 11 copies, beyond its limit", "draco_linear", 20),
    Baseline("DRACO, 41 copies", "draco_linear", 20, ("--devices", 82, "--allocation.copies", 41)),
    Baseline("DRACO, cyclic code, 7 copies", "draco_cyclic_linear", 3),
    Baseline("DETOX, 3 copies", "detox_linear", 10),
    Baseline("ByzShield, 9 copies", "byzshield_linear", 20, (), 968),
    Baseline("Aspis, 3 copies", "aspis_linear", 4, (), 910),
)


def result(folder: Path, baseline: Baseline, attack: str, seed: int) -> Results:
    """One run."""
    name, words = ATTACKS[attack]
    made = ("--subsets", baseline.subsets, "--sigma-h", 0.25, "--seed", seed)
    path = data(folder / f"data_{baseline.subsets}_{seed}.h5", *made)
    label = "".join(letter for letter in baseline.label if letter.isalnum())
    return run(
        folder / f"{label}_{name}_{seed}.h5",
        f"{baseline.config}.toml",
        *("--data.path", path, "--seed", seed, "--byzantine", baseline.byzantine),
        *("--attack.name", name, *words, *baseline.words),
    )


def main() -> None:
    """Run what is missing, and print the table."""
    asked = options(__doc__, 3)
    print(f"| method | Byzantine | gradients a subset | MB up | {' | '.join(ATTACKS)} |")
    print("|---" * (4 + len(ATTACKS)) + "|")
    for baseline in BASELINES:
        cells = []
        for attack in ATTACKS:
            found = [result(asked.folder, baseline, attack, seed) for seed in range(asked.seeds)]
            cells.append(", ".join(f"{np.maximum(one.history['suboptimality'][-1], 0):.3g}" for one in found))
        last = found[0]
        devices, copies = last.experiment["devices"], last.allocation["copies_spread"][1]
        sent = last.history["bytes_up"][-1] / 1e6
        method = f"{baseline.label} (`{baseline.config}`)"
        row = [method, f"{baseline.byzantine} of {devices}", f"{copies:.3g}", f"{sent:.3g}", *cells]
        print(f"| {' | '.join(row)} |", flush=True)


if __name__ == "__main__":
    main()
