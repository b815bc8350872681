"""Coded, Byzantine-robust distributed training over MPI.

Importing the package loads nothing heavy: the command line has to set the number of BLAS threads before
NumPy is first imported.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mpicoded.data.results import load_results

__version__ = "0.1.0"
__all__ = ["__version__", "load_results"]


def __getattr__(name: str) -> Any:
    if name == "load_results":
        from mpicoded.data.results import load_results

        return load_results
    raise AttributeError(f"module 'mpicoded' has no attribute {name!r}")
