"""Motion of the tool by velocity knots, a tick each, with its orientation held as at home: what a search moves in.

D coordinates of the tool's position are moved along: 2 in a plane, 3 in space. Knots are velocities at the ends of the
ticks over max_speed (ToolPath), in the base frame; the workspace is convex, all x with normals @ x <= offsets.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.interpolate import make_interp_spline

from jepa_ros.errors import InputError
from jepa_ros.robot.config import RobotConfig
from jepa_ros.robot.motion.kinematics import Kinematics
from jepa_ros.robot.motion.tool_path import ToolPath
from jepa_ros.robot.motion.trajectory import JointTrajectory

LONGEST = 0.1  # s between the points of a joint path at which the tool is where it should be, exactly
SETTLE_SPEED = 0.3  # rad/s at which joints return to the posture that belongs to a tool position


class MotionSpace:
    """Base of the action spaces that can be searched.

    axes: D. max_speed: m/s of a knot of length 1. max_change: greatest change of a knot from one tick to the next.
    to_action: (D, A), from motion of a tick over max_speed * period to an action; to_motion: (A, D), the way back. Both
    None where an action is that motion. missing: what the robot's file lacks for a search.
    """

    axes: int
    normals: np.ndarray
    offsets: np.ndarray
    to_action: np.ndarray | None = None
    to_motion: np.ndarray | None = None
    missing: Sequence[str] = ()

    def __init__(
        self, robot: RobotConfig, kinematics: Kinematics, period: float, max_speed: float, max_acceleration: float
    ):
        self.period, self.max_speed, self.kinematics = period, max_speed, kinematics
        self.max_change = max_acceleration * period / max_speed
        self._names = tuple(robot.joints)
        self.posture = np.array([robot.home[j] for j in robot.joints])
        self._rotation = kinematics.forward(self.posture)[1]

    # -- places --------------------------------------------------------------------------------------------------------

    @property
    def corners(self) -> np.ndarray:
        """(E, 3) m, the workspace's; E = 0 where there is none."""
        raise NotImplementedError

    def to_xyz(self, points: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """x, y and z (...) in m in the base frame of points (..., D); z may be one number for all."""
        raise NotImplementedError

    def to_coordinates(self, position: np.ndarray) -> np.ndarray:
        """Coordinates (D,) of a tool position (3,) m. Raises InputError where the tool cannot be held there."""
        raise NotImplementedError

    def tool_positions(self, states: np.ndarray) -> np.ndarray:
        """Tool positions (M, 3) m in the base frame of proprioception (M, P), which begins with joint positions."""
        found = self.to_xyz(np.array([self.tool_coordinates(q) for q in states[:, : len(self._names)]]))
        return np.stack(np.broadcast_arrays(*found), axis=-1)

    def tool_coordinates(self, q: np.ndarray) -> np.ndarray:
        """Tool position (D,) in m in the base frame."""
        return self.kinematics.forward(q)[0][: self.axes]

    def tool_knot(self, q: np.ndarray, qd: np.ndarray) -> np.ndarray:
        """Tool velocity (D,) over max_speed: the knot at which a plan that continues (q, qd) starts."""
        return (self.kinematics.jacobian(q)[: self.axes] @ qd) / self.max_speed

    def is_inside(self, x: np.ndarray) -> bool:
        """Whether the tool position x (D,) m lies in the workspace."""
        return bool((self.normals @ np.asarray(x) <= self.offsets).all())

    def inverse_kinematics(self, x: np.ndarray, start: np.ndarray | None = None) -> np.ndarray:
        """Joint positions (J,) rad that hold the tool at x (D,) m. Raises InputError where that is out of reach."""
        begin = self.posture if start is None else start
        q, error = self.kinematics.inverse(self._target(x), self._rotation, begin, self.posture, iterations=200)
        if error > 2e-3:
            raise InputError(f"position {np.round(x, 3).tolist()} m: expected one in reach, missed by {error:.3f} m")
        return q

    # -- actions -------------------------------------------------------------------------------------------------------

    def to_model_axes(self, motion: np.ndarray) -> np.ndarray:
        """Motion (..., D) over max_speed * period in the base frame → actions (..., A)."""
        return motion if self.to_action is None else motion @ self.to_action

    def to_base_axes(self, actions: np.ndarray) -> np.ndarray:
        """Actions (..., A) → motion (..., D) over max_speed * period in the base frame."""
        return actions if self.to_motion is None else actions @ self.to_motion

    # -- motion --------------------------------------------------------------------------------------------------------

    def constrain(self, x: np.ndarray, start: np.ndarray, knots: np.ndarray) -> np.ndarray:
        """The knots (..., n, D) nearest to those asked for that keep speed, acceleration and workspace.

        x (D,) m and start (D,) are position and knot where they begin. Of each knot only as much is let through as can
        still be braked before the workspace's border; outside of it only inward motion is. Leading axes are samples.
        """
        wanted = np.array(knots, dtype=float)
        wanted /= np.maximum(1.0, _length(wanted))[..., None]
        shape = wanted.shape[:-2] + (self.axes,)
        p, u = (np.broadcast_to(value, shape).reshape(-1, self.axes) for value in (x, start))
        ticks = np.moveaxis(wanted.reshape(-1, *wanted.shape[-2:]), 1, 0)
        for tick in ticks:
            change = self._braked(p, u, tick) - u
            scale = self.max_change / np.maximum(self.max_change, np.abs(change).max(1))
            after = u + change * scale[:, None]
            p = p + (0.5 * self.max_speed * self.period) * (u + after)
            tick[:] = u = after
        return wanted

    def to_trajectory(self, q: np.ndarray, qd: np.ndarray, qdd: np.ndarray, knots: np.ndarray) -> JointTrajectory:
        """Joint motion that continues (q, qd, qdd), follows velocity knots (n, D) a tick each, and comes to rest.

        Points at the ticks' ends and, where ticks are long, between them. Joints off the posture of their tool position
        return to it smoothly.
        """
        path = self.make_path(q, qd, knots)
        home = self._solve(path.start, q)
        offset = np.asarray(q) - home
        settle = max(0.4, float(np.abs(offset).max()) * 1.875 / SETTLE_SPEED)
        # The plan must last until the joints have settled.
        duration = max(path.duration, settle) if np.abs(offset).max() > 2e-3 else path.duration
        step = self.period / np.ceil(self.period / LONGEST - 1e-6)
        times = np.arange(round(np.ceil(duration / step - 1e-6)) + 1) * step
        positions = np.empty((len(times), len(q)))
        positions[0] = home
        for i, point in enumerate(path.sample(times[1:])[0], start=1):
            guess = positions[i - 1] if i == 1 else 2 * positions[i - 1] - positions[i - 2]
            positions[i] = self._solve(point, guess)
        positions += offset * _fade(times / settle)[:, None]
        positions[0] = q
        zero = np.zeros_like(positions[0])
        ends = ([(1, np.asarray(qd, float)), (2, np.asarray(qdd, float))], [(1, zero), (2, zero)])
        spline = make_interp_spline(times, positions, k=5, bc_type=ends)
        # Between two points the spline is one quintic, which position, velocity and acceleration there define.
        positions, velocities, accelerations = (spline(times, order) for order in range(3))
        velocities[-1] = accelerations[-1] = 0.0
        return JointTrajectory(self._names, times, positions, velocities, accelerations)

    def make_path(self, q: np.ndarray, qd: np.ndarray, knots: np.ndarray) -> ToolPath:
        """The tool's path for knots (n, D) from joint state (q, qd), with the knots appended that bring it to rest."""
        u = self.tool_knot(q, qd)
        all_knots = np.vstack([u, np.asarray(knots, float).reshape(-1, self.axes)])
        return ToolPath(self.tool_coordinates(q), self.append_stop(all_knots) * self.max_speed, self.period)

    def append_stop(self, knots: np.ndarray) -> np.ndarray:
        """knots (n, D) with as many appended as come to rest without exceeding the acceleration; the last is zero."""
        last = knots[-1]
        ticks = max(1, int(np.ceil(float(np.abs(last).max()) / self.max_change - 1e-9)))
        return np.vstack([knots, last * np.linspace(1.0, 0.0, ticks + 1)[1:, None]])

    def _target(self, x: np.ndarray) -> np.ndarray:
        return np.array([float(value) for value in self.to_xyz(np.asarray(x, float))])

    def _solve(self, x: np.ndarray, start: np.ndarray) -> np.ndarray:
        return self.kinematics.inverse(self._target(x), self._rotation, start, self.posture, iterations=30)[0]

    def _braked(self, p: np.ndarray, u: np.ndarray, target: np.ndarray) -> np.ndarray:
        """Of a next knot (S, D) that is wanted at p, moving with u, as much as can be braked before the border."""
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


def _length(knots: np.ndarray) -> np.ndarray:
    return np.hypot(knots[..., 0], knots[..., 1]) if knots.shape[-1] == 2 else np.linalg.norm(knots, axis=-1)


def _fade(s: np.ndarray) -> np.ndarray:
    """1 at s = 0, 0 from s = 1 on, with zero first and second derivatives at both ends (minimum jerk)."""
    s = np.clip(s, 0.0, 1.0)
    return 1.0 - (10 * s**3 - 15 * s**4 + 6 * s**5)
