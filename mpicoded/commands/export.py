"""``mpicoded export``: trained parameters for other programs."""

import os
from itertools import pairwise

import numpy as np

from mpicoded.data.results import load_results
from mpicoded.errors import InputError


def export(result: str, target: str) -> int:
    """Write the parameters of a result file as safetensors; code that its config names is not run."""
    try:
        from safetensors.numpy import save
    except ImportError:
        raise InputError('export needs safetensors: pip install "mpicoded[torch]"') from None
    if not target.endswith(".safetensors"):
        raise InputError(f"export: the output must end in .safetensors, got {target}")
    results = load_results(result)
    if not results.parts:
        raise InputError(f"{result} was written by a version that did not say what its parameters are: run it again")
    edges = np.cumsum([0, *(np.prod(shape, dtype=np.int64) for shape in results.parts.values())])
    tensors = {
        name: np.ascontiguousarray(results.parameters[start:stop].reshape(shape))
        for (name, shape), (start, stop) in zip(results.parts.items(), pairwise(edges), strict=True)
    }
    rounds = int(results.history["round"][-1])
    about = {"mpicoded": results.versions.get("mpicoded", ""), "rounds": str(rounds), "experiment": results.toml}
    temporary = f"{target}.{os.getpid()}.part"
    try:
        with open(temporary, "wb") as file:
            file.write(save(tensors, metadata=about))
        os.replace(temporary, target)
    except OSError as error:
        raise InputError(f"output {target} cannot be written: {error.strerror}") from None
    finally:
        if os.path.exists(temporary):
            os.unlink(temporary)
    names = f"{len(tensors)} tensors" if len(tensors) != 1 else "1 tensor"
    print(f"{target}: {names}, {results.parameters.size} parameters after {rounds} rounds")
    return 0
