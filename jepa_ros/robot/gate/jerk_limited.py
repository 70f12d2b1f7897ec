"""Jerk-limited motions of the gate, made with ruckig: stops, and bridges from the reference into a plan."""

from __future__ import annotations

import numpy as np
from ruckig import ControlInterface, InputParameter, Result, Ruckig, RuckigError, Synchronization, Trajectory

from jepa_ros.robot.motion.limits import JointLimits
from jepa_ros.robot.motion.path import Path

KNOT_SPACING = 0.02  # s, of the knots cut from a ruckig motion
# Quintics through knots of a motion with piecewise constant jerk are the L2 projection of that jerk onto quadratics,
# segment by segment. Their jerk is at most 2.18 times the original's (the projection's norm) and their acceleration
# differs by at most 0.21 × jerk × spacing. Ruckig gets limits lower by that much, so that the quintics keep the limits.
JERK_SHARE = 0.45
ACCELERATION_ERROR = 0.21


class MotionMaker:
    """Makes jerk-limited motions of all joints within `limits` (J joints).

    Every path must still be checked with `limits.allows`: ruckig does not know the position limits here.
    """

    def __init__(self, limits: JointLimits):
        self._j = len(limits.names)
        self._otg = Ruckig(self._j, 0.005)
        jerk = np.minimum(limits.jerk * JERK_SHARE, limits.acceleration * 0.5 / (ACCELERATION_ERROR * KNOT_SPACING))
        self._acceleration = limits.acceleration - ACCELERATION_ERROR * jerk * KNOT_SPACING
        self._stop = InputParameter(self._j)
        self._stop.control_interface = ControlInterface.Velocity
        # Phase: straight in joint space where velocity and acceleration allow it; otherwise all joints end together.
        self._stop.synchronization = Synchronization.Phase
        self._stop.max_acceleration, self._stop.max_jerk = self._acceleration.tolist(), jerk.tolist()
        self._stop.target_velocity = self._stop.target_acceleration = [0.0] * self._j
        self._stop.minimum_duration = KNOT_SPACING
        self._bridge = InputParameter(self._j)
        self._bridge.synchronization = Synchronization.Time
        self._bridge.max_velocity, self._bridge.max_jerk = limits.velocity.tolist(), jerk.tolist()

    def stop(self, state: np.ndarray, t: float) -> Path | None:
        """Return the fastest motion from state (3, J) at t s to rest; None where ruckig finds none."""
        inp = self._stop
        inp.current_position, inp.current_velocity, inp.current_acceleration = state.tolist()
        path = self._calculate(inp, state, t)
        if path is not None:
            path.states[-1, 1:] = 0.0  # ruckig ends at 1e-17
            path = Path(path.times, path.states)
        return path

    def bridge(self, state: np.ndarray, target: np.ndarray, t: float, duration: float) -> Path | None:
        """Return a motion from state (3, J) at t s to target (3, J) in `duration` s exactly, or None beyond limits."""
        inp = self._bridge
        inp.current_position, inp.current_velocity, inp.current_acceleration = state.tolist()
        inp.target_position, inp.target_velocity, inp.target_acceleration = target.tolist()
        # The plan may use its limits fully at the target, which ruckig would reject under the lowered ones.
        inp.max_acceleration = np.maximum(self._acceleration, np.abs(target[2]) * 1.001).tolist()
        inp.minimum_duration = duration
        path = self._calculate(inp, state, t)
        if path is None or path.end > t + duration + 1e-6:
            return None
        path.times[-1], path.states[-1] = t + duration, target
        return Path(path.times, path.states)

    def _calculate(self, inp: InputParameter, state: np.ndarray, t: float) -> Path | None:
        trajectory = Trajectory(self._j)
        try:
            if self._otg.calculate(inp, trajectory) not in (Result.Working, Result.Finished):
                return None
        except RuckigError:
            return None
        duration = trajectory.duration
        if not 0.0 < duration < 60.0:
            return None
        n = max(int(np.ceil(duration / KNOT_SPACING - 1e-6)), 1)
        times = np.arange(n + 1) * (duration / n)
        states = np.array([trajectory.at_time(s) for s in times.tolist()])
        states[0] = state
        return Path(t + times, states)
