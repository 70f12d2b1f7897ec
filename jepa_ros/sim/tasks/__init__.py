"""Simulated tasks, one file each, behind sim.task.Task. To add one, write its file and enter its class in TASKS.

Data collection, evaluation, demo, simulator and benchmarks get a task by its name. Start reading in reach.py.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from jepa_ros.errors import InputError
from jepa_ros.robot.config import RobotConfig, load_robot
from jepa_ros.robot.motion.action_space import PlanarVelocity
from jepa_ros.sim.cell import ArmCell
from jepa_ros.sim.scene import Scene
from jepa_ros.sim.task import Task, TaskGoal, goal_set_hash
from jepa_ros.sim.tasks.reach import Reach

TASKS: dict[str, type[Task]] = {"reach": Reach}
DEFAULT_TASK = "reach"


def make_task(name: str, robot: RobotConfig) -> Task:
    """Return the task called `name`. Raises InputError for an unknown name."""
    if name not in TASKS:
        raise InputError(f"task '{name}': give one of {', '.join(TASKS)}")
    return TASKS[name](robot)


@dataclass
class GoalSet:
    """A task's goals, each of which starts where the one before lies, their hash, and the joints of `start_q`."""

    task: Task
    goals: list[TaskGoal]
    hash: str
    joints: tuple[str, ...]
    space: PlanarVelocity

    def place(self, index: int) -> np.ndarray:
        """Return the position (3,) of a goal, m in the base frame."""
        return np.array([*self.goals[index].goal_xy, self.space.height])

    def tool_start(self, index: int) -> np.ndarray:
        """Return the tool's position (3,) at the start of a goal, m in the base frame."""
        return np.array([*self.space.tool_coordinates(self.goals[index].start_q), self.space.height])


def make_goal_set(robot_name: str, count: int, seed: int, task_name: str = DEFAULT_TASK) -> GoalSet:
    """Sample goals in a scene of this process, before the graph starts."""
    robot = load_robot(robot_name)
    task = make_task(task_name, robot)
    cell = ArmCell(Scene(add_objects=task.add_objects), robot)
    goals = task.sample_goals(cell, count, seed)
    return GoalSet(task, goals, goal_set_hash(goals), cell.joints, cell.space)
