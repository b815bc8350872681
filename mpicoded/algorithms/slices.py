"""Votes worked in slices of coordinates, so that the bits are the same whoever holds which of them.

Coordinates are cut into parts, which several processes can share among them, and these into pieces, which stay in a
core's cache. Where the cuts are depends on the number of coordinates alone. Sums over coordinates are added up piece by
piece and part by part, in this order; products of votes with weights are done piece by piece.
"""

import inspect
from collections.abc import Callable, Iterable
from functools import lru_cache, reduce
from itertools import pairwise
from operator import add

from mpicoded.algorithms.arrays import STRETCH, as_floats, namespace, squared_lengths
from mpicoded.algorithms.shapes import Array, Float

PARTS = 64
"""The most parts: that many processes can share the coordinates."""
_PIECE = 8192  # coordinates: 100 votes of them are 3 MB in float32


@lru_cache(maxsize=64)
def part_edges(dim: int) -> tuple[int, ...]:
    """Where the parts of so many coordinates begin, and where the last one ends."""
    return _edges(0, dim, max(1, min(PARTS, -(-dim // _PIECE))))


@lru_cache(maxsize=64)
def _pieces(edges: tuple[int, ...], most: int) -> tuple[tuple[slice, ...], ...]:
    """Each part's pieces of at most so many coordinates, counted from the first edge."""
    cut = (_edges(a - edges[0], b - edges[0], max(1, -(-(b - a) // most))) for a, b in pairwise(edges))
    return tuple(tuple(slice(a, b) for a, b in pairwise(part)) for part in cut)


def _edges(start: int, stop: int, count: int) -> tuple[int, ...]:
    return tuple(start + i * (stop - start) // count for i in range(count + 1))


class Sums:
    """Sums over all coordinates, all of which are at hand. Base of those over coordinates that others hold."""

    piece = _PIECE

    def edges(self, columns: int) -> tuple[int, ...]:
        """The edges of the parts that these columns are."""
        return part_edges(columns)

    def total(self, partials: Iterable[Array]) -> Array:
        """The sum over all parts, from those of the parts at hand."""
        return reduce(add, partials)

    def over(self, columns: int, term: Callable[[slice], Array]) -> Array:
        """The sum over all coordinates; ``term`` is that over a piece of the columns."""
        return self.total(reduce(add, map(term, part)) for part in _pieces(self.edges(columns), self.piece))

    def pieces(self, columns: int) -> list[slice]:
        """The pieces that these columns are."""
        return [piece for part in _pieces(self.edges(columns), self.piece) for piece in part]

    def piecewise(
        self, columns: int, result: Callable[[slice], Array], out: Float[Array, " columns"] | None = None
    ) -> Float[Array, " columns"]:
        """A vector, piece by piece."""
        pieces = self.pieces(columns)
        if out is None:
            first, *pieces = pieces
            found = result(first)
            if not pieces:
                return found
            out = namespace(found).empty(columns, dtype=found.dtype, device=found.device)
            out[first] = found
        for piece in pieces:
            out[piece] = result(piece)
        return out

    def combine(
        self, weights: Float[Array, " votes"], votes: Float[Array, "votes columns"], out: Array | None = None
    ) -> Float[Array, " columns"]:
        """The votes' sum with these weights."""
        return self.piecewise(votes.shape[1], lambda piece: weights @ votes[:, piece], out)

    def combine_about(
        self,
        centre: Float[Array, " columns"] | None,
        weights: Float[Array, " votes"],
        votes: Float[Array, "votes columns"],
        out: Array | None = None,
    ) -> Float[Array, " columns"]:
        """The same, and of a centre what the weights lack to one; None is the origin."""
        if centre is None:
            return self.combine(weights, votes, out)
        rest = 1 - namespace(weights).sum(weights)
        return self.piecewise(votes.shape[1], lambda piece: weights @ votes[:, piece] + rest * centre[piece], out)

    def mean_of(
        self, kept: Array, votes: Float[Array, "votes columns"], out: Array | None = None
    ) -> Float[Array, " columns"]:
        """The mean of the votes at these places, summed in the votes' order: no vote is copied."""
        xp = namespace(votes)
        chosen = xp.any(xp.arange(votes.shape[0], device=votes.device)[:, None] == kept[None, :], axis=-1)
        weights, count = xp.astype(chosen, votes.dtype), kept.shape[0]
        return self.piecewise(votes.shape[1], lambda piece: (weights @ votes[:, piece]) / count, out)

    def squares(self, votes: Float[Array, "votes columns"]) -> Float[Array, " votes"]:
        """The votes' squared lengths."""
        return self.over(votes.shape[1], lambda piece: squared_lengths(votes[:, piece]))

    def squares_from(
        self, votes: Float[Array, "votes columns"], point: Float[Array, " columns"]
    ) -> Float[Array, " votes"]:
        """The votes' squared distances from a point."""
        return self.over(votes.shape[1], lambda piece: squared_lengths(votes[:, piece] - point[None, piece]))

    def gram(
        self, votes: Float[Array, "votes columns"], centre: Float[Array, " columns"] | None
    ) -> Float[Array, "votes votes"]:
        """The inner products of the votes' offsets from a centre, which are made in the cache; None is the origin."""
        xp = namespace(votes)

        def of(piece: slice) -> Array:
            offsets = votes[:, piece] if centre is None else votes[:, piece] - centre[None, piece]
            return offsets @ xp.matrix_transpose(offsets)

        return self.over(votes.shape[1], of)


class LongSums(Sums):
    """The same in pieces for a GPU, where a call takes longer than a short piece; no other process shares them."""

    piece = STRETCH

    def edges(self, columns: int) -> tuple[int, ...]:
        """One part."""
        return 0, columns


WHOLE, LONG = Sums(), LongSums()
_FAR = 16  # squared distances: four times further away than its neighbours are
_NEAR = 4  # the same of the origin: a vote twice as long as its neighbours are away costs distances two bits at most
_SAMPLE, _FEWEST = 32, 256  # one of so many coordinates of a piece are looked at before, but no fewer than so many
_CANDIDATES = 8  # votes that may become the centre; where all of them lie, it only takes another product


@lru_cache(maxsize=64)
def takes_sums(method: Callable[..., object]) -> bool:
    """Whether a part's method can be told how to sum over all coordinates; one that cannot is for whole votes."""
    return "sums" in inspect.signature(method).parameters


def told_sums(method: Callable[..., object], sums: Sums) -> dict[str, Sums]:
    """How to sum, for a part's method, where that is not as ever; parts of plug-ins may know of whole votes only."""
    return {} if sums is WHOLE or not takes_sums(getattr(method, "__func__", method)) else {"sums": sums}


def centred_gram(
    votes: Float[Array, "votes columns"], sums: Sums = WHOLE
) -> tuple[Float[Array, " columns"] | None, Float[Array, "votes votes"]]:
    """A centre (None: the origin), and the inner products of the votes' offsets from it.

    Differences of honest votes drown in rounding where the centre is far from them, and only there. Votes that differ
    as much as they are long are multiplied as they are, without a copy; of others one is the centre that has most near.
    Some coordinates say which. They were wrong where the centre is far from the vote that, by the inner products, has
    most others near. If it was a vote, it may be one so large elsewhere that all others drown, and the inner products
    say nothing: the vote of median norm takes its place, no longer than some honest vote when fewer than half are
    Byzantine. Where that is far as well (a liar of honest length, say a negated vote), or the origin was, the vote that
    has most others near is the centre.
    """
    votes, xp = as_floats(votes), namespace(votes)
    centre = _guess(votes, sums)
    gram = sums.gram(votes, centre)
    best = _nearest_if_far(gram)
    if best is not None and centre is not None:
        centre = votes[int(xp.argsort(sums.squares(votes), stable=True)[votes.shape[0] // 2]), :]
        gram = sums.gram(votes, centre)
        best = _nearest_if_far(gram)
    if best is not None:
        centre = votes[best, :]
        gram = sums.gram(votes, centre)
    return centre, gram


def _guess(votes: Float[Array, "votes columns"], sums: Sums) -> Float[Array, " columns"] | None:
    """The candidate that has most votes near, by some coordinates; None where the origin is about as near to it."""
    xp, count = namespace(votes), votes.shape[0]
    step = max(count // _CANDIDATES, 1)
    candidates = slice(0, min(step * _CANDIDATES, count), step)

    def sampled(piece: slice) -> Array:
        width = piece.stop - piece.start
        some = votes[:, piece.start : piece.start + max(width // _SAMPLE, min(width, _FEWEST))]
        return xp.concat([squared_lengths(some)[:, None], some @ xp.matrix_transpose(some[candidates, :])], axis=1)

    found = sums.over(votes.shape[1], sampled)
    squares, products = found[:, 0], found[:, 1:]
    distances = squares[:, None] + squares[None, candidates] - 2 * products
    typical = xp.sort(distances, axis=0)[count // 2, :]
    best = int(xp.argmin(typical))
    return votes[best * step, :] if float(squares[best * step]) > _NEAR * float(typical[best]) else None


def _nearest_if_far(gram: Float[Array, "votes votes"]) -> int | None:
    """The vote that has most others near, where the centre of these inner products is far from it."""
    xp = namespace(gram)
    typical = xp.sort(pair_distances(gram), axis=-1)[:, gram.shape[0] // 2]
    best = int(xp.argmin(typical))
    return best if float(gram[best, best]) > _FAR * float(typical[best]) else None


def pair_distances(gram: Float[Array, "votes votes"]) -> Float[Array, "votes votes"]:
    """Squared distances of all pairs of points with these inner products."""
    xp = namespace(gram)
    squares = xp.linalg.diagonal(gram)
    distances = squares[:, None] + squares[None, :] - 2 * gram
    distances = xp.where(distances > 0, distances, xp.zeros_like(distances))
    return distances * (1 - xp.eye(gram.shape[0], dtype=gram.dtype, device=gram.device))


def squared_distances(votes: Float[Array, "votes columns"], sums: Sums = WHOLE) -> Float[Array, "votes votes"]:
    """Squared distances of all pairs of votes, from one product of the votes with themselves."""
    return pair_distances(centred_gram(votes, sums)[1])
