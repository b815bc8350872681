"""Gradients are those of the losses, and have the same bits whatever is worked beside them."""

import math

import array_api_strict
import numpy as np
import pytest

from mpicoded.algorithms.models import LinearRegression, SoftmaxRegression

from .building import each, family

MODELS = family(LinearRegression | SoftmaxRegression) | {
    "softmax_regression without intercept": SoftmaxRegression(intercept=False)
}
CLASSES = 3


def problem(model, subsets=4, samples=5, features=6, classes=CLASSES, dtype=float, seed=0):
    """Parameters, features, targets and weights, none of which may be written to."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(subsets, samples, features)).astype(dtype)
    if model.task == "classification":
        y = rng.integers(0, classes, (subsets, samples))
    else:
        y = rng.normal(size=(subsets, samples)).astype(dtype)
    parameters = rng.normal(size=model.dim(features, classes)).astype(dtype)
    weights = rng.uniform(0.1, 2, (subsets, samples)).astype(dtype)
    for array in (parameters, x, y, weights):
        array.flags.writeable = False
    return parameters, x, y, weights


def sample_loss(model, parameters, x, y):
    """The loss of one sample and its gradient, by loops."""
    if isinstance(model, LinearRegression):
        error = math.fsum(a * b for a, b in zip(x, parameters, strict=True)) - y
        return error**2 / 2, error * x
    matrix = parameters[: len(x) * CLASSES].reshape(len(x), CLASSES)
    intercepts = parameters[len(x) * CLASSES :] if model.intercept else np.zeros(CLASSES)
    logits = [math.fsum(x * matrix[:, c]) + intercepts[c] for c in range(CLASSES)]
    total = math.fsum(math.exp(logit) for logit in logits)
    errors = [math.exp(logit) / total - (c == y) for c, logit in enumerate(logits)]
    gradient = [feature * error for feature in x for error in errors]
    return math.log(total) - logits[y], np.array(gradient + (errors if model.intercept else []))


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("samples", [1, 5])
@each(MODELS)
def test_losses_and_gradients_by_loops(part, samples, weighted):
    parameters, x, y, weights = problem(part, samples=samples)
    if not weighted:
        weights = np.full_like(weights, 1 / samples)
    losses = part.losses(parameters, x, y, weights if weighted else None)
    gradients = part.gradients(parameters, x, y, weights if weighted else None)
    for k in range(len(x)):
        terms = [sample_loss(part, parameters, x[k, i], y[k, i]) for i in range(samples)]
        assert losses[k] == pytest.approx(math.fsum(weights[k, i] * terms[i][0] for i in range(samples)), rel=1e-12)
        expected = sum(weights[k, i] * terms[i][1] for i in range(samples))
        np.testing.assert_allclose(gradients[k], expected, rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize("weighted", [False, True])
@each(MODELS)
def test_gradients_are_finite_differences_of_the_losses(part, weighted):
    parameters, x, y, weights = problem(part)
    weights = weights if weighted else None
    step = 1e-5
    gradients = part.gradients(parameters, x, y, weights)
    for j, direction in enumerate(step * np.eye(parameters.size)):
        up, down = (part.losses(parameters + sign * direction, x, y, weights) for sign in (1, -1))
        np.testing.assert_allclose(gradients[:, j], (up - down) / (2 * step), rtol=1e-6, atol=1e-8)


SIZES = [  # subsets, samples, features, classes
    (7, 1, 1, 2),
    (7, 1, 100, 3),
    (7, 1, 64, 10),
    (5, 2, 3, 2),
    (6, 5, 17, 10),
    (9, 16, 8, 3),
    (5, 33, 100, 7),
    (3, 120, 64, 10),
    (300, 3, 5, 4),
]


def selections(subsets):
    rng = np.random.default_rng(0)
    yield from (np.array([k]) for k in range(min(subsets, 7)))
    yield from (rng.permutation(subsets)[: subsets // 2 + 1] for _ in range(3))
    yield slice(1, subsets)
    yield slice(0, None, 2)


def off_alignment(array):
    """The same numbers, starting one item behind a multiple of 64 bytes."""
    memory = np.empty(array.size + 16 + 1, array.dtype)
    start = (-memory.ctypes.data % 64) // array.itemsize + 1
    moved = memory[start : start + array.size].reshape(array.shape)
    moved[...] = array
    return moved


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("size", SIZES, ids=str)
@each(MODELS)
def test_bits_of_a_subset_do_not_depend_on_the_selection(part, size, dtype, weighted):
    subsets, samples, features, classes = size
    parameters, x, y, weights = problem(part, subsets, samples, features, classes, dtype)
    losses = part.losses(parameters, x, y, weights if weighted else None)
    gradients = part.gradients(parameters, x, y, weights if weighted else None)
    for chosen in selections(subsets):
        some = x[chosen], y[chosen], weights[chosen] if weighted else None
        np.testing.assert_array_equal(part.losses(parameters, *some), losses[chosen])
        np.testing.assert_array_equal(part.gradients(parameters, *some), gradients[chosen])
        np.testing.assert_array_equal(part.gradients(parameters, off_alignment(some[0]), *some[1:]), gradients[chosen])
        buffer = np.full((subsets + 2, parameters.size), np.nan, dtype)
        part.gradients(parameters, *some, out=buffer[1 : 1 + len(some[0])])
        np.testing.assert_array_equal(buffer[1 : 1 + len(some[0])], gradients[chosen])
        assert np.isnan(buffer[0]).all()
        assert np.isnan(buffer[1 + len(some[0]) :]).all()


@each(MODELS)
def test_one_weight_for_all_may_be_a_broadcast_number(part):
    parameters, x, y, _ = problem(part)
    one = np.broadcast_to(np.float64(0.3), y.shape)
    expected = part.gradients(parameters, x, y, one.copy())
    np.testing.assert_array_equal(part.gradients(parameters, x, y, one), expected)
    np.testing.assert_array_equal(part.losses(parameters, x, y, one), part.losses(parameters, x, y, one.copy()))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("samples", [1, 5, 30])
@each(MODELS)
def test_padding_with_weight_zero_changes_nothing(part, samples, dtype):
    parameters, x, y, weights = problem(part, samples=samples, dtype=dtype)
    rng = np.random.default_rng(9)
    results = []
    for _ in range(2):
        filling = rng.normal(0, 100, (len(x), 3, x.shape[2])).astype(dtype)
        labels = rng.integers(0, CLASSES, (len(x), 3)).astype(y.dtype)
        padded = (
            np.concatenate([x, filling], axis=1),
            np.concatenate([y, labels], axis=1),
            np.concatenate([weights, np.zeros((len(x), 3), dtype)], axis=1),
        )
        results.append((part.losses(parameters, *padded), part.gradients(parameters, *padded)))
    np.testing.assert_array_equal(results[0][0], results[1][0])
    np.testing.assert_array_equal(results[0][1], results[1][1])
    tolerance = 1e-4 if dtype is np.float32 else 1e-12
    np.testing.assert_allclose(results[0][0], part.losses(parameters, x, y, weights), rtol=tolerance)
    expected = part.gradients(parameters, x, y, weights)
    np.testing.assert_allclose(results[0][1], expected, rtol=tolerance, atol=tolerance)


@each(MODELS)
def test_without_weights_samples_are_averaged(part):
    parameters, x, y, _ = problem(part)
    equal = np.full(y.shape, 1 / y.shape[1])
    np.testing.assert_allclose(part.losses(parameters, x, y), part.losses(parameters, x, y, equal), rtol=1e-14)
    averaged = part.gradients(parameters, x, y, equal)
    np.testing.assert_allclose(part.gradients(parameters, x, y), averaged, rtol=1e-13, atol=1e-14)


@each(MODELS)
def test_weights_act_linearly(part):
    parameters, x, y, weights = problem(part)
    gradients = part.gradients(parameters, x, y, weights)
    np.testing.assert_allclose(part.gradients(parameters, x, y, 2 * weights), 2 * gradients, rtol=1e-13)
    assert not part.gradients(parameters, x, y, np.zeros_like(weights)).any()
    assert not part.losses(parameters, x, y, np.zeros_like(weights)).any()


@pytest.mark.parametrize("samples", [1, 4])
@each(MODELS)
def test_precision_is_kept_and_out_is_returned(part, samples):
    parameters, x, y, weights = problem(part, samples=samples, dtype=np.float32)
    out = np.empty((len(x), parameters.size), np.float32)
    assert part.gradients(parameters, x, y, weights, out=out) is out
    assert part.gradients(parameters, x, y).dtype == np.float32
    assert part.losses(parameters, x, y, weights).dtype == np.float32
    exact = part.gradients(*(np.asarray(a, float) for a in (parameters, x)), y, weights.astype(float))
    np.testing.assert_allclose(out, exact, rtol=1e-3, atol=1e-4)


GPU = array_api_strict.Device("device1")  # whose arrays NumPy cannot read


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("samples", [1, 5])
@each(MODELS)
def test_other_array_libraries_get_the_same_result(part, samples, dtype, weighted):
    """By the array API standard alone, so that samples may lie on a GPU."""
    numbers = problem(part, samples=samples, dtype=dtype)
    parameters, x, y, _weights = strict = [array_api_strict.asarray(a.copy(), device=GPU) for a in numbers]
    words = strict if weighted else strict[:3]
    expected = numbers if weighted else numbers[:3]
    results = {"losses": part.losses(*words), "gradients": part.gradients(*words)}
    out = array_api_strict.zeros(results["gradients"].shape, dtype=parameters.dtype, device=GPU)
    assert part.gradients(*words, out=out) is out
    tolerance = 1e-6 if dtype is np.float32 else 1e-13
    cpu = array_api_strict.Device("CPU_DEVICE")
    for name, result in results.items():
        assert (result.dtype, result.device) == (parameters.dtype, GPU)
        found = np.asarray(result.to_device(cpu))
        np.testing.assert_allclose(found, getattr(part, name)(*expected), rtol=tolerance, atol=tolerance)
    np.testing.assert_array_equal(np.asarray(out.to_device(cpu)), np.asarray(results["gradients"].to_device(cpu)))
    wrong = part.wrong_targets(y, CLASSES)
    np.testing.assert_array_equal(np.asarray(wrong.to_device(cpu)), part.wrong_targets(numbers[2], CLASSES))
    if part.task == "classification":
        right = part.correct(parameters, x, y)
        np.testing.assert_array_equal(np.asarray(right.to_device(cpu)), part.correct(*numbers[:3]))
    for array, before in zip(strict, numbers, strict=True):
        np.testing.assert_array_equal(np.asarray(array.to_device(cpu)), before)


@each(MODELS)
def test_no_subsets_have_no_gradients(part):
    parameters, x, y, weights = problem(part)
    assert part.gradients(parameters, x[:0], y[:0], weights[:0]).shape == (0, parameters.size)
    assert part.losses(parameters, x[:0], y[:0], weights[:0]).shape == (0,)


@each(MODELS)
def test_convex_models_start_at_zero(part):
    start = part.initial(6, CLASSES, np.random.default_rng(0))
    assert start.shape == (part.dim(6, CLASSES),)
    assert not start.any()


def test_dimensions():
    assert LinearRegression().dim(7, 0) == 7
    assert SoftmaxRegression().dim(7, 3) == 24
    assert SoftmaxRegression(intercept=False).dim(7, 3) == 21


def test_softmax_at_zero_knows_nothing():
    model = SoftmaxRegression()
    _, x, y, _ = problem(model)
    np.testing.assert_allclose(model.losses(np.zeros(model.dim(6, CLASSES)), x, y), math.log(CLASSES), rtol=1e-14)


def test_softmax_with_huge_logits_stays_finite():
    model = SoftmaxRegression()
    parameters, x, y, _ = problem(model)
    for scale in (1e3, 1e6):
        assert np.isfinite(model.losses(scale * parameters, x, y)).all()
        assert np.isfinite(model.gradients(scale * parameters, x, y)).all()


@pytest.mark.parametrize("intercept", [True, False])
def test_correct_where_the_largest_logit_is_the_labels(intercept):
    model = SoftmaxRegression(intercept=intercept)
    parameters, x, y, _ = problem(model)
    matrix = parameters[: 6 * CLASSES].reshape(6, CLASSES)
    expected = [
        [int(np.argmax(sample @ matrix + (parameters[6 * CLASSES :] if intercept else 0)) == label)
         for sample, label in zip(rows, labels, strict=True)]
        for rows, labels in zip(x, y, strict=True)
    ]  # fmt: skip
    result = model.correct(parameters, x, y)
    np.testing.assert_array_equal(result, expected)
    assert 0 < result.sum() < result.size
