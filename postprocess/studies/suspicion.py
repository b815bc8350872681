"""Who was it? How many fixed attackers are the most suspected devices, with and without coding."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from mpicoded.configs import loads
from mpicoded.data.results import Results
from mpicoded.training.adversary import byzantine_devices
from postprocess.studies.runs import Data, Run, linear
from postprocess.studies.study import Study
from postprocess.studies.tables import Cell, Table

BYZANTINE, ROUNDS, FIRST = 5, 200, 3
ATTACKS = ("sign_flip", "gaussian", "ipm", "bit_flip", "alie", "mimic")
CONFIGS: dict[str, Data] = {
    "lad_linear": linear(FIRST),
    "cra_dl_linear": linear(FIRST, 1000, 0.25),
    "cwtm_linear": linear(FIRST),
}
"""The configs, and their data: that of the first seed in all runs."""


def run(config: str, attack: str, seed: int) -> Run:
    """One run, with the attack as it is by default."""
    fixed = ("--seed", seed, "--rounds", ROUNDS, "--identities", "fixed", "--attack", f'{{name = "{attack}"}}')
    return Run(config, CONFIGS[config], (*fixed, "--byzantine", BYZANTINE, "--aggregator.byzantine", BYZANTINE))


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


def tables(seeds: Sequence[int]) -> list[Table]:
    """A row for each attack."""
    rows: list[tuple[str | Cell, ...]] = [
        (f"`{attack}`", *(Cell(tuple(run(config, attack, seed) for seed in seeds), cell) for config in CONFIGS))
        for attack in ATTACKS
    ]
    return [Table(("attack", *(f"`{config}`" for config in CONFIGS)), rows)]


STUDY = Study(tables, range(FIRST, FIRST + 5), "1 minute")
