"""Windows: the next part of a path, ending at rest and checked whole before it is sent."""

from __future__ import annotations

import math

import numpy as np

from jepa_ros.robot.collision.clearance import Clearance
from jepa_ros.robot.gate.jerk_limited import MotionMaker
from jepa_ros.robot.gate.types import GateSettings, Track
from jepa_ros.robot.motion.limits import JointLimits
from jepa_ros.robot.motion.path import Path

MOVE_DURATIONS = (0.3, 0.6, 1.2, 2.5, 5.0)  # s, tried in this order


class WindowMaker:
    """Cuts windows from tracks within `limits`. Times in s on the gate's clock.

    clearance: checks the stops, which are not part of a plan, for collisions; None: no check.
    """

    def __init__(self, limits: JointLimits, settings: GateSettings, clearance: Clearance | None):
        self._limits, self._settings, self._clearance = limits, settings, clearance
        self._motion = MotionMaker(limits)

    def extend(self, track: Track, t: float, leaves_at: float) -> tuple[Path, float] | None:
        """Return the window of `track` at t and when it leaves the track for a stop (inf: it is the track's own end).

        None where no window keeps the limits and follows the track beyond `leaves_at`.
        """
        s, path = self._settings, track.path
        has_end = track.follow_until == math.inf
        if not (has_end and path.end <= t + s.window_max):
            leave = min(path.knot_at_or_after(t + s.horizon), track.follow_until)
            if leave <= max(leaves_at, t):
                return None
            window = self._with_stop(path, t, leave)
            if window is not None:
                return window, leave
        if has_end:  # where a stop would leave the limits, the plan's own end may keep them
            window = path.between(t, path.end)
            if self._limits.allows(window):
                return window, math.inf
        return None

    def stop(self, path: Path, t: float, leaves_at: float) -> Path | None:
        """Return a window that leaves `path` as soon as possible for a stop; None where it ends no sooner than `path`
        or breaks a limit.

        leaves_at: when `path` itself begins to stop.
        """
        leave = t + self._settings.lead
        if leave >= leaves_at:
            return None
        window = self._with_stop(path, t, leave)
        return window if window is not None and window.end < path.end else None

    def stop_from(self, state: np.ndarray, t: float) -> Path | None:
        """Return a stop from state (3, J) at t that belongs to no path; None where it breaks a limit."""
        stop = self._motion.stop(state, t)
        return stop if stop is not None and self._limits.allows(stop) else None

    def move(self, state: np.ndarray, target: np.ndarray, t: float) -> Path | None:
        """Return a motion from state (3, J) at t to rest at target (J,) rad; None where none keeps the limits."""
        end = np.zeros_like(state)
        end[0] = target
        for duration in MOVE_DURATIONS:
            path = self._motion.bridge(state, end, t, duration)
            if path is not None and self._limits.allows(path):
                return path
        return None

    def _with_stop(self, path: Path, t: float, leave: float) -> Path | None:
        stop = self._motion.stop(path.at(leave), leave)
        if stop is None or self._comes_closer(stop, path):
            return None
        window = path.between(t, leave).then(stop)
        return window if self._limits.allows(window) else None

    def _comes_closer(self, stop: Path, path: Path) -> bool:
        """True where a stop comes too close to something, and following `path` does not."""
        if self._clearance is None or not self._clearance.check_path(stop):
            return False
        return not self._clearance.check_path(path.between(stop.start, path.end))
