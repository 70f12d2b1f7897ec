"""The reach task: bring the tool to where it is in a goal image."""

from __future__ import annotations

from collections.abc import Callable

import mujoco
import numpy as np

from jepa_ros.errors import InputError
from jepa_ros.robot.config import RobotConfig
from jepa_ros.robot.motion.action_space import PlanarVelocity
from jepa_ros.sim.cell import ArmCell
from jepa_ros.sim.task import TaskGoal

MIN_DISTANCE_M = 0.10
"""Between a start and its goal."""
EVERY_SECOND_MIN_DISTANCE_M = 0.22
"""The same of every second goal, or most goals would be near by chance."""


class Reach:
    """Tool positions in the plane of the robot's planar_velocity action space; nothing but the arm moves."""

    tolerance_m = 0.03
    hold_s = 1.0

    def __init__(self, robot: RobotConfig):
        self._robot = robot

    def add_objects(self, spec: mujoco.MjSpec) -> None:
        pass

    def reset_for_play(self, cell: ArmCell, rng: np.random.Generator) -> None:
        cell.reset(cell.space.inverse_kinematics(sample_position(cell.space, rng)))

    def sample_goals(self, cell: ArmCell, count: int, seed: int) -> list[TaskGoal]:
        if count < 1:
            raise InputError(f"goals: expected at least 1, found {count}")
        scene, space, rng = cell.scene, cell.space, np.random.default_rng(seed)
        goals, xy = [], sample_position(space, rng)
        for index in range(count):
            target = _sample_away(space, xy, EVERY_SECOND_MIN_DISTANCE_M if index % 2 == 0 else MIN_DISTANCE_M, rng)
            start_q, goal_q = space.inverse_kinematics(xy), space.inverse_kinematics(target)
            scene.reset(dict(zip(cell.joints, goal_q, strict=True)))
            goals.append(TaskGoal(xy, target, start_q, goal_q, scene.render().copy()))
            xy = target
        scene.reset()
        return goals

    def reset_to_start(self, cell: ArmCell, goal: TaskGoal) -> None:
        cell.reset(goal.start_q)

    def measure_distance(self, position: Callable[[str], np.ndarray], goal: TaskGoal) -> float:
        target = np.array([*goal.goal_xy, self._robot.action_space.height])
        return float(np.linalg.norm(position(self._robot.tool_frame) - target))

    def oracle_path(self, goal: TaskGoal) -> np.ndarray:
        return goal.goal_xy[None]


def sample_position(space: PlanarVelocity, rng: np.random.Generator) -> np.ndarray:
    """Return a tool position (2,) m, uniform over the workspace."""
    low, high = space.workspace.min(0), space.workspace.max(0)
    while True:
        xy = rng.uniform(low, high)
        if (space.normals @ xy <= space.offsets).all():
            return xy


def _sample_away(space: PlanarVelocity, xy: np.ndarray, min_distance: float, rng: np.random.Generator) -> np.ndarray:
    """Return a position at least `min_distance` m from `xy`, or the farthest of 200 where none is that far."""
    best = sample_position(space, rng)
    for _ in range(200):
        if np.linalg.norm(best - xy) >= min_distance:
            return best
        candidate = sample_position(space, rng)
        if np.linalg.norm(candidate - xy) > np.linalg.norm(best - xy):
            best = candidate
    return best
