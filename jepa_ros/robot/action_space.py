"""Action spaces: what the numbers that a model predicts with mean for an arm, and the motion that they ask for.

Actions are in the model's axes: those of the base frame, or turned against them as `camera.rotation_to_base` of the
robot's file says. Motion (knots, paths, joints) is in the base frame, always; whoever makes one of the other asks the
action space, and nobody else turns anything. Limits, workspace and guardrails look at motion only.
"""

from __future__ import annotations

from typing import Protocol

import numpy as np
from scipy.interpolate import make_interp_spline

from jepa_ros.errors import InputError
from jepa_ros.robot.camera_rotation import about_vertical
from jepa_ros.robot.config import RobotConfig, planar_space
from jepa_ros.robot.kinematics import Kinematics
from jepa_ros.robot.planar_path import PlanarPath
from jepa_ros.robot.pose_delta import PoseDelta
from jepa_ros.robot.trajectory import JointTrajectory

SETTLE_SPEED = 0.3  # rad/s at which joints return to the posture that belongs to a tool position


class ActionSpace(Protocol):
    """Actions of A numbers a control tick of `period` s."""

    name: str
    dimension: int
    period: float

    def executed(self, q_start: np.ndarray, q_end: np.ndarray) -> np.ndarray:
        """The action (A,), in the model's axes, that a motion of the reference from q_start to q_end (J,) rad in one
        tick amounts to."""


def make_space(robot: RobotConfig, kinematics: Kinematics, period: float) -> ActionSpace:
    """The action space that the robot's configuration names, with a control period in s. Raises InputError."""
    kind = PoseDelta if robot.action_space.type == PoseDelta.name else PlanarVelocity
    return kind(robot, kinematics, period)


class PlanarVelocity:
    """Velocity (vx, vy) of the tool over max_speed; height and orientation are held.

    An action of a tick is the tool's displacement over that tick divided by max_speed * period, each number in [-1, 1],
    in the model's axes. A plan is given by the velocities at the ends of the ticks, its knots (PlanarPath), in the base
    frame. turn: (2, 2), from the model's axes to the base frame's; None where they are the same.
    """

    name = "planar_velocity"
    dimension = 2

    def __init__(self, robot: RobotConfig, kinematics: Kinematics, period: float = 0.1):
        """Raises InputError where the robot's action space is another one, or its workspace is not convex."""
        config = planar_space(robot)
        self.period = period
        self.max_speed = config.max_speed
        self.height = config.height
        # Largest change of a knot from one tick to the next.
        self.max_change = config.max_acceleration * period / self.max_speed
        self.workspace = np.array(config.workspace)
        self.normals, self.offsets = _half_planes(self.workspace)
        rotation = robot.camera.rotation_to_base
        self.turn = None if rotation is None else about_vertical(rotation)
        self.kinematics = kinematics
        self._names = tuple(robot.joints)
        self.posture = np.array([robot.home[j] for j in robot.joints])
        self._rotation = kinematics.forward(self.posture)[1]

    def executed(self, q_start: np.ndarray, q_end: np.ndarray) -> np.ndarray:
        """See ActionSpace."""
        moved = self.kinematics.forward(q_end)[0] - self.kinematics.forward(q_start)[0]
        return self.to_model(moved[:2] / (self.max_speed * self.period))

    def to_model(self, motion: np.ndarray) -> np.ndarray:
        """Motion (..., 2) over max_speed * period in the base frame → actions (..., 2)."""
        return motion if self.turn is None else motion @ self.turn

    def to_base(self, actions: np.ndarray) -> np.ndarray:
        """Actions (..., 2) → motion (..., 2) over max_speed * period in the base frame."""
        return actions if self.turn is None else actions @ self.turn.T

    def position(self, q: np.ndarray) -> np.ndarray:
        """Tool position (2,) in m in the base frame."""
        return self.kinematics.forward(q)[0][:2]

    def velocity(self, q: np.ndarray, qd: np.ndarray) -> np.ndarray:
        """Tool velocity (2,) over max_speed: the knot at which a plan that continues (q, qd) starts."""
        return (self.kinematics.jacobian(q)[:2] @ qd) / self.max_speed

    def inside(self, xy: np.ndarray) -> bool:
        """Whether the tool position xy (2,) m lies in the workspace."""
        return bool((self.normals @ np.asarray(xy) <= self.offsets).all())

    def joints_at(self, xy: np.ndarray, start: np.ndarray | None = None) -> np.ndarray:
        """Joint positions (J,) rad that hold the tool at xy (2,) m. Raises InputError where that is out of reach."""
        target = np.array([*xy, self.height])
        begin = self.posture if start is None else start
        q, error = self.kinematics.inverse(target, self._rotation, begin, self.posture, iterations=200)
        if error > 2e-3:
            raise InputError(f"position {np.round(xy, 3).tolist()} m: expected one in reach, missed by {error:.3f} m")
        return q

    def constrain(self, xy: np.ndarray, start: np.ndarray, knots: np.ndarray) -> np.ndarray:
        """The knots (..., n, 2) nearest to those asked for that keep speed, acceleration and workspace.

        xy (2,) m and start (2,) are position and knot where they begin. Of each knot only as much is let through as can
        still be braked before the workspace's border; outside of it only inward motion is. Leading axes are samples.
        """
        wanted = np.array(knots, dtype=float)
        wanted /= np.maximum(1.0, np.hypot(wanted[..., 0], wanted[..., 1]))[..., None]
        shape = wanted.shape[:-2] + (2,)
        p, u = (np.broadcast_to(x, shape).reshape(-1, 2) for x in (xy, start))
        ticks = np.moveaxis(wanted.reshape(-1, *wanted.shape[-2:]), 1, 0)
        for tick in ticks:
            change = self._braked(p, u, tick) - u
            scale = self.max_change / np.maximum(self.max_change, np.abs(change).max(1))
            after = u + change * scale[:, None]
            p = p + (0.5 * self.max_speed * self.period) * (u + after)
            tick[:] = u = after
        return wanted

    def to_trajectory(self, q: np.ndarray, qd: np.ndarray, qdd: np.ndarray, knots: np.ndarray) -> JointTrajectory:
        """Joint motion that continues (q, qd, qdd), follows velocity knots (n, 2) a tick each, and comes to rest.

        Points at the ticks' ends. Joints off the posture of their tool position return to it smoothly.
        """
        path = self.path(q, qd, knots)
        home = self._solve(path.start, q)
        offset = np.asarray(q) - home
        settle = max(0.4, float(np.abs(offset).max()) * 1.875 / SETTLE_SPEED)
        # The plan must last until the joints have settled.
        duration = max(path.duration, settle) if np.abs(offset).max() > 2e-3 else path.duration
        ticks = np.arange(round(np.ceil(duration / self.period - 1e-6)) + 1) * self.period
        positions = np.empty((len(ticks), len(q)))
        positions[0] = home
        for i, point in enumerate(path.sample(ticks[1:])[0], start=1):
            guess = positions[i - 1] if i == 1 else 2 * positions[i - 1] - positions[i - 2]
            positions[i] = self._solve(point, guess)
        positions += offset * _fade(ticks / settle)[:, None]
        positions[0] = q
        zero = np.zeros_like(positions[0])
        ends = ([(1, np.asarray(qd, float)), (2, np.asarray(qdd, float))], [(1, zero), (2, zero)])
        spline = make_interp_spline(ticks, positions, k=5, bc_type=ends)
        # Between two ticks' ends the spline is one quintic, which position, velocity and acceleration there define.
        positions, velocities, accelerations = (spline(ticks, order) for order in range(3))
        velocities[-1] = accelerations[-1] = 0.0
        return JointTrajectory(self._names, ticks, positions, velocities, accelerations)

    def path(self, q: np.ndarray, qd: np.ndarray, knots: np.ndarray) -> PlanarPath:
        """The tool's path for knots (n, 2) from joint state (q, qd), with the knots appended that bring it to rest."""
        u = self.velocity(q, qd)
        all_knots = np.vstack([u, np.asarray(knots, float).reshape(-1, 2)])
        return PlanarPath(self.position(q), self.with_stop(all_knots) * self.max_speed, self.period)

    def with_stop(self, knots: np.ndarray) -> np.ndarray:
        """knots (n, 2) with as many appended as come to rest without exceeding the acceleration; the last is zero."""
        last = knots[-1]
        ticks = max(1, int(np.ceil(float(np.abs(last).max()) / self.max_change - 1e-9)))
        return np.vstack([knots, last * np.linspace(1.0, 0.0, ticks + 1)[1:, None]])

    def _solve(self, xy: np.ndarray, start: np.ndarray) -> np.ndarray:
        target = np.array([*xy, self.height])
        return self.kinematics.inverse(target, self._rotation, start, self.posture, iterations=30)[0]

    def _braked(self, p: np.ndarray, u: np.ndarray, target: np.ndarray) -> np.ndarray:
        """Of a next knot (S, 2) that is wanted at p, moving with u, as much as can be braked before the border."""
        step, normals = self.max_speed * self.period, self.normals.T
        # Part of it is for braking: the rest may be needed to turn at the same time. With half of it, one wild plan in
        # some thousand still crept out of the workspace by more than a centimetre.
        c = 0.4 * self.max_change
        # This tick moves by (u + v) / 2; braking from v then takes v / c ticks and step * v (v / c + 1) / 2.
        room = (self.offsets - p @ normals) / step - 0.5 * np.maximum(0.0, u @ normals)
        allowed = c * (np.sqrt(1.0 + (2.0 / c) * np.maximum(room, 0.0)) - 1.0)
        beyond = np.flatnonzero((target @ normals - allowed).max(1) > 1e-12)
        if not len(beyond):
            return target
        target, few, allowed = target.copy(), target[beyond], allowed[beyond]
        # The worst border first; what that gives to its neighbour's normal goes next. In an acute corner a sixth is
        # left each time: a few rounds less, and pushing into it for long would creep out of the workspace.
        for _ in range(8):
            excess = few @ normals - allowed
            worst = excess.argmax(1)
            amount = np.maximum(0.0, excess[np.arange(len(few)), worst])
            if not (amount > 1e-12).any():
                break
            few = few - amount[:, None] * self.normals[worst]
        target[beyond] = few
        return target


def _half_planes(polygon: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Outward normals (E, 2) and offsets (E,) of a convex counter-clockwise polygon (E, 2): inside is n.x <= offset.

    Raises InputError where the polygon is not convex and counter-clockwise.
    """
    edges = np.roll(polygon, -1, axis=0) - polygon
    following = np.roll(edges, -1, axis=0)
    turns = edges[:, 0] * following[:, 1] - edges[:, 1] * following[:, 0]
    if (turns <= 0).any():
        raise InputError("workspace: expected a convex counter-clockwise polygon, found one that is not")
    normals = np.stack([edges[:, 1], -edges[:, 0]], axis=1)
    normals /= np.linalg.norm(normals, axis=1, keepdims=True)
    return normals, (normals * polygon).sum(axis=1)


def _fade(s: np.ndarray) -> np.ndarray:
    """1 at s = 0, 0 from s = 1 on, with zero first and second derivatives at both ends (minimum jerk)."""
    s = np.clip(s, 0.0, 1.0)
    return 1.0 - (10 * s**3 - 15 * s**4 + 6 * s**5)
