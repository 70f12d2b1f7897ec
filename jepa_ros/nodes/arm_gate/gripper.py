"""The gripper's command: how far it is to be open comes in on the topic `gripper`, its own interface gets it.

It belongs to arm_gate, which alone commands controllers: what comes while the gate is not active or latched is dropped.
A stop leaves the gripper as it is, as it may hold something.
"""

from __future__ import annotations

import importlib.util
import time
from collections.abc import Callable
from typing import Protocol

from rclpy.action import ActionClient
from std_msgs.msg import Float64, Float64MultiArray
from trajectory_msgs.msg import JointTrajectory, JointTrajectoryPoint

from jepa_ros.errors import InputError
from jepa_ros.nodes.common.convert import to_duration
from jepa_ros.nodes.common.lifecycle import RELIABLE
from jepa_ros.nodes.common.topics import robot_topic
from jepa_ros.robot.config import GripperControllerConfig, RobotConfig
from jepa_ros.robot.urdf import read_gripper_limits

TOPIC = "gripper"
SAME = 1e-3  # of the range; a command that differs by less is not sent again at once
AGAIN = 2.0  # s after which it is: the first may have been lost, or somebody else moved the gripper
TRAVEL = 1.0  # s from one end to the other that a trajectory asks for


class GripperInterface(Protocol):
    """What moves the gripper."""

    def send(self, position: float, seconds: float) -> bool:
        """Bring the first gripper joint to a position (rad or m), in about so many s where that can be said; whether
        somebody was told."""


def make_gripper(node, robot: RobotConfig, urdf: str, refusal: Callable[[], str]) -> Gripper | None:
    """The gripper of the robot's file; None where there is none, and, with a line in the log, where it cannot be
    commanded here. refusal: why nothing is let through now, empty where it is."""
    config = robot.gripper_controller
    if config is None or not robot.gripper:
        return None
    try:
        if config.interface == "gripper_command" and importlib.util.find_spec("control_msgs") is None:
            raise InputError("expected the ROS package control_msgs, found none")
        ends = read_gripper_limits(urdf, robot.gripper[0])
    except InputError as error:
        node.get_logger().warning(f"the gripper is not commanded: {error}")
        return None
    return Gripper(node, config, robot.gripper[0], ends, refusal)


class Gripper:
    """See the module. joint: the first gripper joint; ends: its limits in rad or m, lower and upper."""

    def __init__(
        self,
        node,
        config: GripperControllerConfig,
        joint: str,
        ends: tuple[float, float],
        refusal: Callable[[], str],
    ):
        self._node, self._refusal = node, refusal
        self._closed, self._open = ends if config.open == "upper" else ends[::-1]
        self._interface = _INTERFACES[config.interface](node, robot_topic(node, config.topic), joint, config.max_effort)
        self._sent: float | None = None
        self._sent_at = 0.0
        node.create_subscription(Float64, TOPIC, self._on_opening, RELIABLE)

    def _on_opening(self, message: Float64) -> None:
        opening = message.data
        if reason := self._refusal():
            self._node.warn_throttled("gripper", f"gripper command dropped: {reason}")
            return
        if not 0.0 <= opening <= 1.0:  # nor is NaN
            self._node.warn_throttled("opening", f"gripper: expected 0 (closed) to 1 (open), found {opening:g}")
            return
        now = time.monotonic()
        if self._sent is not None and abs(opening - self._sent) < SAME and now - self._sent_at < AGAIN:
            return
        way = 1.0 if self._sent is None else abs(opening - self._sent)
        if self._interface.send(self._closed + opening * (self._open - self._closed), way * TRAVEL):
            self._sent, self._sent_at = opening, now


class _Trajectory:
    """joint_trajectory_controller."""

    def __init__(self, node, topic: str, joint: str, max_effort: float):
        self._publisher, self._joint = node.create_lifecycle_publisher(JointTrajectory, topic, RELIABLE), joint

    def send(self, position: float, seconds: float) -> bool:
        """See GripperInterface."""
        point = JointTrajectoryPoint(positions=[position], time_from_start=to_duration(seconds))
        self._publisher.publish(JointTrajectory(joint_names=[self._joint], points=[point]))
        return True


class _Forward:
    """forward_command_controller."""

    def __init__(self, node, topic: str, joint: str, max_effort: float):
        self._publisher = node.create_lifecycle_publisher(Float64MultiArray, topic, RELIABLE)

    def send(self, position: float, seconds: float) -> bool:
        """See GripperInterface."""
        self._publisher.publish(Float64MultiArray(data=[position]))
        return True


class _Action:
    """control_msgs/action/GripperCommand; a newer goal takes the place of the one under way."""

    def __init__(self, node, topic: str, joint: str, max_effort: float):
        from control_msgs.action import GripperCommand

        self._node, self._topic, self._effort, self._kind = node, topic, max_effort, GripperCommand
        self._client = ActionClient(node, GripperCommand, topic)

    def send(self, position: float, seconds: float) -> bool:
        """See GripperInterface."""
        if not self._client.server_is_ready():
            self._node.warn_throttled("gripper", f"gripper command dropped: nobody offers the action {self._topic}")
            return False
        goal = self._kind.Goal()
        goal.command.position, goal.command.max_effort = position, self._effort
        self._client.send_goal_async(goal)
        return True


_INTERFACES = {"joint_trajectory": _Trajectory, "forward_command": _Forward, "gripper_command": _Action}
