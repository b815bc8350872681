"""Encoders: what a device sends of its subsets' gradients, and how the server turns messages into votes."""

from mpicoded.algorithms.encoders.agreement import Agreement
from mpicoded.algorithms.encoders.base import Code, Decoded, Decoder, Encoder
from mpicoded.algorithms.encoders.cyclic_code import CyclicCode
from mpicoded.algorithms.encoders.erasures import least_squares_factors
from mpicoded.algorithms.encoders.evidence import proven
from mpicoded.algorithms.encoders.majority_vote import MajorityVote
from mpicoded.algorithms.encoders.mean import Mean

__all__ = [
    "Agreement",
    "Choice",
    "Code",
    "CyclicCode",
    "Decoded",
    "Decoder",
    "Encoder",
    "MajorityVote",
    "Mean",
    "least_squares_factors",
    "proven",
]

Choice = Mean | MajorityVote | Agreement | CyclicCode
