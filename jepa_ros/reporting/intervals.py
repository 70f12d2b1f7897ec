"""Confidence intervals."""

from __future__ import annotations

import math


def wilson(successes: int, trials: int) -> tuple[float, float]:
    """95 % confidence interval of a rate (Wilson 1927)."""
    z, p = 1.959964, successes / trials
    centre = (p + z * z / (2 * trials)) / (1 + z * z / trials)
    half = z * math.sqrt(p * (1 - p) / trials + z * z / (4 * trials**2)) / (1 + z * z / trials)
    return max(0.0, centre - half), min(1.0, centre + half)
