"""The reference committed to the gate: the joint and tool motion of the plans that were handed over."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from jepa_ros.robot.motion.tool_path import ToolPath
from jepa_ros.robot.motion.trajectory import JointTrajectory


@dataclass(frozen=True, eq=False)
class _Plan:
    start: float
    path: ToolPath
    trajectory: JointTrajectory


class CommittedReference:
    """Plans and their start times, s on the ROS clock. A later plan replaces the earlier ones from its start on.

    False while it is empty; its other members then raise IndexError. keep: s that replaced plans are kept.
    """

    def __init__(self, keep: float = 5.0):
        self._keep = keep
        self._plans: list[_Plan] = []

    def hold(self, start: float, q: np.ndarray, names: tuple[str, ...], x: np.ndarray) -> None:
        """Replace everything by rest at q (J,) rad from `start` on, with the tool at x (D,) m."""
        rest = JointTrajectory(names, np.array([0.0]), np.array([q]), np.zeros((1, len(q))), np.zeros((1, len(q))))
        self._plans = [_Plan(start, ToolPath(np.asarray(x), np.zeros((2, len(x))), 1.0), rest)]

    def add_plan(self, start: float, path: ToolPath, trajectory: JointTrajectory) -> None:
        """Add a plan that takes effect at `start`; plans that would start later are dropped."""
        self._plans = [p for p in self._plans if p.start < start]
        self._plans.append(_Plan(start, path, trajectory))
        while len(self._plans) > 1 and self._plans[1].start < start - self._keep:
            self._plans.pop(0)

    @property
    def end(self) -> float:
        """The time at which the last plan comes to rest."""
        last = self._plans[-1]
        return last.start + last.trajectory.duration

    def __bool__(self) -> bool:
        return bool(self._plans)

    def joints_at(self, t: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return position, velocity and acceleration (J,) of the reference at time t."""
        plan = self._plan_at(t)
        return plan.trajectory.sample(max(0.0, t - plan.start))

    def tool_at(self, times: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return position (M, D) m and velocity (M, D) m/s of the tool at times (M,)."""
        active = [self._plan_at(t) for t in times]
        position, velocity = np.empty((2, len(times), len(self._plans[0].path.start)))
        for plan in set(active):
            rows = [i for i, p in enumerate(active) if p is plan]
            position[rows], velocity[rows], _ = plan.path.sample(np.maximum(0.0, times[rows] - plan.start))
        return position, velocity

    def _plan_at(self, t: float) -> _Plan:
        return next((p for p in reversed(self._plans) if p.start <= t + 1e-9), self._plans[0])
