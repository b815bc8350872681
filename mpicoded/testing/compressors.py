"""The battery of the compressors."""

import gc
import tracemalloc
from collections import Counter
from collections.abc import Callable
from typing import Any

import array_api_strict
import numpy as np
import pytest

from mpicoded.algorithms.component import Component, works_on_gpu
from mpicoded.algorithms.compressors import Compressor
from mpicoded.testing.battery import ComponentBattery
from mpicoded.testing.vectors import (
    DEVICES,
    DIM,
    draw,
    every_dtype,
    extremes,
    received,
    relative_errors,
    repeated,
    standard_error,
    streams,
    through,
    unpacked,
    untrusted,
    vectors_of_all_kinds,
    wire,
)

Part = Compressor | Callable[[int], Compressor]


class CompressorBattery(ComponentBattery):
    """What holds for every compressor.

    A part is a component, or a function of the dimension that makes one: ``{"mine": lambda dim: Mine(kept=dim // 2)}``.
    """

    @classmethod
    def component(cls, part: Part) -> Component:
        """The component for a dimension of 37."""
        return cls.made(part, 37)

    @classmethod
    def made(cls, part: Part, dim: int) -> Compressor:
        """The component for a dimension."""
        return part if isinstance(part, Compressor) else part(dim)

    @every_dtype
    @pytest.mark.parametrize("shape", [(1, 1), (5, 1), (1, 7), (5, 7), (0, 7)], ids=str)
    def test_a_message_is_a_record_of_the_layout(self, part: Part, shape: tuple[int, int], dtype: Any) -> None:
        """Of a fixed size, without an object in it: nothing is pickled."""
        one = self.made(part, shape[1])
        one.check(shape[1], dtype)
        layout = one.layout(shape[1], dtype)
        records = one.compress(draw(shape, dtype), streams(shape[0]))
        assert records.shape == shape[:1]
        assert records.dtype == layout
        assert not layout.hasobject
        assert layout.itemsize == sum(layout[name].itemsize for name in layout.names or ())
        assert one.sound(records, shape[1]).all()
        assert one.saturated(records).tolist() == [0] * shape[0]
        vectors = unpacked(one, records, shape[1], streams(shape[0]), dtype)
        assert vectors.shape == shape
        assert vectors.dtype == dtype
        assert np.isfinite(vectors).all()

    @every_dtype
    def test_records_are_put_into_out(self, part: Part, dtype: Any) -> None:
        one, vectors = self.made(part, 37), draw((5, 37), dtype)
        records = one.compress(vectors, streams(5))
        out = np.full((5, records.itemsize), 0xFF, np.uint8).view(records.dtype)[:, 0]
        assert one.compress(vectors, streams(5), out) is out
        assert out.tobytes() == records.tobytes()

    @every_dtype
    @pytest.mark.parametrize("dim", [1, 37, 300])
    def test_other_array_libraries_make_the_same_records(self, part: Part, dim: int, dtype: Any) -> None:
        """By the array API standard alone (``mpicoded.algorithms.arrays``), so that vectors may lie on a GPU."""
        one, vectors = self.made(part, dim), draw((5, dim), dtype)
        if not works_on_gpu(one, "compress"):
            pytest.skip("it does not say that it can")
        strict = array_api_strict.asarray(vectors.copy())
        records = one.compress(strict, streams(5))
        assert records.dtype == one.layout(dim, dtype)
        assert records.tobytes() == one.compress(vectors, streams(5)).tobytes()
        np.testing.assert_array_equal(np.asarray(strict), vectors)

    @every_dtype
    @pytest.mark.parametrize("dim", [1, 37, 300])
    def test_other_array_libraries_get_the_same_vectors(self, part: Part, dim: int, dtype: Any) -> None:
        """Of the same records."""
        one = self.made(part, dim)
        if not works_on_gpu(one, "decompress"):
            pytest.skip("it does not say that it can")
        records = one.compress(draw((5, dim), dtype), streams(5))
        if any(records.dtype[name].base == np.float16 for name in records.dtype.names):
            pytest.skip("the standard has no float16")
        out = array_api_strict.full((5, dim), np.nan, dtype=getattr(array_api_strict, np.dtype(dtype).name))
        assert one.decompress(records, dim, streams(5), out) is out
        np.testing.assert_array_equal(np.asarray(out), unpacked(one, records, dim, streams(5), dtype))

    def test_unpacked_messages_are_put_into_out(self, part: Part) -> None:
        one = self.made(part, 37)
        records = one.compress(draw((5, 37)), streams(5))
        out = np.full((5, 37), np.nan)
        assert one.decompress(records, 37, streams(5), out) is out
        np.testing.assert_array_equal(out, one.decompress(records, 37, streams(5)))

    def test_bytes_are_all_that_the_other_side_needs(self, part: Part) -> None:
        one = self.made(part, 37)
        records = one.compress(draw((5, 37)), streams(5))
        arrived = np.frombuffer(records.tobytes(), one.layout(37, float))
        np.testing.assert_array_equal(one.decompress(arrived, 37, streams(5)), one.decompress(records, 37, streams(5)))

    def test_the_vectors_are_left_alone_and_may_be_rows_of_a_larger_array(self, part: Part) -> None:
        one, vectors = self.made(part, 37), draw((9, 37)).copy()
        records = one.compress(vectors[::2], streams(5))
        assert records.tobytes() == one.compress(vectors[::2].copy(), streams(5)).tobytes()
        np.testing.assert_array_equal(vectors, draw((9, 37)))

    # One row is a block, or a few are, or all: as large as blocks are, and with blocks made small.
    @every_dtype
    @pytest.mark.parametrize("dim", [140_000, 30_000, 7])
    def test_a_message_depends_on_its_row_and_device_only(self, part: Part, dim: int, dtype: Any) -> None:
        one, ids = self.made(part, dim), np.array([0, 2, 3, 8, 9])
        vectors, own = draw((len(ids), dim), dtype), streams(ids)
        records = one.compress(vectors, own)
        result = unpacked(one, records, dim, own, dtype)
        for rows in ([0], [1, 3, 4], [3, 4]):
            alone = own.of(ids[rows])
            assert one.compress(vectors[rows], alone).tobytes() == records[rows].tobytes()
            np.testing.assert_array_equal(unpacked(one, records[rows], dim, alone, dtype), result[rows])

    def test_only_common_random_numbers_follow_from_the_nonce(self, part: Part) -> None:
        one, vectors = self.made(part, 100), draw((5, 100))
        records = one.compress(vectors, streams(5)).tobytes()

        def changes(**name: int) -> bool:
            return bool(one.compress(vectors, streams(5, **name)).tobytes() != records)

        assert not changes()
        assert changes(nonce=12) is one.common
        assert changes(seed=4) is (changes(round=6) and not one.common)

    @every_dtype
    def test_the_mean_of_many_is_the_vector(self, part: Part, dtype: Any) -> None:
        """Within five standard errors, and five of the largest steps where one is so rare that it was not seen."""
        one = self.made(part, DIM)
        if one.variance(DIM) is None:
            return  # biased, as it says
        for x, drawn in repeated(one, vectors_of_all_kinds(dtype)):
            step = np.abs(drawn - x).max()
            rounding = 2 * wire(one, dtype).eps * np.abs(x) + 1e-12 * np.abs(x)
            slack = 5 * standard_error(drawn) + 5 * step / len(drawn) + rounding
            assert (np.abs(drawn.mean(axis=0) - x) <= slack).all()

    @every_dtype
    def test_the_squared_error_is_at_most_the_stated_variance(self, part: Part, dtype: Any) -> None:
        """Within five standard errors and the wire's rounding."""
        one = self.made(part, DIM)
        delta = one.variance(DIM)
        if delta is None:
            return
        for x, drawn in repeated(one, vectors_of_all_kinds(dtype)):
            errors = relative_errors(x, drawn)
            assert errors.mean() <= delta + 5 * standard_error(errors) + 4 * wire(one, dtype).eps

    @every_dtype
    def test_the_damped_compressor_contracts(self, part: Part, dtype: Any) -> None:
        """E ||c C(x) - x||^2 <= (1 - alpha) ||x||^2, within five standard errors and the wire's rounding."""
        one = self.made(part, DIM)
        alpha, factor = one.contraction(DIM), one.damping(DIM)
        if alpha is None:
            return
        assert 0 < alpha <= 1
        assert 0 < factor <= 1
        for x, drawn in repeated(one, vectors_of_all_kinds(dtype)):
            errors = relative_errors(x, factor * drawn)
            assert errors.mean() <= 1 - alpha + 5 * standard_error(errors) + 4 * wire(one, dtype).eps

    def test_an_unbiased_one_is_damped_until_it_contracts(self, part: Part) -> None:
        for dim in (1, 7, 1000):
            one = self.made(part, dim)
            delta = one.variance(dim)
            assert one.damping(dim) == (1 if delta is None else 1 / (1 + delta))
            if delta is not None:
                assert one.contraction(dim) == 1 / (1 + delta)

    @every_dtype
    @pytest.mark.parametrize("dim", [1, 7, 100])
    def test_zero_stays_zero(self, part: Part, dim: int, dtype: Any) -> None:
        assert not through(self.made(part, dim), np.zeros((3, dim), dtype)).any()

    @every_dtype
    @pytest.mark.parametrize("dim", [1, 7, 100])
    def test_extreme_vectors_stay_finite_with_their_signs(self, part: Part, dim: int, dtype: Any) -> None:
        one = self.made(part, dim)
        for x in extremes(dim, dtype):
            records = one.compress(np.tile(x, (4, 1)), streams(4))
            assert one.sound(records, dim).all()
            result = unpacked(one, records, dim, streams(4), dtype)
            assert np.isfinite(result).all()
            assert (np.sign(result) * np.sign(x) >= 0).all()

    @every_dtype
    @pytest.mark.parametrize("dim", [1, 7, 100])
    def test_extreme_vectors_keep_their_size(self, part: Part, dim: int, dtype: Any) -> None:
        one = self.made(part, dim)
        for x in extremes(dim, dtype):
            result = through(one, np.tile(x, (4, 1)))
            assert np.abs(result / dim / 2).max() <= max(np.abs(x).max(), np.finfo(dtype).smallest_normal)

    @every_dtype
    def test_honest_records_are_received_as_they_are(self, part: Part, dtype: Any) -> None:
        one, vectors = self.made(part, 37), draw((5, 37), dtype)
        result, bad = received(one, one.compress(vectors, streams(5)).copy(), 37, dtype=dtype)
        np.testing.assert_array_equal(result, through(one, vectors))
        assert not bad.any()

    def test_missing_records_are_zero_and_not_bad(self, part: Part) -> None:
        one, arrived = self.made(part, 37), np.array([True, False, True, False])
        records = one.compress(draw((4, 37)), streams(4)).copy()
        expected, _ = received(one, records.copy(), 37)
        records.view(np.uint8).reshape(4, -1)[1] = 0xFF  # what lay in the memory
        result, bad = received(one, records, 37, arrived=arrived)
        assert not bad.any()
        assert not result[~arrived].any()
        np.testing.assert_array_equal(result[arrived], expected[arrived])

    @every_dtype
    @pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
    def test_vectors_that_are_not_finite_are_bad(self, part: Part, value: float, dtype: Any) -> None:
        one, vectors = self.made(part, 37), np.array(draw((2, 37), dtype))
        vectors[0] = value
        result, bad = received(one, one.compress(vectors, streams(2)).copy(), 37, dtype=dtype)
        assert bad.tolist() == [True, False]
        assert not result[0].any()
        np.testing.assert_array_equal(result[1], through(one, vectors[1:], streams([1]))[0])

    def test_whatever_bytes_arrive_finite_vectors_come_out(self, part: Part) -> None:
        """Forty thousand records: no exception, no warning, nothing that is not finite, no memory kept."""
        batches, count, rng = 16, 2500, np.random.default_rng(0)
        seen: Counter[str] = Counter()
        kinds = [(dim, dtype) for dtype in (np.float64, np.float32) for dim in (1, 7, 37, 100)]
        own, kept = streams(count), []
        tracemalloc.start()
        try:  # or all that comes after a failure would be traced, and slow
            for batch in range(batches):
                dim, dtype = kinds[batch % len(kinds)]
                one, arrived = self.made(part, dim), rng.random(count) < 0.9
                records = untrusted(one, dim, dtype, rng, count)
                result, bad = received(one, records, dim, own, arrived, dtype)
                assert np.isfinite(result).all()
                longest = np.sum(np.square(result, dtype=np.longdouble), axis=1).max()
                assert longest <= np.finfo(dtype).max / (16 * DEVICES)
                assert not result[bad | ~arrived].any()
                assert not (bad & ~arrived).any()
                assert (one.saturated(records) >= 0).all()
                seen.update(bad=int(np.sum(bad)), good=int(np.sum(arrived & ~bad)))
                if batch in (batches // 2 - 1, batches - 1):
                    del records, result, bad, arrived
                    gc.collect()
                    kept.append(tracemalloc.get_traced_memory()[0])
        finally:
            tracemalloc.stop()
        assert kept[1] - kept[0] < 50_000
        assert seen["good"] > 1000
