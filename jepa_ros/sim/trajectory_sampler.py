"""Sampling of an accepted trajectory, as joint_trajectory_controller 4.42 (Jazzy) does, hazards included.

Between two points the interpolation is linear, cubic where both have velocities, quintic where both have accelerations
as well. Where both have accelerations but one has no velocities, every joint's sample is 0. NaN and Inf pass through.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np


class State(NamedTuple):
    """Position (J,) rad, velocity (J,) rad/s or None, acceleration (J,) rad/s^2 or None."""

    q: np.ndarray
    qd: np.ndarray | None = None
    qdd: np.ndarray | None = None


class TrajectorySampler:
    """One trajectory from the cycle on that took it over. Times in s on one clock.

    times: N times in s from the start. points: N states. start: the time of time 0; 0: `now`. before: state at `begin`,
    from which the first point is approached where that is in the future.
    """

    def __init__(self, times: list[float], points: list[State], start: float, before: State, begin: float, now: float):
        start = now if start == 0.0 else start
        self.times, self._points = [start + t for t in times], points
        zero = np.zeros(len(before.q))
        self._before, self._begin = before, begin
        # A state without velocities would turn the approach into a straight line with steps of the velocity.
        if before.qd is None and points[0].qd is not None:
            self._before = self._before._replace(qd=zero)
        if before.qdd is None and points[0].qdd is not None:
            self._before = self._before._replace(qdd=zero)
        self._first = 0  # earlier segments are not searched again
        self._segments: dict[int, np.ndarray | None] = {}

    def sample(self, t: float, *, ahead: bool = False) -> State | None:
        """Return the state at `t`; None before the cycle that took the trajectory over.

        ahead: `t` is later than the present cycle. Samples for present cycles never return to an earlier segment; a
        sample ahead that is past the end makes them the end as well.
        """
        if t < self._begin:
            return None
        if t < self.times[0]:
            return self._interpolate(-1, t)
        last = len(self.times) - 1
        for i in range(self._first, last):
            if self.times[i] <= t < self.times[i + 1]:
                if not ahead:
                    self._first = i
                return self._interpolate(i, t)
        self._first = last
        end, zero = self._points[-1], np.zeros(len(self._before.q))
        return State(end.q, zero if end.qd is None else end.qd, zero if end.qdd is None else end.qdd)

    def _interpolate(self, i: int, t: float) -> State:
        """Return the state at t on the segment from point i; -1: the approach of the first point."""
        a, begin = (self._before, self._begin) if i < 0 else (self._points[i], self.times[i])
        if i not in self._segments:
            self._segments[i] = make_segment(a, self._points[i + 1], self.times[i + 1] - begin)
        c = self._segments[i]
        if c is None:
            zero = np.zeros(len(a.q))
            return State(zero, zero, zero)
        s = t - begin
        with np.errstate(invalid="ignore"):  # Inf in a message
            q = c[0] + s * (c[1] + s * (c[2] + s * (c[3] + s * (c[4] + s * c[5]))))
            qd = c[1] + s * (2 * c[2] + s * (3 * c[3] + s * (4 * c[4] + s * 5 * c[5])))
            qdd = 2 * c[2] + s * (6 * c[3] + s * (12 * c[4] + s * 20 * c[5]))
        return State(q, qd, qdd)


def make_segment(a: State, b: State, duration: float) -> np.ndarray | None:
    """Return coefficients (6, J) of the polynomial from a to b in `duration` s; None: all samples are 0."""
    c = np.zeros((6, len(a.q)))
    c[0] = a.q
    h = duration if duration > 0.0 else math.inf
    with np.errstate(invalid="ignore"):  # Inf in a message
        d = b.q - a.q
        moving = a.qd is not None and b.qd is not None
        if a.qdd is not None and b.qdd is not None:
            if not moving:
                return None
            c[1], c[2] = a.qd, a.qdd / 2
            c[3] = (20 * d - (8 * b.qd + 12 * a.qd) * h - (3 * a.qdd - b.qdd) * h**2) / (2 * h**3)
            c[4] = (-30 * d + (14 * b.qd + 16 * a.qd) * h + (3 * a.qdd - 2 * b.qdd) * h**2) / (2 * h**4)
            c[5] = (12 * d - 6 * (b.qd + a.qd) * h - (a.qdd - b.qdd) * h**2) / (2 * h**5)
        elif moving:
            c[1] = a.qd
            c[2] = (3 * d / h - 2 * a.qd - b.qd) / h
            c[3] = (-2 * d / h + a.qd + b.qd) / h**2
        else:
            c[1] = d / h
    return c
