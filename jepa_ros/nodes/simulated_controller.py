"""One joint_trajectory_controller of the simulator, and what the simulated hardware makes of its set-points."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
from builtin_interfaces.msg import Time
from rclpy.node import Node
from trajectory_msgs.msg import JointTrajectory, JointTrajectoryPoint

from jepa_ros.nodes.common.convert import float64_array, points_of, to_seconds
from jepa_ros.nodes.common.qos import LATCHED
from jepa_ros.robot.config import ControllerConfig

if TYPE_CHECKING:
    from jepa_ros.sim.trajectory_sampler import State

try:
    from control_msgs.msg import JointTrajectoryControllerState
except ImportError:  # distributions have it, wheels do not
    JointTrajectoryControllerState = None

# s from one controller_state to the next: 50 Hz, or every cycle where these are slower
STATE_PERIOD = 0.018


class SimulatedController:
    """The model of a controller with its topic `<name>/controller_state`, which needs the package control_msgs.

    The caller receives `topic`, and calls all but publish_state under one lock. Arrays (J,) are in the order of
    `joints`.
    """

    def __init__(self, node: Node, config: ControllerConfig):
        from jepa_ros.sim.controller import TrajectoryController

        self.joints, self.topic = tuple(config.joints), config.command_topic
        self._model = TrajectoryController(self.joints)
        self._published = -math.inf  # stamp of the last state, s
        self._position = np.zeros(len(self.joints))  # set-points that the hardware has, rad
        self._state: tuple | None = None
        self._publisher = None
        if JointTrajectoryControllerState is not None:
            topic = f"{config.name}/controller_state"
            self._publisher = node.create_publisher(JointTrajectoryControllerState, topic, LATCHED)

    def hold(self, q: np.ndarray) -> None:
        """Drop any trajectory and hold q rad."""
        self._model.hold(q)
        self._position = np.array(q, dtype=float)

    def set_speed(self, factor: float) -> None:
        """Set the speed scaling, 0 to 1."""
        self._model.speed = factor

    def set_active(self, active: bool, measured: np.ndarray) -> None:
        """Deactivate the controller, which then keeps its last set-point, or activate it at `measured` rad."""
        if active and not self._model.active:
            self._model.activate(measured)
        elif not active:
            self._model.deactivate()

    def accept(self, message: JointTrajectory, now: float) -> None:
        """Take over a trajectory received at `now`, s. Raises InputError where the controller rejects it."""
        self._model.accept(points_of(message), now)

    def run_cycle(self, now: float, measured: np.ndarray, velocities: np.ndarray) -> np.ndarray:
        """Return the set-points rad at `now`, s. The hardware ignores those that are not finite, joint by joint."""
        command = self._model.update(now, measured, velocities)
        self._position = np.where(np.isfinite(command), command, self._position)
        m = self._model
        self._state = (m.reference, m.output, measured, velocities, m.speed) if m.active else None
        return self._position

    def publish_state(self, stamp: Time) -> None:
        """Publish controller_state, in every cycle in which it is due; while inactive the controller publishes none."""
        now = to_seconds(stamp)
        if self._publisher is None or self._state is None or 0.0 <= now - self._published < STATE_PERIOD:
            return
        self._published = now
        self._publisher.publish(make_controller_state(stamp, self.joints, *self._state))


def make_controller_state(
    stamp: Time,
    joints: tuple[str, ...],
    reference: State,
    output: np.ndarray,
    measured: np.ndarray,
    velocities: np.ndarray | None,
    speed: float,
):
    """Return control_msgs/JointTrajectoryControllerState.

    reference: sample of the present cycle. output: set-points (J,) rad. measured: (J,) rad, velocities: (J,) rad/s or
    None. speed: speed scaling factor.
    """
    message = JointTrajectoryControllerState(joint_names=list(joints), speed_scaling_factor=float(speed))
    message.header.stamp = stamp
    message.reference = _make_point(*reference)
    message.feedback = _make_point(measured, velocities)
    message.error = _make_point(reference.q - measured)
    message.output = _make_point(output)
    return message


def _make_point(q: np.ndarray, qd: np.ndarray | None = None, qdd: np.ndarray | None = None) -> JointTrajectoryPoint:
    point = JointTrajectoryPoint(positions=float64_array(q))
    if qd is not None:
        point.velocities = float64_array(qd)
    if qdd is not None:
        point.accelerations = float64_array(qdd)
    return point
