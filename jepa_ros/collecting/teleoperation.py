"""Commands of a person, from a game pad or another source of velocities, as a motion of the tool in the plane."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from jepa_ros.collecting.plan_driver import Motion
from jepa_ros.robot.motion.action_space import PlanarVelocity

PLANS = {"every": 1, "ticks": 4, "lead": 0.06}
"""How a Driver makes plans of commands: often, and shortly before they take effect."""
HOLDS = 0.2  # s that a command counts for
SKEW = 0.1  # s that a command's stamp may lie in the future


class Steering(Motion):
    """The newest command, for as long as it counts; then rest.

    Received time and stamp are judged together: a wrong clock moves no arm, nor does a message that was held up.
    Velocities are bounded and smoothed by the action space.
    """

    def __init__(self, space: PlanarVelocity):
        self._space = space
        self._velocity, self._until = np.zeros(2), -math.inf
        self.problem = ""  # why the newest message was not taken

    def command(self, velocity: Sequence[float], stamp: float, now: float) -> None:
        """velocity (2,) of the tool in the base frame over max_speed, said at stamp (s; 0: unknown), heard at now."""
        self.problem = ""
        if len(velocity) != 2 or not all(map(math.isfinite, velocity)):
            self.problem = f"expected two finite velocities, found {list(velocity)}"
        elif stamp > 0 and now - stamp > HOLDS:
            self.problem = f"expected commands of now, found a stamp {now - stamp:.2f} s old"
        elif stamp > 0 and stamp - now > SKEW:
            self.problem = f"expected commands of now, found a stamp {stamp - now:.2f} s ahead"
        else:
            said = min(stamp, now) if stamp > 0 else now
            self._velocity, self._until = np.asarray(velocity, float), said + HOLDS

    def knots(self, start: float, elapsed: int, xy: np.ndarray, knot: np.ndarray, ticks: int) -> np.ndarray:
        """See Motion. The command holds in those ticks whose middle it lasts until; so the plan itself brakes."""
        middles = start + self._space.period * (np.arange(ticks) + 0.5)
        return np.where(middles[:, None] <= self._until, self._velocity, 0.0)


class GamePad:
    """Reads sensor_msgs/Joy: the axes that mean x and y of the base frame, the button that must be held for the arm to
    move, and the one that ends an episode."""

    def __init__(self, axes: tuple[int, int], hold: int, end: int):
        self._axes, self._hold, self._end = axes, hold, end
        self._ended = True  # held down since before the beginning: no press

    def velocity(self, axes: Sequence[float], buttons: Sequence[int]) -> tuple[float, ...]:
        """(x, y) over max_speed; zero where the button is not held; empty where an axis is missing."""
        if not self._pressed(buttons, self._hold):
            return 0.0, 0.0
        return tuple(axes[k] for k in self._axes if k < len(axes))

    def ends(self, buttons: Sequence[int]) -> bool:
        """Whether the end button was pressed with this message."""
        before, self._ended = self._ended, self._pressed(buttons, self._end)
        return self._ended and not before

    @staticmethod
    def _pressed(buttons: Sequence[int], k: int) -> bool:
        return k < len(buttons) and buttons[k] == 1
