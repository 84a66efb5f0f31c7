"""A figure with its 95% interval."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

# Student's t, two-sided 95%, by degrees of freedom from 1.
T_95 = [12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160, 2.145, 2.131, 2.120,
        2.110, 2.101, 2.093, 2.086, 2.080, 2.074, 2.069, 2.064, 2.060, 2.056, 2.052, 2.048, 2.045, 2.042]
FEWEST_SEEDS = 3  # below, no interval over seeds is given


@dataclass(frozen=True)
class Estimate:
    """low and high are None where too little stands behind it."""

    value: float
    low: float | None
    high: float | None
    count: int

    @property
    def sign(self) -> int:
        """Of the whole interval: +1, -1, or 0 where it cannot be told."""
        if self.low is not None and self.low > 0:
            return 1
        if self.high is not None and self.high < 0:
            return -1
        return 0

    def within(self, margin: float) -> bool:
        return self.low is not None and self.high is not None and -margin <= self.low and self.high <= margin

    def beyond(self, margin: float) -> bool:
        return (self.low is not None and self.low > margin) or (self.high is not None and self.high < -margin)


def over_seeds(values: Sequence[float]) -> Estimate:
    """One value a seed."""
    center, count = float(np.mean(values)), len(values)
    if count < FEWEST_SEEDS:
        return Estimate(center, None, None, count)
    reach = float(np.std(values, ddof=1)) / math.sqrt(count) * T_95[min(count - 2, len(T_95) - 1)]
    return Estimate(center, center - reach, center + reach, count)


def seeds_text(found: Sequence[Estimate]) -> str:
    """Says why nothing can be told where there are too few."""
    fewest = min(estimate.count for estimate in found)
    if fewest >= FEWEST_SEEDS:
        return ""
    return f" {fewest} seed{'s' * (fewest > 1)}: too few for an interval."
