"""Controller reports: the controllers' state topics, read by the gate's ticks.

joint_trajectory_controller publishes ~/controller_state, the controller manager ~/activity (4.46: reliable, transient
local) whenever a controller changes its state. Their messages come with a ROS distribution, or by `make setup-robot`;
without them the gate relies on joint states alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from lifecycle_msgs.msg import State
from rclpy.event_handler import SubscriptionEventCallbacks

from jepa_ros.nodes.common.convert import to_seconds
from jepa_ros.nodes.common.qos import LATCHED, SENSOR
from jepa_ros.nodes.common.topics import robot_topic
from jepa_ros.robot.config import ControllerConfig
from jepa_ros.robot.gate.controller_watch import ControllerReport

try:
    from control_msgs.msg import JointTrajectoryControllerState
except ImportError:
    JointTrajectoryControllerState = None
try:
    from controller_manager_msgs.msg import ControllerManagerActivity
except ImportError:
    ControllerManagerActivity = None

ACTIVITY = "controller_manager/activity"
NOT_LOADED = "not loaded"


class ControllerReports:
    """Subscribes to the state of `controllers`, whose names are topics, and to the controller manager's activity."""

    def __init__(self, node, controllers: Sequence[ControllerConfig]):
        self._node = node
        # The ticks take messages themselves: an executor that wakes for each costs more.
        self._silent = SubscriptionEventCallbacks(use_default_callbacks=False)
        self._states, self._activity, self._known = [], None, False
        self._names = [c.name.rsplit("/", 1)[-1] for c in controllers if not c.type.startswith("moveit_servo/")]
        for controller in controllers:
            if controller.interface == "joint_trajectory" and JointTrajectoryControllerState is not None:
                topic = f"{controller.name}/controller_state"
                self._states.append((controller, self._subscribe(JointTrajectoryControllerState, topic, SENSOR)))
        if (
            controllers
            and ControllerManagerActivity is not None
            and controllers[0].type.split("/")[0] != "moveit_servo"
        ):
            self._activity = self._subscribe(ControllerManagerActivity, robot_topic(node, ACTIVITY), LATCHED)

    def take(self) -> Iterator[ControllerReport]:
        """Take the reports received since the last call."""
        for controller, subscription in self._states:
            for message in _take(subscription):
                name, stamp = controller.name.rsplit("/", 1)[-1], to_seconds(message.header.stamp)
                # What was commanded: one cycle ahead of the reference. Empty without a position interface.
                held = message.output.positions or message.reference.positions
                yield ControllerReport(name, tuple(message.joint_names), held, message.speed_scaling_factor, stamp)

    def take_activity(self) -> Iterator[dict[str, str]]:
        """Take the activities received since the last call: the controllers that are not active, and their state."""
        if self._activity is None:
            return
        for message in _take(self._activity):
            self._known = True
            states = {c.name: c.state for c in message.controllers}
            found = {name: states.get(name) for name in self._names}
            yield {
                name: state.label if state is not None else NOT_LOADED
                for name, state in found.items()
                if state is None or state.id != State.PRIMARY_STATE_ACTIVE
            }

    def lost_activity(self) -> bool:
        """Return True once after the activity's publisher has gone: its last message may be outdated."""
        if not self._known or self._node.count_publishers(self._activity.topic_name):
            return False
        self._known = False
        return True

    def _subscribe(self, kind, topic: str, qos):
        subscription = self._node.create_subscription(
            kind, topic, lambda message: None, qos, event_callbacks=self._silent
        )
        subscription.polled = True
        return subscription


def _take(subscription) -> Iterator:
    with subscription.handle:
        while (taken := subscription.handle.take_message(subscription.msg_type, False)) is not None:
            yield taken[0]
