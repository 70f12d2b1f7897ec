"""What a model's success is set beside: random actions, and an oracle that knows the goal's joints."""

from __future__ import annotations

import numpy as np
from scipy.interpolate import make_interp_spline

from jepa_ros.robot.motion.random_play import sample_random_play
from jepa_ros.robot.motion.trajectory import JointTrajectory
from jepa_ros.sim.cell import ArmCell
from jepa_ros.sim.tasks.reach import ReachGoal


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
        knots = space.constrain(
            space.tool_coordinates(q), space.tool_knot(q, qd), sample_random_play(self._ticks, self._rng)
        )
        trajectory = space.to_trajectory(q, qd, qdd, knots)
        self._plan += 1
        end = now + trajectory.duration
        gate.submit_plan(trajectory, now, now, end + 1.0, self._plan, now)
        self._next = end + 0.1


class OracleActor:
    """Straight to the goal, whose joints no model is told, the tool on a line at the height of the plane.

    (A straight line in joint space dips: on long ways the hand would hit the table.)
    """

    def __init__(self, cell: ArmCell):
        self._cell = cell

    def start(self, goal: ReachGoal) -> None:
        """Take the goal's place."""
        self._goal, self._sent = goal, False

    def __call__(self, now: float) -> None:
        if self._sent:
            return
        self._sent = True
        space, goal = self._cell.space, self._goal
        q = self._cell.gate.tick(now).reference[0]
        way = goal.goal_xy - space.tool_coordinates(q)
        duration = max(1.0, 1.875 * float(np.linalg.norm(way)) / (0.8 * space.max_speed))  # minimum jerk peaks at 1.875
        s = np.linspace(0.0, 1.0, 41)
        positions = [q]
        for share in (10 * s**3 - 15 * s**4 + 6 * s**5)[1:]:
            positions.append(space.inverse_kinematics(goal.goal_xy - (1.0 - share) * way, positions[-1]))
        rest = [(1, np.zeros(len(q))), (2, np.zeros(len(q)))]
        spline = make_interp_spline(s * duration, np.array(positions), k=5, bc_type=(rest, rest))
        points = (spline(s * duration, order) for order in range(3))
        trajectory = JointTrajectory(self._cell.joints, s * duration, *points)
        self._cell.gate.submit_plan(trajectory, now, now, now + duration + 1.0, 1, now)
