"""LAD and Com-LAD against their baselines: suboptimality over rounds, redundancy and bytes, under four attacks."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from postprocess.studies.baselines import copies, sent
from postprocess.studies.drawing import curve, finish, panels, style
from postprocess.studies.runs import Fetch, Run, linear
from postprocess.studies.study import Study
from postprocess.studies.tables import Cell, Table, Tolerance, after, last, spread, within

ATTACKS: dict[str, tuple[object, ...]] = {
    "sign flip −2": ("--attack", '{name = "sign_flip", scale = -2.0}'),
    "sign flip −10": ("--attack", '{name = "sign_flip", scale = -10.0}'),
    "IPM 0.9": ("--attack", '{name = "ipm", scale = 0.9}'),
    "ALIE": ("--attack", '{name = "alie"}'),
}
"""Coefficients are choices of ours; ALIE's is its formula's."""
NNM: tuple[object, ...] = ("--filters", '[{name = "nearest_neighbor_mixing", byzantine = 20}]')
DRACO = ("--devices", 82, "--allocation.copies", 41, "--rounds", 1000, "--evaluate_every", 20)
REDUNDANCIES = (1, 2, 5, 10, 20, 41)
ROUNDS, MEGABYTES = (100, 300, 1000), (1.6, 8.0)


class System(NamedTuple):
    """A config and the words that change it."""

    label: str
    config: str
    words: tuple[object, ...] = ()


def lad(redundancy: int, *, nnm: bool) -> System:
    """LAD; with one subset a device it is its uncoded twin."""
    name = f"LAD{', NNM' * nnm}, d = {redundancy}"
    return System(name, "lad_linear", ("--allocation.redundancy", redundancy, *(NNM if nnm else ())))


DENSE = (
    System("VA", "va_linear"),
    System("CWTM", "cwtm_linear"),
    System("CWTM-NNM", "cwtm_linear", NNM),
    *(lad(redundancy, nnm=nnm) for redundancy in (5, 20) for nnm in (False, True)),
    System("DRACO, 41 copies", "draco_linear", (*DRACO, "--optimizer.step_size", 1e-4)),
)
_SHORT = {
    "Com-VA": "com_va_linear",
    "Com-CWTM": "com_cwtm_linear",
    "Com-CWTM-NNM": "com_cwtm_nnm_linear",
    "Com-TGN": "com_tgn_linear",
    "Com-LAD, d = 20": "com_lad_linear",
    "Com-LAD, NNM, d = 20": "com_lad_nnm_linear",
}
COMPRESSED = tuple(
    System(f"{label}, {mask}", config, ("--compressor.shared", shared))
    for label, config in _SHORT.items()
    for mask, shared in (("shared mask", "true"), ("own masks", "false"))
)


def runs(system: System, attack: str, seeds: Sequence[int]) -> tuple[Run, ...]:
    """A run for each seed, which has data of its own."""
    words = ("--byzantine", 20, *ATTACKS[attack], *system.words)
    return tuple(Run(system.config, linear(seed), ("--seed", seed, *words)) for seed in seeds)


def tables(seeds: Sequence[int]) -> list[Table]:
    """Over rounds for each attack, over redundancy, over bytes."""
    everyone = (*DENSE, *COMPRESSED)
    found = []
    for attack in ATTACKS:
        rows: list[tuple[str | Cell, ...]] = []
        for system in everyone:
            own = runs(system, attack, seeds)
            ends = (Cell(own, spread(after("suboptimality", rounds))) for rounds in ROUNDS)
            rows.append((system.label, Cell(own[:1], copies), Cell(own[:1], sent), *ends))
        head = ("gradients a subset", "MB up", *(f"after {rounds} rounds" for rounds in ROUNDS))
        found.append(Table((attack, *head), rows))
    rows = []
    for nnm in (False, True):
        for redundancy in REDUNDANCIES:
            own_runs = (runs(lad(redundancy, nnm=nnm), attack, seeds) for attack in ATTACKS)
            ends = (Cell(own, spread(last("suboptimality"))) for own in own_runs)
            rows.append((lad(redundancy, nnm=nnm).label, *ends))
    found.append(Table(("redundancy", *ATTACKS), rows))
    for megabytes in MEGABYTES:
        rows = []
        for system in everyone:
            all_runs = (runs(system, attack, seeds) for attack in ATTACKS)
            ends = (Cell(own, spread(within("suboptimality", megabytes))) for own in all_runs)
            rows.append((system.label, *ends))
        found.append(Table((f"by {megabytes:g} MB", *ATTACKS), rows))
    return found


def picture(fetch: Fetch, path: Path, seeds: Sequence[int]) -> None:
    """Over rounds, bytes and redundancy, under a strong attack and a hidden one."""
    labels = ("VA", "CWTM", "CWTM-NNM", "LAD, d = 20", "LAD, NNM, d = 20", "DRACO, 41 copies")
    short = ("Com-CWTM, shared mask", "Com-LAD, d = 20, shared mask", "Com-LAD, NNM, d = 20, own masks")
    shown = [one for one in (*DENSE, *COMPRESSED) if one.label in (*labels, *short)]
    figure, axes = panels(2, 3, 5.6, sharey=True)
    for row, attack in zip(axes, ("sign flip −10", "ALIE"), strict=True):
        for number, system in enumerate(shown):
            found = [fetch(run) for run in runs(system, attack, seeds)]
            curve(row[0], found, number, system.label)
            curve(row[1], found, number, system.label, "bytes_up")
        for number, nnm in ((3, False), (4, True)):
            ends = [
                np.mean([last("suboptimality")(fetch(run)) for run in runs(lad(d, nnm=nnm), attack, seeds)])
                for d in REDUNDANCIES
            ]
            row[2].plot(REDUNDANCIES, ends, **style(number))
        row[0].set_ylabel(f"{attack}\nsuboptimality", fontsize=8)
        row[1].set_xscale("log")
        row[2].set_xscale("log")
        row[2].set_xticks(REDUNDANCIES, map(str, REDUNDANCIES))
        row[2].minorticks_off()
    for axis, label in zip(axes[1], ("round", "MB sent by all devices", "redundancy d"), strict=True):
        axis.set_xlabel(label, fontsize=8)
    axes[0, 0].set(yscale="log", ylim=(40, 6000))
    finish(figure, axes, path)


STUDY = Study(tables, range(3, 6), "6 minutes", Tolerance(), picture)
