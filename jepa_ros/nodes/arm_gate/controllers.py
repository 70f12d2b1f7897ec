"""How windows of motion reach the controllers: one class for each kind of controller."""

from __future__ import annotations

from typing import Protocol

import numpy as np
from rclpy.duration import Duration
from rclpy.qos import QoSProfile, ReliabilityPolicy

from jepa_ros.nodes.common.convert import to_stamp, trajectory_message
from jepa_ros.nodes.common.topics import command_class
from jepa_ros.robot.config import ControllerConfig, RobotConfig
from jepa_ros.robot.gate.types import Window
from jepa_ros.robot.motion.kinematics import Kinematics
from jepa_ros.robot.motion.limits import JointLimits
from jepa_ros.robot.motion.trajectory import JointTrajectory

NEWEST = QoSProfile(depth=1, reliability=ReliabilityPolicy.RELIABLE)  # a newer window replaces the older anyway
AHEAD = 0.02  # s, first point of a window without a stamp
GAIN = 3.0  # 1/s, by which a velocity command makes up for the distance of the arm from the reference
ZEROS = 10  # still commands after a motion; after them MoveIt Servo's own time-out holds the arm


class CommandInterface(Protocol):
    """One controller that the gate commands."""

    topic: str

    def send(self, window: Window, now: float) -> None:
        """Give the controller this motion; now: s, ROS time."""

    def stream(self, reference: np.ndarray | None, measured: np.ndarray | None, moving: bool) -> None:
        """Every tick: reference (3, J) rad, rad/s, rad/s² (None before there is one), measured (J,) rad."""

    def listeners(self) -> int:
        """How many controllers listen."""

    def publishers(self) -> int:
        """How many publish to the controller, the gate included."""

    def flush(self, timeout: float) -> bool:
        """Wait until everything sent has arrived, at most `timeout` s; whether it has."""


def make_command(
    node,
    controller: ControllerConfig,
    robot: RobotConfig,
    kinematics: Kinematics,
    limits: JointLimits,
    stamped: bool,
    shadow: bool = False,
) -> CommandInterface:
    """The interface that a controller's type asks for. stamped: see TrajectoryCommand. shadow: see NoCommand.

    Raises InputError where the package of the controller's messages is not installed.
    """
    if shadow:
        return NoCommand(controller.command_topic)
    if controller.interface == "joint_trajectory":
        return TrajectoryCommand(node, controller, limits.names, stamped)
    if controller.interface == "servo_twist":
        return TwistCommand(node, controller, robot.base_frame, limits, kinematics)
    if controller.interface == "servo_joint_jog":
        return JointJogCommand(node, controller, robot.base_frame, limits)
    return PositionCommand(node, controller, limits.names)


class _Topic:
    """A controller's command topic."""

    def __init__(self, node, controller: ControllerConfig):
        self._node, self._message = node, command_class(controller)
        self._publisher = node.create_lifecycle_publisher(self._message, controller.command_topic, NEWEST)
        self.topic = self._publisher.topic_name

    def send(self, window: Window, now: float) -> None:
        """See CommandInterface; not every controller takes windows."""

    def stream(self, reference: np.ndarray | None, measured: np.ndarray | None, moving: bool) -> None:
        """See CommandInterface; not every controller takes references."""

    def listeners(self) -> int:
        """See CommandInterface."""
        return self._publisher.get_subscription_count()

    def publishers(self) -> int:
        """See CommandInterface."""
        return self._node.count_publishers(self.topic)

    def flush(self, timeout: float) -> bool:
        """See CommandInterface."""
        return self._publisher.wait_for_all_acked(Duration(seconds=timeout))


class NoCommand:
    """In place of any controller: there is no publisher, so that nothing can leave."""

    def __init__(self, topic: str):
        self.topic = topic

    def send(self, window: Window, now: float) -> None:
        """See CommandInterface."""

    def stream(self, reference: np.ndarray | None, measured: np.ndarray | None, moving: bool) -> None:
        """See CommandInterface."""

    def listeners(self) -> int:
        """See CommandInterface: as if there were one."""
        return 1

    def publishers(self) -> int:
        """See CommandInterface: as if it were the gate alone."""
        return 1

    def flush(self, timeout: float) -> bool:
        """See CommandInterface."""
        return True


class TrajectoryCommand(_Topic):
    """joint_trajectory_controller. stamped: absolute stamps; otherwise stamp 0, "from when it is received".

    With a stamp the first point lies a little in the past and the controller takes the curve up where it is by now,
    exactly. Without one, clocks that disagree do no harm, but there must be no point at time 0 (it would be a step back
    by the transport's delay): the controller interpolates from where it is to the first point.
    """

    def __init__(self, node, controller: ControllerConfig, names: tuple[str, ...], stamped: bool):
        super().__init__(node, controller)
        self._stamped = stamped
        self._columns = [names.index(joint) for joint in controller.joints]
        self._names = tuple(controller.joints)

    def send(self, window: Window, now: float) -> None:
        """See CommandInterface."""
        trajectory, start = window.trajectory, window.start
        if not self._stamped:
            trajectory = _from(trajectory, now - start)
        own = JointTrajectory(
            self._names,
            trajectory.times,
            trajectory.positions[:, self._columns],
            trajectory.velocities[:, self._columns],
            trajectory.accelerations[:, self._columns],
        )
        self._publisher.publish(trajectory_message(own, to_stamp(round(start * 1e9)) if self._stamped else None))


class PositionCommand(_Topic):
    """forward_command_controller on position interfaces: the reference itself, every tick of a motion.

    Such a controller has no time-out: where the gate dies in motion, the arm stays at the last set-point.
    """

    def __init__(self, node, controller: ControllerConfig, names: tuple[str, ...]):
        super().__init__(node, controller)
        self._columns = [names.index(joint) for joint in controller.joints]
        self._sent: np.ndarray | None = None

    def stream(self, reference: np.ndarray | None, measured: np.ndarray | None, moving: bool) -> None:
        """See CommandInterface. At rest nothing is sent: before the first motion the set-point is another's."""
        if reference is None:
            self._sent = None
        elif moving or (self._sent is not None and (self._sent != reference[0]).any()):
            self._sent = reference[0].copy()
            self._publisher.publish(self._message(data=self._sent[self._columns].tolist()))


class _ServoCommand(_Topic):
    """MoveIt Servo: a velocity every tick of a motion; Servo stops without it, by its `incoming_command_timeout`, which
    looks at the stamps.

    The velocity of the reference, and what brings the arm back to the reference where it has fallen behind; all of it
    slowed together where a joint would have to be faster than its limit.
    """

    def __init__(self, node, controller: ControllerConfig, frame: str, limits: JointLimits):
        super().__init__(node, controller)
        self._frame, self._limit = frame, limits.velocity
        self._zeros = ZEROS

    def stream(self, reference: np.ndarray | None, measured: np.ndarray | None, moving: bool) -> None:
        """See CommandInterface."""
        self._zeros = 0 if moving else self._zeros + 1
        if reference is None or measured is None or self._zeros > ZEROS:
            return
        speed = np.zeros_like(measured)
        if moving:
            speed = reference[1] + GAIN * (reference[0] - measured)
            speed = speed / max(1.0, float(np.abs(speed / self._limit).max()))
        message = self._message()
        message.header.stamp, message.header.frame_id = self._node.get_clock().now().to_msg(), self._frame
        self._fill(message, speed, measured)
        self._publisher.publish(message)

    def _fill(self, message, speed: np.ndarray, measured: np.ndarray) -> None:
        """Write the velocity into Servo's message. speed: (J,) rad/s; measured: (J,) rad."""
        raise NotImplementedError


class TwistCommand(_ServoCommand):
    """Servo's TwistStamped: the tool's velocity in the base frame."""

    def __init__(self, node, controller: ControllerConfig, frame: str, limits: JointLimits, kinematics: Kinematics):
        super().__init__(node, controller, frame, limits)
        self._kinematics = kinematics

    def _fill(self, message, speed: np.ndarray, measured: np.ndarray) -> None:
        twist = self._kinematics.jacobian(measured) @ speed
        linear, angular = message.twist.linear, message.twist.angular
        linear.x, linear.y, linear.z, angular.x, angular.y, angular.z = map(float, twist)


class JointJogCommand(_ServoCommand):
    """Servo's JointJog: the joints' velocities by name.

    A joint that is not named stands still, so all are. Displacements, which Servo does not know, and the duration,
    which it does not read, are left empty; the frame means nothing to it.
    """

    def __init__(self, node, controller: ControllerConfig, frame: str, limits: JointLimits):
        super().__init__(node, controller, frame, limits)
        self._columns = [limits.names.index(joint) for joint in controller.joints]
        self._names = list(controller.joints)

    def _fill(self, message, speed: np.ndarray, measured: np.ndarray) -> None:
        message.joint_names, message.velocities = self._names, speed[self._columns].tolist()


def _from(trajectory: JointTrajectory, elapsed: float) -> JointTrajectory:
    """What is left of it after `elapsed` s, times from then on, the first point AHEAD."""
    first = elapsed + AHEAD
    keep = trajectory.times > first + 0.005
    heads = trajectory.sample(min(first, trajectory.duration))
    fields = (trajectory.positions, trajectory.velocities, trajectory.accelerations)
    states = [np.concatenate((head[None], field[keep])) for head, field in zip(heads, fields, strict=True)]
    if not keep.any():
        states[1][-1] = states[2][-1] = 0.0
    return JointTrajectory(trajectory.names, np.append(AHEAD, trajectory.times[keep] - elapsed), *states)
