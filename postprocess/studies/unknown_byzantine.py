"""Is the number of Byzantine devices needed? The rule with an estimate against the rule that is told.

    python -m postprocess.studies unknown_byzantine FOLDER [--seeds 5] > table.md

Each seed has data of its own; result files stay in FOLDER, and what is there is not run again.
"""

from pathlib import Path

import numpy as np

from mpicoded.data.results import Results
from postprocess.studies.runs import data, options, run

NUMBERS = (0, 1, 5, 10, 20, 30)
ATTACKS = {
    "sign_flip": (),
    "gaussian": ("--attack.deviation", 200.0),
    "alie": (),
    "ipm": (),
}
"""Scales are those of the configs and the defaults; the deviation is a choice of ours."""
CONFIGS = {"lad_linear": (), "cra_dl_linear": ("--subsets", 1000, "--sigma-h", 0.25)}
"""The configs, and what the data of each is made with."""


def result(folder: Path, config: str, attack: str, byzantine: int, told: str, seed: int) -> Results:
    """One run; without Byzantine devices the attack is of no matter."""
    path = data(folder / f"{config}_data_{seed}.h5", "--seed", seed, *CONFIGS[config])
    attack = attack if byzantine else "sign_flip"
    return run(
        folder / f"{config}_{attack}_{byzantine}_{told}_{seed}.h5",
        f"{config}.toml",
        *("--data.path", path, "--seed", seed, "--attack.name", attack, *(ATTACKS[attack] if byzantine else ())),
        *("--byzantine", byzantine, "--aggregator.byzantine", byzantine if told == "told" else "auto"),
        *("--evaluate_every", 1000),
    )


def cell(folder: Path, config: str, attack: str, byzantine: int, seeds: int) -> str:
    """The ratio's geometric mean and largest over the seeds, and what was tolerated in the middle round."""
    told, auto = (
        [result(folder, config, attack, byzantine, kind, seed) for seed in range(seeds)] for kind in ("told", "auto")
    )
    ends = np.array([[one.history["suboptimality"][-1] for one in runs] for runs in (told, auto)])
    ratios = ends[1] / ends[0]
    used = sorted(int(np.median(one.estimates["tolerated"])) for one in auto)
    span = str(used[0]) if used[0] == used[-1] else f"{used[0]}–{used[-1]}"
    return f"{np.exp(np.log(ratios).mean()):.2f}, {ratios.max():.2f} ({span}; {ends[0].mean():.3g})"


def main() -> None:
    """Run what is missing, and print a table for each config."""
    asked = options(__doc__, 5)
    for config in reversed(CONFIGS):
        print(f"\n| `{config}`: Byzantine | {' | '.join(f'`{attack}`' for attack in ATTACKS)} |")
        print("|---" * (1 + len(ATTACKS)) + "|")
        for byzantine in NUMBERS:
            cells = [cell(asked.folder, config, attack, byzantine, asked.seeds) for attack in ATTACKS]
            print(f"| {byzantine} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
