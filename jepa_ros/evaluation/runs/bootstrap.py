"""Paired bootstrap: how sure a difference is between two runs over the same cases.

Both runs are looked at over the same cases, drawn anew with replacement, so that a hard case is hard for both (Efron
and Tibshirani, An Introduction to the Bootstrap, 1993, chapter 8). Frames are drawn in blocks of neighbours, as those
resemble each other (Carlstein, Annals of Statistics 14, 1986).
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np

from jepa_ros.evaluation.runs.samples import Figure

DRAWS = 2000
BLOCK = 50
"""Frames; some seconds of a camera."""
LEVEL = 0.95


@dataclass(frozen=True)
class Difference:
    """Of one figure: the first run's, the second's, second minus first with its interval, and the share of draws in
    which the second is ahead. cases: how many both have."""

    first: float
    second: float
    difference: float
    low: float
    high: float
    ahead: float
    cases: int

    @property
    def sure(self) -> bool:
        """Whether the interval leaves out 0."""
        return self.low > 0.0 or self.high < 0.0


def paired(first: Figure, second: Figure, groups: np.ndarray, rng: np.random.Generator) -> Difference:
    """Figures of two runs over the same cases, case by case; groups (n,) as in Run."""
    rows = np.flatnonzero(first.known & second.known)
    if not len(rows):
        return Difference(*[float("nan")] * 6, 0)
    begins = _begins(groups[rows])
    # How often each block is drawn; a figure of a draw is then a ratio of two sums over blocks.
    times = rng.multinomial(len(begins), np.full(len(begins), 1.0 / len(begins)), DRAWS)
    drawn, whole = [], []
    for figure in (first, second):
        above, below = (np.add.reduceat(part[rows], begins) for part in figure.parts)
        drawn.append((times @ above) / (times @ below))
        whole.append(float(above.sum() / below.sum()))
    difference = drawn[1] - drawn[0]
    low, high = np.percentile(difference, [50 * (1 - LEVEL), 50 * (1 + LEVEL)])
    ahead = float(np.mean(difference > 0 if first.more_is_better else difference < 0))
    return Difference(*whole, whole[1] - whole[0], float(low), float(high), ahead, len(rows))


def _begins(groups: np.ndarray) -> np.ndarray:
    """Where blocks begin: BLOCK neighbours of one group at a time, and what is left of it."""
    cuts = [0, *(np.flatnonzero(np.diff(groups)) + 1), len(groups)]
    return np.concatenate([np.arange(a, b, BLOCK) for a, b in itertools.pairwise(cuts)])
