"""Action spaces: the meaning of a model's actions for an arm, velocities (velocity_space.py) or changes of the tool's
pose.

Actions are in the model's axes: those of the base frame, or rotated against them by `camera.rotation_to_base` of the
robot's file. Motion (knots, paths, joints) is always in the base frame. Only the action space converts between the two;
limits, workspace and guardrails use motion only.
"""

from __future__ import annotations

from itertools import product

import numpy as np

from jepa_ros.robot.config import RobotConfig, require_pose_space
from jepa_ros.robot.motion.kinematics import Kinematics
from jepa_ros.robot.motion.motion_space import MotionSpace
from jepa_ros.robot.motion.velocity_space import PlanarVelocity, ToolVelocity
from jepa_ros.robot.transforms import rotation_matrix
from jepa_ros.robot.urdf import read_gripper_limits

GIMBAL_LOCK = 1e-6  # cosine of the middle Euler angle below which the other two rotate about one axis


def make_space(robot: RobotConfig, kinematics: Kinematics, period: float) -> MotionSpace:
    """Return the action space of the robot's configuration. period: s, of a tick. Raises InputError."""
    kinds = {kind.name: kind for kind in (PlanarVelocity, ToolVelocity, PoseDelta)}
    return kinds[robot.action_space.type](robot, kinematics, period)


class PoseDelta(MotionSpace):
    """Change of the tool's pose in a tick (7,), in m and rad, and the states (7,) that it changes.

    As defined by V-JEPA 2-AC (arXiv 2506.09985, section 3; `poses_to_diffs` of the official app/vjepa_droid/droid.py),
    a state is the tool's position x, y, z (m) in the base frame, its orientation as extrinsic x-y-z Euler angles (rad),
    and the gripper's position from 0 to 1. An action is the difference of the positions, the Euler angles of the
    rotation from the first to the second orientation in base axes, and the difference of the gripper's positions. In
    the training data of the official weights (DROID) the gripper is 0 when open and 1 when closed.

    The base frame here is that of the model: with a `camera.rotation_to_base` in the robot's file it is the robot's
    base frame rotated about its origin, for states and actions alike. So a state changed by its action is the next
    state, and the origin stays where the image shows the base of the arm.

    An action belongs to one tick, and a block of V-JEPA 2-AC is one tick. Between ticks ActionHistory interpolates each
    number linearly; only blocks of several ticks would add them. That is exact for positions; for rotations the error
    is half the product of two ticks' angles: 5 mrad for 0.1 rad per tick.

    A planner searches the tool's position. The orientation stays as at home (the official planner leaves rotations at 0
    as well: `cem` of notebooks/utils/mpc_utils.py), and so does the gripper. A knot of length 1 is the configuration's
    max_translation per tick. normals, offsets: empty where the configuration has no workspace.
    """

    name = "pose_delta"
    dimension, axes = 7, 3

    def __init__(self, robot: RobotConfig, kinematics: Kinematics, period: float):
        """Raises InputError where the robot has another action space."""
        config = require_pose_space(robot)
        super().__init__(robot, kinematics, period, config.max_translation / period, config.max_acceleration or np.nan)
        self.missing = config.missing
        self.normals, self.offsets = np.zeros((0, 3)), np.zeros(0)
        self._box = config.workspace
        if config.workspace is not None:
            low, high = np.array(config.workspace)
            self.normals, self.offsets = np.vstack([np.eye(3), -np.eye(3)]), np.concatenate([high, -low])
        self._turn = _turn(robot)
        turn = np.eye(3) if self._turn is None else self._turn
        self.to_action, self.to_motion = np.zeros((3, 7)), np.zeros((7, 3))
        self.to_action[:, :3], self.to_motion[:3] = config.max_translation * turn, turn.T / config.max_translation

    @property
    def corners(self) -> np.ndarray:
        return np.array([] if self._box is None else list(product(*zip(*self._box, strict=True)))).reshape(-1, 3)

    def to_xyz(self, points: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray | float]:
        return points[..., 0], points[..., 1], points[..., 2]

    def to_coordinates(self, position: np.ndarray) -> np.ndarray:
        return position

    def tool_positions(self, states: np.ndarray) -> np.ndarray:
        return states[:, :3] if self._turn is None else states[:, :3] @ self._turn.T

    def executed(self, q_start: np.ndarray, q_end: np.ndarray) -> np.ndarray:
        """Return the action (7,); the last number is 0, as plans do not move the gripper."""
        (before, first), (after, second) = map(self.kinematics.forward, (q_start, q_end))
        moved, turned = after - before, second @ first.T
        if self._turn is not None:
            moved, turned = self._turn.T @ moved, self._turn.T @ turned @ self._turn
        return np.concatenate([moved, euler_angles(turned), [0.0]])


class ToolState:
    """Computes states (7,) from measured joint positions.

    joints: names of the positions that `at` takes: those of the arm, then the first gripper joint if there is one.
    """

    def __init__(self, robot: RobotConfig, urdf: str):
        """Raises InputError where the robot has another action space or the URDF lacks a joint, frame or limit."""
        zero = require_pose_space(robot).gripper_zero
        self._kinematics = Kinematics(urdf, robot.joints, robot.tool_frame, robot.base_frame)
        self._count, self._turn = len(robot.joints), _turn(robot)
        self.joints = (*robot.joints, *robot.gripper[:1])
        self._ends = None
        if robot.gripper:
            lower, upper = read_gripper_limits(urdf, robot.gripper[0])
            self._ends = (lower, upper) if zero == "lower" else (upper, lower)

    def at(self, positions: np.ndarray) -> np.ndarray:
        """Return the state (7,) in m, rad, 0 to 1 for positions of `joints` in rad, m; 0 without a gripper."""
        place, rotation = self._kinematics.forward(positions[: self._count])
        if self._turn is not None:
            place, rotation = self._turn.T @ place, self._turn.T @ rotation
        gripper = 0.0
        if self._ends is not None:
            gripper = (positions[-1] - self._ends[0]) / (self._ends[1] - self._ends[0])
        return np.concatenate([place, euler_angles(rotation), [min(max(gripper, 0.0), 1.0)]])


def _turn(robot: RobotConfig) -> np.ndarray | None:
    """Return the rotation (3, 3) from the model's axes to the base frame's; None where they are the same."""
    rotation = robot.camera.rotation_to_base
    return None if rotation is None else rotation_matrix(rotation)


def euler_angles(rotation: np.ndarray) -> np.ndarray:
    """Convert a rotation (3, 3) to extrinsic x-y-z Euler angles (3,) in rad, as matrix_euler of V-JEPA 2-AC (which
    needs torch) does: the middle one in ±π/2; where it is ±π/2, the last one is 0."""
    r = rotation
    cosine = np.hypot(r[0, 0], r[1, 0])
    middle = np.arctan2(-r[2, 0], cosine)
    if cosine < GIMBAL_LOCK:
        return np.array([np.arctan2(-r[1, 2], r[1, 1]), middle, 0.0])
    return np.array([np.arctan2(r[2, 1], r[2, 2]), middle, np.arctan2(r[1, 0], r[0, 0])])
