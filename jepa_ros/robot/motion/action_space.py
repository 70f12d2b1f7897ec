"""Action spaces: the meaning of a model's actions for an arm. Here the planar one; the other is in `pose_delta.py`.

Actions are in the model's axes: those of the base frame, or rotated against them by `camera.rotation_to_base` of the
robot's file. Motion (knots, paths, joints) is always in the base frame. Only the action space converts between the two;
limits, workspace and guardrails use motion only.
"""

from __future__ import annotations

import numpy as np

from jepa_ros.errors import InputError
from jepa_ros.robot.camera_rotation import yaw_rotation
from jepa_ros.robot.config import RobotConfig, require_planar_space
from jepa_ros.robot.motion.kinematics import Kinematics
from jepa_ros.robot.motion.motion_space import MotionSpace
from jepa_ros.robot.motion.pose_delta import PoseDelta

MAX_HEIGHT_ERROR = 0.02  # m between a goal position and the plane in which the tool is held


def make_space(robot: RobotConfig, kinematics: Kinematics, period: float) -> MotionSpace:
    """Return the action space of the robot's configuration. period: s, of a tick. Raises InputError."""
    kind = PoseDelta if robot.action_space.type == PoseDelta.name else PlanarVelocity
    return kind(robot, kinematics, period)


class PlanarVelocity(MotionSpace):
    """Velocity (vx, vy) of the tool divided by max_speed; height and orientation are held.

    An action is the tool's displacement in one tick divided by max_speed * period, each number in [-1, 1], in the
    model's axes.
    """

    name = "planar_velocity"
    dimension = axes = 2

    def __init__(self, robot: RobotConfig, kinematics: Kinematics, period: float = 0.1):
        """Raises InputError where the robot has another action space, or its workspace is not convex."""
        config = require_planar_space(robot)
        super().__init__(robot, kinematics, period, config.max_speed, config.max_acceleration)
        self.height = config.height
        self.workspace = np.array(config.workspace)
        self.normals, self.offsets = _half_planes(self.workspace)
        rotation = robot.camera.rotation_to_base
        if rotation is not None:
            self.to_action = yaw_rotation(rotation)
            self.to_motion = self.to_action.T

    @property
    def corners(self) -> np.ndarray:
        return np.array([(*corner, self.height) for corner in self.workspace])

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
