"""Encoders: what a device sends of its subsets' gradients, and how the server turns messages into votes."""

from mpicoded.algorithms.encoders.base import Code, Decoded, Decoder, Encoder
from mpicoded.algorithms.encoders.majority_vote import MajorityVote
from mpicoded.algorithms.encoders.mean import Mean

__all__ = ["Choice", "Code", "Decoded", "Decoder", "Encoder", "MajorityVote", "Mean"]

Choice = Mean | MajorityVote
