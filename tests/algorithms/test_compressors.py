"""Every compressor packs a message into a record of fixed size and unpacks it again."""

import numpy as np
import pytest

from mpicoded.algorithms import compressors
from mpicoded.algorithms.compressors import NoCompression
from mpicoded.algorithms.randomness import Streams

from .building import each, family

COMPRESSORS = family(compressors.Choice)
STREAMS = Streams(3, 5)

every_shape = pytest.mark.parametrize("shape", [(1, 1), (5, 1), (1, 7), (5, 7), (0, 7)], ids=str)
every_dtype = pytest.mark.parametrize("dtype", [np.float32, np.float64])


def draw(shape, dtype=float):
    vectors = np.random.default_rng(0).normal(1.0, 2.0, shape).astype(dtype)
    vectors.flags.writeable = False
    return vectors


@every_dtype
@every_shape
@each(COMPRESSORS)
def test_a_message_is_a_record_of_the_layout(part, shape, dtype):
    records = part.compress(draw(shape, dtype), STREAMS)
    assert records.shape == shape[:1]
    assert records.dtype == part.layout(shape[1], dtype)
    assert not records.dtype.hasobject
    assert records.nbytes == shape[0] * part.layout(shape[1], dtype).itemsize


@every_dtype
@every_shape
@each(COMPRESSORS)
def test_unpacked_messages_have_shape_and_precision_of_the_vectors(part, shape, dtype):
    vectors = part.decompress(part.compress(draw(shape, dtype), STREAMS), shape[1], STREAMS)
    assert vectors.shape == shape
    assert vectors.dtype == dtype
    assert np.isfinite(vectors).all()


@each(COMPRESSORS)
def test_unpacked_messages_are_put_into_out(part):
    records = part.compress(draw((5, 7)), STREAMS)
    out = np.full((5, 7), np.nan)
    assert part.decompress(records, 7, STREAMS, out=out) is out
    np.testing.assert_array_equal(out, part.decompress(records, 7, STREAMS))


@each(COMPRESSORS)
def test_bytes_are_all_that_the_other_side_needs(part):
    records = part.compress(draw((5, 7)), STREAMS)
    received = np.frombuffer(records.tobytes(), part.layout(7, float))
    expected = part.decompress(records, 7, STREAMS)
    np.testing.assert_array_equal(part.decompress(received, 7, STREAMS), expected)


@every_dtype
@every_shape
def test_no_compression_loses_nothing(shape, dtype):
    vectors = draw(shape, dtype)
    records = NoCompression().compress(vectors, STREAMS)
    np.testing.assert_array_equal(NoCompression().decompress(records, shape[1], STREAMS), vectors)
    assert records.itemsize == shape[1] * vectors.itemsize


def test_no_compression_copies_nothing():
    vectors = draw((5, 7))
    records = NoCompression().compress(vectors, STREAMS)
    assert np.shares_memory(records, vectors)
    assert np.shares_memory(NoCompression().decompress(records, 7, STREAMS), vectors)


def test_no_compression_takes_rows_of_a_larger_array():
    vectors = draw((9, 7))
    np.testing.assert_array_equal(NoCompression().compress(vectors[::2], STREAMS)["values"], vectors[::2])
