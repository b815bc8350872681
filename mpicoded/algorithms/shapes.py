"""Shapes in signatures: ``Float[Array, "votes dim"]``.

They are checked when the tests run (jaxtyping and beartype) and cost nothing in production, where every
rank would have to load those packages: there the same expressions are plain ``Any``.
"""

import os
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING or os.environ.get("MPICODED_CHECK_SHAPES"):
    from jaxtyping import Bool, Float, Int, Integer, Shaped, UInt8, UInt32, UInt64

    Array = Any  # a NumPy, CuPy or any other array of the array API
else:

    class _Unchecked:
        def __class_getitem__(cls, _: object) -> Any:
            return Any

    Bool = Float = Int = Integer = Shaped = UInt8 = UInt32 = UInt64 = _Unchecked
    Array = Any

__all__ = ["Array", "Bool", "Float", "Int", "Integer", "Shaped", "UInt8", "UInt32", "UInt64"]
