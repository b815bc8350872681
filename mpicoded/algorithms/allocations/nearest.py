"""Numbers of devices and subsets that exist, for errors about those that do not."""

from collections.abc import Iterable
from math import log

Pair = tuple[int, int]
"""A number of devices, and a number of subsets."""

FARTHEST = 200_000
"""Devices up to which anything is looked for: no assignment of that many fits into memory."""


def multiples(devices: int, tasks: int, subsets: int) -> list[Pair]:
    """These devices with the whole number of subsets a task that are nearest: fewer or as many, and more."""
    below = subsets // tasks * tasks
    counts = [below, below + tasks] if below < subsets else [below]
    return [(devices, count) for count in counts if count]


def nearest(devices: int, subsets: int, pairs: Iterable[Pair]) -> str:
    """``99 devices with 99 subsets, 101 with 101``: of pairs that exist, the nearest ones in each direction.

    Those are the next fewer and more devices for as many subsets, the next fewer and more subsets for as many devices,
    and, where both differ, the two that are nearest by ratio, with fewer and with more devices.
    """
    best: dict[tuple[bool, ...], tuple[float, int, int]] = {}
    for count, size in pairs:
        way = (count > devices, size == subsets, count == devices, count == devices and size > subsets)
        found = (abs(log(count / devices)) + abs(log(size / subsets)), count, size)
        best[way] = min(best.get(way, found), found)
    first, *others = [(count, size) for _, count, size in sorted(best.values())]
    words = [f"{first[0]} device{'s' * (first[0] > 1)} with {first[1]} subset{'s' * (first[1] > 1)}"]
    return ", ".join([*words, *(f"{count} with {size}" for count, size in others)])


def around(values: Iterable[int], wanted: int) -> list[int]:
    """The nearest of the values below and above."""
    listed = sorted(set(values))
    return [value for value in listed if value < wanted][-1:] + [value for value in listed if value > wanted][:1]
