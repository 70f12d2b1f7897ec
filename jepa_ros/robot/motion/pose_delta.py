"""Pose delta: actions that are the change of the tool's pose over a control tick, and the state that they change.

As V-JEPA 2-AC defines both (arXiv 2506.09985, section 3; `poses_to_diffs` of the official app/vjepa_droid/droid.py): a
state is the tool's position x, y, z (m) in the base frame, its orientation as extrinsic x-y-z Euler angles (rad) and a
number of 0 to 1 for the gripper; an action is the difference of the positions, the Euler angles of the rotation that
turns the first orientation into the second one in base axes, and the difference of the gripper's numbers. In the data
that the official weights were trained with (DROID) the gripper is 0 where it is open and 1 where it is closed.

"Base frame" is the one that the model has in mind. Where the robot's file has a `camera.rotation_to_base`, that is the
robot's turned about its own origin, for states and actions alike: a state moved by its action is the next state, and
the origin stays where the picture shows the arm's base.

An action belongs to one tick, and V-JEPA 2-AC's block is one tick. Where frames lie between ticks ActionHistory
interpolates linearly, number by number; only blocks of more ticks would sum them up. That is exact for positions and
off by half the product of two ticks' angles for rotations: 5 mrad for 0.1 rad a tick.
"""

from __future__ import annotations

from itertools import product

import numpy as np

from jepa_ros.robot.config import RobotConfig, require_pose_space
from jepa_ros.robot.motion.kinematics import Kinematics
from jepa_ros.robot.motion.motion_space import MotionSpace
from jepa_ros.robot.transforms import rotation_matrix
from jepa_ros.robot.urdf import read_gripper_limits

LOCKED = 1e-6  # cosine of the middle Euler angle under which the other two turn about one axis


class PoseDelta(MotionSpace):
    """Change of the tool's pose over a tick (7,), in m and rad; see the module. ActionSpace's protocol.

    What is searched is where the tool goes. It is held as at home (the official planner leaves rotations at 0 as well:
    `cem` of notebooks/utils/mpc_utils.py), and the gripper stays as it is. max_speed is such that a knot of length 1 is
    the configuration's max_translation a tick. normals, offsets: None where the configuration has no workspace.
    """

    name = "pose_delta"
    dimension, axes = 7, 3

    def __init__(self, robot: RobotConfig, kinematics: Kinematics, period: float):
        """Raises InputError where the robot's action space is another one."""
        config = require_pose_space(robot)
        super().__init__(robot, kinematics, period, config.max_translation / period, config.max_acceleration or np.nan)
        self.missing = config.missing
        self.normals = self.offsets = None
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
        """See MotionSpace."""
        return np.array([] if self._box is None else list(product(*zip(*self._box, strict=True)))).reshape(-1, 3)

    def to_xyz(self, points: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """See MotionSpace."""
        return points[..., 0], points[..., 1], points[..., 2]

    def to_coordinates(self, position: np.ndarray) -> np.ndarray:
        """See MotionSpace."""
        return position

    def tool_positions(self, states: np.ndarray) -> np.ndarray:
        """See MotionSpace; of poses."""
        return states[:, :3] if self._turn is None else states[:, :3] @ self._turn.T

    def executed(self, q_start: np.ndarray, q_end: np.ndarray) -> np.ndarray:
        """See ActionSpace. The last number is 0: the gate commands no gripper."""
        (before, first), (after, second) = map(self.kinematics.forward, (q_start, q_end))
        moved, turned = after - before, second @ first.T
        if self._turn is not None:
            moved, turned = self._turn.T @ moved, self._turn.T @ turned @ self._turn
        return np.concatenate([moved, euler_angles(turned), [0.0]])


class ToolState:
    """A state (7,) from measured joint positions.

    joints: names of the positions that `at` takes: the arm's, then the first gripper joint where there is one.
    """

    def __init__(self, robot: RobotConfig, urdf: str):
        """Raises InputError where the robot's action space is another one or the URDF lacks a joint, frame or limit."""
        zero = require_pose_space(robot).gripper_zero
        self._kinematics = Kinematics(urdf, robot.joints, robot.tool_frame, robot.base_frame)
        self._count, self._turn = len(robot.joints), _turn(robot)
        self.joints = (*robot.joints, *robot.gripper[:1])
        self._ends = None
        if robot.gripper:
            lower, upper = read_gripper_limits(urdf, robot.gripper[0])
            self._ends = (lower, upper) if zero == "lower" else (upper, lower)

    def at(self, positions: np.ndarray) -> np.ndarray:
        """(7,) in m, rad, 0 to 1 at positions of `joints` in rad, m; the gripper's number is 0 where there is none."""
        place, rotation = self._kinematics.forward(positions[: self._count])
        if self._turn is not None:
            place, rotation = self._turn.T @ place, self._turn.T @ rotation
        gripper = 0.0
        if self._ends is not None:
            gripper = (positions[-1] - self._ends[0]) / (self._ends[1] - self._ends[0])
        return np.concatenate([place, euler_angles(rotation), [min(max(gripper, 0.0), 1.0)]])


def _turn(robot: RobotConfig) -> np.ndarray | None:
    """(3, 3), from the model's axes to the base frame's; None where they are the same."""
    rotation = robot.camera.rotation_to_base
    return None if rotation is None else rotation_matrix(rotation)


def euler_angles(rotation: np.ndarray) -> np.ndarray:
    """Rotation matrix (3, 3) → extrinsic x-y-z Euler angles (3,) in rad, as world_model.vjepa2_ac.matrix_euler (which
    needs torch): the middle one in ±π/2, and where it is ±π/2 the last one is 0."""
    r = rotation
    cosine = np.hypot(r[0, 0], r[1, 0])
    middle = np.arctan2(-r[2, 0], cosine)
    if cosine < LOCKED:
        return np.array([np.arctan2(-r[1, 2], r[1, 1]), middle, 0.0])
    return np.array([np.arctan2(r[2, 1], r[2, 2]), middle, np.arctan2(r[1, 0], r[0, 0])])
