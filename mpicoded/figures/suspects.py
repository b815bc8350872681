"""Who was it: how suspicious devices, ranks and hosts became over the rounds."""

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from mpicoded.algorithms.shapes import Array
from mpicoded.data.results import Results
from mpicoded.errors import InputError
from mpicoded.figures import look

_NAMED = 5  # curves in colour
_LINES = 20  # of the others; of more, what they span


class Lines(NamedTuple):
    """Scores over time of all of a kind."""

    what: str
    names: list[str]
    scores: Array  # (times, names)


def over_time(result: Results) -> tuple[Array, list[Lines]]:
    """Rounds (times,), and the scores of devices, of ranks (the mean of their devices) and of hosts."""
    told = result.suspicion
    if not {"score", "rank", "host", "over_time"} <= set(told) or not len(told["over_time"]["score"]):
        raise InputError(f"result file {result.path} has no suspicion over time (a version that did not write it)")
    kept = told["over_time"]
    rounds, score = kept["round"], np.asarray(kept["score"], float)
    if rounds[-1] != result.history["round"][-1]:  # of many, not all are kept
        rounds = np.append(rounds, result.history["round"][-1])
        score = np.concatenate([score, told["score"][None]])
    if len(rounds) > 1 and not score[0].any():
        rounds, score = rounds[1:], score[1:]  # before the first round nobody has a score
    rank, host = told["rank"], [str(one) for one in told["host"]]
    devices = [f"device {number} (rank {rank[number]})" for number in range(len(rank))]
    found = [Lines("device", devices, score)]
    host_of = dict(zip(rank.tolist(), host, strict=True))
    ranks = sorted(host_of)
    if len(ranks) > 1:
        names = [f"rank {number} ({host_of[number]})" for number in ranks]
        found.append(Lines("rank", names, np.stack([score[:, rank == one].mean(axis=1) for one in ranks], axis=1)))
    hosts = sorted(set(host))
    if len(hosts) > 1:
        of_host = np.array(host, object)
        means = np.stack([score[:, of_host == one].mean(axis=1) for one in hosts], axis=1)
        found.append(Lines("host", hosts, means))
    return rounds, found


def draw(result: Results, title: str | None = None, width: float = look.PAGE) -> Any:
    """A matplotlib figure: a panel for devices, ranks and hosts, those with the highest scores in colour."""
    rounds, lines = over_time(result)
    with look.style():
        made, axes = look.figure(width, 0.35 + 1.75 * len(lines), len(lines), sharex=True)
        for axis, (what, names, scores) in zip(axes[:, 0], lines, strict=True):
            first = np.argsort(-scores[-1], kind="stable")[:_NAMED].tolist()
            rest = np.setdiff1d(np.arange(len(names)), first)
            if len(rest) > _LINES:
                low, high = scores[:, rest].min(axis=1), scores[:, rest].max(axis=1)
                axis.fill_between(rounds, low, high, color=look.GREY, alpha=0.35, linewidth=0, label="all others")
            elif len(rest):
                axis.plot(rounds, scores[:, rest], color=look.GREY, linewidth=0.5, alpha=0.7)
            for number, one in enumerate(first):
                style = look.line(number) | {"linestyle": look.DASHES[number % len(look.DASHES)]}
                axis.plot(rounds, scores[:, one], label=look.plain(names[one]), **style)
            axis.axhline(1, color="black", linewidth=0.6, linestyle=":")
            axis.set_ylabel(f"suspicion of\neach {what}")
            axis.set_ylim(bottom=0)
            axis.legend(loc="center left", bbox_to_anchor=(1, 0.5), handlelength=2.6)
        axes[-1, 0].set_xlabel(look.words("round"))
        text = f"{Path(result.path).name}: about 1 for honest devices" if title is None else title
        made.suptitle(look.fitting(text, width), fontsize=8)
        return made
