"""Simulated tasks, one file each, behind sim.task.Task. To add one, write its file and enter its class in TASKS.

Data collection, evaluation, demo, simulator and benchmarks get a task by its name. Start reading in reach.py.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from jepa_ros.errors import InputError
from jepa_ros.robot.config import RobotConfig, load_robot, require_velocity_space
from jepa_ros.robot.motion.velocity_space import VelocitySpace
from jepa_ros.sim.cell import ArmCell
from jepa_ros.sim.scene import Scene
from jepa_ros.sim.task import Task, TaskGoal, goal_set_hash
from jepa_ros.sim.tasks.reach import Reach
from jepa_ros.sim.tasks.reach3d import Reach3d

TASKS: dict[str, type[Task]] = {"reach": Reach, "reach3d": Reach3d}
DEFAULT_TASK = "reach"


def make_task(name: str, robot: RobotConfig, *, for_goals: bool = True) -> Task:
    """Return the task called `name`. Raises InputError for an unknown name, or a robot that the task is not for.

    for_goals: False where only the task's objects are needed, for a robot of any action space.
    """
    if name not in TASKS:
        raise InputError(f"task '{name}': give one of {', '.join(TASKS)}")
    kind, space = TASKS[name], robot.action_space.type
    if for_goals and space not in kind.spaces:
        others = [other for other, task in TASKS.items() if space in task.spaces]
        advice = f"; give --task {others[0]}" if others else ""
        wanted = " or ".join(kind.spaces)
        raise InputError(f"task '{name}': needs the action space {wanted}, found {space} on {robot.name}{advice}")
    return kind(robot)


def choose_task(robot: RobotConfig) -> str:
    """Return the name of the first task for a robot's action space. Raises InputError where there is none."""
    require_velocity_space(robot)
    return next(name for name, task in TASKS.items() if robot.action_space.type in task.spaces)


@dataclass
class GoalSet:
    """A task's goals, each of which starts where the one before lies, their hash, and the joints of `start_q`."""

    task: Task
    goals: list[TaskGoal]
    hash: str
    joints: tuple[str, ...]
    space: VelocitySpace

    def place(self, index: int) -> np.ndarray:
        """Return the position (3,) of a goal, m in the base frame."""
        return self._position(self.goals[index].target)

    def tool_start(self, index: int) -> np.ndarray:
        """Return the tool's position (3,) at the start of a goal, m in the base frame."""
        return self._position(self.space.tool_coordinates(self.goals[index].start_q))

    def _position(self, x: np.ndarray) -> np.ndarray:
        return self.space.pose(x)[0]


def make_goal_set(robot_name: str, count: int, seed: int, task_name: str = DEFAULT_TASK) -> GoalSet:
    """Sample goals in a scene of this process, before the graph starts."""
    robot = load_robot(robot_name)
    task = make_task(task_name, robot)
    cell = ArmCell(Scene(add_objects=task.add_objects), robot)
    goals = task.sample_goals(cell, count, seed)
    return GoalSet(task, goals, goal_set_hash(goals), cell.joints, cell.space)
