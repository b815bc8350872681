"""Is the number of Byzantine devices needed? The rule with an estimate against the rule that is told."""

from collections.abc import Sequence

import numpy as np

from mpicoded.data.results import Results
from postprocess.studies.runs import Run, linear
from postprocess.studies.study import Study
from postprocess.studies.tables import Cell, Table, Tolerance

NUMBERS = (0, 1, 5, 10, 20, 30)
ATTACKS = {
    "sign_flip": (),
    "gaussian": ("--attack.deviation", 200.0),
    "alie": (),
    "ipm": (),
}
"""Scales are those of the configs and the defaults; the deviation is a choice of ours."""
CONFIGS = {"cra_dl_linear": (1000, 0.25), "lad_linear": (100, 0.3)}
"""The configs, subsets and sigma_H of their data."""


def runs(config: str, attack: str, byzantine: int, told: bool, seeds: Sequence[int]) -> tuple[Run, ...]:
    """A run for each seed, which has data of its own; without Byzantine devices the attack is of no matter."""
    attack = attack if byzantine else "sign_flip"
    words = (
        *("--attack.name", attack, *(ATTACKS[attack] if byzantine else ())),
        *("--byzantine", byzantine, "--aggregator.byzantine", byzantine if told else "auto"),
        *("--evaluate_every", 1000),
    )
    return tuple(Run(config, linear(seed, *CONFIGS[config]), ("--seed", seed, *words)) for seed in seeds)


def cell(found: list[Results]) -> str:
    """The ratio's geometric mean and largest over the seeds, and what was tolerated in the middle round.

    The first half of the runs are those of the rule that is told.
    """
    half = len(found) // 2
    ends = np.array([one.history["suboptimality"][-1] for one in found])
    ratios = ends[half:] / ends[:half]
    used = sorted(int(np.median(one.estimates["tolerated"])) for one in found[half:])
    span = str(used[0]) if used[0] == used[-1] else f"{used[0]}–{used[-1]}"
    return f"{np.exp(np.log(ratios).mean()):.2f}, {ratios.max():.2f} ({span}; {ends[:half].mean():.3g})"


def tables(seeds: Sequence[int]) -> list[Table]:
    """One for each config, a row for each number."""
    found = []
    for config in CONFIGS:
        rows: list[tuple[str | Cell, ...]] = []
        for byzantine in NUMBERS:
            both = (
                (runs(config, attack, byzantine, True, seeds), runs(config, attack, byzantine, False, seeds))
                for attack in ATTACKS
            )
            rows.append((str(byzantine), *(Cell(told + auto, cell) for told, auto in both)))
        found.append(Table((f"`{config}`: Byzantine", *(f"`{attack}`" for attack in ATTACKS)), rows))
    return found


STUDY = Study(tables, range(5), "10 minutes", Tolerance(floor=1e-9))
