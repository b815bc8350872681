"""Robust rules: (votes, dim) → (dim,).

A rule tolerates an integer number f of Byzantine votes among n. It is (f, kappa)-robust when, for every set
S of n - f votes, ||F - mean_S||^2 <= (kappa/|S|) sum over S of ||x_i - mean_S||^2 (Allouah et al. 2023).
Votes are finite here: ``arrays.replace_unusable`` has been there first.
"""

from mpicoded.algorithms.aggregators.base import Aggregator, Clairvoyant, Mean, TolerantAggregator
from mpicoded.algorithms.aggregators.centres import CenteredClipping, GeometricMedian
from mpicoded.algorithms.aggregators.coordinates import CoordinateMedian, MeanAroundMedian, Phocas, TrimmedMean
from mpicoded.algorithms.aggregators.ctma import Base, Ctma
from mpicoded.algorithms.aggregators.diameter import MinimumDiameter
from mpicoded.algorithms.aggregators.neighbours import Bulyan, Krum, MultiKrum, krum_scores
from mpicoded.algorithms.aggregators.weights import CovarianceFiltering, NormThreshold

Choice = Base | Ctma | Clairvoyant

__all__ = [
    "Aggregator",
    "Base",
    "Bulyan",
    "CenteredClipping",
    "Choice",
    "Clairvoyant",
    "CoordinateMedian",
    "CovarianceFiltering",
    "Ctma",
    "GeometricMedian",
    "Krum",
    "Mean",
    "MeanAroundMedian",
    "MinimumDiameter",
    "MultiKrum",
    "NormThreshold",
    "Phocas",
    "TolerantAggregator",
    "TrimmedMean",
    "krum_scores",
]
