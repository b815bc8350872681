"""What goes over the wire: a message is one record of a fixed structured dtype.

``layout(dim, dtype).itemsize`` is the communication cost: nothing else of a message is sent. An unbiased
compressor C has E C(x) = x and E ||C(x) - x||^2 <= delta ||x||^2.
"""

from mpicoded.algorithms.compressors.base import Compressor, NoCompression, WireFloat, check_wire, receive, to_wire
from mpicoded.algorithms.compressors.quantized import Natural, Qsgd, Sign
from mpicoded.algorithms.compressors.sparse import RandK, TopK

Choice = NoCompression | RandK | Qsgd | Natural | TopK | Sign

__all__ = [
    "Choice",
    "Compressor",
    "Natural",
    "NoCompression",
    "Qsgd",
    "RandK",
    "Sign",
    "TopK",
    "WireFloat",
    "check_wire",
    "receive",
    "to_wire",
]
