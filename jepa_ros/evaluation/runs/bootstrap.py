"""Paired bootstrap: the significance of a difference between two runs over the same cases.

Both runs are evaluated on the same cases, drawn with replacement, so that a hard case is hard for both (Efron and
Tibshirani, An Introduction to the Bootstrap, 1993, chapter 8). Frames are drawn in blocks of neighbours, since these
are similar (Carlstein, Annals of Statistics 14, 1986).
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np

from jepa_ros.evaluation.runs.samples import CaseMetric

BOOTSTRAP_DRAWS = 2000
BLOCK_FRAMES = 50  # some seconds of a camera
CONFIDENCE = 0.95


@dataclass(frozen=True)
class Difference:
    """One metric of two runs: first, second, second minus first with its confidence interval, and the share of draws in
    which the second is better. cases: how many both have."""

    first: float
    second: float
    difference: float
    low: float
    high: float
    ahead: float
    cases: int

    @property
    def sure(self) -> bool:
        """The confidence interval does not contain 0."""
        return self.low > 0.0 or self.high < 0.0


def compare_paired(
    first: CaseMetric, second: CaseMetric, groups: np.ndarray, rng: np.random.Generator
) -> Difference:
    """Compare a metric of two runs over the same cases, case by case; groups (n,) as in EvaluationRun."""
    rows = np.flatnonzero(first.known & second.known)
    if not len(rows):
        return Difference(*[float("nan")] * 6, 0)
    begins = _block_starts(groups[rows])
    # How often each block is drawn; the metric of a draw is then a ratio of two sums over blocks.
    times = rng.multinomial(len(begins), np.full(len(begins), 1.0 / len(begins)), BOOTSTRAP_DRAWS)
    drawn, whole = [], []
    for metric in (first, second):
        above, below = (np.add.reduceat(part[rows], begins) for part in metric.parts)
        drawn.append((times @ above) / (times @ below))
        whole.append(float(above.sum() / below.sum()))
    difference = drawn[1] - drawn[0]
    low, high = np.percentile(difference, [50 * (1 - CONFIDENCE), 50 * (1 + CONFIDENCE)])
    ahead = float(np.mean(difference > 0 if first.more_is_better else difference < 0))
    return Difference(*whole, whole[1] - whole[0], float(low), float(high), ahead, len(rows))


def _block_starts(groups: np.ndarray) -> np.ndarray:
    """Return where blocks start: BLOCK_FRAMES neighbours of one group at a time, and the rest of it."""
    cuts = [0, *(np.flatnonzero(np.diff(groups)) + 1), len(groups)]
    return np.concatenate([np.arange(a, b, BLOCK_FRAMES) for a, b in itertools.pairwise(cuts)])
