"""Attackers who know the code: the worst places under fixed windows, worth nothing under permuted ones."""

from collections.abc import Mapping, Sequence

from postprocess.studies.runs import Run, linear
from postprocess.studies.study import Study
from postprocess.studies.tables import Cell, Table, Tolerance, each, last

FIRST = 3
WHERE = {"random places": "sign_flip", "consecutive": "code_aware"}
CODES = {"fixed code": "false", "permuted": "true"}
SUBSET = '{name = "code_aware", lies = "subset", scale = -20}'
OTHERS: dict[str, tuple[str, tuple[object, ...]]] = {
    "CRA-DL `balanced`": ("cra_dl_linear", ()),
    "DRACO, fixed groups": ("draco_linear", ("--allocation.permute", "false")),
    "DRACO, permuted": ("draco_linear", ()),
}
END = each(last("suboptimality"), ".4g")


def run(permute: str, attack: tuple[object, ...], seed: int, data: int = FIRST) -> Run:
    """LAD with fixed identities."""
    words = ("--identities", "fixed", "--seed", seed, "--allocation.permute", permute, *attack)
    return Run("lad_linear", linear(data), words)


def other(config: str, words: tuple[object, ...], seed: int) -> Run:
    """CRA-DL or DRACO with 11 copies, 20 fixed attackers."""
    words = ("--identities", "fixed", "--seed", seed, "--byzantine", 20, *words)
    return Run(config, linear(seed, 1000, 0.25), words)


def tables(seeds: Sequence[int]) -> list[Table]:
    """Places, a lie about one subset, and other data."""
    whole = {
        f"{code}, {where}": (permute, ("--attack.name", attack, "--attack.scale", -2.0))
        for code, permute in CODES.items()
        for where, attack in WHERE.items()
    }
    subset = {code: (permute, ("--attack", SUBSET)) for code, permute in CODES.items()}

    def rows(
        columns: Mapping[str, tuple[str, tuple[object, ...]]], seeds: Sequence[int]
    ) -> list[tuple[str | Cell, ...]]:
        return [
            (str(seed), *(Cell((run(permute, attack, seed),), END) for permute, attack in columns.values()))
            for seed in seeds
        ]

    data: list[tuple[str | Cell, ...]] = [
        (str(seed), *(Cell((run(permute, attack, seed, seed),), END) for permute, attack in whole.values()))
        for seed in seeds
    ]
    codes = {
        f"{name}, {where}": (config, (*more, "--attack.name", attack, "--attack.scale", -1.0))
        for name, (config, more) in OTHERS.items()
        for where, attack in WHERE.items()
    }
    cra_dl: list[tuple[str | Cell, ...]] = [
        (str(seed), *(Cell((other(config, attack, seed),), END) for config, attack in codes.values())) for seed in seeds
    ]
    return [
        Table(("run seed", *whole), rows(whole, seeds)),
        Table(("run seed, one subset", *subset), rows(subset, seeds[:3])),
        Table(("run and data seed", *whole), data),
        Table(("CRA-DL's data, seed", *codes), cra_dl),
    ]


STUDY = Study(tables, range(FIRST, FIRST + 5), "1 minute", Tolerance(floor=1e-9))
