"""Gripper commands: the topic `gripper` (std_msgs/Float64, 0 closed to 1 open) goes to the gripper's own controller.

Part of arm_gate, the only node that commands controllers: commands are dropped while the gate is inactive or latched. A
stop leaves the gripper as it is, since it may hold something.
"""

from __future__ import annotations

import importlib.util
import time
from collections.abc import Callable

from rclpy.action import ActionClient
from std_msgs.msg import Float64, Float64MultiArray
from trajectory_msgs.msg import JointTrajectory, JointTrajectoryPoint

from jepa_ros.errors import InputError
from jepa_ros.nodes.common.convert import to_duration
from jepa_ros.nodes.common.qos import RELIABLE
from jepa_ros.nodes.common.topics import robot_topic
from jepa_ros.robot.config import GripperControllerConfig, RobotConfig
from jepa_ros.robot.urdf import read_gripper_limits

SAME_OPENING = 1e-3  # of the range; a command that differs by less is not sent again within RESEND_AFTER
RESEND_AFTER = 2.0  # s; the first command may have been lost, or another source may have moved the gripper
FULL_TRAVEL_TIME = 1.0  # s, requested of a trajectory from one end to the other


def make_gripper(node, robot: RobotConfig, urdf: str, block_reason: Callable[[], str]) -> Gripper | None:
    """Return the gripper of the robot's file; None where it has none, or (logged) where it cannot be commanded.

    block_reason: returns why commands are dropped now, or "".
    """
    config = robot.gripper_controller
    if config is None or not robot.gripper:
        return None
    try:
        if config.interface == "gripper_command" and importlib.util.find_spec("control_msgs") is None:
            raise InputError("ROS package control_msgs not found")
        limits = read_gripper_limits(urdf, robot.gripper[0])
    except InputError as error:
        node.get_logger().warning(f"the gripper is not commanded: {error}")
        return None
    return Gripper(node, config, robot.gripper[0], limits, block_reason)


class Gripper:
    """Subscribes to `gripper` and commands the first gripper joint. limits: (lower, upper) of it, rad or m."""

    def __init__(
        self,
        node,
        config: GripperControllerConfig,
        joint: str,
        limits: tuple[float, float],
        block_reason: Callable[[], str],
    ):
        self._node, self._block_reason = node, block_reason
        self._closed, self._open = limits if config.open == "upper" else limits[::-1]
        self._interface = _INTERFACES[config.interface](node, robot_topic(node, config.topic), joint, config.max_effort)
        self._sent: float | None = None
        self._sent_at = 0.0
        node.create_subscription(Float64, "gripper", self._on_opening, RELIABLE)

    def _on_opening(self, message: Float64) -> None:
        opening = message.data
        if reason := self._block_reason():
            self._node.warn_throttled("gripper", f"gripper command dropped: {reason}")
            return
        if not 0.0 <= opening <= 1.0:  # NaN as well
            self._node.warn_throttled("opening", f"gripper: expected 0 (closed) to 1 (open), found {opening:g}")
            return
        now = time.monotonic()
        if self._sent is not None and abs(opening - self._sent) < SAME_OPENING and now - self._sent_at < RESEND_AFTER:
            return
        travel = 1.0 if self._sent is None else abs(opening - self._sent)
        position = self._closed + opening * (self._open - self._closed)
        if self._interface.send(position, travel * FULL_TRAVEL_TIME):
            self._sent, self._sent_at = opening, now


# Controllers of a gripper. `send` moves the first gripper joint to a position (rad or m), in about so many seconds
# where the controller takes a time; False where the command could not be sent.


class _Trajectory:
    """joint_trajectory_controller."""

    def __init__(self, node, topic: str, joint: str, max_effort: float):
        self._publisher, self._joint = node.create_lifecycle_publisher(JointTrajectory, topic, RELIABLE), joint

    def send(self, position: float, seconds: float) -> bool:
        point = JointTrajectoryPoint(positions=[position], time_from_start=to_duration(seconds))
        self._publisher.publish(JointTrajectory(joint_names=[self._joint], points=[point]))
        return True


class _Forward:
    """forward_command_controller."""

    def __init__(self, node, topic: str, joint: str, max_effort: float):
        self._publisher = node.create_lifecycle_publisher(Float64MultiArray, topic, RELIABLE)

    def send(self, position: float, seconds: float) -> bool:
        self._publisher.publish(Float64MultiArray(data=[position]))
        return True


class _Action:
    """control_msgs/action/GripperCommand; a newer goal replaces the previous one."""

    def __init__(self, node, topic: str, joint: str, max_effort: float):
        from control_msgs.action import GripperCommand

        self._node, self._topic, self._effort, self._kind = node, topic, max_effort, GripperCommand
        self._client = ActionClient(node, GripperCommand, topic)

    def send(self, position: float, seconds: float) -> bool:
        if not self._client.server_is_ready():
            self._node.warn_throttled("gripper", f"gripper command dropped: no server of the action {self._topic}")
            return False
        goal = self._kind.Goal()
        goal.command.position, goal.command.max_effort = position, self._effort
        self._client.send_goal_async(goal)
        return True


_INTERFACES = {"joint_trajectory": _Trajectory, "forward_command": _Forward, "gripper_command": _Action}
