"""What a model's success is set beside: random actions, and an oracle that knows the goal's joints."""

from __future__ import annotations

import numpy as np

from jepa_ros.robot.trajectory import JointTrajectory
from jepa_ros.sim.cell import ArmCell
from jepa_ros.sim.tasks.reach import ReachGoal
from jepa_ros.training.play import play


class RandomActor:
    """Random play, as the training data has it, in plans of `ticks` control ticks."""

    def __init__(self, cell: ArmCell, seed: int, ticks: int = 30):
        self._cell, self._ticks = cell, ticks
        self._rng = np.random.default_rng(seed)

    def start(self, goal: ReachGoal) -> None:
        """The goal is not looked at."""
        self._plan, self._next = 0, -np.inf

    def __call__(self, now: float) -> None:
        if now < self._next:
            return
        space, gate = self._cell.space, self._cell.gate
        q, qd, qdd = gate.tick(now).reference
        knots = space.constrain(space.position(q), space.velocity(q, qd), play(self._ticks, self._rng))
        trajectory = space.to_trajectory(q, qd, qdd, knots)
        self._plan += 1
        end = now + trajectory.duration
        gate.plan(trajectory, now, now, end + 1.0, self._plan, now)
        self._next = end + 0.1


class OracleActor:
    """Straight to the goal's joints, which no model is told; at half the joints' limits."""

    def __init__(self, cell: ArmCell):
        self._cell = cell

    def start(self, goal: ReachGoal) -> None:
        """Take the goal's joint positions."""
        self._goal_q, self._sent = goal.goal_q, False

    def __call__(self, now: float) -> None:
        if self._sent:
            return
        self._sent = True
        q = self._cell.gate.tick(now).reference[0]
        way, limits = np.abs(self._goal_q - q), self._cell.gate.limits
        # Peaks of a quintic from rest to rest over 1 in 1 s: velocity 1.875, acceleration 5.77, jerk 60.
        duration = 2.0 * max(
            (1.875 * way / limits.velocity).max(),
            np.sqrt((5.77 * way / limits.acceleration).max()),
            np.cbrt((60.0 * way / limits.jerk).max()),
        )
        rest = np.zeros((2, len(q)))
        trajectory = JointTrajectory(
            self._cell.joints, np.array([0.0, duration]), np.array([q, self._goal_q]), rest, rest
        )
        self._cell.gate.plan(trajectory, now, now, now + duration + 1.0, 1, now)
