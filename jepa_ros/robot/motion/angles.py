"""Positions of continuous joints are angles: q and q + 2 pi are the same place of the joint."""

from __future__ import annotations

import math

import numpy as np

TURN = 2.0 * math.pi
MAX_GAP = 0.2  # s between two samples, in which no joint moves by half a turn


def nearest_turn(angles: np.ndarray, reference: np.ndarray, continuous: np.ndarray) -> np.ndarray:
    """Return angles (..., J) rad, those of continuous joints moved by whole turns to be nearest to `reference`.

    reference: (..., J) rad, which broadcasts. continuous: (J,) bool. Values of other joints, and values that differ by
    at most half a turn, are returned exactly as they are; what is not finite stays so.
    """
    angles = np.asarray(angles, dtype=float)
    if not continuous.any():
        return angles.copy()
    with np.errstate(invalid="ignore"):
        turns = np.round((angles - reference) / TURN)
    return angles - TURN * np.where(continuous & np.isfinite(turns), turns, 0.0)


def difference(a: np.ndarray, b: np.ndarray, continuous: np.ndarray) -> np.ndarray:
    """Return a - b (..., J) rad; of continuous joints (J,) bool the shortest way from b to a, within half a turn."""
    step = np.asarray(a, dtype=float) - b
    return nearest_turn(step, np.zeros(step.shape[-1]), continuous)


def remove_wraps(positions: np.ndarray, times: np.ndarray) -> np.ndarray:
    """Return measured positions (n, J) rad at times (n,) s, increasing, without the jumps by a turn of joints that are
    reported within half a turn. After longer gaps than MAX_GAP a large change is left as it is."""
    steps = np.diff(positions, axis=0)
    turns = np.where(np.abs(steps) > math.pi, np.round(steps / TURN), 0.0)
    turns[np.diff(times) > MAX_GAP] = 0.0
    return np.concatenate((positions[:1], positions[1:] - TURN * np.cumsum(turns, axis=0)))
