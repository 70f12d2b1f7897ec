"""Steering an arm in the plane from one control tick to the next: from the motion wanted to plans for the gate.

Nothing is searched for here: what is wanted is bounded by the action space and handed over as short plans that end at
rest, each from where the one before it will have brought the arm.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from scipy.spatial import ConvexHull, QhullError

from jepa_ros.errors import InputError
from jepa_ros.planning.committed_reference import CommittedReference
from jepa_ros.robot.config import RobotConfig, require_planar_space
from jepa_ros.robot.motion.action_space import PlanarVelocity
from jepa_ros.robot.motion.trajectory import JointTrajectory

LEAST_LEAD = 0.04  # s before a hand-over; a plan for one that is nearer is made for the next tick
DRIFT = 0.05  # rad between the promised rest and the measured joints beyond which the measured ones count
NEAR = 0.004  # m from a place at which the arm counts as being there
SMALLEST_BOX = 0.02  # m


def boxed(robot: RobotConfig, box: tuple[float, float, float, float] | None) -> RobotConfig:
    """The robot with its workspace cut down to the box (x from, x to, y from, y to; m in the base frame).

    Raises InputError where the robot's action space is not planar, or less than SMALLEST_BOX is left either way.
    """
    space = require_planar_space(robot)
    if box is None:
        return robot
    x0, x1, y0, y1 = box
    if not (all(map(math.isfinite, box)) and x0 < x1 and y0 < y1):
        raise InputError(f"box {box}: expected xmin < xmax and ymin < ymax, found others")
    polygon = np.array(space.workspace)
    for axis, limit, sign in ((0, x0, -1.0), (0, x1, 1.0), (1, y0, -1.0), (1, y1, 1.0)):
        polygon = _below(polygon, sign * polygon[:, axis] - sign * limit)
    if len(polygon) < 3 or np.ptp(polygon, axis=0).min() < SMALLEST_BOX:
        low, high = np.min(space.workspace, axis=0), np.max(space.workspace, axis=0)
        found = f"x {low[0]:g} to {high[0]:g}, y {low[1]:g} to {high[1]:g}"
        raise InputError(f"box {box}: expected one that overlaps the robot's workspace, which is within {found} m")
    try:
        corners = polygon[ConvexHull(polygon).vertices]  # counter-clockwise, without points on straight edges
    except QhullError:
        raise InputError(f"box {box}: expected one with room in the robot's workspace, found a line") from None
    cut = space.model_copy(update={"workspace": [tuple(map(float, corner)) for corner in corners]})
    return robot.model_copy(update={"action_space": cut})


def _below(polygon: np.ndarray, height: np.ndarray) -> np.ndarray:
    """The part of a convex polygon (E, 2) where a linear function with values height (E,) at its corners is <= 0."""
    kept = []
    for k in range(len(polygon)):
        here, there = height[k - 1], height[k]
        if (here > 0) != (there > 0):
            kept.append(polygon[k - 1] + (polygon[k] - polygon[k - 1]) * here / (here - there))
        if there <= 0:
            kept.append(polygon[k])
    return np.array(kept).reshape(-1, 2)


class Motion:
    """What is wanted of the arm. told: whether the last plan went to the end of it."""

    told = False

    def knots(self, start: float, elapsed: int, xy: np.ndarray, knot: np.ndarray, ticks: int) -> np.ndarray:
        """Velocity knots (n, 2), n <= ticks, over max_speed, from `start` s (ROS clock) on.

        elapsed: ticks since the start of the plan before; 0 for the first one. xy (2,) m and knot (2,): where and how
        fast the arm will be then.
        """
        raise NotImplementedError

    def interrupt(self, skip: int = 0) -> None:
        """The last plan is not followed to its end. skip: ticks of it that are not tried again."""


class Approach(Motion):
    """To a place xy (2,) m on a straight line, and to rest there."""

    def __init__(self, space: PlanarVelocity, xy: np.ndarray):
        self._space, self._target = space, np.asarray(xy, float)

    def knots(self, start: float, elapsed: int, xy: np.ndarray, knot: np.ndarray, ticks: int) -> np.ndarray:
        """See Motion."""
        space, found = self._space, []
        step, braking = space.max_speed * space.period, 0.5 * space.max_change
        p, u = np.asarray(xy, float), np.asarray(knot, float)
        for _ in range(ticks):
            way = self._target - p - 0.5 * step * u
            length = max(float(np.hypot(*way)), 1e-9)
            # As much as can be braked before the place: braking from v takes step * v (v / braking + 1) / 2.
            fast = braking * (math.sqrt(1.0 + 2.0 * length / (braking * step)) - 1.0)
            after = space.constrain(p, u, (way / length * min(1.0, fast))[None])[0]
            p, u = p + 0.5 * step * (u + after), after
            found.append(after)
        return np.array(found)

    def there(self, xy: np.ndarray) -> bool:
        """Whether xy (2,) m is the place."""
        return bool(np.hypot(*(xy - self._target)) <= NEAR)


class Script(Motion):
    """Knots (n, 2) known from the beginning, one a tick. Ticks in which the arm was held up are not lost."""

    def __init__(self, knots: np.ndarray):
        self._knots, self._index, self._sent = knots, 0, 0

    def knots(self, start: float, elapsed: int, xy: np.ndarray, knot: np.ndarray, ticks: int) -> np.ndarray:
        """See Motion."""
        self._index += elapsed
        self._sent = self._index + ticks
        return self._knots[self._index : self._sent]

    @property
    def told(self) -> bool:
        return self._sent >= len(self._knots)

    def interrupt(self, skip: int = 0) -> None:
        """See Motion: it goes on where the last plan began, or `skip` ticks later."""
        self._index = min(self._index + skip, len(self._knots))
        self._sent = self._index


@dataclass(frozen=True)
class DrivenPlan:
    """A plan to hand over. start, stamp, valid_until: s on the ROS clock, stamp is when it was made. actions: (n, 2)
    what the gate will have executed in each tick."""

    plan_id: int
    trajectory: JointTrajectory
    start: float
    stamp: float
    valid_until: float
    actions: np.ndarray


class Driver:
    """Makes the plans. every: ticks from one to the next; ticks: that each goes on for before it brakes; lead: s from
    making it to its hand-over."""

    def __init__(self, space: PlanarVelocity, every: int = 2, ticks: int = 8, lead: float = 0.1):
        self.space = space
        self.plan_id = 0
        self.every = every
        self._ticks, self._lead = ticks, lead
        self._promises = CommittedReference()
        self._last: float | None = None  # start of the last plan of the motion under way

    def begin(self) -> None:
        """Another motion begins, from where the arm is or will be."""
        self._last = None

    def forget(self) -> None:
        """What was handed over is not followed: begin from the measured joints."""
        self._promises, self._last = CommittedReference(), None

    def due(self, now: float) -> float | None:
        """When the next plan takes effect, if now is the time to make it (s on the ROS clock)."""
        tick, earliest = self.space.period, self._on_grid(now + LEAST_LEAD)
        if self._last is None:
            return self._on_grid(now + self._lead)
        start = self._last + self.every * tick
        return max(start, earliest) if now >= start - self._lead else None

    def plan(self, now: float, start: float, motion: Motion, measured: np.ndarray, speed: float = 1.0) -> DrivenPlan:
        """A plan of `motion` from `start` on. measured: (J,) rad. speed: share of max_speed that is allowed."""
        self._anchor(now, measured)
        elapsed = 0 if self._last is None else round((start - self._last) / self.space.period)
        self._last = start
        xy, velocity = self._promises.tool_at(np.array([start]))
        knot = velocity[0] / self.space.max_speed
        wanted = np.asarray(motion.knots(start, elapsed, xy[0], knot, self._ticks), float).reshape(-1, 2)
        wanted = wanted * np.minimum(1.0, speed / np.maximum(1e-9, np.hypot(*wanted.T)))[:, None]
        if not len(wanted):
            wanted = np.zeros((1, 2))
        return self._hand_over(now, start, self.space.constrain(xy[0], knot, wanted))

    def stop(self, now: float) -> DrivenPlan | None:
        """A plan that brings the arm to rest as soon as possible; None where it is, or nothing was handed over."""
        self._last = None
        if self.at_rest(now):
            return None
        start = self._on_grid(now + LEAST_LEAD)
        xy, velocity = self._promises.tool_at(np.array([start]))
        knots = self.space.constrain(xy[0], velocity[0] / self.space.max_speed, np.zeros((1, 2)))
        return self._hand_over(now, start, knots)

    def at_rest(self, now: float) -> bool:
        """Whether what was handed over has come to its end."""
        return not self._promises or now >= self._promises.end

    def tool(self, now: float, measured: np.ndarray) -> np.ndarray:
        """(2,) m, where the tool is meant to be; where nothing was handed over, where it is at joints (J,) rad."""
        return (
            self._promises.tool_at(np.array([now]))[0][0] if self._promises else self.space.tool_coordinates(measured)
        )

    def _hand_over(self, now: float, start: float, knots: np.ndarray) -> DrivenPlan:
        space, (q, qd, qdd) = self.space, self._promises.joints_at(start)
        trajectory, path = space.to_trajectory(q, qd, qdd, knots), space.make_path(q, qd, knots)
        self._promises.add_plan(start, path, trajectory)
        self.plan_id += 1
        ends = path.sample(np.arange(len(path.knots)) * space.period)[0]
        actions = space.to_model_axes(np.diff(ends, axis=0) / (space.max_speed * space.period))
        until = start + trajectory.duration + space.period
        return DrivenPlan(self.plan_id, trajectory, start, now, until, actions)

    def _anchor(self, now: float, measured: np.ndarray) -> None:
        """Where nothing is promised, or the arm rests elsewhere than promised, begin from what is measured."""
        if self._promises and (
            now < self._promises.end or np.abs(self._promises.joints_at(now)[0] - measured).max() < DRIFT
        ):
            return
        names = self.space.kinematics.joints
        self._promises.hold(now - 10.0, np.array(measured), names, self.space.tool_coordinates(measured))

    def _on_grid(self, t: float) -> float:
        return math.ceil(t / self.space.period - 1e-6) * self.space.period
