"""How loops are compiled, and where the result is kept."""

from collections.abc import Callable
from typing import Any

from numba import njit


def compiled(*signature: Any) -> Callable[[Callable[..., Any]], Any]:
    """Compile, once for a machine: numba keeps the result beside the source, or in the user's cache folder.

    Where it may write to neither, each process compiles for itself.
    """

    def compile_function(function: Callable[..., Any]) -> Any:
        try:
            return njit(*signature, cache=True, nogil=True)(function)
        except RuntimeError:  # no place for a cache
            return njit(*signature, nogil=True)(function)

    return compile_function
