"""Where coding does not pay: coded and uncoded systems at as many gradients, and at as many rounds and bytes."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from mpicoded.data.results import Results
from postprocess.studies.drawing import finish, panels, style
from postprocess.studies.heterogeneity import NNM, split
from postprocess.studies.runs import Data, Fetch, Run, linear
from postprocess.studies.study import Study
from postprocess.studies.tables import Cell, Table, Tolerance, after, spread

ROUNDS = 300
ATTACKS = {
    "no attack": '{name = "none"}',
    "sign flip −1": '{name = "sign_flip", scale = -1.0}',
    "sign flip −10": '{name = "sign_flip", scale = -10.0}',
    "IPM 0.9": '{name = "ipm", scale = 0.9}',
    "ALIE": '{name = "alie"}',
}
SIGMAS, SKEWS = (0.0, 0.25, 1.0), (0.1, 1.0, 10.0)


class System(NamedTuple):
    """A config, how often it computes each subset's gradient in a round, and the words that change it."""

    label: str
    config: str
    copies: int = 1
    words: tuple[object, ...] = ()


LINEAR = (
    System("plain mean (MA)", "ma_linear"),
    System("RBA-DL", "rba_dl_linear"),
    System("RBA-DL, NNM", "rba_dl_linear", 1, NNM),
    System("CRA-DL, r = 40", "cra_dl_linear", 4),
    System("CRA-DL, r = 100", "cra_dl_linear", 10, ("--allocation.redundancy", 100)),
)
DIGITS = (
    System("plain mean (VA)", "cwtm_digits", 1, ("--aggregator", '{name = "mean"}')),
    System("CWTM", "cwtm_digits"),
    System("CWTM-NNM", "cwtm_digits", 1, NNM),
    System("LAD, d = 5", "lad_digits", 5, ("--allocation.redundancy", 5)),
    System("LAD, d = 20", "lad_digits", 20),
)


class Problem(NamedTuple):
    """A heterogeneity, its systems, and its data for a seed."""

    title: str
    systems: tuple[System, ...]
    knob: float

    def data(self, seed: int) -> Data:
        """Each seed has its own."""
        return linear(seed, 1000, self.knob) if self.systems is LINEAR else split("digits", self.knob, seed)

    def runs(self, system: System, attack: str, seeds: Sequence[int]) -> tuple[Run, ...]:
        """A run for each seed, 300 rounds."""
        words = ("--evaluate_every", 15, "--attack", ATTACKS[attack], *system.words)
        return tuple(Run(system.config, self.data(seed), ("--seed", seed, *words)) for seed in seeds)

    def cell(self, system: System, fair: bool, found: list[Results]) -> str:
        """Suboptimality, or accuracy in percent; ``fair``: where as many gradients are computed as without coding."""
        rounds = ROUNDS // system.copies if fair else ROUNDS
        if self.systems is LINEAR:
            return spread(after("suboptimality", rounds))(found)
        return spread(lambda one: 100 * after("accuracy", rounds)(one), ".1f")(found)


PROBLEMS = (
    *(Problem(f"linear regression, σ_H = {sigma:g}", LINEAR, sigma) for sigma in SIGMAS),
    *(Problem(f"digits, Dirichlet {skew:g}", DIGITS, skew) for skew in SKEWS),
)


def tables(seeds: Sequence[int]) -> list[Table]:
    """As many rounds and bytes, then as many gradients, a row for each system."""
    return [
        Table(
            (f"{problem.title}, as many {'gradients' if fair else 'rounds'}", *ATTACKS),
            [_row(problem, system, fair, seeds) for system in problem.systems],
        )
        for fair in (False, True)
        for problem in PROBLEMS
    ]


def _row(problem: Problem, system: System, fair: bool, seeds: Sequence[int]) -> tuple[str | Cell, ...]:
    def cell(found: list[Results]) -> str:
        return problem.cell(system, fair, found)

    return (system.label, *(Cell(problem.runs(system, attack, seeds), cell) for attack in ATTACKS))


def picture(fetch: Fetch, path: Path, seeds: Sequence[int]) -> None:
    """Over gradients computed, under four attacks: linear regression above, digits below."""
    figure, axes = panels(2, 4, 5, sharey="row", sharex=True)
    for row, problem in zip(axes, (PROBLEMS[1], PROBLEMS[3]), strict=True):
        history = "suboptimality" if problem.systems is LINEAR else "accuracy"
        for axis, attack in zip(row, ("no attack", "sign flip −10", "IPM 0.9", "ALIE"), strict=True):
            for number, system in enumerate(problem.systems):
                found = [fetch(run) for run in problem.runs(system, attack, seeds)]
                values = np.mean([one.history[history] for one in found], axis=0)
                label = system.label.replace("RBA-DL", "RBA-DL/CWTM") if history == "suboptimality" else "_"
                label = label.replace("CRA-DL, r = 40", "CRA-DL, r = 40 / LAD, d = 5")
                label = label.replace("CRA-DL, r = 100", "CRA-DL, r = 100 / LAD, d = 20").replace(" (MA)", "")
                axis.plot(found[0].history["round"][1:] * system.copies, values[1:], label=label, **style(number))
            axis.axvline(ROUNDS, color="0.6", linewidth=0.8)
            axis.set_xscale("log")
            axis.set_title(attack, fontsize=8)
        row[0].set_ylabel(f"{problem.title}\n{history}", fontsize=8)
    axes[0, 0].set(yscale="log", ylim=(0.01, 1e4))
    for axis in axes[1]:
        axis.set_xlabel("gradients of a subset", fontsize=8)
    finish(figure, axes, path)


STUDY = Study(tables, range(3, 6), "8 minutes", Tolerance(0.02, 1e-9), picture)
