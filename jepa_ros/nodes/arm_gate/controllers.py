"""Command interfaces: how windows of motion reach the controllers, one class for each kind of controller."""

from __future__ import annotations

import numpy as np
from rclpy.duration import Duration

from jepa_ros.nodes.common.convert import to_stamp, trajectory_message
from jepa_ros.nodes.common.qos import NEWEST
from jepa_ros.nodes.common.topics import command_class
from jepa_ros.robot.config import ControllerConfig, RobotConfig
from jepa_ros.robot.gate.types import Window
from jepa_ros.robot.motion.kinematics import Kinematics
from jepa_ros.robot.motion.limits import JointLimits
from jepa_ros.robot.motion.trajectory import JointTrajectory

FIRST_POINT_AHEAD = 0.02  # s, first point of a window without a stamp
POSITION_GAIN = 3.0  # 1/s, by which a velocity command corrects the distance of the arm from the reference
ZEROS_AFTER_MOTION = 10  # zero velocities sent after a motion; then MoveIt Servo's own timeout holds the arm


def make_command(
    node, controller: ControllerConfig, robot: RobotConfig, kinematics: Kinematics, limits: JointLimits, stamped: bool
) -> CommandInterface:
    """Return the command interface for a controller's type. stamped: see TrajectoryCommand.

    Raises InputError where the package of the controller's messages is not installed.
    """
    if controller.interface == "joint_trajectory":
        return TrajectoryCommand(node, controller, limits.names, stamped)
    if controller.interface == "servo_twist":
        return TwistCommand(node, controller, robot.base_frame, limits, kinematics)
    if controller.interface == "servo_joint_jog":
        return JointJogCommand(node, controller, robot.base_frame, limits)
    return PositionCommand(node, controller, limits.names)


class CommandInterface:
    """A controller that the gate commands, by its command topic.

    A controller takes either windows or references; the other method does nothing.
    """

    def __init__(self, node, controller: ControllerConfig):
        self._node, self._message = node, command_class(controller)
        self._publisher = node.create_lifecycle_publisher(self._message, controller.command_topic, NEWEST)
        self.topic = self._publisher.topic_name

    def send_window(self, window: Window, now: float) -> None:
        """Send a motion that ends at rest; now: s, ROS time."""

    def send_reference(self, reference: np.ndarray | None, measured: np.ndarray | None, moving: bool) -> None:
        """Called every tick. reference: (3, J) rad, rad/s, rad/s² (None before the first); measured: (J,) rad."""

    def count_subscribers(self) -> int:
        """Return the number of subscribers of the command topic."""
        return self._publisher.get_subscription_count()

    def count_publishers(self) -> int:
        """Return the number of publishers on the command topic, the gate included."""
        return self._node.count_publishers(self.topic)

    def wait_for_acknowledgement(self, timeout: float) -> bool:
        """Wait at most `timeout` s until everything sent has arrived; True if it has."""
        return self._publisher.wait_for_all_acked(Duration(seconds=timeout))


class TrajectoryCommand(CommandInterface):
    """joint_trajectory_controller. stamped: absolute stamps; otherwise stamp 0, "starts when received".

    With a stamp the first point lies a little in the past, and the controller continues the curve exactly. Without one
    it does not matter whether the clocks agree, but there must be no point at time 0 (it would be a step back by the
    transport delay): the controller interpolates from its present state to the first point.
    """

    def __init__(self, node, controller: ControllerConfig, names: tuple[str, ...], stamped: bool):
        super().__init__(node, controller)
        self._stamped = stamped
        self._columns = [names.index(joint) for joint in controller.joints]
        self._names = tuple(controller.joints)

    def send_window(self, window: Window, now: float) -> None:
        trajectory, start = window.trajectory, window.start
        if not self._stamped:
            trajectory = _remaining(trajectory, now - start)
        own = JointTrajectory(
            self._names,
            trajectory.times,
            trajectory.positions[:, self._columns],
            trajectory.velocities[:, self._columns],
            trajectory.accelerations[:, self._columns],
        )
        self._publisher.publish(trajectory_message(own, to_stamp(round(start * 1e9)) if self._stamped else None))


class PositionCommand(CommandInterface):
    """forward_command_controller on position interfaces: the reference itself, every tick of a motion.

    This controller has no timeout: if the gate dies in motion, the arm stays at the last set-point.
    """

    def __init__(self, node, controller: ControllerConfig, names: tuple[str, ...]):
        super().__init__(node, controller)
        self._columns = [names.index(joint) for joint in controller.joints]
        self._sent: np.ndarray | None = None

    def send_reference(self, reference: np.ndarray | None, measured: np.ndarray | None, moving: bool) -> None:
        """Send nothing at rest: before the first motion the set-point belongs to another node."""
        if reference is None:
            self._sent = None
        elif moving or (self._sent is not None and (self._sent != reference[0]).any()):
            self._sent = reference[0].copy()
            self._publisher.publish(self._message(data=self._sent[self._columns].tolist()))


class _ServoCommand(CommandInterface):
    """MoveIt Servo: a velocity every tick of a motion. Servo stops without one, by its `incoming_command_timeout`,
    which uses the stamps.

    The velocity is that of the reference plus a correction of the arm's distance from the reference; all joints are
    slowed together where one would exceed its limit.
    """

    def __init__(self, node, controller: ControllerConfig, frame: str, limits: JointLimits):
        super().__init__(node, controller)
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

    def __init__(self, node, controller: ControllerConfig, frame: str, limits: JointLimits, kinematics: Kinematics):
        super().__init__(node, controller, frame, limits)
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

    def __init__(self, node, controller: ControllerConfig, frame: str, limits: JointLimits):
        super().__init__(node, controller, frame, limits)
        self._columns = [limits.names.index(joint) for joint in controller.joints]
        self._names = list(controller.joints)

    def _fill(self, message, velocity: np.ndarray, measured: np.ndarray) -> None:
        message.joint_names, message.velocities = self._names, velocity[self._columns].tolist()


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
