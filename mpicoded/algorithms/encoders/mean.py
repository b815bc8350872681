"""One message a device: the mean of its subsets' gradients."""

from typing import ClassVar, Literal

import numpy as np

from mpicoded.algorithms.encoders.base import Code, Encoder
from mpicoded.algorithms.products import Rows
from mpicoded.algorithms.shapes import Array, Bool


class Mean(Encoder):
    """Each device sends the mean of its subset gradients.

    ``weighting = "unbiased"``: g_i = (N/M) sum over its subsets k of grad f_k / d_k, where d_k is the number
    of devices that hold subset k, so that the mean over devices is the mean over subsets. Where every
    device holds r subsets and every subset has as many copies, this is the plain mean, 1/r each.
    ``weighting = "plain"``: 1/r_i whatever the copies, as in CRA-DL's digest; biased where they are uneven.
    ``erasures``: what the server makes of messages where others are late or lost: it takes them as they are
    (``leave_out``), or weighs them so that their mean is as near as it can be to the mean over subsets
    (``least_squares``, for the rule mean: a robust one would take the weights for lies).
    """

    source: ClassVar[str] = "LAD, arXiv 2603.28780; CRA-DL, arXiv 2506.01989"
    acronym: ClassVar[str] = "LAD, CRA-DL; SGC-DL with the rule mean"
    cost: ClassVar[str] = "redundancy × dim for each device, nothing at the server"
    decodes: ClassVar[bool] = False
    weighting: Literal["unbiased", "plain"] = "unbiased"  # by the copies of each subset, or all alike
    erasures: Literal["leave_out", "least_squares"] = "leave_out"  # what becomes of the rest where messages are missing

    @property
    def reweighs(self) -> bool:
        """Whether messages are weighted where others are missing."""
        return self.erasures == "least_squares"

    def even_weight(self, held: int) -> float | None:
        """One of so many, by either weighting."""
        return 1.0 / held

    def code(self, assignment: Bool[Array, "devices subsets"], first: int, stop: int) -> Code:
        """One real message for each device."""
        devices, subsets = assignment.shape
        held = assignment.sum(axis=1)
        copies = assignment.sum(axis=0)
        even = (held == held[0]).all() and (copies == copies[0]).all()
        device, subset = np.nonzero(assignment[first:stop])
        if self.weighting == "plain" or even:
            values = 1.0 / held[first:stop][device]
        else:
            values = (devices / subsets) / copies[subset]
        return Code(Rows.at(device, subset, values, stop - first, subsets), np.arange(first, stop))
