"""Windows: the next part of a path, ending at rest, checked whole before anyone sees it."""

from __future__ import annotations

import math

from jepa_ros.robot.collision.clearance import Clearance
from jepa_ros.robot.gate.jerk_limited import MotionMaker
from jepa_ros.robot.gate.types import GateSettings, Track
from jepa_ros.robot.motion.limits import JointLimits
from jepa_ros.robot.motion.path import Path


class WindowMaker:
    """Cuts windows from tracks within `limits`. Times in s on the gate's clock.

    clearance: judges the ways to rest, which are no part of a plan; None: they are not judged.
    """

    def __init__(self, limits: JointLimits, settings: GateSettings, clearance: Clearance | None):
        self._limits, self._settings, self._clearance = limits, settings, clearance
        self._motion = MotionMaker(limits)

    def extend(self, track: Track, t: float, departs: float) -> tuple[Path, float] | None:
        """The window of `track` for now, and when it departs from the track to stop (inf: it is the track's own end).

        None where there is none that keeps the limits and follows the track beyond `departs`.
        """
        s, path = self._settings, track.path
        has_end = track.follow_until == math.inf
        if not (has_end and path.end <= t + s.window_max):
            leave = min(path.knot_at_or_after(t + s.horizon), track.follow_until)
            if leave <= max(departs, t):
                return None
            window = self._stopped(path, t, leave)
            if window is not None:
                return window, leave
        if has_end:  # where a stop would leave the limits, the plan's own way to rest may not
            window = path.between(t, path.end)
            if self._limits.allows(window):
                return window, math.inf
        return None

    def stop(self, path: Path, t: float, departs: float) -> Path | None:
        """A window that leaves `path` as soon as can be for a stop; None where that ends no sooner or breaks a limit.

        departs: when `path` itself begins to stop.
        """
        leave = t + self._settings.lead
        if leave >= departs:
            return None
        window = self._stopped(path, t, leave)
        return window if window is not None and window.end < path.end else None

    def stop_from(self, state, t: float) -> Path | None:
        """A stop from state (3, J) at t, bound to no path; None where it breaks a limit."""
        stop = self._motion.stop(state, t)
        return stop if stop is not None and self._limits.allows(stop) else None

    def _stopped(self, path: Path, t: float, leave: float) -> Path | None:
        stop = self._motion.stop(path.at(leave), leave)
        if stop is None or self._leads_nearer(stop, path):
            return None
        window = path.between(t, leave).then(stop)
        return window if self._limits.allows(window) else None

    def _leads_nearer(self, stop: Path, path: Path) -> bool:
        """Whether a stop leads too near to something, and to go on along `path` does not."""
        if self._clearance is None or not self._clearance.check_path(stop):
            return False
        return not self._clearance.check_path(path.between(stop.start, path.end))
