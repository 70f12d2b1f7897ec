"""Teleoperation commands, from a game pad or as velocities, as a motion of the tool in the plane."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from jepa_ros.collecting.plan_driver import Motion
from jepa_ros.robot.motion.action_space import PlanarVelocity

TELEOP_PLANS = {"every": 1, "ticks": 4, "lead": 0.06}
"""Settings of a PlanDriver for commands: plans often, and shortly before they take effect."""
COMMAND_TIMEOUT_S = 0.2
MAX_STAMP_AHEAD_S = 0.1


class TeleopMotion(Motion):
    """The newest command until its timeout, then rest.

    A command is dropped where its stamp is too old or too far ahead: neither a wrong clock nor a delayed message moves
    the arm. Velocities are limited and smoothed by the action space. problem: why the newest command was dropped.
    """

    def __init__(self, space: PlanarVelocity):
        self._space = space
        self._velocity, self._until = np.zeros(2), -math.inf
        self.problem = ""

    def command(self, velocity: Sequence[float], stamp: float, now: float) -> None:
        """Take a velocity (2,) of the tool in the base frame, over max_speed. stamp: s, 0 for unknown. now: s."""
        self.problem = ""
        if len(velocity) != 2 or not all(map(math.isfinite, velocity)):
            self.problem = f"expected two finite velocities, found {list(velocity)}"
        elif stamp > 0 and now - stamp > COMMAND_TIMEOUT_S:
            self.problem = f"expected a recent command, found a stamp {now - stamp:.2f} s old"
        elif stamp > 0 and stamp - now > MAX_STAMP_AHEAD_S:
            self.problem = f"expected a recent command, found a stamp {stamp - now:.2f} s ahead"
        else:
            sent = min(stamp, now) if stamp > 0 else now
            self._velocity, self._until = np.asarray(velocity, float), sent + COMMAND_TIMEOUT_S

    def knots(self, start: float, elapsed: int, xy: np.ndarray, knot: np.ndarray, ticks: int) -> np.ndarray:
        """Return the command in the ticks whose middle is before its timeout, then zeros: the plan itself brakes."""
        middles = start + self._space.period * (np.arange(ticks) + 0.5)
        return np.where(middles[:, None] <= self._until, self._velocity, 0.0)


class GamePad:
    """Interprets sensor_msgs/Joy. axes: for x and y of the base frame. hold: the dead-man button. end: the button that
    ends an episode."""

    def __init__(self, axes: tuple[int, int], hold: int, end: int):
        self._axes, self._hold, self._end = axes, hold, end
        self._end_pressed = True  # a button that is down from the start is not a press

    def velocity(self, axes: Sequence[float], buttons: Sequence[int]) -> tuple[float, ...]:
        """Return (x, y) over max_speed; zero where the dead-man button is not held; fewer where an axis is missing."""
        if not self._is_pressed(buttons, self._hold):
            return 0.0, 0.0
        return tuple(axes[k] for k in self._axes if k < len(axes))

    def end_was_pressed(self, buttons: Sequence[int]) -> bool:
        """Check whether the end button was pressed with this message."""
        before, self._end_pressed = self._end_pressed, self._is_pressed(buttons, self._end)
        return self._end_pressed and not before

    @staticmethod
    def _is_pressed(buttons: Sequence[int], k: int) -> bool:
        return k < len(buttons) and buttons[k] == 1
