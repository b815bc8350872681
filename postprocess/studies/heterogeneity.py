"""Heterogeneity on data that nobody made up: handwritten digits and Fashion-MNIST, softmax regression."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from mpicoded.data.results import Results
from postprocess.studies.drawing import finish, panels, style
from postprocess.studies.runs import Data, Fetch, Run
from postprocess.studies.study import Study
from postprocess.studies.tables import Cell, Table, Tolerance, last, spread

SKEWS = (0.1, 0.3, 1.0, 10.0, None)  # of the Dirichlet split; None: iid
ATTACKS = {
    "no attack": '{name = "none"}',
    "IPM 0.9": '{name = "ipm", scale = 0.9}',
    "IPM 5": '{name = "ipm", scale = 5.0}',
    "sign flip −1": '{name = "sign_flip", scale = -1.0}',
    "ALIE": '{name = "alie"}',
}
"""20 of 100 devices; scales are choices of ours."""
NNM = ("--filters", '[{name = "nearest_neighbor_mixing", byzantine = 20}]')


class System(NamedTuple):
    """An allocation, and the words for filters and rule."""

    label: str
    coded: bool
    words: tuple[object, ...] = ()


SYSTEMS = (
    System("plain mean (VA)", False, ("--aggregator", '{name = "mean"}')),
    System("CWTM", False),
    System("CWTM-NNM", False, NNM),
    System("LAD, d = 5", True, ("--allocation.redundancy", 5)),
    System("LAD, d = 20", True),
    System("LAD, d = 20, NNM", True, NNM),
)
FASHION = tuple(one for one in SYSTEMS if one.label in ("plain mean (VA)", "CWTM", "LAD, d = 20"))


def split(name: str, skew: float | None, seed: int) -> Data:
    """A split of its own for each seed."""
    words = ("--split", "iid") if skew is None else ("--split", "dirichlet", "--alpha", skew)
    return Data(name, (*words, "--seed", seed))


def runs(name: str, system: System, attack: str, skew: float | None, seeds: Sequence[int]) -> tuple[Run, ...]:
    """A run for each seed; Fashion-MNIST with mini-batches of 64 samples of a subset."""
    config = f"{'lad' if system.coded else 'cwtm'}_{name}"
    words = ("--evaluate_every", 15 if name == "digits" else 20, "--attack", ATTACKS[attack], *system.words)
    return tuple(Run(config, split(name, skew, seed), ("--seed", seed, *words)) for seed in seeds)


def title(skew: float | None) -> str:
    """As the tables and the picture say it."""
    return "iid" if skew is None else f"Dirichlet {skew:g}"


def tables(seeds: Sequence[int]) -> list[Table]:
    """One for each split, a row for each system."""
    found = []
    for name, skews, systems, attacks in (
        ("digits", SKEWS, SYSTEMS, list(ATTACKS)),
        ("fashion_mnist", (0.1, 10.0), FASHION, ["no attack", "IPM 0.9", "IPM 5"]),
    ):
        for skew in skews:
            rows: list[tuple[str | Cell, ...]] = []
            for system in systems:
                cells = (Cell(runs(name, system, attack, skew, seeds), percent) for attack in attacks)
                rows.append((system.label, *cells))
            found.append(Table((f"{name}, {title(skew)}", *attacks), rows))
    return found


def _accuracy(found: Results) -> float:
    return 100 * last("accuracy")(found)


percent = spread(_accuracy, ".1f")


def picture(fetch: Fetch, path: Path, seeds: Sequence[int]) -> None:
    """Accuracy on digits over the split: without attack, and under the two that tell systems apart."""
    figure, axes = panels(1, 3, 3, sharey=True)
    for axis, attack in zip(axes[0], ("no attack", "IPM 0.9", "IPM 5"), strict=True):
        for number, system in enumerate(SYSTEMS):
            ends = [
                sum(_accuracy(fetch(run)) for run in runs("digits", system, attack, skew, seeds)) / len(seeds)
                for skew in SKEWS
            ]
            axis.plot(range(len(SKEWS)), ends, label=system.label, **style(number))
        axis.set_title(attack, fontsize=9)
        axis.set_xticks(range(len(SKEWS)), [title(skew).replace("Dirichlet ", "") for skew in SKEWS])
        axis.set_xlabel("Dirichlet parameter of the split", fontsize=8)
    axes[0, 0].set_ylabel("test accuracy, %", fontsize=8)
    finish(figure, axes, path)


STUDY = Study(tables, range(3, 6), "15 minutes", Tolerance(0.02), picture)
