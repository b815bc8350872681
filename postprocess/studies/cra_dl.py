"""CRA-DL's first experiments: baselines under its three attacks, redundancy, heterogeneity."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from mpicoded.data.results import Results
from postprocess.studies.drawing import curve, finish, panels, style
from postprocess.studies.runs import Fetch, Run, linear
from postprocess.studies.study import Study
from postprocess.studies.tables import Cell, Table, Tolerance, spread

LAST = 10
ATTACKS = {
    "sign flip, 20 %": ("sign_flip", 20, "scale", -1.0),
    "Gaussian, 3 %": ("gaussian", 3, "deviation", 200.0),
    "sample duplicating, 40 %": ("sample_duplicate", 40, "", 0.0),
}
"""With the paper's shares of Byzantine devices; scale and deviation are choices of ours."""
FLIP = next(iter(ATTACKS))
RULES = {"median": "coordinate_median", "trimmed mean": "trimmed_mean", "Phocas": "phocas"}


class System(NamedTuple):
    """A config and the words that change it; the rule, unless it is the config's."""

    label: str
    config: str
    rule: str = ""
    words: tuple[object, ...] = ()


PLAIN = ("--allocation.name", "uniform", "--encoder.weighting", "plain")
MA, EXACT = System("MA", "ma_linear"), System("exact gradient coding, r = 110", "draco_linear")
UNCODED = {name: System(f"RBA-DL, {name}", "rba_dl_linear", rule) for name, rule in RULES.items()}
BALANCED = {name: System(f"CRA-DL `balanced`, {name}", "cra_dl_linear", rule) for name, rule in RULES.items()}
UNIFORM = {name: System(f"CRA-DL `uniform`, {name}", "cra_dl_linear", rule, PLAIN) for name, rule in RULES.items()}
SGC = System("SGC-DL `balanced`", "sgc_dl_linear")
SGC_UNIFORM = System("SGC-DL `uniform`", "sgc_dl_linear", "", ("--allocation.name", "uniform"))
BEST = System("clairvoyant, `balanced`", "cra_dl_linear", "clairvoyant")
ALL = (MA, *UNCODED.values(), *UNIFORM.values(), *BALANCED.values(), SGC_UNIFORM, SGC, EXACT, BEST)
MIDDLE = "trimmed mean"
FEW = (MA, UNCODED[MIDDLE], UNIFORM[MIDDLE], BALANCED[MIDDLE], SGC, EXACT, BEST)


class Setting(NamedTuple):
    """What an experiment varies."""

    attack: str = FLIP
    sigma: float = 0.25
    redundancy: int = 40
    scale: float = -1.0


def runs(system: System, seeds: Sequence[int], setting: Setting) -> tuple[Run, ...]:
    """A run for each seed, which has data of its own."""
    name, byzantine, field, value = ATTACKS[setting.attack]
    words: tuple[object, ...] = ("--byzantine", byzantine, "--attack.name", name)
    if field:
        words += (f"--attack.{field}", setting.scale if field == "scale" else value)
    if system.rule:
        told = f", byzantine = {byzantine}" if system.rule in ("trimmed_mean", "phocas") else ""
        words += ("--aggregator", f'{{name = "{system.rule}"{told}}}')
    if system.config in ("cra_dl_linear", "sgc_dl_linear"):
        words += ("--allocation.redundancy", setting.redundancy)
    data = (1000, setting.sigma)
    return tuple(Run(system.config, linear(seed, *data), ("--seed", seed, *words, *system.words)) for seed in seeds)


def late(found: Results) -> float:
    """The mean of the last ten evaluations; rounding can take it below zero."""
    return max(float(found.history["suboptimality"][-LAST:].mean()), 0.0)


VARIED = {
    "baselines": {attack: Setting(attack) for attack in ATTACKS},
    "redundancy": {f"r = {number}": Setting(redundancy=number) for number in (10, 20, 30, 40, 50)},
    "heterogeneity": {f"σ_H = {sigma:g}": Setting(sigma=sigma) for sigma in (0.0, 0.25, 0.5)},
    "coefficient": {f"{scale:g}": Setting(scale=scale) for scale in (-0.5, -1.0, -2.0, -4.0, -10.0)},
}
CODED = (*UNIFORM.values(), *BALANCED.values(), SGC_UNIFORM, SGC, BEST)
WHO = {"baselines": ALL, "redundancy": CODED, "heterogeneity": FEW, "coefficient": FEW}


def tables(seeds: Sequence[int]) -> list[Table]:
    """Baselines, redundancy, heterogeneity, and how strong the sign flip is."""
    found = []
    for title, settings in VARIED.items():
        rows: list[tuple[str | Cell, ...]] = [
            (system.label, *(Cell(runs(system, seeds, one), spread(late)) for one in settings.values()))
            for system in WHO[title]
        ]
        found.append(Table((title, *settings), rows))
    return found


def picture(fetch: Fetch, path: Path, seeds: Sequence[int]) -> None:
    """Curves under each attack; where training ends over redundancy, heterogeneity and coefficient."""
    figure, axes = panels(2, 3, 5.2)
    for one, (attack, setting) in zip(axes[0], VARIED["baselines"].items(), strict=True):
        for number, system in enumerate(FEW):
            curve(one, [fetch(run) for run in runs(system, seeds, setting)], number, system.label.replace("`", ""))
        one.set(title=attack, xlabel="round")
    over = {
        "redundancy": ("redundancy", "redundancy r"),
        "heterogeneity": ("sigma", "σ_H"),
        "coefficient": ("scale", "−coefficient of the sign flip"),
    }
    for one, (title, (field, label)) in zip(axes[1], over.items(), strict=True):
        places = [abs(getattr(setting, field)) for setting in VARIED[title].values()]
        for number, system in enumerate(FEW):
            found = [[late(fetch(run)) for run in runs(system, seeds, at)] for at in VARIED[title].values()]
            one.plot(
                places,
                [sum(values) / len(seeds) for values in found],
                label=system.label.replace("`", ""),
                **style(number),
            )
        one.set(xlabel=label, xscale="log" if title == "coefficient" else "linear")
    for one in axes[:, 0]:
        one.set_ylabel("suboptimality", fontsize=8)
    for one in axes.flat:
        one.set(yscale="log", ylim=(1e-3, 1e4))
        one.title.set_fontsize(9)
        one.xaxis.label.set_fontsize(8)
    finish(figure, axes, path)


STUDY = Study(tables, range(5), "5 minutes", Tolerance(floor=1e-9), picture)
