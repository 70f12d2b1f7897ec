"""Motion space: the motion of the tool that a planner searches, by one velocity knot per control tick.

The tool moves along D coordinates: of its position (2 in a plane, 3 in space), and of its orientation where the space
has some; otherwise it keeps the orientation that it has at home. Knots are velocities at the ends of ticks divided by
max_speed (see ToolPath), in the base frame. The workspace is convex: all positions x with normals @ x <= offsets.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.interpolate import make_interp_spline

from jepa_ros.errors import InputError
from jepa_ros.robot.config import RobotConfig
from jepa_ros.robot.motion.angles import nearest_turn
from jepa_ros.robot.motion.kinematics import Kinematics
from jepa_ros.robot.motion.tool_path import ToolPath
from jepa_ros.robot.motion.trajectory import JointTrajectory

MAX_POINT_SPACING = 0.1  # s between the points of a joint trajectory; at these the tool position is exact
SETTLE_SPEED = 0.3  # rad/s at which joints return to the posture of their tool position
POSTURE_WEIGHT = 0.05  # of the home posture beside the orientation, in inverse kinematics


class MotionSpace:
    """Base of the action spaces, whose motion a planner can search.

    name: as in the robot's file. dimension: A, numbers of an action. axes: D. period: s, of a tick. max_speed: m/s of a
    knot of length 1. max_change: largest change of a knot from one tick to the next. to_action: (D, A), from the motion
    of a tick divided by max_speed * period to an action; to_motion: (A, D), its inverse. Both None where an action is
    that motion. normals (E, position_axes), offsets (E,) m: of the workspace. missing: keys of the robot's file that a
    search needs and that are not set. may_stretch: the workspace is not made to exclude postures near a singularity, in
    which joints are fast.
    """

    name: str
    dimension: int
    axes: int
    normals: np.ndarray
    offsets: np.ndarray
    to_action: np.ndarray | None = None
    to_motion: np.ndarray | None = None
    missing: Sequence[str] = ()
    may_stretch = False
    posture_weight = POSTURE_WEIGHT

    def __init__(
        self, robot: RobotConfig, kinematics: Kinematics, period: float, max_speed: float, max_acceleration: float
    ):
        self.period, self.max_speed, self.kinematics = period, max_speed, kinematics
        self.max_change = max_acceleration * period / max_speed
        self._names = tuple(robot.joints)
        self.posture = np.array([robot.home[j] for j in robot.joints])
        self._rotation = kinematics.forward(self.posture)[1]

    @property
    def position_axes(self) -> int:
        """How many of the coordinates are the tool's position."""
        return min(self.axes, 3)

    @property
    def walls(self) -> tuple[np.ndarray, np.ndarray]:
        """Normals (F, D) and offsets (F,) m of all limits of the coordinates: the workspace's, and those of the
        orientation where the tool turns."""
        return self.normals, self.offsets

    # -- positions -----------------------------------------------------------------------------------------------------

    @property
    def corners(self) -> np.ndarray:
        """(E, 3) m, corners of the workspace; E = 0 without one."""
        raise NotImplementedError

    @property
    def corner_poses(self) -> list[tuple[np.ndarray, np.ndarray]]:
        """Position (3,) m and rotation (3, 3) of the tool at every corner of the workspace, with every orientation at
        the limits of its own."""
        return [(corner, self._rotation) for corner in self.corners]

    def to_xyz(self, points: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray | float]:
        """Return x, y and z (...) in m in the base frame of points (..., D); z may be one number for all."""
        raise NotImplementedError

    def to_coordinates(self, position: np.ndarray) -> np.ndarray:
        """Return the coordinates (position_axes,) of a tool position (3,) m. Raises InputError where the space excludes
        it."""
        raise NotImplementedError

    def pose(self, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return position (3,) m and rotation (3, 3) of the tool in the base frame at coordinates x (D,)."""
        return np.array([float(value) for value in self.to_xyz(np.asarray(x, float))]), self._rotation

    def tool_positions(self, states: np.ndarray) -> np.ndarray:
        """Return tool positions (M, 3) m in the base frame of proprioception (M, P): joint positions come first."""
        found = self.to_xyz(np.array([self.tool_coordinates(q) for q in states[:, : len(self._names)]]))
        return np.stack(np.broadcast_arrays(*found), axis=-1)

    def tool_coordinates(self, q: np.ndarray) -> np.ndarray:
        """Return the coordinates (D,) of the tool in m in the base frame."""
        return self.kinematics.forward(q)[0][: self.axes]

    def tool_knot(self, q: np.ndarray, qd: np.ndarray) -> np.ndarray:
        """Return the tool velocity (D,) divided by max_speed: the first knot of a plan that continues (q, qd)."""
        return (self.kinematics.jacobian(q)[: self.axes] @ qd) / self.max_speed

    def is_inside(self, x: np.ndarray) -> bool:
        """True where the coordinates x (D,) lie within all limits, or a position x (position_axes,) m in the
        workspace."""
        normals, offsets = self.walls if len(x) == self.axes else (self.normals, self.offsets)
        return bool((normals @ np.asarray(x) <= offsets).all())

    def inverse_kinematics(self, x: np.ndarray, start: np.ndarray | None = None) -> np.ndarray:
        """Return joint positions (J,) rad with the tool at x (D,), continuous joints on the turn nearest to `start`.

        start: (J,) rad, default: the home posture. Raises InputError where x is out of reach.
        """
        begin = self.posture if start is None else start
        q, error = self._solve(x, begin, self.posture, iterations=200, same_turn=False)
        if error > 2e-3:
            raise InputError(f"position {np.round(x, 3).tolist()} m: out of reach by {error:.3f} m")
        return q

    # -- actions -------------------------------------------------------------------------------------------------------

    def executed(self, q_start: np.ndarray, q_end: np.ndarray) -> np.ndarray:
        """Return the action (A,), in the model's axes, of a motion from q_start to q_end (J,) rad in one tick."""
        raise NotImplementedError

    def to_model_axes(self, motion: np.ndarray) -> np.ndarray:
        """Convert motion (..., D) over max_speed * period in the base frame to actions (..., A)."""
        return motion if self.to_action is None else motion @ self.to_action

    def to_base_axes(self, actions: np.ndarray) -> np.ndarray:
        """Convert actions (..., A) to motion (..., D) over max_speed * period in the base frame."""
        return actions if self.to_motion is None else actions @ self.to_motion

    # -- motion --------------------------------------------------------------------------------------------------------

    def constrain(self, x: np.ndarray, start: np.ndarray, knots: np.ndarray) -> np.ndarray:
        """Return the knots (..., n, D) closest to the given ones that keep speed, acceleration and workspace.

        x (D,) m and start (D,) are position and knot at the beginning. Each knot is reduced to what can still be braked
        before the workspace limit; outside the workspace only inward motion remains. Leading axes are samples.
        """
        wanted = np.array(knots, dtype=float)
        wanted /= np.maximum(1.0, self.speed_shares(wanted))
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

    def speed_shares(self, knots: np.ndarray) -> np.ndarray:
        """Return the shares of full speed that knots (..., D) have, broadcastable to them: at most 1 is allowed."""
        return _length(knots)[..., None]

    def to_trajectory(self, q: np.ndarray, qd: np.ndarray, qdd: np.ndarray, knots: np.ndarray) -> JointTrajectory:
        """Return joint motion that continues (q, qd, qdd), follows velocity knots (n, D) and comes to rest.

        It has points at the ends of ticks and, in long ticks, between them. Joints that deviate from the posture of
        their tool position return to it smoothly, continuous joints the short way. It starts exactly at q.
        """
        path = self.make_path(q, qd, knots)
        posture = nearest_turn(self.posture, q, self.kinematics.continuous)
        home = self._solve(path.start, q, posture)[0]
        offset = np.asarray(q) - home
        settle = max(0.4, float(np.abs(offset).max()) * 1.875 / SETTLE_SPEED)
        # The plan must last until the joints have settled.
        duration = max(path.duration, settle) if np.abs(offset).max() > 2e-3 else path.duration
        step = self.period / np.ceil(self.period / MAX_POINT_SPACING - 1e-6)
        times = np.arange(round(np.ceil(duration / step - 1e-6)) + 1) * step
        positions = np.empty((len(times), len(q)))
        positions[0] = home
        for i, point in enumerate(path.sample(times[1:])[0], start=1):
            guess = positions[i - 1] if i == 1 else 2 * positions[i - 1] - positions[i - 2]
            positions[i] = self._solve(point, guess, posture)[0]
        positions += offset * _fade(times / settle)[:, None]
        positions[0] = q
        zero = np.zeros_like(positions[0])
        ends = ([(1, np.asarray(qd, float)), (2, np.asarray(qdd, float))], [(1, zero), (2, zero)])
        spline = make_interp_spline(times, positions, k=5, bc_type=ends)
        # Between two points the spline is the quintic that position, velocity and acceleration there define.
        positions, velocities, accelerations = (spline(times, order) for order in range(3))
        positions[0] = q  # exactly, without the spline's rounding
        velocities[-1] = accelerations[-1] = 0.0
        return JointTrajectory(self._names, times, positions, velocities, accelerations)

    def make_path(self, q: np.ndarray, qd: np.ndarray, knots: np.ndarray) -> ToolPath:
        """Return the tool path for knots (n, D) from joint state (q, qd), with knots appended that bring it to rest."""
        u = self.tool_knot(q, qd)
        all_knots = np.vstack([u, np.asarray(knots, float).reshape(-1, self.axes)])
        return ToolPath(self.tool_coordinates(q), self.append_stop(all_knots) * self.max_speed, self.period)

    def append_stop(self, knots: np.ndarray) -> np.ndarray:
        """Append to knots (n, D) as many as come to rest without exceeding the acceleration; the last is zero."""
        last = knots[-1]
        ticks = max(1, int(np.ceil(float(np.abs(last).max()) / self.max_change - 1e-9)))
        return np.vstack([knots, last * np.linspace(1.0, 0.0, ticks + 1)[1:, None]])

    def _solve(
        self, x: np.ndarray, start: np.ndarray, posture: np.ndarray, iterations: int = 30, same_turn: bool = True
    ) -> tuple[np.ndarray, float]:
        """Return joint positions (J,) rad for coordinates x (D,), and the remaining position error in m.

        same_turn: continuous joints are drawn to `posture` as it is. If its turn changed on the way, they would jump.
        """
        return self.kinematics.inverse(
            *self.pose(x),
            start,
            posture,
            iterations=iterations,
            posture_weight=self.posture_weight,
            same_turn=same_turn,
        )

    def _braked(self, p: np.ndarray, u: np.ndarray, target: np.ndarray) -> np.ndarray:
        """Reduce the next knots (S, D) at positions p and knots u to what can be braked before the workspace limit."""
        normals, offsets = self.walls
        step, directions = self.max_speed * self.period, normals.T
        # Share of max_change for braking; the rest may be needed to turn at the same time. With 0.5, one random plan in
        # about a thousand still left the workspace by more than a centimetre.
        c = 0.4 * self.max_change
        # This tick moves by (u + v) / 2; braking from v then takes v / c ticks and step * v (v / c + 1) / 2.
        room = (offsets - p @ directions) / step - 0.5 * np.maximum(0.0, u @ directions)
        allowed = c * (np.sqrt(1.0 + (2.0 / c) * np.maximum(room, 0.0)) - 1.0)
        beyond = np.flatnonzero((target @ directions - allowed).max(1) > 1e-12)
        if not len(beyond):
            return target
        target, few, allowed = target.copy(), target[beyond], allowed[beyond]
        # Worst limit first; the correction may violate its neighbour's, which comes next. In an acute corner a sixth of
        # the violation is left each time: with fewer rounds, pushing into it would slowly leave the workspace.
        for _ in range(8):
            excess = few @ directions - allowed
            worst = excess.argmax(1)
            amount = np.maximum(0.0, excess[np.arange(len(few)), worst])
            if not (amount > 1e-12).any():
                break
            few = few - amount[:, None] * normals[worst]
        target[beyond] = few
        return target


def _length(knots: np.ndarray) -> np.ndarray:
    return np.hypot(knots[..., 0], knots[..., 1]) if knots.shape[-1] == 2 else np.linalg.norm(knots, axis=-1)


def _fade(s: np.ndarray) -> np.ndarray:
    """Fade from 1 at s = 0 to 0 at s = 1 with zero first and second derivatives at both ends (minimum jerk)."""
    s = np.clip(s, 0.0, 1.0)
    return 1.0 - (10 * s**3 - 15 * s**4 + 6 * s**5)
