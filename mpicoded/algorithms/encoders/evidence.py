"""What conflicts prove: of two devices that contradict each other, one at least lies."""

from collections.abc import Iterator

import numpy as np

from mpicoded.algorithms.shapes import Array, Bool

_WORK = 5_000  # steps of a round's search; all of them less than a second with a hundred devices
_DEPTH = 500  # steps of a search within each other


def proven(conflicts: Bool[Array, "devices devices"]) -> int:
    """A number of Byzantine devices below which the conflicts cannot be explained.

    The liars are a vertex cover of the graph of conflicts; half of the maximum matching of its bipartite double cover
    is the least *fractional* vertex cover (Nemhauser and Trotter 1975), which is never more than the least vertex
    cover and at least half of it. It is exactly t for a task that t of 2s+1 devices lie about, t <= s, alike or not.
    """
    from scipy.sparse import csr_array
    from scipy.sparse.csgraph import maximum_bipartite_matching

    if not conflicts.any():
        return 0
    matched = maximum_bipartite_matching(csr_array(conflicts), perm_type="column")
    return -(-int((matched >= 0).sum()) // 2)


def certain_liars(conflicts: Bool[Array, "devices devices"], most: int) -> tuple[Bool[Array, " devices"], bool] | None:
    """Which devices lie in every explanation of the conflicts by at most ``most`` liars, and whether they explain all.

    They do where there is one minimal explanation alone: then all others agree with each other, and no other set of
    devices that agree is as large as devices - most. None: there is no explanation with so few, or the search is long.
    """
    packed = np.packbits(conflicts, axis=1, bitorder="little")
    graph = [int.from_bytes(row.tobytes(), "little") for row in packed]
    most, steps = min(most, _DEPTH), iter(range(_WORK))
    try:
        cover = _cover(graph, (1 << len(graph)) - 1, most, steps)
        if cover is None:
            return None
        certain = [v for v in _bits(cover) if _cover_without(graph, v, most, steps) is None]
    except StopIteration:
        return None
    liars = np.zeros(len(graph), bool)
    liars[certain] = True
    return liars, len(certain) == cover.bit_count()


def _cover_without(graph: list[int], vertex: int, most: int, steps: Iterator[int]) -> int | None:
    """A vertex cover that leaves this vertex out, so that it holds all its neighbours."""
    rest = ((1 << len(graph)) - 1) & ~graph[vertex] & ~(1 << vertex)
    return _cover(graph, rest, most - graph[vertex].bit_count(), steps)


def _cover(graph: list[int], inside: int, most: int, steps: Iterator[int]) -> int | None:
    """A minimal set of at most ``most`` of the vertices ``inside`` that touches every edge among them; None: none.

    The vertex of the highest degree is in the cover, or all its neighbours are; a vertex with more of them than may be
    taken is. StopIteration: the steps are spent.
    """
    next(steps)
    if most < 0:
        return None
    degrees = {v: (graph[v] & inside).bit_count() for v in _bits(inside)}
    edges = sum(degrees.values()) // 2
    if not edges:
        return 0
    vertex = max(degrees, key=lambda v: degrees[v])
    if edges > most * degrees[vertex]:  # so many vertices cannot touch all edges
        return None
    neighbours = graph[vertex] & inside
    taken = _cover(graph, inside & ~(1 << vertex), most - 1, steps)
    if taken is not None:
        return _minimal(graph, inside, taken | 1 << vertex)
    if degrees[vertex] > most:
        return None
    taken = _cover(graph, inside & ~neighbours & ~(1 << vertex), most - degrees[vertex], steps)
    return None if taken is None else _minimal(graph, inside, taken | neighbours)


def _minimal(graph: list[int], inside: int, cover: int) -> int:
    """Leave out what the others of a cover make needless."""
    for vertex in _bits(cover):
        if not graph[vertex] & inside & ~cover:
            cover &= ~(1 << vertex)
    return cover


def _bits(mask: int) -> Iterator[int]:
    """The places of the ones."""
    while mask:
        low = mask & -mask
        yield low.bit_length() - 1
        mask ^= low
