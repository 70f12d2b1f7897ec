"""Velocity spaces: actions are velocities of the tool, in a plane or in space, where it may also turn about z.

Actions are in the model's axes, coordinates and knots in the base frame; see action_space.py. All code that trains,
collects and evaluates uses VelocitySpace, and so works for any of them.
"""

from __future__ import annotations

from itertools import product

import numpy as np

from jepa_ros.errors import InputError
from jepa_ros.robot.camera_rotation import yaw_rotation
from jepa_ros.robot.config import (
    RobotConfig,
    VelocityConfig,
    require_planar_space,
    require_tool_space,
    require_velocity_space,
)
from jepa_ros.robot.motion.kinematics import Kinematics
from jepa_ros.robot.motion.motion_space import MotionSpace
from jepa_ros.robot.motion.tool_path import sample_random_play
from jepa_ros.robot.transforms import rotation_matrix

MAX_HEIGHT_ERROR = 0.02  # m between a goal position and the plane in which the tool is held
YAW_POSTURE_WEIGHT = 0.003  # of the home posture where the tool turns: a larger one would keep it from turning
VALUES = (("vx", "m/s"), ("vy", "m/s"), ("vz", "m/s"), ("wz", "rad/s"))


class VelocitySpace(MotionSpace):
    """Base of the velocity spaces. An action is the tool's motion in one tick divided by the full speed, each number in
    [-1, 1], in the model's axes.

    names, units: of the values of an action, before the division. full_speeds: (A,) of a value of 1, in `units`.
    outline: (E, 2) m, the workspace in the base frame's x and y, counter-clockwise. bounds: lowest and highest
    coordinates (D,).
    """

    outline: np.ndarray
    bounds: tuple[np.ndarray, np.ndarray]
    full_speeds: np.ndarray

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(name for name, _ in VALUES[: self.dimension])

    @property
    def units(self) -> tuple[str, ...]:
        return tuple(unit for _, unit in VALUES[: self.dimension])

    @property
    def border(self) -> tuple[np.ndarray, np.ndarray]:
        """Normals (E, position_axes) and offsets (E,) m of the workspace, as Clearance takes them."""
        return self.normals, self.offsets

    @property
    def centre(self) -> np.ndarray:
        """Coordinates (D,) of the middle of the workspace."""
        low, high = self.bounds
        return 0.5 * (low + high)

    def sample(self, rng: np.random.Generator) -> np.ndarray:
        """Return coordinates (D,), uniform over the workspace."""
        while True:
            x = rng.uniform(*self.bounds)
            if self.is_inside(x):
                return x

    def sample_play(self, ticks: int, rng: np.random.Generator) -> np.ndarray:
        """Return knots (ticks, D) of random play, not constrained to the workspace."""
        return sample_random_play(ticks, rng, self.position_axes, self.axes - self.position_axes)

    def describe_limits(self) -> str:
        """Return the bounds of the position as text, m."""
        low, high = self.bounds
        return ", ".join(f"{axis} {a:g} to {b:g}" for axis, a, b in zip("xyz", low, high, strict=False))


def make_velocity_space(robot: RobotConfig, kinematics: Kinematics, period: float = 0.1) -> VelocitySpace:
    """Return the robot's velocity space. period: s, of a tick. Raises InputError where it has another action space."""
    config: VelocityConfig = require_velocity_space(robot)
    kind = PlanarVelocity if config.type == PlanarVelocity.name else ToolVelocity
    return kind(robot, kinematics, period)


class PlanarVelocity(VelocitySpace):
    """Velocity (vx, vy) of the tool divided by max_speed; height and orientation are held."""

    name = "planar_velocity"
    dimension = axes = 2

    def __init__(self, robot: RobotConfig, kinematics: Kinematics, period: float = 0.1):
        """Raises InputError where the robot has another action space, or its workspace is not convex."""
        config = require_planar_space(robot)
        super().__init__(robot, kinematics, period, config.max_speed, config.max_acceleration)
        self.height = config.height
        self.workspace = self.outline = np.array(config.workspace)
        self.bounds = self.workspace.min(0), self.workspace.max(0)
        self.full_speeds = np.full(2, config.max_speed)
        self.normals, self.offsets = _half_planes(self.workspace)
        rotation = robot.camera.rotation_to_base
        if rotation is not None:
            self.to_action = yaw_rotation(rotation)
            self.to_motion = self.to_action.T

    @property
    def corners(self) -> np.ndarray:
        return np.array([(*corner, self.height) for corner in self.workspace])

    @property
    def centre(self) -> np.ndarray:
        """The centroid (2,) m of the workspace."""
        a, b = self.workspace, np.roll(self.workspace, -1, axis=0)
        areas = a[:, 0] * b[:, 1] - b[:, 0] * a[:, 1]
        return ((a + b) * areas[:, None]).sum(0) / (3.0 * areas.sum())

    def executed(self, q_start: np.ndarray, q_end: np.ndarray) -> np.ndarray:
        moved = self.kinematics.forward(q_end)[0] - self.kinematics.forward(q_start)[0]
        return self.to_model_axes(moved[:2] / (self.max_speed * self.period))

    def to_xyz(self, points: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray | float]:
        return points[..., 0], points[..., 1], self.height

    def to_coordinates(self, position: np.ndarray) -> np.ndarray:
        if abs(position[2] - self.height) > MAX_HEIGHT_ERROR:
            raise InputError(
                f"pose: expected z = {self.height:.3f} m, at which the tool is held, found {position[2]:.3f} m"
            )
        return position[:2]


def _half_planes(polygon: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return outward normals (E, 2) and offsets (E,) of a polygon (E, 2): inside is n.x <= offset.

    Raises InputError where it is not convex and counter-clockwise.
    """
    edges = np.roll(polygon, -1, axis=0) - polygon
    following = np.roll(edges, -1, axis=0)
    turns = edges[:, 0] * following[:, 1] - edges[:, 1] * following[:, 0]
    if (turns <= 0).any():
        raise InputError("workspace: expected a convex counter-clockwise polygon")
    normals = np.stack([edges[:, 1], -edges[:, 0]], axis=1)
    normals /= np.linalg.norm(normals, axis=1, keepdims=True)
    return normals, (normals * polygon).sum(axis=1)


class ToolVelocity(VelocitySpace):
    """Velocity (vx, vy, vz) of the tool divided by max_speed; with yaw also wz, its angular velocity about the base
    frame's z divided by max_yaw_speed. The rest of the orientation is held.

    Yaw 0 is the orientation at home. As a coordinate it is a length, yaw times `metres_per_rad`, which is max_speed /
    max_yaw_speed: one max_speed and one max_acceleration then hold for all coordinates, and distances between
    coordinates count turning as well as moving.
    """

    name = "tool_velocity"
    may_stretch = True

    def __init__(self, robot: RobotConfig, kinematics: Kinematics, period: float = 0.1):
        """Raises InputError where the robot has another action space."""
        config = require_tool_space(robot)
        super().__init__(robot, kinematics, period, config.max_speed, config.max_acceleration)
        low, high = np.array(config.workspace)
        self.normals, self.offsets = np.vstack([np.eye(3), -np.eye(3)]), np.concatenate([high, -low])
        (x0, y0), (x1, y1) = low[:2], high[:2]
        self.outline = np.array([(x0, y0), (x1, y0), (x1, y1), (x0, y1)])
        self._box = config.workspace
        self.axes = self.dimension = config.dimension
        self.turns = config.max_yaw_speed is not None
        self.full_speeds, self.metres_per_rad = np.full(3, config.max_speed), 0.0
        self._walls = self.normals, self.offsets
        if config.max_yaw_speed is not None and config.yaw is not None:
            self.metres_per_rad = config.max_speed / config.max_yaw_speed
            self.posture_weight = YAW_POSTURE_WEIGHT
            self.full_speeds = np.append(self.full_speeds, config.max_yaw_speed)
            low, high = (
                np.append(x, self.metres_per_rad * yaw) for x, yaw in zip((low, high), config.yaw, strict=True)
            )
            self._walls = np.vstack([np.eye(4), -np.eye(4)]), np.concatenate([high, -low])
        self.bounds = low, high
        rotation = robot.camera.rotation_to_base
        if rotation is not None:
            self.to_action = np.eye(self.axes)
            if self.turns:
                self.to_action[:2, :2] = yaw_rotation(rotation)
            else:
                self.to_action = rotation_matrix(rotation)
            self.to_motion = self.to_action.T

    @property
    def walls(self) -> tuple[np.ndarray, np.ndarray]:
        return self._walls

    @property
    def corners(self) -> np.ndarray:
        return np.array(list(product(*zip(*self._box, strict=True))))

    @property
    def corner_poses(self) -> list[tuple[np.ndarray, np.ndarray]]:
        if not self.turns:
            return super().corner_poses
        low, high = self.bounds
        return [self.pose(np.append(corner, yaw)) for corner in self.corners for yaw in (low[3], high[3])]

    def to_xyz(self, points: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray | float]:
        return points[..., 0], points[..., 1], points[..., 2]

    def to_coordinates(self, position: np.ndarray) -> np.ndarray:
        return position

    def pose(self, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        position, rotation = super().pose(x)
        if not self.turns:
            return position, rotation
        angle = x[3] / self.metres_per_rad
        c, s = np.cos(angle), np.sin(angle)
        return position, np.array([[c, -s, 0.0], [s, c, 0.0], [0.0, 0.0, 1.0]]) @ rotation

    def tool_coordinates(self, q: np.ndarray) -> np.ndarray:
        position, rotation = self.kinematics.forward(q)
        return self._coordinates(position, rotation) if self.turns else position

    def tool_knot(self, q: np.ndarray, qd: np.ndarray) -> np.ndarray:
        twist = self.kinematics.jacobian(q) @ qd
        knot = twist[:3] / self.max_speed
        return np.append(knot, twist[5] * self.metres_per_rad / self.max_speed) if self.turns else knot

    def executed(self, q_start: np.ndarray, q_end: np.ndarray) -> np.ndarray:
        moved = self.tool_coordinates(q_end) - self.tool_coordinates(q_start)
        if self.turns:  # the shorter way round
            turn = 2.0 * np.pi * self.metres_per_rad
            moved[3] -= turn * np.round(moved[3] / turn)
        return self.to_model_axes(moved / (self.max_speed * self.period))

    def speed_shares(self, knots: np.ndarray) -> np.ndarray:
        """Moving and turning have a full speed each: (..., D) with yaw."""
        if not self.turns:
            return super().speed_shares(knots)
        moving = np.linalg.norm(knots[..., :3], axis=-1, keepdims=True)
        return np.concatenate([moving, moving, moving, np.abs(knots[..., 3:])], axis=-1)

    def _coordinates(self, position: np.ndarray, rotation: np.ndarray) -> np.ndarray:
        """Return the coordinates (4,) of a pose. Its yaw is the part of the turn from home about z (swing-twist)."""
        turn = rotation @ self._rotation.T
        yaw = np.arctan2(turn[1, 0] - turn[0, 1], turn[0, 0] + turn[1, 1])
        return np.append(position, yaw * self.metres_per_rad)
