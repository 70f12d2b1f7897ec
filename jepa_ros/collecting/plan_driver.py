"""Planning without search: short plans that end at rest, made tick after tick from a wanted motion of the tool.

A motion (random play, teleoperation, the way to the reset pose) gives velocity knots. The action space limits them;
they are published as plans, each of which continues the one before it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.spatial import ConvexHull, QhullError

from jepa_ros.errors import InputError
from jepa_ros.planning.committed_reference import CommittedReference
from jepa_ros.robot.config import PlanarVelocityConfig, RobotConfig, ToolVelocityConfig, require_velocity_space
from jepa_ros.robot.motion.angles import difference
from jepa_ros.robot.motion.trajectory import JointTrajectory
from jepa_ros.robot.motion.velocity_space import VelocitySpace

MIN_LEAD_S = 0.04  # shortest time from making a plan to its start; otherwise it starts a tick later
MAX_DRIFT_RAD = 0.05  # beyond this distance from the committed rest position, plans start at the measured joints
ARRIVAL_DISTANCE_M = 0.004
MIN_BOX_M = 0.02
START_SPREAD = 0.5
"""Episodes of random play start this share of the way from the reset pose to a random place of the workspace."""


# -- where the arm may move and where episodes start -------------------------------------------------------------------
TELEOP_PLANS = {"every": 1, "ticks": 4, "lead": 0.06}
"""Settings of a PlanDriver for commands: plans often, and shortly before they take effect."""
COMMAND_TIMEOUT_S = 0.2
MAX_STAMP_AHEAD_S = 0.1


def restrict_workspace(robot: RobotConfig, box: tuple[float, ...] | None) -> RobotConfig:
    """Return the robot with its workspace restricted to a box (xmin, xmax, ymin, ymax; m in the base frame). For a tool
    that moves in space, the box may also have zmin, zmax.

    Raises InputError where the robot has no velocity space, or less than MIN_BOX_M is left along an axis.
    """
    space = require_velocity_space(robot)
    if box is None:
        return robot
    restricted = _restrict_polygon(space, box) if space.type == "planar_velocity" else _restrict_box(space, box)
    return robot.model_copy(update={"action_space": restricted})


def _restrict_box(space: ToolVelocityConfig, box: tuple[float, ...]) -> ToolVelocityConfig:
    if len(box) not in (4, 6):
        raise InputError(f"--box {box}: expected xmin,xmax,ymin,ymax or xmin,xmax,ymin,ymax,zmin,zmax")
    ends = np.array([*box, -math.inf, math.inf][:6]).reshape(3, 2)
    low, high = (np.array(corner) for corner in space.workspace)
    if np.isnan(ends).any() or (ends[:, 0] >= ends[:, 1]).any():
        raise InputError(f"--box {box}: expected xmin < xmax, ymin < ymax and zmin < zmax")
    low, high = np.maximum(low, ends[:, 0]), np.minimum(high, ends[:, 1])
    if (high - low).min() < MIN_BOX_M:
        limits = _describe_limits(np.array(space.workspace))
        raise InputError(f"--box {box}: overlaps too little with the robot's workspace, which is within {limits} m")
    return space.model_copy(update={"workspace": (tuple(map(float, low)), tuple(map(float, high)))})


def _restrict_polygon(space: PlanarVelocityConfig, box: tuple[float, ...]) -> PlanarVelocityConfig:
    if len(box) != 4:
        raise InputError(f"--box {box}: expected xmin,xmax,ymin,ymax, as the tool moves in a plane")
    x0, x1, y0, y1 = box
    if not (all(map(math.isfinite, box)) and x0 < x1 and y0 < y1):
        raise InputError(f"--box {box}: expected xmin < xmax and ymin < ymax")
    polygon = np.array(space.workspace)
    for axis, limit, sign in ((0, x0, -1.0), (0, x1, 1.0), (1, y0, -1.0), (1, y1, 1.0)):
        polygon = _clip(polygon, sign * polygon[:, axis] - sign * limit)
    if len(polygon) < 3 or np.ptp(polygon, axis=0).min() < MIN_BOX_M:
        limits = _describe_limits(np.array(space.workspace))
        raise InputError(f"--box {box}: overlaps too little with the robot's workspace, which is within {limits} m")
    try:
        corners = polygon[ConvexHull(polygon).vertices]  # counter-clockwise, without points on straight edges
    except QhullError:
        raise InputError(f"--box {box}: does not overlap the robot's workspace (zero area)") from None
    return space.model_copy(update={"workspace": [tuple(map(float, corner)) for corner in corners]})


def _clip(polygon: np.ndarray, height: np.ndarray) -> np.ndarray:
    """Return the part of a convex polygon (E, 2) where a linear function, `height` (E,) at its corners, is <= 0."""
    kept = []
    for k in range(len(polygon)):
        previous, current = height[k - 1], height[k]
        if (previous > 0) != (current > 0):
            kept.append(polygon[k - 1] + (polygon[k] - polygon[k - 1]) * previous / (previous - current))
        if current <= 0:
            kept.append(polygon[k])
    return np.array(kept).reshape(-1, 2)


def _describe_limits(workspace: np.ndarray) -> str:
    ends = zip("xyz", workspace.min(0), workspace.max(0), strict=False)
    return ", ".join(f"{axis} {low:g} to {high:g}" for axis, low, high in ends)


def choose_reset_position(space: VelocitySpace, given: tuple[float, ...] | None) -> np.ndarray:
    """Return the tool's coordinates (D,) m where episodes start; None for the centre. given: its position. Raises
    InputError outside."""
    if given is None:
        return space.centre
    count = space.position_axes
    if len(given) != count:
        raise InputError(f"--reset {given}: expected {count} numbers, {','.join('xyz'[:count])}")
    place = np.append(given, space.centre[count:])
    if not (np.isfinite(given).all() and space.is_inside(place)):
        raise InputError(f"--reset {given}: expected a place inside the workspace or box ({space.describe_limits()} m)")
    return place


def sample_play_episode(
    space: VelocitySpace, reset: np.ndarray, ticks: int, seed: int, number: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return the start (D,) m of an episode of random play, and its velocity knots (ticks, D), over max_speed.

    The start is near `reset`. Both depend on seed and episode number only.
    """
    rng = np.random.default_rng([seed, number])
    place = space.sample(rng)
    return reset + START_SPREAD * (place - reset), space.sample_play(ticks, rng)


# -- motions -----------------------------------------------------------------------------------------------------------


class Motion:
    """A wanted motion of the arm. fully_planned: the last plan reaches the end of the motion."""

    fully_planned = False

    def knots(self, start: float, elapsed: int, x: np.ndarray, knot: np.ndarray, ticks: int) -> np.ndarray:
        """Return velocity knots (n, D), n <= ticks, over max_speed, from `start` s (ROS clock) on.

        elapsed: ticks since the start of the previous plan; 0 for the first one. x (D,) m, knot (D,): coordinates and
        velocity of the tool at `start`.
        """
        raise NotImplementedError

    def interrupt(self, skip: int = 0) -> None:
        """Tell the motion that its last plan is not followed to the end. skip: ticks of it that are not repeated."""


class Approach(Motion):
    """A straight line to coordinates (D,) m, and rest there."""

    def __init__(self, space: VelocitySpace, target: np.ndarray):
        self._space, self._target = space, np.asarray(target, float)

    def knots(self, start: float, elapsed: int, x: np.ndarray, knot: np.ndarray, ticks: int) -> np.ndarray:
        space, found = self._space, []
        step, braking = space.max_speed * space.period, 0.5 * space.max_change
        p, u = np.asarray(x, float), np.asarray(knot, float)
        for _ in range(ticks):
            way = self._target - p - 0.5 * step * u
            length = max(float(np.linalg.norm(way)), 1e-9)
            # The arm must be able to brake before the place: braking from v takes step * v (v / braking + 1) / 2.
            fast = braking * (math.sqrt(1.0 + 2.0 * length / (braking * step)) - 1.0)
            after = space.constrain(p, u, (way / length * min(1.0, fast))[None])[0]
            p, u = p + 0.5 * step * (u + after), after
            found.append(after)
        return np.array(found)

    def arrived(self, x: np.ndarray) -> bool:
        """Check whether coordinates x (D,) m are the target."""
        return bool(np.linalg.norm(x - self._target) <= ARRIVAL_DISTANCE_M)


class ScriptedMotion(Motion):
    """A fixed list of knots (n, D), one per tick. Ticks that the arm did not execute are repeated."""

    def __init__(self, knots: np.ndarray):
        self._knots, self._index, self._sent = knots, 0, 0

    def knots(self, start: float, elapsed: int, x: np.ndarray, knot: np.ndarray, ticks: int) -> np.ndarray:
        self._index += elapsed
        self._sent = self._index + ticks
        return self._knots[self._index : self._sent]

    @property
    def fully_planned(self) -> bool:
        return self._sent >= len(self._knots)

    def interrupt(self, skip: int = 0) -> None:
        """Resume where the last plan started, or `skip` ticks later."""
        self._index = min(self._index + skip, len(self._knots))
        self._sent = self._index


# -- plans -------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class DrivenPlan:
    """A plan for the gate. start, stamp, valid_until: s on the ROS clock; stamp: when it was made. actions: (n, A), the
    executed action of each tick if the gate follows the plan."""

    plan_id: int
    trajectory: JointTrajectory
    start: float
    stamp: float
    valid_until: float
    actions: np.ndarray


class PlanDriver:
    """Makes plans. every: ticks between the starts of two plans. ticks: length of a plan's motion before it brakes.
    lead: s from making a plan to its start."""

    def __init__(self, space: VelocitySpace, every: int = 2, ticks: int = 8, lead: float = 0.1):
        self.space = space
        self.plan_id = 0
        self.every = every
        self._ticks, self._lead = ticks, lead
        self._committed = CommittedReference()
        self._last_start: float | None = None  # of the last plan of the present motion

    def begin_motion(self) -> None:
        """Start another motion, from where the arm is or will be."""
        self._last_start = None

    def forget_plans(self) -> None:
        """Discard all plans, because the arm does not follow them: the next one starts at the measured joints."""
        self._committed, self._last_start = CommittedReference(), None

    def next_start(self, now: float) -> float | None:
        """Return the start of the next plan, s on the ROS clock; None if it is too early to make it."""
        earliest = self._on_grid(now + MIN_LEAD_S)
        if self._last_start is None:
            return self._on_grid(now + self._lead)
        start = self._last_start + self.every * self.space.period
        return max(start, earliest) if now >= start - self._lead else None

    def make_plan(
        self, now: float, start: float, motion: Motion, measured: np.ndarray, speed: float = 1.0
    ) -> DrivenPlan:
        """Plan `motion` from `start` on. measured: (J,) rad. speed: largest share of max_speed."""
        self._anchor(now, measured)
        elapsed = 0 if self._last_start is None else round((start - self._last_start) / self.space.period)
        self._last_start = start
        x, knot = self._tool_state(start)
        axes = self.space.axes
        wanted = np.asarray(motion.knots(start, elapsed, x, knot, self._ticks), float).reshape(-1, axes)
        wanted = wanted * np.minimum(1.0, speed / np.maximum(1e-9, self.space.speed_shares(wanted)))
        if not len(wanted):
            wanted = np.zeros((1, axes))
        return self._commit(now, start, self.space.constrain(x, knot, wanted))

    def make_stop(self, now: float) -> DrivenPlan | None:
        """Return a plan that stops the arm as soon as possible; None if it is at rest or follows no plan."""
        self._last_start = None
        if self.at_rest(now):
            return None
        start = self._on_grid(now + MIN_LEAD_S)
        return self._commit(now, start, self.space.constrain(*self._tool_state(start), np.zeros((1, self.space.axes))))

    def at_rest(self, now: float) -> bool:
        """Check whether all plans so far have ended."""
        return not self._committed or now >= self._committed.end

    def tool(self, now: float, measured: np.ndarray) -> np.ndarray:
        """Return the tool's coordinates (D,) m by the committed plans; without any, that of the joints (J,) rad."""
        return self._tool_state(now)[0] if self._committed else self.space.tool_coordinates(measured)

    def _tool_state(self, t: float) -> tuple[np.ndarray, np.ndarray]:
        """Return the committed coordinates (D,) m and velocity (D,), over max_speed, of the tool at time t."""
        x, velocity = self._committed.tool_at(np.array([t]))
        return x[0], velocity[0] / self.space.max_speed

    def _commit(self, now: float, start: float, knots: np.ndarray) -> DrivenPlan:
        space, (q, qd, qdd) = self.space, self._committed.joints_at(start)
        trajectory, path = space.to_trajectory(q, qd, qdd, knots), space.make_path(q, qd, knots)
        self._committed.add_plan(start, path, trajectory)
        self.plan_id += 1
        ends = path.sample(np.arange(len(path.knots)) * space.period)[0]
        actions = space.to_model_axes(np.diff(ends, axis=0) / (space.max_speed * space.period))
        until = start + trajectory.duration + space.period
        return DrivenPlan(self.plan_id, trajectory, start, now, until, actions)

    def _anchor(self, now: float, measured: np.ndarray) -> None:
        """Start at the measured joints if no plan is committed, or the arm rests away from the committed position."""
        kinematics = self.space.kinematics
        if self._committed:
            away = difference(self._committed.joints_at(now)[0], measured, kinematics.continuous)
            if now < self._committed.end or np.abs(away).max() < MAX_DRIFT_RAD:
                return
        names = kinematics.joints
        self._committed.hold(now - 10.0, np.array(measured), names, self.space.tool_coordinates(measured))

    def _on_grid(self, t: float) -> float:
        return math.ceil(t / self.space.period - 1e-6) * self.space.period


class TeleopMotion(Motion):
    """The newest command until its timeout, then rest.

    A command whose stamp is too old or too far ahead is dropped, so that neither a wrong clock nor a delayed message
    moves the arm. The action space limits and smooths velocities. problem: why the newest command was dropped.
    """

    def __init__(self, space: VelocitySpace):
        self._space = space
        self._velocity, self._until = np.zeros(space.axes), -math.inf
        self.problem = ""

    def command(self, velocity: Sequence[float], stamp: float, now: float) -> None:
        """Take a velocity (D,) of the tool in the base frame, over full speed. stamp: s, 0 for unknown. now: s."""
        self.problem = ""
        count = self._space.axes
        if len(velocity) != count or not all(map(math.isfinite, velocity)):
            self.problem = f"expected {count} finite velocities, found {list(velocity)}"
        elif stamp > 0 and now - stamp > COMMAND_TIMEOUT_S:
            self.problem = f"expected a recent command, found a stamp {now - stamp:.2f} s old"
        elif stamp > 0 and stamp - now > MAX_STAMP_AHEAD_S:
            self.problem = f"expected a recent command, found a stamp {stamp - now:.2f} s ahead"
        else:
            sent = min(stamp, now) if stamp > 0 else now
            self._velocity, self._until = np.asarray(velocity, float), sent + COMMAND_TIMEOUT_S

    def knots(self, start: float, elapsed: int, x: np.ndarray, knot: np.ndarray, ticks: int) -> np.ndarray:
        """Return the command in the ticks whose middle is before its timeout, then zeros: the plan itself brakes."""
        middles = start + self._space.period * (np.arange(ticks) + 0.5)
        return np.where(middles[:, None] <= self._until, self._velocity, 0.0)


class GamePad:
    """Interprets sensor_msgs/Joy. axes: of each coordinate: x, y, then z and yaw where the tool has them. hold: the
    dead-man button. end: the button that ends an episode."""

    def __init__(self, axes: Sequence[int], hold: int, end: int):
        self._axes, self._hold, self._end = axes, hold, end
        self._end_pressed = True  # a button that is down from the start is not a press

    def velocity(self, axes: Sequence[float], buttons: Sequence[int]) -> tuple[float, ...]:
        """Return (x, y, ...) over full speed; zero where the dead-man button is not held, fewer values where an axis is
        missing."""
        if not self._is_pressed(buttons, self._hold):
            return (0.0,) * len(self._axes)
        return tuple(axes[k] for k in self._axes if k < len(axes))

    def end_was_pressed(self, buttons: Sequence[int]) -> bool:
        """Check whether the end button was pressed with this message."""
        before, self._end_pressed = self._end_pressed, self._is_pressed(buttons, self._end)
        return self._end_pressed and not before

    @staticmethod
    def _is_pressed(buttons: Sequence[int], k: int) -> bool:
        return k < len(buttons) and buttons[k] == 1
