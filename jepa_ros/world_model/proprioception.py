"""joint_states as the proprioception that a model takes: joints as they are, or the tool's pose.

A message is anything with the fields of sensor_msgs/JointState, so that recordings are read as live topics are.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from jepa_ros.errors import InputError
from jepa_ros.robot.config import RobotConfig
from jepa_ros.world_model.config import ProprioceptionConfig


def make_reader(config: ProprioceptionConfig, robot: RobotConfig, urdf: str) -> ProprioceptionReader | ToolPoseReader:
    """What reads the kind of proprioception in `config`. urdf: robot_description, used for tool_pose only.

    Raises InputError where the robot or its description lacks what the kind needs.
    """
    return ToolPoseReader(robot, urdf) if config.kind == "tool_pose" else ProprioceptionReader(config)


class ProprioceptionReader:
    """Picks fields by joint name; the columns are looked up again only when the names change."""

    def __init__(self, config: ProprioceptionConfig):
        self._config = config
        self._names: list[str] | None = None

    def read(self, message: Any) -> tuple[float, np.ndarray]:
        """Stamp s and (P,) rad, rad/s. Raises InputError where a joint is missing or a value is not finite."""
        if list(message.name) != self._names:
            self._columns = [_columns(message.name, joints) for joints in (self._config.joints, self._config.gripper)]
            self._names = list(message.name)
        arm, fingers = self._columns
        position, velocity = np.array(message.position), np.array(message.velocity)
        if not len(position) == len(velocity) == len(self._names):
            sizes = f"{len(position)} and {len(velocity)}"
            raise InputError(f"joint_states: expected {len(self._names)} positions and velocities, found {sizes}")
        state = np.concatenate([position[arm], velocity[arm], position[fingers]])
        if not np.isfinite(state).all():
            raise InputError("joint_states: expected finite values, found NaN or Inf")
        return _seconds(message.header.stamp), state


class ToolPoseReader:
    """The tool's pose by forward kinematics, and the gripper; see robot.motion.action_space.PoseDelta."""

    def __init__(self, robot: RobotConfig, urdf: str):
        """Raises InputError where the description lacks a joint, frame or limit."""
        from jepa_ros.robot.motion.action_space import ToolState

        self._state = ToolState(robot, urdf)
        self._joints = JointReader(self._state.joints)

    def read(self, message: Any) -> tuple[float, np.ndarray]:
        """Stamp s and (7,) m, rad, 0 to 1; velocities are not needed. Raises InputError where a joint is missing or a
        value is not finite."""
        return _seconds(message.header.stamp), self._state.at(self._joints.read(message))


class JointReader:
    """Positions of joints; the columns are looked up again only when the names change."""

    def __init__(self, joints: Sequence[str]):
        self._joints = tuple(joints)
        self._names: list[str] | None = None

    def read(self, message: Any) -> np.ndarray:
        """(J,) rad or m. Raises InputError where a joint is missing or a value is not finite."""
        if list(message.name) != self._names:
            self._columns = _columns(message.name, self._joints)
            self._names = list(message.name)
        position = np.array(message.position)
        if len(position) != len(self._names):
            raise InputError(f"joint_states: expected {len(self._names)} positions, found {len(position)}")
        position = position[self._columns]
        if not np.isfinite(position).all():
            raise InputError("joint_states: expected finite values, found NaN or Inf")
        return position


def _columns(names: list[str], wanted: tuple[str, ...]) -> list[int]:
    missing = [j for j in wanted if j not in names]
    if missing:
        raise InputError(f"joint_states: expected the joints {missing}, found {list(names)}")
    return [names.index(j) for j in wanted]


def _seconds(stamp: Any) -> float:
    return stamp.sec + stamp.nanosec * 1e-9
