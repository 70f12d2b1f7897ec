"""Simulated tasks: what a task provides, its goals, and when a goal counts as reached. tasks/ has one file a task."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

import mujoco
import numpy as np

from jepa_ros.robot.config import RobotConfig
from jepa_ros.sim.cell import ArmCell

Pose = tuple[np.ndarray, np.ndarray]
"""Position (3,) m and rotation (3, 3)."""


@dataclass(frozen=True)
class TaskGoal:
    """A goal, and the state that it is attempted from.

    start, target: coordinates (n,) of what the task moves (the tool or an object), at the start and at the goal; x and
    y in m in the base frame come first. For the tool they are those of the action space (MotionSpace). start_q, goal_q:
    (J,) rad. image: (H, W, 3) uint8 RGB of the goal. rotation: (3, 3), its orientation at the goal, for tasks in which
    it counts.
    """

    start: np.ndarray
    target: np.ndarray
    start_q: np.ndarray
    goal_q: np.ndarray
    image: np.ndarray
    rotation: np.ndarray | None = None


class Task(Protocol):
    """A simulated task of one robot. A goal is reached at most `tolerance_m` from it, held for `hold_s`.

    spaces: action spaces of the robots that it is for.
    """

    spaces: tuple[str, ...]
    tolerance_m: float
    hold_s: float

    def __init__(self, robot: RobotConfig): ...

    def add_objects(self, spec: mujoco.MjSpec) -> None:
        """Add the task's bodies to the scene (to the end of `spec.worldbody`) before it is compiled."""

    def reset_for_play(self, cell: ArmCell, rng: np.random.Generator) -> None:
        """Put arm and objects to the random initial state of an episode of play."""

    def sample_goals(self, cell: ArmCell, count: int, seed: int) -> list[TaskGoal]:
        """Return `count` goals, each of which starts where the one before it lies. Raises InputError for count < 1."""

    def reset_to_start(self, cell: ArmCell, goal: TaskGoal) -> None:
        """Put arm and objects to the start of a goal.

        In the ROS graph the service set_state puts the arm to `start_q`; objects are then where `add_objects` put them.
        """

    def measure_distance(self, pose: Callable[[str], Pose], goal: TaskGoal) -> float:
        """Return how far from the goal the present state is, in m.

        pose: returns origin (3,) m and rotation (3, 3) of a TF frame in the base frame. Frames are the links, the tool
        frames and the task's own bodies. In process they come from MuJoCo, in the ROS graph from the topic tf.
        """

    def oracle_path(self, goal: TaskGoal) -> np.ndarray:
        """Return coordinates (n, D) of the tool by which the oracle, a baseline, gets from start to goal."""


@dataclass
class GoalHold:
    """Tells when the distance has been within `tolerance_m` for `hold_s` without a break."""

    tolerance_m: float
    hold_s: float
    _since: float | None = field(default=None, init=False)

    def update(self, t: float, distance: float) -> bool:
        """Take the distance in m at time t in s; return whether the goal is now reached."""
        if distance > self.tolerance_m:
            self._since = None
            return False
        self._since = t if self._since is None else self._since
        return t - self._since >= self.hold_s


def goal_set_hash(goals: list[TaskGoal]) -> str:
    """Return 12 hex digits that name a set of starts and goals, rounded to 0.1 mm."""
    places = np.array([np.concatenate([g.start, g.target]) for g in goals])
    return hashlib.sha256(np.round(places, 4).astype("<f8").tobytes()).hexdigest()[:12]
