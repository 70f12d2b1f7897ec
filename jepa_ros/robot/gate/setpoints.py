"""Set-points for controllers that take one position in each cycle and have no time of their own.

Such a controller holds its last set-point. Whatever delays the gate, the next set-point is near the last one that was
*sent*: its speed and its change of speed are limited, and it catches up with the path.
"""

from __future__ import annotations

import math

import numpy as np

from jepa_ros.robot.motion.limits import JointLimits
from jepa_ros.robot.motion.path import Path

MISSED = 1.5  # periods between two set-points after which the arm has stood still in between
REACHED = 1e-9  # rad
REPEATS = 5  # times that the last set-point is sent: a subscription that keeps only the newest may lose one


class SetpointStream:
    """Set-points along the path in force. Times in s on the gate's clock.

    `next` may be called by another thread than the rest: the path is replaced at once and never changed.
    gap_max: s without a set-point in motion after which the stream ends, with `held_up` set; the arm has stood still
    for so long that its motion must be planned anew.
    """

    def __init__(self, limits: JointLimits, gap_max: float):
        self._velocity, self._acceleration, self._gap_max = limits.velocity, limits.acceleration, gap_max
        self.forget()

    def forget(self) -> None:
        """Forget what was sent: it is not known what the controllers hold."""
        self._path: Path | None = None
        self._sent: np.ndarray | None = None
        self._speed: np.ndarray | None = None
        self._time, self._repeats = -math.inf, REPEATS
        self.held_up = False

    @property
    def sent(self) -> np.ndarray | None:
        """(J,) rad, the last set-point; None where none was sent."""
        return self._sent

    def follow(self, path: Path, t: float) -> None:
        """Send set-points along `path` from now on, until it has been followed to its end."""
        if self._path is None:
            self._time = t
        self._path, self.held_up = path, False

    def hold(self) -> None:
        """Send nothing more: the controllers hold the last set-point."""
        self._path, self._speed = None, None

    def next(self, t: float, period: float) -> np.ndarray | None:
        """Return the set-point (J,) rad for the controllers' cycle at t; None where nothing is to be sent.

        period: s, of the controllers' cycles.
        """
        path = self._path
        if path is None:
            return None
        elapsed, self._time = t - self._time, max(t, self._time)
        if self._sent is not None and elapsed > self._gap_max:
            self.held_up = True
            self.hold()
            return None
        target, speed = path.at(t)[:2]
        last, before = self._sent, self._speed
        if last is None:
            last, before = path.at(t - period)[0], path.at(t - period)[1]
        elif before is None or elapsed > MISSED * period:
            before = np.zeros_like(last)
        step = self._limit(target - last, speed, before, period)
        done = t >= path.end and float(np.abs(target - last - step).max()) < REACHED
        self._sent, self._speed = (target if done else last + step), step / period
        self._repeats = self._repeats - 1 if done else REPEATS
        if self._repeats <= 0 and self._path is path:
            self.hold()
        return self._sent

    def _limit(self, error: np.ndarray, target_speed: np.ndarray, before: np.ndarray, period: float) -> np.ndarray:
        """Return the step (J,) rad of one cycle towards a target that is `error` rad away and moves at target_speed.

        before: (J,) rad/s, speed of the last step. The error's own speed is one that it can be braked from.
        """
        brake = self._acceleration * period
        low = np.maximum(before - brake, -self._velocity) * period
        high = np.minimum(before + brake, self._velocity) * period
        if ((low <= error) & (error <= high)).all():
            return error
        # Half the acceleration is left for what the target itself needs.
        approach = np.sign(error) * np.sqrt(self._acceleration * np.abs(error))
        return np.clip(np.clip(target_speed + approach, -self._velocity, self._velocity) * period, low, high)
