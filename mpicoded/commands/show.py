"""``mpicoded show``: one result file in full, several as a table of what differs and how they ended."""

from collections.abc import Sequence

import numpy as np

from mpicoded.algorithms.shapes import Array
from mpicoded.commands.text import readable_bytes, table
from mpicoded.data.compare import differences
from mpicoded.data.merged import load_all
from mpicoded.data.results import Results
from mpicoded.errors import InputError, printable, understood

_MOST = 5  # ranks and devices that are named
_QUANTITIES = ("loss", "suboptimality", "accuracy", "test_loss", "gradient_norm")


def show(paths: Sequence[str], timings: bool, config: bool = False) -> int:
    """Print the summary of one file, the comparison of several, or the config of one."""
    results = load_all(paths)
    if config:
        if len(results) != 1 or timings:
            raise InputError(f"show --config takes one result, and nothing else, got {len(results)}")
        print(results[0].toml, end="")
        return 0
    for result in results:
        if not len(result.history["round"]):
            raise InputError(f"result file {result.path} has no rows yet")
    with understood(f"cannot show {', '.join(result.path for result in results)}"):
        texts = [_summary(results[0]) if len(results) == 1 else _comparison(results)]
        if timings:
            texts += [f"\n{result.path}: seconds by phase\n{_timings(result)}" for result in results]
    print(printable("\n".join(texts)))
    return 0


def _summary(result: Results) -> str:
    history = result.history
    rounds = int(history["round"][-1])
    lines = [
        f"{result.path}: {'finished' if result.finished else 'not finished'}, {rounds} rounds, "
        f"{history['seconds'][-1]:.3g} s on {len(result.hosts)} rank(s) of {len(set(result.hosts))} host(s)",
        f"versions: {', '.join(f'{name} {version}' for name, version in result.versions.items())}",
        f"MPI: {result.mpi}",
        "",
        result.toml.rstrip(),
        "",
        *_allocation(result),
        *_memory(result),
        *_bad_records(result),
        *_suspicion(result),
        *_estimates(result),
        f"bytes: {readable_bytes(history['bytes_up'][-1])} up, {readable_bytes(history['bytes_down'][-1])} down, "
        f"{readable_bytes(history['bytes_overhead'][-1])} of headers",
        "",
        table(
            [["", "first", "best", "last"]]
            + [
                [
                    name,
                    *(f"{value:.6g}" for value in (v[0], np.nanmax(v) if name == "accuracy" else np.nanmin(v), v[-1])),
                ]
                for name in _QUANTITIES
                if (v := history.get(name)) is not None
            ]
        ),
    ]
    return "\n".join(lines + [f"warning: {line}" for line in result.warnings])


def _memory(result: Results) -> list[str]:
    if not {"shards", "peak"} <= set(result.memory):
        return []
    shards, peak = _range(result.memory["shards"]), _range(result.memory["peak"])
    return [f"memory: {shards} of samples read by a rank, peak {peak} in all"]


def _bad_records(result: Results) -> list[str]:
    """Who sent what could not be used, or nothing: the counts, and the ranks and devices with most."""
    told = result.bad_records
    if not {"bad", "missing", "rank", "host", "first_round", "most_at_once"} <= set(told):
        return []
    missing, left_out = told["missing"], _leaves_out(result)
    lines = [f"left out: {missing.sum()} late or lost messages of {(missing > 0).sum()} devices"] if left_out else []
    if skipped := int(told.get("skipped", 0)):
        lines += [f"  rounds without a step, as too few messages came: {skipped}"]
    if lost := result.lost_ranks:
        named = zip(lost["rank"].tolist(), lost["host"].tolist(), lost["round"].tolist(), strict=True)
        lines += [f"  rank {rank} ({host}) died in round {round}" for rank, host, round in named]
    missing = np.zeros_like(missing) if left_out else missing
    counts = told["bad"] + missing
    if not counts.any():
        return lines
    by_rank = np.bincount(told["rank"], counts).astype(int)
    host = dict(zip(told["rank"].tolist(), told["host"].tolist(), strict=True))
    worst = [rank for rank in np.argsort(-by_rank, kind="stable")[:_MOST].tolist() if by_rank[rank]]
    devices = [device for device in np.argsort(-counts, kind="stable")[:_MOST].tolist() if counts[device]]
    return [
        *lines,
        f"replaced: {told['bad'].sum()} bad and {missing.sum()} missing records of {(counts > 0).sum()} "
        f"devices, at most {told['most_at_once']} in a round, first in round {told['first_round'][counts > 0].min()}",
        f"  most by rank: {', '.join(f'{by_rank[rank]} of rank {rank} ({host[rank]})' for rank in worst)}",
        f"  most by device: {', '.join(f'{counts[device]} of device {device}' for device in devices)}",
    ]


def _leaves_out(result: Results) -> bool:
    transport = result.experiment.get("transport", {})
    waits = not {"deadline", "quickest"} & set(transport)
    return not waits or transport.get("on_rank_loss") == "continue"


def _suspicion(result: Results) -> list[str]:
    """The devices and ranks whose votes were furthest out."""
    told = result.suspicion
    if not {"score", "rank", "host", "rank_score"} <= set(told) or not told["score"].any():
        return []
    score, by_rank = told["score"], told["rank_score"]
    devices = np.argsort(-score, kind="stable")[:_MOST].tolist()
    named = [
        f"{score[device]:.2f} device {device} (rank {told['rank'][device]}, {told['host'][device]})"
        for device in devices
    ]
    lines = [f"suspicion (about 1 for honest devices): {', '.join(named)}"]
    if len(by_rank) > 1:
        worst = np.argsort(-by_rank, kind="stable")[:_MOST].tolist()
        lines.append(f"  by rank: {', '.join(f'{by_rank[rank]:.2f} rank {rank}' for rank in worst)}")
    return lines


def _estimates(result: Results) -> list[str]:
    """How many liars the server found."""
    told = result.estimates
    lines = []
    if {"tolerated", "outlying"} <= set(told) and len(told["tolerated"]):
        lines.append(
            f"estimated: {int(np.median(told['outlying']))} outlying votes in the median round, at most "
            f"{told['outlying'].max()}; {told['tolerated'][-1]} tolerated in the last"
        )
    if "proven" in told and told["proven"].any():
        lines.append(
            f"proven: at least {told['proven'].max()} devices lied in a round, as replicas of their tasks disagree"
        )
    return lines


def _allocation(result: Results) -> list[str]:
    report = result.allocation
    if not {"redundancy", "copies_spread", "overlap", "lost", "storage"} <= set(report):
        return []

    def spread(name: str) -> str:
        low, mean, high = report[name]
        return f"{low:g}" if low == high else f"{low:g} to {high:g} (mean {mean:.4g})"

    return [
        f"allocation: {spread('redundancy')} subsets a device, {spread('copies_spread')} copies a subset, "
        f"pairs share {spread('overlap')}, {report['lost']} lost, {spread('storage')} stored on a device"
    ]


def _range(counts: Array) -> str:
    low, high = readable_bytes(counts.min()), readable_bytes(counts.max())
    return low if low == high else f"{low} to {high}"


def _comparison(results: Sequence[Results]) -> str:
    settings = differences(results)
    keys = list(settings[0])
    quantities = [name for name in _QUANTITIES if any(name in result.history for result in results)]
    rows = [["file", *keys, "rounds", *quantities, "bytes up", "seconds", ""]]
    for result, setting in zip(results, settings, strict=True):
        last = {name: values[-1] for name, values in result.history.items()}
        rows.append(
            [
                result.path,
                *(setting[key] for key in keys),
                str(int(last["round"])),
                *(f"{last[name]:.4g}" if name in last else "–" for name in quantities),
                readable_bytes(last["bytes_up"]),
                f"{last['seconds']:.3g}",
                "" if result.finished else "not finished",
            ]
        )
    return table(rows)


def _timings(result: Results) -> str:
    rows = [["phase", "mean", "slowest rank"]]
    slowest_first = sorted(result.timings.items(), key=lambda item: -item[1].mean())
    rows += [[name, f"{v.mean():.3f}", f"{v.max():.3f} ({int(v.argmax())})"] for name, v in slowest_first]
    return table(rows)
