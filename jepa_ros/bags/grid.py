"""Matching by stamp: which sample stands for a wanted time, and values between samples."""

from __future__ import annotations

import numpy as np


def nearest(times: np.ndarray, wanted: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """For each wanted time (n,): the index of the nearest of `times` (two at least), and whether that may stand for it:
    within three quarters of the median time between two, as cameras jitter."""
    order = np.argsort(times, kind="stable")
    inside = times[order]
    after = np.clip(np.searchsorted(inside, wanted), 1, len(times) - 1)
    nearer = np.where(wanted - inside[after - 1] <= inside[after] - wanted, after - 1, after)
    index = order[nearer]
    return index, np.abs(times[index] - wanted) <= 0.75 * float(np.median(np.diff(times)))


def interpolate(at: np.ndarray, times: np.ndarray, values: np.ndarray) -> np.ndarray:
    """(n, D) values at times `at` (n,), linear between those at `times` (m,), constant beyond them."""
    return np.stack([np.interp(at, times, column) for column in values.T], axis=1)
