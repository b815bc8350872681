"""A report: result files as one page of HTML that needs nothing else, no script and no network."""

import base64
import shlex
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

import mpicoded
from mpicoded.data.compare import DATA, SEED, Group, by_seed, flatten
from mpicoded.data.results import Results
from mpicoded.errors import InputError
from mpicoded.figures import curves, look, phases, suspects, svg, table

_AXES = ("round", "gradients", "bytes_up", "seconds")
_DRAWN = ("accuracy", "suboptimality", "test_loss", "loss", "gradient_norm")
_WIDTH = 4.0  # inches of a curve's figure
_SUSPICIOUS = 3.0  # a score that honest devices do not reach
_LETTERS = 26  # of a bar's name
_PICTURES = 6  # of suspicion, at most
_NAMED = 5  # devices


def render(results: Sequence[Results], title: str | None = None) -> str:
    """The page. Raises InputError where what it needs is not installed, or the results share nothing."""
    try:
        from jinja2 import Environment, PackageLoader, StrictUndefined
    except ImportError:
        raise InputError("a report needs Jinja2: pip install 'mpicoded[plots]'") from None
    templates = PackageLoader("mpicoded.figures", "templates")
    # Everything is escaped but for figures: what is in a result file is not trusted.
    loaded = Environment(
        loader=templates, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    groups = by_seed(results)
    names = [group.label for group in groups]
    return loaded.get_template("report.html").render(
        title=title or ("Report" if len(groups) > 1 else Path(results[0].path).name),
        version=mpicoded.__version__,
        results=results,
        experiments=_experiments(groups, names),
        common=_common(results),
        curves=list(_curves(groups)),
        axes=[(axis, look.words(axis)) for axis in _AXES if axis in curves.columns(groups)],
        phases=_phases(groups, names),
        ranks=_ranks(results),
        bytes=_bytes(groups, names),
        suspects=list(_suspects(results)),
        pictures=list(_pictures(results)),
        losses=list(_losses(results)),
        warnings=_warnings(results),
        versions=_versions(results),
        commands=[_command(result) for result in results],
    )


def _experiments(groups: Sequence[Group], names: Sequence[str]) -> dict[str, Any]:
    """The table of what differs and how it ended, with a sample of each curve's line."""
    made = table.make(groups)
    known = curves.columns(groups)
    y = next((name for name in curves.QUANTITIES if name in known), "bytes_up")  # which all have
    drawn = [curves.curve(group, "round", y) for group in groups]
    rows = table.texts(made)
    return {
        "head": table.headings(made),
        "settings": len(made.settings),
        "rows": [
            {"cells": cells, "sample": _sample(style), "name": name, "finished": all(r.finished for r in group.results)}
            for cells, style, name, group in zip(rows, curves.styles(groups, drawn), names, groups, strict=True)
        ],
    }


def _sample(style: dict[str, Any]) -> dict[str, str]:
    dashes = {"-": "", "--": "7 3", "-.": "7 2 2 2", ":": "2 2"}
    return {"colour": style["color"], "dashes": dashes[style["linestyle"]]}


def _common(results: Sequence[Results]) -> list[tuple[str, str]]:
    flats = [flatten(result.experiment) for result in results]
    same = [key for key in flats[0] if all(key in flat and flat[key] == flats[0][key] for flat in flats)]
    return [(key, str(flats[0][key])) for key in same]


def _curves(groups: Sequence[Group]) -> Iterator[dict[str, Any]]:
    """For each quantity a figure over each of the axes."""
    shared = curves.columns(groups)
    for y in _DRAWN:
        if y not in shared or (y == "loss" and "suboptimality" in shared):
            continue
        figures = []
        for x in (axis for axis in _AXES if axis in shared):
            made = curves.draw(groups, x, y, width=_WIDTH, height=0.66 * _WIDTH, legend=False, most=200)
            words = f"{look.words(y)} over {look.words(x)}, a curve for each experiment"
            figures.append((x, svg.inline(made, f"{y}-{x}", words)))
        yield {"title": look.words(y), "figures": figures}


def _phases(groups: Sequence[Group], names: Sequence[str]) -> str:
    timed = [number for number, group in enumerate(groups) if any(result.timings for result in group.results)]
    if not timed:
        return ""
    short = [look.shortened(names[number], _LETTERS) for number in timed]
    made = phases.compare([groups[number] for number in timed], short, width=_WIDTH)
    return svg.inline(made, "phases", "Milliseconds of a round by phase, a bar for each experiment")


def _ranks(results: Sequence[Results]) -> list[dict[str, Any]]:
    """Ranks, hosts, and the phases that took longest."""
    found = []
    for result in results:
        by_phase = sorted(result.timings.items(), key=lambda item: -item[1].mean())
        longest = [
            f"{phase} {values.mean():.3g} s (rank {values.argmax()}: {values.max():.3g} s)"
            for phase, values in by_phase[:3]
        ]
        peak = result.memory.get("peak", np.empty(0))
        found.append(
            {
                "path": result.path,
                "ranks": len(result.hosts),
                "hosts": len(set(result.hosts)),
                "mpi": result.mpi,
                "seconds": f"{result.history['seconds'][-1]:.3g}",
                "peak": f"{peak.max() / 1e6:.0f}" if len(peak) else "–",
                "longest": "; ".join(longest) or "–",
            }
        )
    return found


def _bytes(groups: Sequence[Group], names: Sequence[str]) -> list[list[str]]:
    """Up, down and of headers: of the whole run in MB, and up in a round and device in bytes."""
    rows = []
    for group, name in zip(groups, names, strict=True):
        sizes = [
            float(np.mean([one.history[key][-1] for one in group.results]))
            for key in ("bytes_up", "bytes_down", "bytes_overhead")
        ]
        each = np.mean([one.history["bytes_up"][-1] / _messages(one) for one in group.results])
        rows.append([name, *(f"{size / 1e6:.4g}" for size in sizes), f"{each:.4g}"])
    return rows


def _messages(result: Results) -> int:
    """Rounds times devices."""
    return max(int(result.history["round"][-1]), 1) * max(int(result.experiment.get("devices", 1)), 1)


def _suspects(results: Sequence[Results]) -> Iterator[dict[str, Any]]:
    """Who stands out of each result."""
    for result in results:
        told = result.suspicion
        if not {"score", "rank", "host", "rank_score"} <= set(told) or not np.any(told["score"]):
            continue
        order = np.argsort(-told["score"], kind="stable")[:_NAMED].tolist()
        yield {
            "path": result.path,
            "devices": [
                f"{told['score'][one]:.2f} device {one} (rank {told['rank'][one]}, {told['host'][one]})"
                for one in order
            ],
            # Where others are Byzantine in each round, all devices share the blame.
            "out": int((told["score"] >= _SUSPICIOUS).sum()) if _same_liars(result) else "–",
            "rank": f"{told['rank_score'].max():.2f} rank {int(told['rank_score'].argmax())}",
        }


def _pictures(results: Sequence[Results]) -> Iterator[tuple[str, str]]:
    """Suspicion over time, of those results in which devices stand out most."""
    scores = [result.suspicion.get("score", np.zeros(1)) for result in results]
    worst = sorted(range(len(results)), key=lambda number: -scores[number].max())[:_PICTURES]
    for number in worst:
        result = results[number]
        kept = result.suspicion.get("over_time", {}).get("score", ())
        if scores[number].max() >= _SUSPICIOUS and len(kept) and _same_liars(result):
            made = suspects.draw(result, title="", width=_WIDTH)
            yield result.path, svg.inline(made, f"suspects-{number}", f"Suspicion over the rounds of {result.path}")


def _same_liars(result: Results) -> bool:
    return result.experiment.get("identities") == "fixed" or not result.experiment.get("byzantine")


def _losses(results: Sequence[Results]) -> Iterator[str]:
    """Bad and missing records, lost ranks, proven lies: a line each."""
    for result in results:
        told, lost = result.bad_records, result.lost_ranks
        bad, missing = (int(np.sum(told.get(key, 0))) for key in ("bad", "missing"))
        if bad or missing:
            most = told.get("most_at_once", "?")
            yield f"{result.path}: {bad} bad and {missing} missing records, at most {most} at once"
        for rank, host, round in zip(*(lost.get(key, ()) for key in ("rank", "host", "round")), strict=True):
            yield f"{result.path}: rank {rank} ({host}) died in round {round}"
        if len(proven := result.estimates.get("proven", ())) and np.max(proven):
            yield f"{result.path}: at least {int(np.max(proven))} devices lied in a round, as replicas disagree"


def _warnings(results: Sequence[Results]) -> list[tuple[str, list[str]]]:
    """Each warning, and which results have it."""
    found: dict[str, list[str]] = {}
    for result in results:
        for line in result.warnings:
            found.setdefault(line, []).append(result.path)
    return list(found.items())


def _versions(results: Sequence[Results]) -> list[tuple[str, str]]:
    """Versions of all, and where they differ which."""
    names = dict.fromkeys(name for result in results for name in result.versions)
    there = {name: sorted({result.versions.get(name, "none") for result in results}) for name in names}
    return [(name, ", ".join(values)) for name, values in there.items()]


def _words(text: str) -> list[str]:
    try:
        return shlex.split(text)
    except ValueError:  # a quote that is not closed: of no version of ours
        return text.split()


def _command(result: Results) -> dict[str, str]:
    """What makes the same result again, of words that no shell takes for something else."""
    stem = Path(result.path.replace(":", "-")).stem.lstrip("-")
    ranks = ["--ranks", str(len(result.hosts))] if len(result.hosts) > 1 else []
    commands = [["mpicoded", "run", f"{stem}.toml", *ranks, "-o", f"{stem}.h5"]]
    if result.data:
        path = str(flatten(result.experiment).get(DATA, ""))
        commands.insert(0, ["mpicoded", "data", *_words(result.data), "-o", path])
    lines = [
        shlex.join(words) if "".join(words).isprintable() else "# not told: the file's words are no words for a shell"
        for words in commands
    ]
    config = base64.b64encode(result.toml.encode()).decode()
    seed = str(result.experiment.get(SEED, ""))
    return {
        "path": result.path,
        "stem": stem,
        "lines": "\n".join(lines),
        "toml": result.toml,
        "config": config,
        "seed": seed,
    }
