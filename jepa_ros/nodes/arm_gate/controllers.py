"""Command interfaces: how windows of motion and gripper commands reach the controllers.

There is one class for each kind of arm controller. The topic `gripper` (std_msgs/Float64, 0 closed to 1 open) goes to
the gripper's own controller; its commands are dropped while the gate is inactive or latched, and a stop leaves the
gripper as it is, since it may hold something.
"""

from __future__ import annotations

import importlib.util
import time
from collections.abc import Callable

import numpy as np
from rclpy.action import ActionClient
from std_msgs.msg import Float64, Float64MultiArray
from trajectory_msgs.msg import JointTrajectory as JointTrajectoryMessage
from trajectory_msgs.msg import JointTrajectoryPoint

from jepa_ros.errors import InputError
from jepa_ros.nodes.common.convert import to_duration, to_stamp, trajectory_message
from jepa_ros.nodes.common.qos import NEWEST, RELIABLE
from jepa_ros.nodes.common.topics import command_class, robot_topic
from jepa_ros.robot.config import ControllerConfig, GripperControllerConfig, RobotConfig
from jepa_ros.robot.gate.controller_cycles import ControllerCycles
from jepa_ros.robot.gate.types import Window
from jepa_ros.robot.motion.kinematics import Kinematics
from jepa_ros.robot.motion.limits import JointLimits
from jepa_ros.robot.motion.trajectory import JointTrajectory
from jepa_ros.robot.urdf import read_gripper_limits

FIRST_POINT_AHEAD = 0.02  # s, first point of a window without a stamp
POSITION_GAIN = 3.0  # 1/s, by which a velocity command corrects the distance of the arm from the reference
ZEROS_AFTER_MOTION = 10  # zero velocities sent after a motion; then MoveIt Servo's own timeout holds the arm
SAME_OPENING = 1e-3  # of the range; a command that differs by less is not sent again within RESEND_AFTER
RESEND_AFTER = 2.0  # s; the first command may have been lost, or another source may have moved the gripper
FULL_TRAVEL_TIME = 1.0  # s, requested of a trajectory from one end to the other


def make_command(
    node,
    controller: ControllerConfig,
    robot: RobotConfig,
    kinematics: Kinematics,
    limits: JointLimits,
    cycles: ControllerCycles | None,
) -> CommandInterface:
    """Return the command interface for a controller's type. cycles: see TrajectoryCommand.

    Raises InputError where the package of the controller's messages is not installed.
    """
    if controller.interface == "joint_trajectory":
        return TrajectoryCommand(node, controller, limits, cycles)
    if controller.interface == "servo_twist":
        return TwistCommand(node, controller, limits, robot.base_frame, kinematics)
    if controller.interface == "servo_joint_jog":
        return JointJogCommand(node, controller, limits, robot.base_frame)
    return PositionCommand(node, controller, limits)


class CommandInterface:
    """A controller that the gate commands, by its command topic.

    A controller takes windows, references or set-points; the other methods do nothing. limits: of the robot's joints.
    """

    def __init__(self, node, controller: ControllerConfig, limits: JointLimits):
        self._node, self._message = node, command_class(controller)
        self._names = tuple(controller.joints)
        self._columns = [limits.names.index(joint) for joint in controller.joints]
        self._publisher = node.create_lifecycle_publisher(self._message, controller.command_topic, NEWEST)
        self.topic = self._publisher.topic_name

    def send_window(self, window: Window, now: float) -> None:
        """Send a motion that ends at rest; now: s, ROS time."""

    def send_reference(self, reference: np.ndarray | None, measured: np.ndarray | None, moving: bool) -> None:
        """Called every tick. reference: (3, J) rad, rad/s, rad/s² (None before the first); measured: (J,) rad."""

    def send_setpoint(self, setpoint: np.ndarray) -> None:
        """Send the position (J,) rad for the controllers' next cycle."""

    def count_subscribers(self) -> int:
        """Return the number of subscribers of the command topic."""
        return self._publisher.get_subscription_count()

    def count_publishers(self) -> int:
        """Return the number of publishers on the command topic, the gate included."""
        return self._node.count_publishers(self.topic)


class TrajectoryCommand(CommandInterface):
    """joint_trajectory_controller. cycles: None where the controllers' clock agrees with the gate's; otherwise windows
    are stamped in the controllers' clock, by what `cycles` has learned of it.

    With a stamp the first point lies a little in the past, and the controller continues the curve exactly. Until the
    clock is known the stamp is 0, "starts when received". Then there must be no point at time 0 (it would be a step
    back by the transport delay): the controller interpolates from its present state to the first point.
    """

    def __init__(self, node, controller: ControllerConfig, limits: JointLimits, cycles: ControllerCycles | None):
        super().__init__(node, controller, limits)
        self._cycles = cycles

    def send_window(self, window: Window, now: float) -> None:
        trajectory, start = window.trajectory, window.start
        ahead = 0.0 if self._cycles is None else self._cycles.offset
        if ahead is None:
            trajectory = _remaining(trajectory, now - start)
        fields = (trajectory.positions, trajectory.velocities, trajectory.accelerations)
        own = JointTrajectory(self._names, trajectory.times, *(field[:, self._columns] for field in fields))
        stamp = None if ahead is None else to_stamp(round((start - ahead) * 1e9))
        self._publisher.publish(trajectory_message(own, stamp))


class PositionCommand(CommandInterface):
    """forward_command_controller on position interfaces: one set-point for each of its cycles.

    This controller has no timeout: if the gate dies in motion, the arm stays at the last set-point.
    """

    def send_setpoint(self, setpoint: np.ndarray) -> None:
        self._publisher.publish(self._message(data=setpoint[self._columns].tolist()))


class _ServoCommand(CommandInterface):
    """MoveIt Servo: a velocity every tick of a motion. Servo stops without one, by its `incoming_command_timeout`,
    which uses the stamps.

    The velocity is that of the reference plus a correction of the arm's distance from the reference; all joints are
    slowed together where one would exceed its limit.
    """

    def __init__(self, node, controller: ControllerConfig, limits: JointLimits, frame: str):
        super().__init__(node, controller, limits)
        self._frame, self._limit = frame, limits.velocity
        self._zeros = ZEROS_AFTER_MOTION

    def send_reference(self, reference: np.ndarray | None, measured: np.ndarray | None, moving: bool) -> None:
        self._zeros = 0 if moving else self._zeros + 1
        if reference is None or measured is None or self._zeros > ZEROS_AFTER_MOTION:
            return
        velocity = np.zeros_like(measured)
        if moving:
            velocity = reference[1] + POSITION_GAIN * (reference[0] - measured)
            velocity = velocity / max(1.0, float(np.abs(velocity / self._limit).max()))
        message = self._message()
        message.header.stamp, message.header.frame_id = self._node.get_clock().now().to_msg(), self._frame
        self._fill(message, velocity, measured)
        self._publisher.publish(message)

    def _fill(self, message, velocity: np.ndarray, measured: np.ndarray) -> None:
        """Write the velocity into Servo's message. velocity: (J,) rad/s; measured: (J,) rad."""
        raise NotImplementedError


class TwistCommand(_ServoCommand):
    """Servo's TwistStamped: the tool's velocity in the base frame."""

    def __init__(self, node, controller: ControllerConfig, limits: JointLimits, frame: str, kinematics: Kinematics):
        super().__init__(node, controller, limits, frame)
        self._kinematics = kinematics

    def _fill(self, message, velocity: np.ndarray, measured: np.ndarray) -> None:
        twist = self._kinematics.jacobian(measured) @ velocity
        linear, angular = message.twist.linear, message.twist.angular
        linear.x, linear.y, linear.z, angular.x, angular.y, angular.z = map(float, twist)


class JointJogCommand(_ServoCommand):
    """Servo's JointJog: joint velocities by name.

    A joint that is not named stands still, so all are named. Displacements, which Servo does not support, and the
    duration, which it ignores, stay empty; it ignores the frame, too.
    """

    def _fill(self, message, velocity: np.ndarray, measured: np.ndarray) -> None:
        message.joint_names, message.velocities = list(self._names), velocity[self._columns].tolist()


def _remaining(trajectory: JointTrajectory, elapsed: float) -> JointTrajectory:
    """Return the rest of a trajectory after `elapsed` s, with times from then and FIRST_POINT_AHEAD as the first."""
    first = elapsed + FIRST_POINT_AHEAD
    keep = trajectory.times > first + 0.005
    heads = trajectory.sample(min(first, trajectory.duration))
    fields = (trajectory.positions, trajectory.velocities, trajectory.accelerations)
    states = [np.concatenate((head[None], field[keep])) for head, field in zip(heads, fields, strict=True)]
    if not keep.any():
        states[1][-1] = states[2][-1] = 0.0
    return JointTrajectory(trajectory.names, np.append(FIRST_POINT_AHEAD, trajectory.times[keep] - elapsed), *states)


# -- gripper -----------------------------------------------------------------------------------------------------------


def make_gripper(node, robot: RobotConfig, urdf: str, block_reason: Callable[[], str]) -> Gripper | None:
    """Return the gripper of the robot's file; None where it has none, or (logged) where it cannot be commanded.

    block_reason: returns why commands are dropped now, or "".
    """
    config = robot.gripper_controller
    if config is None or not robot.gripper:
        return None
    try:
        if config.interface == "gripper_command" and importlib.util.find_spec("control_msgs") is None:
            raise InputError("ROS package control_msgs not found; `make setup-robot` builds it")
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
        self._send = _make_sender(node, config, joint)
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
        if self._send(position, travel * FULL_TRAVEL_TIME):
            self._sent, self._sent_at = opening, now


def _make_sender(node, config: GripperControllerConfig, joint: str) -> Callable[[float, float], bool]:
    """Return a function of position (rad or m) and duration (s, used by trajectories only) that commands the joint.

    It returns False if the command could not be sent.
    """
    topic = robot_topic(node, config.topic)
    if config.interface == "gripper_command":  # a newer goal replaces the previous one
        from control_msgs.action import GripperCommand

        client = ActionClient(node, GripperCommand, topic)

        def send(position: float, seconds: float) -> bool:
            if not client.server_is_ready():
                node.warn_throttled("gripper", f"gripper command dropped: no server of the action {topic}")
                return False
            goal = GripperCommand.Goal()
            goal.command.position, goal.command.max_effort = position, config.max_effort
            client.send_goal_async(goal)
            return True

        return send
    kind = JointTrajectoryMessage if config.interface == "joint_trajectory" else Float64MultiArray
    publisher = node.create_lifecycle_publisher(kind, topic, RELIABLE)

    def publish(position: float, seconds: float) -> bool:
        if kind is Float64MultiArray:
            publisher.publish(Float64MultiArray(data=[position]))
        else:
            point = JointTrajectoryPoint(positions=[position], time_from_start=to_duration(seconds))
            publisher.publish(JointTrajectoryMessage(joint_names=[joint], points=[point]))
        return True

    return publish
