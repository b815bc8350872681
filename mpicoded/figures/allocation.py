"""Who computes what."""

from typing import Any

import numpy as np

from mpicoded.algorithms.shapes import Array, Bool
from mpicoded.figures import look


def draw(held: Bool[Array, "devices subsets"], title: str, copies: bool = False, width: float = look.PAGE) -> Any:
    """A matplotlib figure, blue where a device computes a subset; ``copies``: also how many have how many."""
    devices, subsets = held.shape
    with look.style():
        from matplotlib.colors import ListedColormap
        from matplotlib.ticker import MaxNLocator

        height = min(max(width * devices / subsets, 2), width) + 0.8
        ratios = {"height_ratios": [height, 1.1]} if copies else None
        made, axes = look.figure(width, height + 1.1 * copies, 1 + copies, gridspec_kw=ratios)
        axis = axes[0, 0]
        colours = ListedColormap(["white", look.COLOURS[0]])
        axis.imshow(held, cmap=colours, vmin=0, vmax=1, aspect="auto", interpolation_stage="rgba")
        axis.set_xlabel("subset")
        axis.set_ylabel("device")
        axis.set_title(look.fitting(title, 0.9 * width))
        if copies:
            number, count = np.unique(held.sum(axis=0), return_counts=True)
            axes[1, 0].bar(number, count, width=0.8, color=look.COLOURS[0])
            axes[1, 0].set_xlim(number[0] - 1.5, number[-1] + 1.5)
            axes[1, 0].set_xlabel("copies of a subset")
            axes[1, 0].set_ylabel("subsets")
            axes[1, 0].grid(False, axis="x")
        for one in (axis.xaxis, axis.yaxis, axes[-1, 0].xaxis, axes[-1, 0].yaxis):
            one.set_major_locator(MaxNLocator(integer=True))
        axis.grid(False)
        return made
