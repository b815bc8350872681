"""Exact and approximate codes beside each other, in the setting of CRA-DL: where they end, and what they cost."""

from collections.abc import Sequence
from typing import Any, NamedTuple

from mpicoded.data.results import Results
from postprocess.studies.runs import Run, linear
from postprocess.studies.study import Study
from postprocess.studies.tables import Cell, Table, Tolerance, each

ATTACKS = {"sign flip": ("sign_flip", ("--attack.scale", -1.0)), "ALIE": ("alie", ())}


class Baseline(NamedTuple):
    """A config, changed by words of the command line."""

    label: str
    config: str
    byzantine: int
    words: tuple[Any, ...] = ()
    subsets: int = 1000

    def runs(self, attack: str, seeds: Sequence[int]) -> tuple[Run, ...]:
        """One for each seed, which has data of its own."""
        name, words = ATTACKS[attack]
        words = ("--byzantine", self.byzantine, "--attack.name", name, *words, *self.words)
        return tuple(Run(self.config, linear(seed, self.subsets, 0.25), ("--seed", seed, *words)) for seed in seeds)


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


def tables(seeds: Sequence[int]) -> list[Table]:
    """A row for each method."""
    rows: list[tuple[str | Cell, ...]] = []
    for baseline in BASELINES:
        first = baseline.runs("sign flip", seeds)[:1]
        costs = (Cell(first, part) for part in (byzantine, copies, sent))
        ends = (Cell(baseline.runs(attack, seeds), each(end)) for attack in ATTACKS)
        rows.append((f"{baseline.label} (`{baseline.config}`)", *costs, *ends))
    return [Table(("method", "Byzantine", "gradients a subset", "MB up", *ATTACKS), rows)]


def end(found: Results) -> float:
    """Final suboptimality; rounding can take it below zero."""
    return max(float(found.history["suboptimality"][-1]), 0.0)


def byzantine(found: list[Results]) -> str:
    """How many of how many devices."""
    return f"{found[0].experiment['byzantine']} of {found[0].experiment['devices']}"


def copies(found: list[Results]) -> str:
    """How often a subset's gradient is computed in a round."""
    return f"{found[0].allocation['copies_spread'][1]:.3g}"


def sent(found: list[Results]) -> str:
    """What all devices sent, in MB."""
    return f"{found[0].history['bytes_up'][-1] / 1e6:.3g}"


STUDY = Study(tables, range(3), "1 minute", Tolerance(floor=1e-9))
