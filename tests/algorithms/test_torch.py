"""PyTorch modules as models: beside plain autograd, and with the same bits whatever is computed beside a subset."""

import random
import sys

import numpy as np
import pytest

from mpicoded.algorithms.models import Torch
from mpicoded.errors import InputError

torch = pytest.importorskip("torch")
from torch import nn  # noqa: E402

MLP = Torch(module="mpicoded.networks:mlp", options={"features": 64, "classes": 10, "hidden": [16, 12]})
CNN = Torch(module="mpicoded.networks:cnn", options={"size": 8, "width": 3})
RESNET = Torch(module="mpicoded.networks:resnet18", options={"size": 8, "width": 4})
SHIPPED = {"mlp": MLP, "cnn": CNN, "resnet18": RESNET}
each_shipped = pytest.mark.parametrize("model", list(SHIPPED.values()), ids=list(SHIPPED))


def problem(model, subsets=4, samples=6, dtype=np.float64, seed=0, classes=10):
    """Parameters, images of 8 × 8, labels, and weights, the last of a subset's being padding."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(subsets, samples, 64)).astype(dtype)
    y = rng.integers(0, classes, (subsets, samples)) if classes else rng.normal(size=(subsets, samples)).astype(dtype)
    weights = rng.uniform(0.1, 2, (subsets, samples)).astype(dtype)
    weights[:, -1] = 0
    weights[0, -3:] = 0
    parameters = model.initial(64, classes, rng).astype(dtype)
    for array in (x, y, weights, parameters):
        array.flags.writeable = False
    return parameters, x, y, weights


def plain(make, parameters, x, y, weights):
    """Losses and gradients by autograd over all samples of a subset, weights and all."""
    module = make().to(torch.float64)
    nn.utils.vector_to_parameters(torch.tensor(parameters, dtype=torch.float64), module.parameters())
    losses, gradients = [], []
    for k in range(len(x)):
        module.zero_grad()
        terms = [
            w * nn.functional.cross_entropy(module(torch.tensor(a[None], dtype=torch.float64)), torch.tensor([b]))
            for a, b, w in zip(x[k], y[k].tolist(), weights[k].tolist(), strict=True)
            if w
        ]
        loss = sum(terms)
        loss.backward()
        losses.append(loss.item())
        gradients.append(nn.utils.parameters_to_vector([p.grad for p in module.parameters()]).numpy())
    return np.array(losses), np.array(gradients)


@pytest.mark.parametrize("batched", [False, True])
@pytest.mark.parametrize(("dtype", "close"), [(np.float64, 1e-12), (np.float32, 2e-5)])  # beside float64
@each_shipped
def test_shipped_models_beside_plain_autograd(model, dtype, close, batched):
    from mpicoded import networks

    parameters, x, y, weights = problem(model, dtype=dtype)
    make = getattr(networks, model.module.partition(":")[2])
    losses, gradients = plain(lambda: make(**model.options), parameters, x, y, weights)
    model = Torch(module=model.module, options=model.options, batched=batched)
    np.testing.assert_allclose(model.losses(parameters, x, y, weights), losses, rtol=10 * close)
    found = model.gradients(parameters, x, y, weights)
    assert found.dtype == dtype
    scale = np.abs(gradients).max()
    np.testing.assert_allclose(found / scale, gradients / scale, atol=close)


@pytest.mark.parametrize("batched", [False, True])
def test_large_subsets_that_pass_in_pieces_beside_plain_autograd(batched):
    from mpicoded import networks
    from mpicoded.algorithms.models import network

    samples = 2 * network._PIECE + 10  # in three pieces, of one subset in two and a bit
    model = Torch(module=MLP.module, options=MLP.options, batched=batched)
    parameters, x, y, weights = (array.copy() for array in problem(model, subsets=2, samples=samples))
    weights[0, network._PIECE + 1 :] = 0
    losses, gradients = plain(lambda: networks.mlp(**model.options), parameters, x, y, weights)
    np.testing.assert_allclose(model.losses(parameters, x, y, weights), losses, rtol=1e-11)
    np.testing.assert_allclose(model.gradients(parameters, x, y, weights), gradients, atol=1e-11)
    alone = [model.correct(parameters, x[:, [i]], y[:, [i]])[:, 0] for i in range(samples)]
    assert (alone == model.correct(parameters, x, y).T).all()


def test_resnet18_is_the_network_of_its_paper():
    module = torch.nn.utils.parameters_to_vector
    from mpicoded import networks

    size = len(module(networks.resnet18(channels=3, size=32).parameters()))
    # He et al.: 11,173,962 with batch norm for CIFAR-10, of which short cuts have 2 × (128 + 256 + 512) of their own.
    assert size == 11_173_962 - 2 * (128 + 256 + 512)
    assert networks.resnet18(channels=3, size=32)(torch.zeros(2, 3 * 32 * 32)).shape == (2, 10)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@each_shipped
def test_bits_do_not_depend_on_company_padding_or_place(model, dtype):
    parameters, x, y, weights = problem(model, subsets=7, dtype=dtype)
    seeds = np.arange(7, dtype=np.uint64)
    whole = model.gradients(parameters, x, y, weights, seeds=seeds)
    for k in range(7):
        some = [k, (k + 3) % 7]
        found = model.gradients(parameters, x[some], y[some], weights[some], seeds=seeds[some])
        assert found[0].tobytes() == whole[k].tobytes()
    rows = int((weights[0] > 0).sum())
    moved = np.empty(x[0, :rows].size + 3, dtype)[3:].reshape(1, rows, 64)  # elsewhere in memory, not aligned
    moved[0] = x[0, :rows]
    alone = model.gradients(parameters.copy(), moved, y[:1, :rows], weights[:1, :rows], seeds=seeds[:1])
    assert alone[0].tobytes() == whole[0].tobytes()


def test_side_by_side_is_used_where_it_is_asked_for(monkeypatch):
    from mpicoded.algorithms.models import network

    asked = []
    monkeypatch.setattr(network, "vmap", lambda *words, **more: asked.append(1) or torch.func.vmap(*words, **more))
    parameters, x, y, weights = problem(MLP)
    MLP.gradients(parameters, x, y, weights)
    assert not asked
    Torch(module=MLP.module, options=MLP.options, batched=True).gradients(parameters, x, y, weights)
    assert asked


def dropping():
    return nn.Sequential(nn.Linear(64, 32), nn.Dropout(0.5), nn.Linear(32, 10))


@pytest.mark.parametrize("batched", [False, True])
def test_dropout_follows_the_seed_of_the_subset_alone(batched):
    model = Torch(module=f"{__name__}:dropping", batched=batched)
    parameters, x, y, weights = problem(model)
    seeds = np.array([5, 6, 7, 2**64 - 1], np.uint64)
    before = torch.get_rng_state()
    found = model.gradients(parameters, x, y, weights, seeds=seeds)
    assert torch.equal(torch.get_rng_state(), before)
    torch.rand(3)
    order = [2, 0, 3, 1]
    again = model.gradients(parameters, x[order], y[order], weights[order], seeds=seeds[order])
    np.testing.assert_array_equal(again, found[order])
    other = model.gradients(parameters, x, y, weights, seeds=seeds + np.uint64(10))
    assert (np.abs(other - found).max(axis=1) > 1e-3).all()
    _, gradients = plain(lambda: nn.Sequential(nn.Linear(64, 32), nn.Linear(32, 10)), parameters, x, y, weights)
    np.testing.assert_allclose(model.gradients(parameters, x, y, weights), gradients, atol=1e-12)  # in evaluation: none


class Own(nn.Module):
    """With a loss of its own, a constant, a part that is not trained, and one layer that is used twice."""

    def __init__(self, wide=False):
        super().__init__()
        self.register_buffer("scale", torch.full((1,), 3.0))
        self.fixed = nn.Linear(64, 64)
        self.fixed.requires_grad_(wide)
        self.layer = nn.Linear(64, 64)
        self.same = self.layer

    def forward(self, x):
        return self.same(self.layer(self.fixed(x))).sum(dim=1) * self.scale

    def loss(self, outputs, targets):
        return (outputs - targets).abs()


@pytest.mark.parametrize("wide", [False, True])
def test_what_wants_gradients_and_its_own_loss(wide):
    model = Torch(module=f"{__name__}:Own", options={"wide": wide})
    model.check(64, 0, "float64")
    layer = {"layer.weight": (64, 64), "layer.bias": (64,)}
    fixed = {"fixed.weight": (64, 64), "fixed.bias": (64,)} if wide else {}
    assert model.parts(64, 0) == fixed | layer
    assert model.dim(64, 0) == (2 if wide else 1) * 65 * 64
    parameters, x, y, weights = problem(model, classes=0)
    found, step = model.gradients(parameters, x, y, weights), 1e-6
    for direction in np.random.default_rng(3).normal(size=(5, len(parameters))):
        up, down = (model.losses(parameters + sign * step * direction, x, y, weights) for sign in (1, -1))
        np.testing.assert_allclose(found @ direction, (up - down) / (2 * step), rtol=1e-5)


def test_regression_is_half_the_squared_error():
    model = Torch(module="mpicoded.networks:mlp", options={"features": 64, "classes": 0, "hidden": []})
    model.check(64, 0, "float32")
    parameters, x, y, weights = problem(model, classes=0)
    error = x @ parameters[:64] + parameters[64] - y
    np.testing.assert_allclose(model.losses(parameters, x, y, weights), 0.5 * (weights * error**2).sum(axis=1))
    expected = np.einsum("ks,ksf->kf", weights * error, x)
    np.testing.assert_allclose(model.gradients(parameters, x, y, weights)[:, :64], expected, atol=1e-12)


def test_augmentation_moves_images_by_whole_pixels():
    from mpicoded.algorithms.models.network import moved

    images = torch.rand(200, 3, 5, 4) + 1
    torch.manual_seed(0)
    found = moved(images, True, 2).numpy()
    wide = np.pad(images.numpy(), ((0, 0), (0, 0), (2, 2), (2, 2)))
    mirrored = np.pad(images.numpy()[..., ::-1], ((0, 0), (0, 0), (2, 2), (2, 2)))
    seen = set()
    for k in range(200):
        hits = [
            (turned, i, j)
            for turned, from_ in enumerate((wide, mirrored))
            for i in range(5)
            for j in range(5)
            if (from_[k, :, i : i + 5, j : j + 4] == found[k]).all()
        ]
        assert len(hits) == 1
        seen.add(hits[0])
    assert len(seen) > 45  # nearly all of 2 × 25


def test_augmentation_is_of_training_alone_and_seeded():
    model = Torch(module="mpicoded.networks:cnn", options={"size": 8, "width": 3}, shape=(1, 8, 8), flip=True, shift=1)
    parameters, x, y, weights = problem(model)
    seeds = np.arange(4, dtype=np.uint64)
    still = CNN.gradients(parameters, x, y, weights, seeds=seeds)
    np.testing.assert_array_equal(model.gradients(parameters, x, y, weights), still)
    moved = model.gradients(parameters, x, y, weights, seeds=seeds)
    assert (np.abs(moved - still).max(axis=1) > 0).all()
    np.testing.assert_array_equal(model.gradients(parameters, x[2:], y[2:], weights[2:], seeds=seeds[2:]), moved[2:])


def test_start_follows_the_seed():
    first, again, other = (MLP.initial(64, 10, np.random.default_rng(seed)) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert (first != other).mean() > 0.9


def test_correct_counts_largest_outputs():
    parameters, x, y, _ = problem(CNN)
    from mpicoded import networks

    module = networks.cnn(size=8, width=3).double()
    nn.utils.vector_to_parameters(torch.tensor(parameters), module.parameters())
    expected = module(torch.tensor(x.reshape(-1, 64))).argmax(dim=1).numpy().reshape(y.shape) == y
    np.testing.assert_array_equal(CNN.correct(parameters, x, y), expected)


def counting():
    module = nn.Sequential(nn.Linear(64, 10))
    module.register_buffer("calls", torch.zeros(1))
    module.register_forward_hook(lambda *_: module.calls.add_(1) and None)
    return module


def growing():
    module = nn.Sequential(nn.Linear(64, 10))
    module.register_forward_hook(lambda layer, *_: layer.register_buffer("cache", torch.zeros(1)))
    return module


def normalised(tracks=True):
    return nn.Sequential(nn.Linear(64, 8), nn.BatchNorm1d(8, track_running_stats=tracks), nn.Linear(8, 10))


def single():
    return normalised(False)


class Whitened(nn.Module):
    """Images less the mean of those beside them: a batch normalisation without a state."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(64, 10)

    def forward(self, x):
        return self.layer(x - x.mean(dim=0))


class Remembering(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer, self.before = nn.Linear(64, 10), 0.0

    def forward(self, x):
        found = self.layer(x) * (1 + self.before)
        self.before = found.mean().item()
        return found


class Drawing(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(64, 10)

    def forward(self, x):
        return self.layer(x * np.random.default_rng().random())


def lazy():
    return nn.LazyLinear(10)


def complex_numbers():
    return nn.Linear(64, 10, dtype=torch.complex64)


def nothing():
    return nn.Flatten()


def number():
    return 3


def failing():
    raise OSError("no\nweights")


def scalar_loss():
    module = nn.Linear(64, 10)
    module.loss = nn.functional.cross_entropy
    return module


BAD = {
    "no_such_package_xyz:Net": "no_such_package_xyz cannot be imported: ModuleNotFoundError",
    f"{__name__}:missing": "has nothing to call that is named missing",
    f"{__name__}:BAD": "has nothing to call that is named BAD",
    f"{__name__}:number": "must return a torch.nn.Module, got int",
    f"{__name__}:failing": "fails: OSError: no weights",
    f"{__name__}:nothing": "has no parameters that want gradients",
    f"{__name__}:counting": "a forward pass changes the buffer calls",
    f"{__name__}:growing": "a forward pass changes the buffer cache",
    f"{__name__}:normalised": "a forward pass changes the buffer 1.running_mean, .* such as torch.nn.GroupNorm",
    f"{__name__}:Whitened": "the loss of a sample depends on the samples that pass with it",
    f"{__name__}:single": r"fails on 1 sample of shape \[64\]: ValueError: Expected more than 1 value",
    f"{__name__}:Remembering": "does not compute the same again from the same seed: it keeps a state",
    f"{__name__}:Drawing": "does not compute the same again from the same seed",
    f"{__name__}:lazy": "has lazy layers",
    f"{__name__}:complex_numbers": "parameter weight is complex",
    f"{__name__}:nn.Linear": "is in torch.nn: name that module",
    f"{__name__}:np.linalg.norm": "is in numpy: name that module",
    "mpicoded.commands.launch:subprocess.run": "only mpicoded.networks has factories",
    f"{__name__}:scalar_loss": r"loss must return one number for each of 2 samples, got \[\]",
    "mpicoded.networks:mlp": r"fails on 2 samples of shape \[64\]: RuntimeError",  # of 784 features
}


@pytest.mark.parametrize("module", BAD)
def test_bad_modules_are_named(module):
    with pytest.raises(InputError, match=BAD[module]):
        Torch(module=module).check(64, 10, "float64")


def test_bad_forms_are_named():
    with pytest.raises(InputError, match=r"must return shape \[2, 7\] for 2 samples of 7 classes, got \[2, 10\]"):
        MLP.check(64, 7, "float64")
    with pytest.raises(InputError, match=r"must return shape \[2\] for 2 samples of a regression, got \[2, 10\]"):
        MLP.check(64, 0, "float64")
    with pytest.raises(InputError, match=r"shape \[1, 8, 9\] has not the 64 numbers of a sample"):
        Torch(module=MLP.module, shape=(1, 8, 9)).check(64, 10, "float64")
    for shape, got in ((None, "None"), ((8, 8), r"\[8, 8\]"), ((1, 1, 8, 8), r"\[1, 1, 8, 8\]")):
        with pytest.raises(InputError, match=rf"flip and shift need shape = \[channels, height, width\], got {got}"):
            Torch(module=MLP.module, flip=True, shape=shape).check(64, 10, "float64")
    for bad in ("mynet", "my net:Net", ":Net", "a:", "../a:b"):
        with pytest.raises(InputError, match="module must be"):
            Torch(module=bad)


def test_file_of_the_folder_and_no_other(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "path", list(sys.path))  # the model's folder comes first, also for what is spawned later
    (tmp_path / "statistics.py").write_text("def make(): pass\n")
    import statistics  # noqa: F401  another module of that name is there already

    with pytest.raises(InputError, match=r"statistics is .*, not one of .*: give the file there another name"):
        Torch(module="statistics:make", folder=str(tmp_path)).check(64, 10, "float64")


def noisy():
    """Constants from anybody's random numbers, and noise in evaluation too."""
    module = nn.Sequential(nn.Linear(64, 32), nn.Linear(32, 10))
    module.register_buffer("one", torch.tensor([random.random(), np.random.random(), torch.rand(1).item()]))  # noqa: NPY002
    module.register_buffer("nan", torch.tensor(float("nan")))
    module.register_forward_pre_hook(lambda layer, x: nn.functional.dropout(x[0] * layer.one.mean()))
    return module


def test_constants_and_noise_are_the_same_wherever_they_are_drawn():
    from mpicoded.algorithms.models import modules, network

    model = Torch(module=f"{__name__}:noisy")
    model.check(64, 10, "float64")
    parameters, x, y, weights = problem(model)
    found = []
    for _ in range(2):
        modules.about.cache_clear()
        network.network.cache_clear()
        random.random(), np.random.random(), torch.rand(1)  # noqa: NPY002
        parts = (
            model.losses(parameters, x, y, weights),
            model.correct(parameters, x, y),
            model.gradients(parameters, x, y),
        )
        found.append([model.fingerprint(), *(part.tobytes() for part in parts)])
    assert found[0] == found[1]


ONE = nn.Linear(64, 10)


def the_same():
    return ONE


def test_a_factory_that_returns_the_same_module_each_time_is_refused():
    model = Torch(module=f"{__name__}:the_same")
    with pytest.raises(InputError, match="returns the same module each time"):
        model.dim(64, 10), model.check(64, 10, "float32")
    assert ONE.weight.dtype == torch.float32


def test_folders_may_have_modules_of_one_name_and_links(tmp_path):
    for folder, width in (("one", 3), ("two", 5)):
        (tmp_path / folder).mkdir()
        text = f"from torch import nn\ndef make(): return nn.Linear(64, {width})\n"
        (tmp_path / folder / "twice_named.py").write_text(text)
    (tmp_path / "linked").mkdir()
    (tmp_path / "linked" / "twice_named.py").symlink_to(tmp_path / "two" / "twice_named.py")
    for folder, width in (("one", 3), ("two", 5), ("one", 3), ("linked", 5)):
        assert Torch(module="twice_named:make", folder=str(tmp_path / folder)).dim(64, width) == 65 * width
