"""Who was it? How many fixed attackers are the most suspected devices, with and without coding.

    python -m postprocess.studies suspicion FOLDER [--seeds 5] > table.md

5 of 100 devices are Byzantine in all of 200 rounds; result files stay in FOLDER, and what is there is not run again.
"""

from pathlib import Path
from typing import Any

import numpy as np

from mpicoded.configs import loads
from mpicoded.data.results import Results
from mpicoded.training.adversary import byzantine_devices
from postprocess.studies.runs import data, options, run

BYZANTINE, ROUNDS, FIRST = 5, 200, 3
ATTACKS = ("sign_flip", "gaussian", "ipm", "bit_flip", "alie", "mimic")
CONFIGS = {
    "lad_linear": ("linear", ()),
    "cra_dl_linear": ("linear_1000", ("--subsets", 1000, "--sigma-h", 0.25)),
    "cwtm_linear": ("linear", ()),
}
"""The configs, and what the data of each is made with."""


def result(folder: Path, config: str, attack: str, seed: int) -> Results:
    """One run, with the attack as it is by default, on the data of the first seed."""
    name, words = CONFIGS[config]
    path = data(folder / f"{name}.h5", "--seed", FIRST, *words)
    return run(
        folder / f"{config}_{attack}_{seed}.h5",
        f"{config}.toml",
        *("--data.path", path, "--seed", seed, "--rounds", ROUNDS, "--identities", "fixed"),
        *("--byzantine", BYZANTINE, "--aggregator.byzantine", BYZANTINE, "--attack", f'{{name = "{attack}"}}'),
    )


def guilty(found: Results) -> np.ndarray[Any, Any]:
    """Which devices were Byzantine."""
    return np.asarray(byzantine_devices(loads(found.toml, found.path), 0))


def cell(found: list[Results]) -> str:
    """How many Byzantine ones are among the first, for each seed; the least score of theirs, and the most of others."""
    caught, least, most = [], [], []
    for one in found:
        bad, score = guilty(one), one.suspicion["score"]
        caught.append(int(bad[np.argsort(-score, kind="stable")[:BYZANTINE]].sum()))
        least.append(score[bad].min())
        most.append(score[~bad].max())
    return f"**{' '.join(map(str, caught))}**, {np.mean(least):.1f} against {np.mean(most):.1f}"


def main() -> None:
    """Run what is missing, and print the table."""
    asked = options(__doc__, 5)
    print(f"| attack | {' | '.join(f'`{config}`' for config in CONFIGS)} |")
    print("|---" * (1 + len(CONFIGS)) + "|")
    seeds = range(FIRST, FIRST + asked.seeds)
    for attack in ATTACKS:
        cells = [cell([result(asked.folder, config, attack, seed) for seed in seeds]) for config in CONFIGS]
        print(f"| `{attack}` | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
