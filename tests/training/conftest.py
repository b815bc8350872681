"""The stand-in for CuPy."""

import importlib
import sys
from pathlib import Path

import pytest

from mpicoded.kernels import cuda

STANDIN = Path(__file__).with_name("standin")


@pytest.fixture
def standin(monkeypatch):
    """CuPy, as far as any test can tell without a GPU; and away with it."""
    monkeypatch.syspath_prepend(STANDIN)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    installed = {name: sys.modules.pop(name, None) for name in ("cupy", "cupyx")}
    cuda._compiled.cache_clear()
    yield importlib.import_module("cupy")
    cuda._compiled.cache_clear()
    for name, module in installed.items():
        sys.modules.pop(name, None)
        if module is not None:
            sys.modules[name] = module
