"""``mpicoded export``: trained parameters for other programs."""

from itertools import pairwise

import numpy as np

from mpicoded import configs
from mpicoded.algorithms.models import Torch
from mpicoded.algorithms.shapes import Array
from mpicoded.data.results import Results, load_results
from mpicoded.data.whole import write_whole
from mpicoded.errors import InputError


def export(result: str, target: str, trusted: bool) -> int:
    """Write the parameters of a result file as safetensors.

    What else a network is made of (buffers, parameters that are not trained) only its own code knows: that is run only
    where it is ``trusted``.
    """
    try:
        from safetensors.numpy import save
    except ImportError:
        raise InputError('export needs safetensors: pip install "mpicoded[torch]"') from None
    if not target.endswith(".safetensors"):
        raise InputError(f"export: the output must end in .safetensors, got {target}")
    results = load_results(result)
    if not results.parts:
        raise InputError(f"{result} was written by a version that did not say what its parameters are: run it again")
    if results.complete:
        edges = np.cumsum([0, *(np.prod(shape, dtype=np.int64) for shape in results.parts.values())])
        tensors = {
            name: np.ascontiguousarray(results.parameters[start:stop].reshape(shape))
            for (name, shape), (start, stop) in zip(results.parts.items(), pairwise(edges), strict=True)
        }
    else:
        tensors = _by_its_code(results, trusted)
    rounds = int(results.history["round"][-1])
    about = {"mpicoded": results.versions.get("mpicoded", ""), "rounds": str(rounds), "experiment": results.toml}
    write_whole(target, save(tensors, metadata=about))
    names = f"{len(tensors)} tensors" if len(tensors) != 1 else "1 tensor"
    print(f"{target}: {names}, {results.parameters.size} parameters after {rounds} rounds")
    return 0


def _by_its_code(results: Results, trusted: bool) -> dict[str, Array]:
    """The whole state dict of a network."""
    model = configs.loads(results.toml, results.path).model
    if not isinstance(model, Torch):
        raise InputError(f"{results.path}: the parameters of model {model.name()} are not all that it is made of")
    if not trusted:
        raise InputError(
            f"{results.path}: the network has more than its parameters, which only its code can make, {model.imports}: "
            "if you trust that code, say --trust"
        )
    if model.fingerprint() not in results.versions.get(model.imports, ""):
        raise InputError(f"{results.path}: the network's code has changed since, or makes other constants")
    return model.state(results.parameters)
