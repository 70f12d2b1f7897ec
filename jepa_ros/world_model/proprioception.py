"""Reading a model's proprioception from joint_states: joint positions and velocities, or the tool's pose.

A message is any object with the fields of sensor_msgs/JointState, live or from a recording.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import Any

import numpy as np

from jepa_ros.errors import InputError
from jepa_ros.robot.config import RobotConfig
from jepa_ros.robot.motion.angles import MAX_GAP, remove_wraps
from jepa_ros.world_model.config import ProprioceptionConfig

DIFFERENCE_TIME = 0.05  # s over which velocities are differences: over less, the noise of encoders looks like motion


def make_reader(config: ProprioceptionConfig, robot: RobotConfig, urdf: str) -> ProprioceptionReader | ToolPoseReader:
    """Return a reader of the kind of proprioception in `config`. urdf: robot_description, used for tool_pose only.

    Raises InputError where the robot or its description lacks what the kind needs.
    """
    return ToolPoseReader(robot, urdf) if config.kind == "tool_pose" else ProprioceptionReader(config)


class ProprioceptionReader:
    """Reads joint positions, joint velocities and gripper positions.

    Velocities that are absent or NaN were not measured: they are the differences of positions over DIFFERENCE_TIME (0
    in the first message). Joints that are reported within half a turn do not jump by a turn from message to message.
    """

    def __init__(self, config: ProprioceptionConfig):
        self._arm, self._gripper = _ColumnLookup(config.joints), _ColumnLookup(config.gripper)
        self._recent: deque[tuple[float, np.ndarray]] = deque()  # stamps in s and positions (J,)

    def read(self, message: Any) -> tuple[float, np.ndarray]:
        """Return stamp in s and state (P,) in rad, rad/s. Raises InputError for a missing joint or non-finite value."""
        arm, gripper = self._arm.find(message.name), self._gripper.find(message.name)
        position, velocity = np.array(message.position), np.array(message.velocity)
        if len(position) != len(message.name):
            raise InputError(f"joint_states: expected {len(message.name)} positions, found {len(position)}")
        stamp, q, fingers = _seconds(message.header.stamp), position[arm], position[gripper]
        _require_finite(np.concatenate([q, fingers]))
        q, differences = self._compare(stamp, q)
        measured = velocity[arm] if len(velocity) == len(message.name) else np.full(len(arm), np.nan)
        state = np.concatenate([q, np.where(np.isnan(measured), differences, measured), fingers])
        return stamp, _require_finite(state)

    def _compare(self, stamp: float, q: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return positions (J,) without the jumps by a turn, and velocities (J,), both by the messages before."""
        recent = self._recent
        if recent and not recent[-1][0] < stamp < recent[-1][0] + MAX_GAP:
            recent.clear()
        if recent:
            q = remove_wraps(np.array([recent[-1][1], q]), np.array([recent[-1][0], stamp]))[1]
        recent.append((stamp, q))
        while len(recent) > 2 and stamp - recent[1][0] >= DIFFERENCE_TIME:
            recent.popleft()
        first, before = recent[0]
        return q, (q - before) / (stamp - first) if stamp > first else np.zeros_like(q)


class ToolPoseReader:
    """Reads the tool's pose by forward kinematics, and the gripper; see robot.motion.action_space.PoseDelta."""

    def __init__(self, robot: RobotConfig, urdf: str):
        """Raises InputError where the description lacks a joint, frame or limit."""
        from jepa_ros.robot.motion.action_space import ToolState

        self._state = ToolState(robot, urdf)
        self._joints = JointReader(self._state.joints)

    def read(self, message: Any) -> tuple[float, np.ndarray]:
        """Return stamp in s and state (7,) in m, rad and 0 to 1. Raises InputError as JointReader.read."""
        return _seconds(message.header.stamp), self._state.at(self._joints.read(message))


class JointReader:
    """Reads positions of joints."""

    def __init__(self, joints: Sequence[str]):
        self._columns = _ColumnLookup(joints)

    def read(self, message: Any) -> np.ndarray:
        """Return positions (J,) in rad or m. Raises InputError for a missing joint or non-finite value."""
        columns, position = self._columns.find(message.name), np.array(message.position)
        if len(position) != len(message.name):
            raise InputError(f"joint_states: expected {len(message.name)} positions, found {len(position)}")
        return _require_finite(position[columns])


class _ColumnLookup:
    """Finds the columns of joints, again only when the names of a message change."""

    def __init__(self, joints: Sequence[str]):
        self._joints = tuple(joints)
        self._names: list[str] | None = None

    def find(self, names: Sequence[str]) -> list[int]:
        if (names := list(names)) != self._names:
            if missing := [joint for joint in self._joints if joint not in names]:
                raise InputError(f"joint_states: expected the joints {missing}, found {names}")
            self._columns, self._names = [names.index(joint) for joint in self._joints], names
        return self._columns


def _require_finite(values: np.ndarray) -> np.ndarray:
    if not np.isfinite(values).all():
        raise InputError("joint_states: expected finite values, found NaN or Inf")
    return values


def _seconds(stamp: Any) -> float:
    return stamp.sec + stamp.nanosec * 1e-9
