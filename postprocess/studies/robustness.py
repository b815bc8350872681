"""How far lies can move each robust rule: a search for the worst case, written as Markdown tables.

    python -m postprocess.studies robustness [--found FILE.jsonl] [--steps 10000] [--seed 1] [--check]

A rule F is (f, kappa)-robust when, for every set S of n - f of the n votes,
||F - mean_S||^2 <= kappa V with V = (1/|S|) sum over S of ||x_i - mean_S||^2. What is found (see worst_cases.py) is a
lower bound of the best kappa. CRA-DL's C_alpha^2 has max over S of ||x_i - mean_S||^2 in V's place. Each case is a line
of the file as soon as it is found, with its votes, and is not searched for again: to search anew, remove the file. The
exit code is 1 where a stated or derived kappa is exceeded.
"""

import argparse
import json
import math
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from mpicoded.algorithms import aggregators, theory
from mpicoded.algorithms.aggregators import Aggregator
from mpicoded.algorithms.component import members
from mpicoded.algorithms.filters import AdaptiveClipping, Filter, NearestNeighborMixing
from mpicoded.algorithms.randomness import generator
from postprocess.studies.worst_cases import Array, Found, Measure, Rule, largest, rounded, search, variance
from postprocess.studies.worst_cases import ratio as ratio_of

TIME = "seconds; 13 minutes where nothing is stored"
PAGE = Path(__file__).parents[2] / "docs" / "studies" / "robustness.md"
VOTES, BYZANTINE = 20, (2, 4, 8)
UNBOUNDED = 1e6  # a ratio that no bounded rule comes near
SLOW = {"geometric_median": 5, "ctma, base geometric_median": 5, "bulyan": 3}  # rules with so many times fewer steps
PROVEN = ("coordinate_median", "trimmed_mean", "krum", "geometric_median")
BY_COORDINATE = ("coordinate_median", "trimmed_mean", "phocas", "mean_around_median")
ALONE, MIXED, CLIPPED = "the rule alone", "after `nearest_neighbor_mixing`", "after `adaptive_clipping`"
LINE, TURNED = "C_alpha², one dimension", "C_alpha², n - f dimensions"


def chained(filters: Sequence[Filter], rule: Aggregator) -> Rule:
    """Votes → filters → rule."""

    def aggregate(votes: Array) -> Array:
        for item in filters:
            votes = item.apply(votes)
        return np.asarray(rule.aggregate(votes))

    return aggregate


def in_all_coordinates(votes: Array, honest: int) -> Array:
    """A one-dimensional case in ``honest`` dimensions: the honest votes move on by one in each.

    Every honest vote then is at each place once, so all are as far from their mean, and largest and mean squared
    distance are the same number: for a rule that works by coordinates, C_alpha^2 is no smaller than kappa.
    """
    turned = [np.concatenate([np.roll(votes[:honest], shift, axis=0), votes[honest:]]) for shift in range(honest)]
    return np.concatenate(turned, axis=1)


def rules(byzantine: int) -> dict[str, Aggregator]:
    """Every rule that can be asked for that many Byzantine votes, and one more base of CTMA."""
    found: dict[str, Aggregator] = {}
    kinds: dict[str, Any] = members(aggregators.Choice)
    for name, cls in kinds.items():
        if cls.told:  # who lies: no lie can move it
            continue
        fields = {"byzantine": byzantine, "tau": 1.0}
        rule: Any = cls(**{field: fields[field] for field in cls.__struct_fields__ if field in fields})
        if byzantine <= rule.breakdown(VOTES) or name == "mean":
            found[name] = rule
    found["ctma, base geometric_median"] = aggregators.Ctma(byzantine=byzantine, base=aggregators.GeometricMedian())
    return found


def derived(rule: Aggregator, votes: int, byzantine: int) -> float | None:
    """Bounds of kappa that docs/studies/robustness.md proves, for rules whose literature has none."""
    nearest = 4 * byzantine / (votes - byzantine)
    match rule:
        case aggregators.Phocas():
            inner = aggregators.TrimmedMean(byzantine=byzantine).kappa(votes, byzantine)
        case aggregators.MeanAroundMedian():
            inner = aggregators.CoordinateMedian().kappa(votes, byzantine)
        case aggregators.Ctma():
            inner = rule.centre.kappa(votes, byzantine)
        case aggregators.MinimumDiameter():
            return 8 * byzantine**2 / (votes - byzantine)
        case _:
            return None
    return None if inner is None else nearest * (1 + inner)


class Case(NamedTuple):
    """One cell of the tables."""

    name: str
    byzantine: int
    filters: tuple[Filter, ...]
    rule: Aggregator

    def bound(self) -> tuple[float | None, bool]:
        """kappa that is stated or else derived, and whether it is stated."""
        stated = theory.kappa(self.rule, self.filters, VOTES, self.byzantine)
        if stated is not None:
            return stated, True
        found = derived(self.rule, VOTES, self.byzantine)
        for item in reversed(self.filters):
            found = item.kappa(found, VOTES, self.byzantine)
        return found, False

    def ratio(self, votes: Array, measure: Measure = variance) -> float:
        """What these votes do to it, the last of them lies."""
        return ratio_of(chained(self.filters, self.rule), votes, VOTES - self.byzantine, measure)

    def worst(self, steps: int, seed: int, every: int = 1) -> Found:
        """What the search finds."""
        aggregate, honest = chained(self.filters, self.rule), VOTES - self.byzantine
        equal = np.repeat([[2.0], [1.0]], [honest, self.byzantine], axis=0)
        if abs(float(aggregate(equal)[0]) - 2) > 1e-6:  # honest votes of no variance, and it misses them
            return Found(math.inf, equal, "equal votes")
        stream = generator(seed, f"{self.name}, {len(self.filters)} filters", self.byzantine)
        found = search(aggregate, honest, self.byzantine, stream, steps, every=every)
        return rounded(found, self.ratio)

    def constant(self, steps: int, seed: int) -> Found:
        """C_alpha^2 that is met in one dimension."""
        found = self._line(steps, seed, largest)
        return rounded(found, partial(self.ratio, measure=largest))

    def turned(self, steps: int, seed: int) -> Found:
        """C_alpha^2 of a rule by coordinates that is met in as many dimensions as there are honest votes."""
        found = rounded(self._line(steps, seed, variance), self.ratio)
        votes = in_all_coordinates(found.votes, VOTES - self.byzantine)
        return Found(self.ratio(votes, largest), votes, found.start)

    def _line(self, steps: int, seed: int, measure: Measure) -> Found:
        stream = generator(seed, f"{self.name}, C_alpha", self.byzantine)
        honest = VOTES - self.byzantine
        return search(chained(self.filters, self.rule), honest, self.byzantine, stream, steps, measure, dims=[1])


def cases(filters: Callable[[int], tuple[Filter, ...]], names: Sequence[str] = ()) -> list[list[Case]]:
    """A row of cases for each rule, or for those named."""
    found: dict[str, list[Case]] = {}
    for byzantine in BYZANTINE:
        for name, rule in rules(byzantine).items():
            if not names or name in names:
                found.setdefault(name, []).append(Case(name, byzantine, filters(byzantine), rule))
    return list(found.values())


def tables() -> dict[str, list[list[Case]]]:
    """All tables, by what they are of."""
    return {
        ALONE: cases(lambda byzantine: ()),
        MIXED: cases(lambda byzantine: (NearestNeighborMixing(byzantine=byzantine),)),
        CLIPPED: cases(lambda byzantine: (AdaptiveClipping(byzantine=byzantine),), PROVEN),
        LINE: cases(lambda byzantine: (), BY_COORDINATE),
        TURNED: cases(lambda byzantine: (), BY_COORDINATE),
    }


def measured(head: str, case: Case, steps: int, seed: int) -> Found:
    """What a table says of a case."""
    steps = steps // SLOW.get(case.name, 1)
    if head in (LINE, TURNED):
        return (case.constant if head == LINE else case.turned)(steps, seed)
    return case.worst(steps, seed)


def load(path: Path) -> dict[tuple[str, str, int], Found]:
    """What the file has, by table, rule and f."""
    found = {}
    for line in path.read_text().splitlines() if path.exists() else []:
        row = json.loads(line)
        ratio = math.inf if row["ratio"] is None else row["ratio"]
        found[row["table"], row["rule"], row["f"]] = Found(ratio, np.array(row["votes"]), row["start"])
    return found


def save(path: Path, found: dict[tuple[str, str, int], Found]) -> None:
    """All of them, a line each."""
    lines = []
    for (head, rule, byzantine), one in found.items():
        row = {"table": head, "rule": rule, "f": byzantine, "start": one.start}
        row |= {"ratio": one.ratio if math.isfinite(one.ratio) else None, "votes": one.votes.tolist()}
        lines.append(json.dumps(row, ensure_ascii=False))
    part = path.with_suffix(".part")
    part.write_text("".join(f"{line}\n" for line in lines))
    part.replace(path)


def number(value: float | None) -> str:
    """Three digits."""
    return "–" if value is None else "unbounded" if value > UNBOUNDED else f"{value:.3g}"


def cell(case: Case, found: Found, bounded: bool = True) -> str:
    """What was found, what is stated or (in brackets) derived, and from which placement of votes."""
    bound, stated = case.bound()
    if found.ratio > UNBOUNDED:
        return "unbounded"
    said = ""
    if bounded and bound not in (None, math.inf):
        said = f" ≤ {number(bound)}" if stated else f" ≤ ({number(bound)})"
    dim = found.votes.shape[1]
    return f"{number(found.ratio)}{said}, {found.start}{f' in {dim}' if dim > 1 else ''}"


def table(head: str, rows: list[list[Case]], found: dict[tuple[str, str, int], Found]) -> str:
    """A row for each rule, a column for each f."""
    lines = [f"| {head} | {' | '.join(f'f = {byzantine}' for byzantine in BYZANTINE)} |", "|---" * 4 + "|"]
    for row in rows:
        cells = {
            case.byzantine: cell(case, found[head, case.name, case.byzantine], head not in (LINE, TURNED))
            for case in row
        }
        lines.append(f"| `{row[0].name}` | {' | '.join(cells.get(byzantine, '–') for byzantine in BYZANTINE)} |")
    return "\n".join(lines)


def main(words: Sequence[str]) -> int:
    """Print the tables, or compare the page's with them; 1 where a bound is exceeded or the page differs."""
    parser = argparse.ArgumentParser(prog="python -m postprocess.studies robustness", allow_abbrev=False)
    parser.add_argument("--found", type=Path, default=Path(__file__).with_suffix(".jsonl"))
    parser.add_argument("--steps", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--check", action="store_true", help="compare with the page's tables")
    options = parser.parse_args(words)
    found, wrong = load(options.found), 0
    page = PAGE.read_text(encoding="utf-8") if options.check else ""
    for head, rows in tables().items():
        for case in (case for row in rows for case in row):
            key = head, case.name, case.byzantine
            if key not in found:
                found[key] = measured(head, case, options.steps, options.seed)
                save(options.found, found)
            bound = case.bound()[0]
            if bound is not None and found[key].ratio > bound * (1 + 1e-9):
                print(f"EXCEEDED: {key} has {found[key].ratio}, its bound is {bound}", file=sys.stderr)
                wrong += 1
        text = table(head, rows, found)
        if options.check:
            print(f"robustness: {head}: {'as' if text in page else 'not as'} in the page")
            wrong += text not in page
        else:
            print(text, end="\n\n", flush=True)
    return 1 if wrong else 0
