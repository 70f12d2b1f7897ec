"""Reading a model's proprioception from joint_states: joint positions and velocities, or the tool's pose.

A message is any object with the fields of sensor_msgs/JointState, live or from a recording.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from jepa_ros.errors import InputError
from jepa_ros.robot.config import RobotConfig
from jepa_ros.world_model.config import ProprioceptionConfig


def make_reader(config: ProprioceptionConfig, robot: RobotConfig, urdf: str) -> ProprioceptionReader | ToolPoseReader:
    """Return a reader of the kind of proprioception in `config`. urdf: robot_description, used for tool_pose only.

    Raises InputError where the robot or its description lacks what the kind needs.
    """
    return ToolPoseReader(robot, urdf) if config.kind == "tool_pose" else ProprioceptionReader(config)


class ProprioceptionReader:
    """Reads joint positions, joint velocities and gripper positions."""

    def __init__(self, config: ProprioceptionConfig):
        self._arm, self._gripper = _ColumnLookup(config.joints), _ColumnLookup(config.gripper)

    def read(self, message: Any) -> tuple[float, np.ndarray]:
        """Return stamp in s and state (P,) in rad, rad/s. Raises InputError for a missing joint or non-finite value."""
        arm, gripper = self._arm.find(message.name), self._gripper.find(message.name)
        position, velocity = np.array(message.position), np.array(message.velocity)
        if not len(position) == len(velocity) == len(message.name):
            sizes = f"{len(position)} and {len(velocity)}"
            raise InputError(f"joint_states: expected {len(message.name)} positions and velocities, found {sizes}")
        state = np.concatenate([position[arm], velocity[arm], position[gripper]])
        return _seconds(message.header.stamp), _require_finite(state)


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
