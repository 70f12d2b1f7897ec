"""The reach task: bring the tool to where it is in a goal image."""

from __future__ import annotations

from collections.abc import Callable

import mujoco
import numpy as np

from jepa_ros.errors import InputError
from jepa_ros.robot.config import RobotConfig, require_planar_space
from jepa_ros.robot.motion.velocity_space import VelocitySpace
from jepa_ros.sim.cell import ArmCell
from jepa_ros.sim.task import Pose, TaskGoal


class Reach:
    """Tool positions in the plane of the robot's planar_velocity action space; nothing but the arm moves.

    min_distances_m: between start and goal, of the first goal and every second one after it, and of the others. Without
    the larger one most goals would be near by chance.
    """

    spaces: tuple[str, ...] = ("planar_velocity",)
    tolerance_m = 0.03
    hold_s = 1.0
    min_distances_m = (0.22, 0.10)

    def __init__(self, robot: RobotConfig):
        self._robot = robot

    def add_objects(self, spec: mujoco.MjSpec) -> None:
        pass

    def reset_for_play(self, cell: ArmCell, rng: np.random.Generator) -> None:
        cell.reset(cell.space.inverse_kinematics(cell.space.sample(rng)))

    def sample_goals(self, cell: ArmCell, count: int, seed: int) -> list[TaskGoal]:
        if count < 1:
            raise InputError(f"goals: expected at least 1, found {count}")
        scene, space, rng = cell.scene, cell.space, np.random.default_rng(seed)
        goals, start = [], space.sample(rng)
        for index in range(count):
            target = _sample_away(space, start, self.min_distances_m[index % 2], rng)
            start_q, goal_q = space.inverse_kinematics(start), space.inverse_kinematics(target)
            scene.reset(dict(zip(cell.joints, goal_q, strict=True)))
            goals.append(TaskGoal(start, target, start_q, goal_q, scene.render().copy(), space.pose(target)[1]))
            start = target
        scene.reset()
        return goals

    def reset_to_start(self, cell: ArmCell, goal: TaskGoal) -> None:
        cell.reset(goal.start_q)

    def measure_distance(self, pose: Callable[[str], Pose], goal: TaskGoal) -> float:
        target = np.array([*goal.target, require_planar_space(self._robot).height])
        return float(np.linalg.norm(pose(self._robot.tool_frame)[0] - target))

    def oracle_path(self, goal: TaskGoal) -> np.ndarray:
        return goal.target[None]


def _sample_away(space: VelocitySpace, x: np.ndarray, min_distance: float, rng: np.random.Generator) -> np.ndarray:
    """Return coordinates (D,) whose position is at least `min_distance` m from that of `x`, or the farthest of 200
    where none is that far."""

    def apart(place: np.ndarray) -> float:
        return float(np.linalg.norm((place - x)[: space.position_axes]))

    best = space.sample(rng)
    for _ in range(200):
        if apart(best) >= min_distance:
            return best
        candidate = space.sample(rng)
        if apart(candidate) > apart(best):
            best = candidate
    return best
