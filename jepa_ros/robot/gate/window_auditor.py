"""Window auditor: checks what a controller receives against the limits, independently of the gate."""

from __future__ import annotations

import math

import numpy as np

from jepa_ros.robot.motion.limits import JointLimits
from jepa_ros.robot.motion.path import Path
from jepa_ros.robot.motion.trajectory import JointTrajectory

ANCHOR_TOLERANCE_RAD = 0.05  # between measured position and a window's start, see WindowAuditor.check_window
MAX_STEP_RAD = 0.02  # between the present window and the one that replaces it


class WindowAuditor:
    """Checks every window that one controller receives; times in s on one clock.

    limits: of the controller's joints, in the order of its windows. worst: the largest violation so far: of velocity,
    acceleration or jerk as a share of the limit, of a position in rad; infinite where a value was not finite.
    violations: one sentence each. step: rad, the largest jump of the reference from one window to the next.
    """

    def __init__(self, limits: JointLimits):
        self._limits = limits
        self.windows = 0
        self.worst = self.step = 0.0
        self.violations: list[str] = []
        self.path: Path | None = None
        self._epoch = math.nan  # s; small numbers keep float64 exact enough for jerks

    def check_window(
        self, trajectory: JointTrajectory, stamp: float, now: float, measured: np.ndarray | None = None
    ) -> str:
        """Check a window received at `now` whose time 0 is `stamp` (0: now); return what is wrong, or "".

        measured: (J,) rad, measured joint positions. A window that starts from rest may begin there, within
        ANCHOR_TOLERANCE_RAD, instead of where the last one ended: after a release, after a restart of the gate, or
        where the arm was moved while held.
        """
        self.windows += 1
        if tuple(trajectory.names) != self._limits.names:
            return self._record(f"a window for the joints {list(trajectory.names)}", math.inf)
        if trajectory.velocities is None or trajectory.accelerations is None:
            return self._record("a window without velocities or accelerations", math.inf)
        self._epoch = now if math.isnan(self._epoch) else self._epoch
        t = now - self._epoch
        start = t if stamp == 0.0 else stamp - self._epoch
        states = np.stack((trajectory.positions, trajectory.velocities, trajectory.accelerations), axis=1)
        path, before = Path(start + trajectory.times, states), self.path
        self.path = path
        if np.abs(states[-1, 1:]).max() > 1e-6:
            return self._record("a window that ends in motion", float(np.abs(states[-1, 1:]).max()))
        usage = self._limits.compute_usage(path)
        if not usage.within_limits:
            return self._record(usage.text, max(*(ratio - 1.0 for ratio in usage[:3]), usage.position))
        anchored = measured is not None and np.abs(path.at(t)[0] - measured).max() <= ANCHOR_TOLERANCE_RAD
        if before is not None and not (anchored and t >= before.end):
            step = float(np.abs(path.at(t)[0] - before.at(t)[0]).max())
            self.step = max(self.step, step)
            if step > MAX_STEP_RAD:
                return self._record(f"a step of {step:.3f} rad from one window to the next", step)
        return ""

    def record_unreadable(self, reason: str) -> str:
        """Record a window that is not a trajectory of finite numbers."""
        self.windows += 1
        return self._record(reason, math.inf)

    def is_at_rest(self, now: float) -> bool:
        """True where the last window has ended by `now`."""
        return self.path is None or now - self._epoch >= self.path.end

    def _record(self, text: str, size: float) -> str:
        self.worst = max(self.worst, size)
        self.violations.append(text)
        return text
