"""What Byzantine devices send instead of their message.

An attack is a function of what the attacker can see. It runs on the rank that hosts the device, before
the message is sent: it forges the vector that is then compressed, or tampers with the packed record, or keeps silent.
mu and sigma are the mean and the coordinate standard deviation of the honest messages.
"""

from mpicoded.algorithms.attacks.adaptive import FangKrum, FangTrimmed, MinMax, MinSum, OptimalAlie, OptimalIpm
from mpicoded.algorithms.attacks.base import Attack, NoAttack, Seen
from mpicoded.algorithms.attacks.faults import BitFlip, Malformed, NonFinite, Silent
from mpicoded.algorithms.attacks.simple import (
    Alie,
    CodeAware,
    Gaussian,
    Ipm,
    LabelFlip,
    Mimic,
    SampleDuplicate,
    SignFlip,
    alie_z,
)

Choice = (
    NoAttack
    | SignFlip
    | Gaussian
    | SampleDuplicate
    | Ipm
    | Alie
    | Mimic
    | MinMax
    | MinSum
    | FangKrum
    | FangTrimmed
    | OptimalIpm
    | OptimalAlie
    | LabelFlip
    | CodeAware
    | NonFinite
    | BitFlip
    | Malformed
    | Silent
)

__all__ = [
    "Alie",
    "Attack",
    "BitFlip",
    "Choice",
    "CodeAware",
    "FangKrum",
    "FangTrimmed",
    "Gaussian",
    "Ipm",
    "LabelFlip",
    "Malformed",
    "Mimic",
    "MinMax",
    "MinSum",
    "NoAttack",
    "NonFinite",
    "OptimalAlie",
    "OptimalIpm",
    "SampleDuplicate",
    "Seen",
    "SignFlip",
    "Silent",
    "alie_z",
]
