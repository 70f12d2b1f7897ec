"""Matching samples by their stamps: the nearest sample, and values between samples."""

from __future__ import annotations

import numpy as np

MATCH_PERIODS = 0.75  # median periods that a sample may be away from the time that it stands for: cameras jitter


def match_nearest(times: np.ndarray, wanted: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return for each wanted time (n,) the index of the nearest of `times` (at least two), and whether it is near
    enough (within MATCH_PERIODS)."""
    order = np.argsort(times, kind="stable")
    ascending = times[order]
    after = np.clip(np.searchsorted(ascending, wanted), 1, len(times) - 1)
    nearer = np.where(wanted - ascending[after - 1] <= ascending[after] - wanted, after - 1, after)
    index = order[nearer]
    return index, np.abs(times[index] - wanted) <= MATCH_PERIODS * float(np.median(np.diff(times)))


def interpolate(at: np.ndarray, times: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Return (n, D) values at times `at` (n,): linear between those at `times` (m,), constant beyond them."""
    return np.stack([np.interp(at, times, column) for column in values.T], axis=1)
