"""Every compressor keeps the promises of the family; each one computes what its paper says.

Dimensions come last: a configuration is made for the dimension that a test needs, ``part(dim)``.
"""

import math
from functools import partial

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mpicoded.algorithms import compressors
from mpicoded.algorithms.component import members
from mpicoded.algorithms.compressors import Natural, NoCompression, Qsgd, RandK, Sign, TopK, base, quantized
from mpicoded.algorithms.compressors.packing import pack_bits
from mpicoded.errors import InputError
from mpicoded.testing import CompressorBattery
from mpicoded.testing.vectors import (
    DEVICES,
    draw,
    every_dtype,
    received,
    relative_errors,
    repeated,
    standard_error,
    streams,
    through,
    unpacked,
    vectors_of_all_kinds,
    wire,
)

from .building import LIGHT, build, each


def quarter(dim):
    return -(-dim // 4)


def configured(dim, cls, kept=quarter, **fields):
    return build(cls, **{"kept": kept(dim), **fields})


COMPRESSORS = {name: partial(configured, cls=cls) for name, cls in members(compressors.Choice).items()}
COMPRESSORS |= {
    "none, float32": partial(configured, cls=NoCompression, dtype="float32"),
    "none, float16": partial(configured, cls=NoCompression, dtype="float16"),
    "rand_k, shared": partial(configured, cls=RandK, shared=True),
    "rand_k, shared, float16": partial(configured, cls=RandK, shared=True, dtype="float16"),
    "rand_k, most": partial(configured, cls=RandK, kept=lambda dim: dim - dim // 4),
    "rand_k, all": partial(configured, cls=RandK, kept=lambda dim: dim),
    "rand_k, float16": partial(configured, cls=RandK, dtype="float16"),
    **{f"qsgd, {levels}": partial(configured, cls=Qsgd, levels=levels) for levels in (4, 7, 127, 32767)},
    "top_k, all": partial(configured, cls=TopK, kept=lambda dim: dim),
    "top_k, float16": partial(configured, cls=TopK, dtype="float16"),
    "sign, unscaled": partial(configured, cls=Sign, scaled=False),
}
UNBIASED = {name: part for name, part in COMPRESSORS.items() if part(8).variance(8) is not None}
CONTRACTIVE = {name: part for name, part in COMPRESSORS.items() if part(8).contraction(8) is not None}
PLACED = {
    **dict.fromkeys([name for name in COMPRESSORS if name.startswith(("rand_k", "top_k"))], "places take an index"),
    "natural": "bits are read as a number",
}  # beyond the standard: see tests/training/test_gpu_messages.py
UNSIGNED = "signs alone cannot tell how large a number was"


class TestCompressors(CompressorBattery):
    parts = COMPRESSORS
    but = {
        "test_other_array_libraries_make_the_same_records": {"natural": PLACED["natural"]},
        "test_other_array_libraries_get_the_same_vectors": PLACED,
        "test_zero_stays_zero": {"sign, unscaled": UNSIGNED},
        "test_extreme_vectors_keep_their_size": {"sign, unscaled": UNSIGNED},
        "test_vectors_that_are_not_finite_are_bad": {"sign, unscaled": UNSIGNED},
    }


def raw(records):
    return np.frombuffer(records.tobytes(), np.uint8).reshape(len(records), records.itemsize)


# The record


def exact_bits(part, dim, b):
    """The table of methods.md, section 4."""
    match part:
        case NoCompression():
            return dim * b
        case RandK():
            return part.kept * b
        case Qsgd():
            return b + ((2 * part.levels + 1) ** dim - 1).bit_length()
        case Natural():
            return dim * (1 + {32: 8, 64: 11}[b])
        case TopK():
            return part.kept * (b + math.ceil(math.log2(dim)))
        case Sign():
            return dim + b * part.scaled
    raise AssertionError(f"the table has no {part.name()}")


@every_dtype
@pytest.mark.parametrize("dim", [1, 10, 100, 1000, 12345])
@each(COMPRESSORS)
def test_a_record_has_the_bits_of_the_table(part, dim, dtype):
    part = part(dim)
    b = wire(part, dtype).bits
    nbytes = -(-exact_bits(part, dim, b) // 8)
    itemsize = part.layout(dim, dtype).itemsize
    if not isinstance(part, Qsgd):
        assert itemsize == nbytes
        return
    # Digits lie in 64-bit words, as many as fit, the last word cut to bytes.
    base = 2 * part.levels + 1
    per_word = max(n for n in range(1, 65) if base**n <= 2**64)
    rest = (base ** (dim % per_word) - 1).bit_length()
    assert itemsize == b // 8 + 8 * (dim // per_word) + -(-rest // 8)
    assert nbytes <= itemsize
    if dim >= 100 and part.levels <= 127:
        assert itemsize <= 1.03 * nbytes


@pytest.mark.parametrize("numbers", [1, 40, 99])
@each(COMPRESSORS)
def test_what_is_worked_at_a_time_does_not_matter(part, numbers, monkeypatch):
    part, vectors = part(37), draw((11, 37))
    records = part.compress(vectors, streams(11))
    result = unpacked(part, records, 37, streams(11))
    monkeypatch.setattr(base, "_BLOCK", numbers)
    assert part.compress(vectors, streams(11)).tobytes() == records.tobytes()
    np.testing.assert_array_equal(unpacked(part, records, 37, streams(11)), result)


# The error

DIM = 16


@each(COMPRESSORS)
def test_only_those_that_draw_change_with_the_round(part):
    part, vectors = part(100), draw((5, 100))
    random = isinstance(part, Qsgd | Natural) or (isinstance(part, RandK) and part.kept < 100)
    assert random is not (part.compress(vectors, streams(5)).tobytes()
                          == part.compress(vectors, streams(5, round=6)).tobytes())  # fmt: skip


@every_dtype
@each({name: part for name, part in COMPRESSORS.items() if part(8).name() == "rand_k"})
def test_the_squared_error_of_rand_k_is_the_stated_variance(part, dtype):
    """Within five standard errors and the wire's rounding: no less either."""
    part = part(DIM)
    for x, drawn in repeated(part, vectors_of_all_kinds(dtype)):
        errors = relative_errors(x, drawn)
        slack = 5 * standard_error(errors) + 4 * wire(part, dtype).eps
        assert errors.mean() >= part.variance(DIM) - slack


def test_variance_and_contraction_of_the_papers():
    assert NoCompression().variance(7) == 0
    assert RandK(kept=10).variance(100) == 9
    assert RandK(kept=10, shared=True).variance(100) == 9
    assert Natural().variance(100) == 1 / 8
    assert Qsgd(levels=1).variance(100) == 10  # sqrt(p)/s
    assert Qsgd(levels=20).variance(100) == 100 / 400  # p/s^2
    assert [part.variance(100) for part in (TopK(kept=10), Sign(), Sign(scaled=False))] == [None] * 3
    assert TopK(kept=10).contraction(100) == 0.1
    assert Sign().contraction(100) == 0.01
    assert Sign(scaled=False).contraction(100) is None


def test_the_contraction_of_biased_ones_is_reached():
    """No larger one would be true: top_k at a constant vector, sign at one coordinate."""
    for part, x in ((TopK(kept=3), np.full((1, 8), 0.1)), (Sign(), 5 * np.eye(8)[:1])):
        assert relative_errors(x[0], through(part, x)[0]) == pytest.approx(1 - part.contraction(8))


@every_dtype
def test_the_variance_of_natural_is_reached(dtype):
    """By 4/3: x (1 - x)/(1 + x)^2 is largest at a mantissa of 1/3."""
    x = np.full((20_000, 50), -4 / 3 * 2**7, dtype)
    assert relative_errors(x[0].astype(float), through(Natural(), x)).mean() == pytest.approx(1 / 8, rel=0.01)


# What each one computes

WIDER = "^compressor {}: float64 on the wire is wider than the float32 that is computed$"


@pytest.mark.parametrize("name", [None, "float16", "float32", "float64"])
@every_dtype
def test_no_compression_rounds_to_the_wire_and_loses_nothing_else(dtype, name):
    part, vectors = NoCompression(dtype=name), draw((5, 7), dtype)
    if name == "float64" and dtype is np.float32:
        with pytest.raises(InputError, match=WIDER.format("none")):
            part.check(7, dtype)
        return
    part.check(7, dtype)
    np.testing.assert_array_equal(through(part, vectors), vectors.astype(name or dtype))


@pytest.mark.parametrize("cls", [RandK, TopK])
def test_no_wire_is_wider_than_what_is_computed(cls):
    with pytest.raises(InputError, match=WIDER.format(cls.name())):
        cls(kept=3, dtype="float64").check(7, np.float32)
    cls(kept=3, dtype="float32").check(7, np.float32)
    cls(kept=3).check(7, np.float32)


@pytest.mark.parametrize("cls", [RandK, TopK])
def test_no_more_is_kept_than_there_is(cls):
    text = rf"^compressor {cls.name()}: kept must be at most the model's dimension, 7, got 8$"
    with pytest.raises(InputError, match=text):
        cls(kept=8).check(7, float)
    cls(kept=7).check(7, float)


def test_no_compression_copies_nothing():
    vectors = draw((5, 7))
    records = NoCompression().compress(vectors, streams(5))
    assert np.shares_memory(records, vectors)
    assert np.shares_memory(NoCompression().decompress(records, 7, streams(5)), vectors)


@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("kept", [1, 5, 12, 20])
def test_rand_k_keeps_some_numbers_times_their_rarity(kept, shared):
    part, vectors = RandK(kept=kept, shared=shared), draw((300, 20))
    result = through(part, vectors)
    places = result != 0
    assert (places.sum(axis=1) == kept).all()
    np.testing.assert_array_equal(result[places], (vectors * (20 / kept))[places])
    if kept < 20:
        assert (places == places[0]).all() == shared


def test_shared_rand_k_takes_the_same_places_in_every_message_of_a_round():
    """So the difference of two messages is compressed like a message: honest ones stay as near as they were."""
    part, vectors = RandK(kept=30, shared=True), draw((2, 100))
    difference = through(part, (vectors[:1] - vectors[1:]), streams([41]))
    np.testing.assert_allclose(-np.diff(through(part, vectors), axis=0), difference, rtol=1e-12, atol=1e-12)


def upper_share(drawn, lower):
    """How often the drawn numbers stand one step above the lower ones, never elsewhere."""
    above = drawn - lower
    assert np.isin(np.unique(above), [0, 1]).all()
    return above.mean(axis=0)


def assert_shares(shares, expected, count):
    slack = 5 * np.sqrt(expected * (1 - expected) / count) + 5 / count
    assert (np.abs(shares - expected) <= slack).all()


@every_dtype
@pytest.mark.parametrize("levels", [1, 4, 7, 127])
def test_qsgd_rounds_to_one_of_two_levels_as_often_as_it_should(levels, dtype):
    x, count = draw(12, dtype), 20_000
    norm = np.linalg.norm(x.astype(float))
    drawn = through(Qsgd(levels=levels), np.tile(x, (count, 1))) * levels / norm
    np.testing.assert_allclose(drawn, np.rint(drawn), atol=1e-5 * levels)
    scaled = levels * x / norm
    assert_shares(upper_share(np.rint(drawn), np.floor(scaled)), scaled - np.floor(scaled), count)


@every_dtype
def test_natural_rounds_to_one_of_two_powers_as_often_as_it_should(dtype):
    x, count = draw(12, dtype), 20_000
    drawn = through(Natural(), np.tile(x, (count, 1)))
    np.testing.assert_array_equal(np.signbit(drawn), np.broadcast_to(np.signbit(x), drawn.shape))
    exponents = np.log2(np.abs(drawn))
    lower = np.floor(np.log2(np.abs(x)))
    assert_shares(upper_share(exponents, lower), np.abs(x) / 2**lower - 1, count)


@every_dtype
def test_powers_of_two_are_natural(dtype):
    info = np.finfo(dtype)
    powers = np.ldexp(np.ones(1, dtype), np.arange(info.minexp, info.maxexp))
    x = np.concatenate([powers, -powers, [0.0, -0.0]]).astype(dtype)[None]
    result = through(Natural(), x)
    np.testing.assert_array_equal(result, x)
    np.testing.assert_array_equal(np.signbit(result), np.signbit(x))


@every_dtype
@pytest.mark.parametrize("levels", [1, 4, 7, 127, 32767])
@pytest.mark.parametrize("value", [3.7, -1e-30, 2e18])
def test_one_coordinate_alone_is_exact_in_qsgd(value, levels, dtype):
    x = (value * np.eye(9)).astype(dtype)
    np.testing.assert_allclose(through(Qsgd(levels=levels), x), x, rtol=2 * np.finfo(dtype).eps)


@LIGHT
@given(st.integers(1, 32767), st.integers(1, 200), st.integers(0, 10**6))
def test_qsgd_is_within_a_level_for_any_number_of_them(levels, dim, seed):
    part, x = Qsgd(levels=levels), draw((3, dim), seed=seed)
    records = part.compress(x, streams(3))
    assert part.sound(records, dim).all()
    np.testing.assert_allclose(records["norm"], np.linalg.norm(x, axis=1), rtol=1e-14)
    step = records["norm"][:, None] / levels
    assert (np.abs(unpacked(part, records, dim, streams(3)) - x) <= step * (1 + 1e-10)).all()


def test_coordinates_on_a_level_are_exact_in_qsgd():
    x = np.tile([3.0, -4.0, 0.0], (1000, 1))
    np.testing.assert_allclose(through(Qsgd(levels=5), x), x, rtol=1e-15)


@every_dtype
@pytest.mark.parametrize("kept", [1, 4, 9])
def test_top_k_by_loops(kept, dtype):
    vectors = draw((50, 9), dtype)
    expected = np.zeros_like(vectors)
    for row, result in zip(vectors, expected, strict=True):
        for place in sorted(range(9), key=lambda i, row=row: -abs(row[i]))[:kept]:
            result[place] = row[place]
    np.testing.assert_array_equal(through(TopK(kept=kept), vectors), expected)


def test_top_k_keeps_as_many_of_equal_numbers():
    result = through(TopK(kept=4), np.tile([1.0, -1.0, 1.0], (5, 3)))
    assert (np.count_nonzero(result, axis=1) == 4).all()


@every_dtype
@pytest.mark.parametrize("size", [1.0, 0.1, 1e-30, 3e30])
def test_vectors_of_one_size_are_exact_in_sign(size, dtype):
    x = (size * np.random.default_rng(0).choice([-1, 1], (20, 37))).astype(dtype)
    np.testing.assert_array_equal(through(Sign(), x), x)
    np.testing.assert_array_equal(through(Sign(scaled=False), x), np.sign(x))


@every_dtype
def test_sign_scales_by_the_mean_size(dtype):
    x = draw((20, 37), dtype)
    expected = [[math.fsum(abs(row)) / 37 * (1 if value >= 0 else -1) for value in row] for row in x.astype(float)]
    np.testing.assert_allclose(through(Sign(), x), expected, rtol=1e-6 if dtype is np.float32 else 1e-14)
    assert through(Sign(scaled=False), np.array([[0.0, -0.0, -1e-300]])).tolist() == [[1, 1, -1]]


# The ends of the range


@every_dtype
@pytest.mark.parametrize("value", [1.7, -3e-5, 12345.0])
@each(COMPRESSORS, but=("sign, unscaled",))
def test_a_single_coordinate_survives(part, value, dtype):
    one = part(1)
    factor = 2 if isinstance(one, Natural) else 1
    (result,) = through(one, np.full((1, 1), value, dtype))[0] / dtype(value)
    rounding = 2 * wire(one, dtype).eps if abs(value) > wire(one, dtype).smallest_normal else 1e-2
    assert (1 - rounding) / factor <= result <= (1 + rounding) * factor


@pytest.mark.parametrize(
    ("dtype", "power"), [(np.float64, 1023), (np.float64, -980), (np.float32, 127), (np.float32, -95)]
)
@each(COMPRESSORS, but=("none, float32", "none, float16", "rand_k, float16", "rand_k, shared, float16",
                        "top_k, float16", "sign, unscaled"))  # fmt: skip
def test_no_size_is_too_large_or_too_small(part, dtype, power):
    """What is not rounded to a shorter type goes along with a power of two, digit by digit."""
    part, vectors = part(37), draw((20, 37), dtype)
    vectors = vectors / (8 * np.linalg.norm(vectors, axis=1, keepdims=True))
    result = through(part, np.ldexp(vectors, power))
    np.testing.assert_array_equal(result, np.ldexp(through(part, vectors), power))
    assert result.any(axis=1).all()


@every_dtype
def test_natural_has_no_power_to_round_up_to_from_the_largest_numbers(dtype):
    info = np.finfo(dtype)
    top = np.ldexp(dtype(1), info.maxexp - 1)
    x = np.tile([info.max, -info.max, top * dtype(1.5)], (100, 1))
    np.testing.assert_array_equal(through(Natural(), x), np.tile([top, -top, top], (100, 1)))
    below = through(Natural(), np.full((100, 1), top * dtype(0.75)))
    np.testing.assert_array_equal(np.unique(below), [top / 2, top])


@every_dtype
def test_natural_keeps_the_mean_of_subnormal_numbers(dtype):
    info = np.finfo(dtype)
    drawn = through(Natural(), np.full((20_000, 1), info.smallest_normal / 8)) / info.smallest_normal
    assert_shares(upper_share(drawn, 0), np.array([1 / 8]), 20_000)


@every_dtype
def test_norms_beyond_all_numbers_saturate_in_qsgd(dtype):
    records = Qsgd(levels=4).compress(np.full((3, 7), -np.finfo(dtype).max), streams(3))
    assert (records["norm"] == np.finfo(dtype).max).all()


# The level over all levels times the norm would be: it is 1 here.
@every_dtype
@pytest.mark.parametrize("levels", [3, 7, 127, 32767])
def test_one_extreme_coordinate_alone_is_exact_in_qsgd(levels, dtype):
    info = np.finfo(dtype)
    x = np.array([info.max, info.smallest_normal, info.smallest_subnormal], dtype)[:, None] * np.eye(3, dtype=dtype)
    np.testing.assert_allclose(through(Qsgd(levels=levels), x), x, rtol=2 * info.eps)


@pytest.mark.parametrize("dtype", ["float16", "float32"])
@each({"none": NoCompression, "rand_k": partial(RandK, kept=5), "rand_k, all": partial(RandK, kept=8),
       "rand_k, shared": partial(RandK, kept=5, shared=True), "top_k": partial(TopK, kept=5)})  # fmt: skip
def test_numbers_too_large_for_the_wire_saturate_and_are_counted(part, dtype):
    part, limit = part(dtype=dtype), float(np.finfo(dtype).max)
    x = np.array([1.0, -2.0, 3 * limit, -1e3 * limit, 1e200, 0.5, np.nan, -np.inf])
    vectors = np.stack([np.random.default_rng(seed).permutation(x) for seed in range(40)])
    records = part.compress(vectors, streams(40))
    sent = np.stack([through(NoCompression(), row[None])[0] for row in records["values"].astype(float)])
    factor = part.variance(8) or 0  # rand_k: p/kept - 1
    found = unpacked(part, records, 8, streams(40))
    places = found != 0
    expected = np.where(np.isfinite(vectors), np.clip(vectors, -limit, limit), vectors) * (1 + factor)
    np.testing.assert_allclose(found[places], expected[places], rtol=1e-12)
    beyond = np.isfinite(vectors) & (np.abs(vectors) > limit)
    np.testing.assert_array_equal(part.saturated(records), np.sum(beyond & places, axis=1))
    np.testing.assert_array_equal(part.saturated(records), np.sum(np.abs(sent) == limit, axis=1))
    assert part.saturated(records).max() == 3


@each({"none": NoCompression, "rand_k": partial(RandK, kept=5), "top_k": partial(TopK, kept=5)})
def test_nothing_saturates_where_the_wire_is_not_shorter(part):
    records = part().compress(np.full((3, 8), np.finfo(float).max), streams(3))
    assert part().saturated(records).tolist() == [0, 0, 0]


# What the server takes from nobody it trusts


@every_dtype
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@each(COMPRESSORS, but=("sign, unscaled",))
def test_vectors_are_bad_where_a_number_that_is_sent_is_not_finite(part, value, dtype):
    part = part(37)
    vectors = np.array(draw((40, 37), dtype))
    vectors[0] = value
    vectors[range(1, 40), np.arange(1, 40) % 37] = value  # a single coordinate
    looked_at = np.ones((40, 37), bool)
    if isinstance(part, RandK):
        looked_at = through(part, np.ones((40, 37), dtype)) != 0
    result, bad = received(part, part.compress(vectors, streams(40)).copy(), 37, dtype=dtype)
    np.testing.assert_array_equal(bad, (~np.isfinite(vectors) & looked_at).any(axis=1))
    assert np.isfinite(result).all()
    assert not result[bad].any()
    assert result[~bad].any(axis=1).all()


@each(COMPRESSORS, but=("sign, unscaled",))
def test_vectors_too_long_for_distances_are_bad(part):
    """Where the wire holds them at all."""
    part = part(37)
    longest = math.sqrt(np.finfo(float).max / (16 * DEVICES))
    records = part.compress(np.full((2, 37), 2 * longest), streams(2)).copy()
    result, bad = received(part, records, 37)
    assert bad.all() == (wire(part, float).dtype == float)
    assert np.isfinite(result).all()


def crafted(part, dim, **fields):
    """An honest record with some of its fields overwritten."""
    records = part.compress(draw((1, dim)), streams(1)).copy()
    for name, value in fields.items():
        records[name] = value
    return records


def places(dim, *numbers):
    packed = np.zeros((1, -(-len(numbers) * (dim - 1).bit_length() // 8)), np.uint8)
    pack_bits(np.array([numbers]), (dim - 1).bit_length(), packed)
    return packed


TOP, QSGD = TopK(kept=3), Qsgd(levels=4)  # twenty digits of base 9 to a word
LAST_WORD = (9**17).to_bytes(7, "little")  # 17 digits in the last word of dim 37
BAD_RECORDS = {
    "none, nan": (NoCompression(), {"values": np.nan}),
    "none, inf": (NoCompression(dtype="float32"), {"values": -np.inf}),
    "none, too long": (NoCompression(), {"values": 1e153}),
    "rand_k, nan": (RandK(kept=3), {"values": [0.0, np.nan, 0.0]}),
    "rand_k, inf": (RandK(kept=3, shared=True), {"values": [0.0, np.inf, 0.0]}),
    "top_k, nan": (TOP, {"values": [0.0, np.nan, 0.0]}),
    "top_k, out of range": (TOP, {"places": places(37, 1, 2, 37)}),
    "top_k, far out of range": (TOP, {"places": places(37, 1, 2, 63)}),
    "top_k, all out of range": (TOP, {"places": places(37, 61, 62, 63)}),
    "top_k, twice": (TOP, {"places": places(37, 1, 2, 2)}),
    "top_k, twice, first": (TOP, {"places": places(37, 0, 0, 2)}),
    "top_k, not ascending": (TOP, {"places": places(37, 2, 1, 3)}),
    "qsgd, nan": (QSGD, {"norm": np.nan}),
    "qsgd, inf": (QSGD, {"norm": np.inf}),
    "qsgd, negative": (QSGD, {"norm": -1.0}),
    "qsgd, too long": (QSGD, {"norm": 1e200, "digits": 0}),
    "qsgd, digit of a whole word": (QSGD, {"digits": [*(9**20).to_bytes(8, "little"), *bytes(7)]}),
    "qsgd, digit of the last word": (QSGD, {"digits": [*bytes(8), *LAST_WORD]}),
    "qsgd, all bits": (QSGD, {"digits": 0xFF}),
    "natural, nan": (Natural(), {"codes_float64": 0xFF}),
    "natural, inf": (Natural(), {"codes_float64": [0xFF, 0x07, *bytes(54)]}),
    "sign, nan": (Sign(), {"scale": np.nan}),
    "sign, inf": (Sign(), {"scale": np.inf}),
    "sign, negative": (Sign(), {"scale": -1.0}),
}
GOOD_RECORDS = {
    "top_k, first and last": (TOP, {"places": places(37, 0, 35, 36)}),
    "qsgd, largest digits": (QSGD, {"digits": [*(9**20 - 1).to_bytes(8, "little"),
                                               *(9**17 - 1).to_bytes(7, "little")]}),
    "qsgd, zero": (QSGD, {"norm": 0.0}),
    "natural, largest that is usable": (Natural(), {"codes_float64": [0xF0, 0x05, *bytes(54)]}),
    "sign, zero": (Sign(), {"scale": 0.0}),
}  # fmt: skip


@each(BAD_RECORDS)
def test_bad_records_are_recognised(part):
    part, fields = part
    honest = part.compress(draw((1, 37)), streams(1))
    records = np.concatenate([crafted(part, 37, **fields), honest])
    own = streams([0, 1])
    expected = unpacked(part, honest, 37, own.of(np.array([1])))
    result, bad = received(part, records, 37, own)
    assert bad.tolist() == [True, False]
    assert not result[0].any()
    np.testing.assert_array_equal(result[1], expected[0])


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, -1e-300])
@pytest.mark.parametrize(("part", "field"), [(QSGD, "norm"), (Sign(), "scale")], ids=repr)
def test_a_length_that_no_vector_has_is_not_sound(part, field, value):
    records = np.concatenate([crafted(part, 37, **{field: value}), crafted(part, 37)])
    assert part.sound(records, 37).tolist() == [False, True]


@each(GOOD_RECORDS)
def test_records_at_the_limit_are_not_bad(part):
    part, fields = part
    _, bad = received(part, crafted(part, 37, **fields), 37)
    assert not bad.any()


@pytest.mark.parametrize("dim", [1, 2, 64, 65])
def test_every_place_of_top_k_below_dim_is_sound_and_no_other(dim):
    part = TopK(kept=1)
    records = np.zeros(256, part.layout(dim, float))
    if dim > 1:
        records["places"][:, 0] = np.arange(256)
    bits = (dim - 1).bit_length()
    expected = [code % 2**bits < dim for code in range(256)]
    assert part.sound(records, dim).tolist() == expected


@every_dtype
@pytest.mark.parametrize("levels", [1, 4, 7, 127, 32767])
@pytest.mark.parametrize("dim", [1, 37, 100, 20_000])
def test_the_compiled_loop_of_qsgd_gives_the_same_bytes(monkeypatch, levels, dtype, dim):
    pytest.importorskip("llvmlite")
    x = np.random.default_rng(0).standard_t(2, (5, dim)).astype(dtype)
    x[1], x[2, ::2], x[3, 0] = 0, -np.finfo(dtype).max, np.finfo(dtype).smallest_subnormal
    records = []
    for worth in (0, dim + 1):
        monkeypatch.setattr(quantized, "_WORTH_COMPILING", worth)
        records.append(Qsgd(levels=levels).compress(x, streams(5)))
    assert quantized._compiled_quantize() is not None
    assert records[0].tobytes() == records[1].tobytes()
