"""Positions of continuous joints are angles: q and q + 2 pi are the same place of the joint."""

from __future__ import annotations

import math

import numpy as np

TURN = 2.0 * math.pi
MAX_GAP = 0.2  # s between two samples, in which no joint moves by half a turn


def remove_wraps(positions: np.ndarray, times: np.ndarray) -> np.ndarray:
    """Return measured positions (n, J) rad at times (n,) s, increasing, without the jumps by a turn of joints that are
    reported within half a turn. After longer gaps than MAX_GAP a large change is left as it is."""
    steps = np.diff(positions, axis=0)
    turns = np.where(np.abs(steps) > math.pi, np.round(steps / TURN), 0.0)
    turns[np.diff(times) > MAX_GAP] = 0.0
    return np.concatenate((positions[:1], positions[1:] - TURN * np.cumsum(turns, axis=0)))
