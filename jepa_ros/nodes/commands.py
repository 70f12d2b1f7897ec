"""How windows of motion reach the controllers: one class for each kind of controller."""

from __future__ import annotations

from typing import Protocol

import numpy as np
from rclpy.duration import Duration
from rclpy.qos import QoSProfile, ReliabilityPolicy
from trajectory_msgs.msg import JointTrajectory as JointTrajectoryMessage

from jepa_ros.nodes.convert import to_stamp, trajectory_message
from jepa_ros.robot.config import ControllerConfig
from jepa_ros.robot.gate_types import Window
from jepa_ros.robot.trajectory import JointTrajectory

NEWEST = QoSProfile(depth=1, reliability=ReliabilityPolicy.RELIABLE)  # a newer window replaces the older anyway
AHEAD = 0.02  # s, first point of a window without a stamp


class CommandInterface(Protocol):
    """One controller that the gate commands."""

    topic: str

    def send(self, window: Window, now: float) -> None:
        """Give the controller this motion; now: s, ROS time."""

    def listeners(self) -> int:
        """How many controllers listen."""

    def publishers(self) -> int:
        """How many publish to the controller, the gate included."""

    def flush(self, timeout: float) -> bool:
        """Wait until everything sent has arrived, at most `timeout` s; whether it has."""


class TrajectoryCommand:
    """joint_trajectory_controller. stamped: absolute stamps; otherwise stamp 0, "from when it is received".

    With a stamp the first point lies a little in the past and the controller takes the curve up where it is by now,
    exactly. Without one, clocks that disagree do no harm, but there must be no point at time 0 (it would be a step back
    by the transport's delay): the controller interpolates from where it is to the first point.
    """

    def __init__(self, node, controller: ControllerConfig, names: tuple[str, ...], stamped: bool):
        self._node, self._stamped = node, stamped
        self._columns = [names.index(joint) for joint in controller.joints]
        self._names = tuple(controller.joints)
        self._publisher = node.create_lifecycle_publisher(JointTrajectoryMessage, controller.command_topic, NEWEST)
        self.topic = self._publisher.topic_name

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

    def listeners(self) -> int:
        """See CommandInterface."""
        return self._publisher.get_subscription_count()

    def publishers(self) -> int:
        """See CommandInterface."""
        return self._node.count_publishers(self.topic)

    def flush(self, timeout: float) -> bool:
        """See CommandInterface."""
        return self._publisher.wait_for_all_acked(Duration(seconds=timeout))


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
