"""What a soak can do to a running graph: signals, services, images spoilt on their way, messages nobody asked for."""

from __future__ import annotations

import math
import os
import signal
import time
from collections.abc import Callable

from jepa_msgs.msg import Plan
from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState
from rcl_interfaces.srv import SetParameters
from rclpy.node import Node
from rclpy.parameter import Parameter
from rclpy.task import Future
from sensor_msgs.msg import JointState
from std_msgs.msg import Bool, String
from std_srvs.srv import Trigger
from trajectory_msgs.msg import JointTrajectory, JointTrajectoryPoint

from jepa_ros.bringup.process_group import ProcessGroup
from jepa_ros.nodes.common.convert import stamp_of_seconds, to_duration
from jepa_ros.nodes.common.qos import LATCHED, STREAM
from jepa_ros.robot.config import RobotConfig
from jepa_ros.soak.goal_feeder import Goals
from jepa_ros.soak.image_relay import MODE_QOS, MODE_TOPIC
from jepa_ros.soak.observer import Observer


class Hands:
    """Acts on the graph through ``node`` (which somebody spins) and on the processes of ``group``."""

    def __init__(self, node: Node, group: ProcessGroup, robot: RobotConfig, observer: Observer, goals: Goals) -> None:
        self.goals = goals
        self._node, self._group, self._robot, self._observer = node, group, robot, observer
        self._clients: dict[tuple[type, str], object] = {}
        self._strangers: list = []  # publishers that are not the graph's
        self._frozen: set[str] = set()  # nodes under SIGSTOP
        self._image_mode = node.create_publisher(String, MODE_TOPIC, MODE_QOS)
        self._e_stop = node.create_publisher(Bool, "e_stop", LATCHED)
        self.e_stopped = False
        self.ended: dict[str, tuple[float, int]] = {}  # name: (when, process id) of nodes not seen again since
        self.answer: Future | None = None  # of the last service called

    # -- processes -----------------------------------------------------------------------------------------------------

    def end(self, name: str, number: int) -> None:
        """Send a node the signal that ends it; it is started again by the group."""
        if name == "simulator":
            self._observer.deaf()  # or the next one refuses to start
        self.ended[name] = time.time(), self._group.pids[name]
        self._signal(name, number)

    def freeze(self, name: str) -> None:
        """Stop a node's process as it stands."""
        self._frozen.add(name)
        self._signal(name, signal.SIGSTOP)

    def thaw(self) -> None:
        """Let every frozen process go on."""
        for name in self._frozen:
            self._signal(name, signal.SIGCONT)
        self._frozen.clear()

    def _signal(self, name: str, number: int) -> None:
        try:
            os.kill(self._group.pids[name], number)
        except ProcessLookupError:  # it has ended already, and is about to be started again
            pass

    # -- topics --------------------------------------------------------------------------------------------------------

    def images(self, mode: str) -> None:
        """What happens to images from now on; see soak_relay."""
        self._image_mode.publish(String(data=mode))

    def e_stop(self, on: bool) -> None:
        """Press the e-stop, or let it go."""
        self.e_stopped = on
        self._e_stop.publish(Bool(data=on))

    def stranger(self) -> None:
        """Somebody else opens the controller's topic. He sends nothing: what he sent, the controller would follow."""
        topic = self._robot.controllers[0].command_topic
        self._strangers.append(self._node.create_publisher(JointTrajectory, topic, STREAM))

    def plan(self, spoil: Callable[[Plan, float], None]) -> Callable[[], None]:
        """Open the topic `plan`; the function returned sends a plan to where the arm is, after ``spoil``."""
        publisher = self._node.create_publisher(Plan, "plan", STREAM)
        self._strangers.append(publisher)
        return lambda: publisher.publish(self._make_plan(spoil))

    def joint_states(self, spoil: Callable[[JointState], None]) -> Callable[[], None]:
        """Open the topic `joint_states`; the function returned sends one message after ``spoil(message)``."""
        publisher = self._node.create_publisher(JointState, "joint_states", STREAM)
        self._strangers.append(publisher)

        def send() -> None:
            message = JointState(name=list(self._robot.joints), position=self._positions())
            message.header.stamp = self._node.get_clock().now().to_msg()
            spoil(message)
            publisher.publish(message)

        return send

    def strangers_leave(self) -> None:
        """Close every topic that was opened."""
        for publisher in self._strangers:
            self._node.destroy_publisher(publisher)
        self._strangers.clear()

    def _positions(self) -> list[float]:
        measured = self._observer.positions
        return [self._robot.home[j] for j in self._robot.joints] if measured is None else measured.tolist()

    def _make_plan(self, spoil: Callable[[Plan, float], None]) -> Plan:
        now = self._node.get_clock().now().nanoseconds * 1e-9
        here, rest = self._positions(), [0.0] * len(self._robot.joints)
        plan = Plan(plan_id=2**40, source_stamp=stamp_of_seconds(now), valid_until=stamp_of_seconds(now + 2.0))
        plan.header.stamp = stamp_of_seconds(now + 0.05)
        plan.trajectory.joint_names = list(self._robot.joints)
        for t in (0.0, 0.5):
            point = JointTrajectoryPoint(positions=here, velocities=rest, accelerations=rest)
            point.time_from_start = to_duration(t)
            plan.trajectory.points.append(point)
        spoil(plan, now)
        return plan

    # -- services ------------------------------------------------------------------------------------------------------

    def trigger(self, name: str) -> None:
        """Call `stop` or `release`."""
        self._call(Trigger, name, Trigger.Request())

    def transition(self, name: str, wanted: int) -> None:
        """Ask a node for a lifecycle transition (lifecycle_msgs/Transition)."""
        self._call(ChangeState, f"{name}/change_state", ChangeState.Request(transition=Transition(id=wanted)))

    def set_parameter(self, name: str, parameter: str, value) -> None:
        """Ask a node to take a parameter's value."""
        message = Parameter(parameter, value=value).to_parameter_msg()
        self._call(SetParameters, f"{name}/set_parameters", SetParameters.Request(parameters=[message]))

    def _client(self, kind: type, name: str):
        if (kind, name) not in self._clients:
            self._clients[kind, name] = self._node.create_client(kind, name)
        return self._clients[kind, name]

    def _call(self, kind: type, name: str, request) -> None:
        self.answer = self._client(kind, name).call_async(request)


def not_finite(plan: Plan, now: float) -> None:
    """Spoil a plan: one position is NaN."""
    plan.trajectory.points[-1].positions[0] = math.nan


def far_too_fast(plan: Plan, now: float) -> None:
    """Spoil a plan: 0.8 rad in a tenth of a second."""
    last = plan.trajectory.points[-1]
    last.positions[3] -= 0.8
    last.time_from_start = to_duration(0.1)


def in_motion_at_its_end(plan: Plan, now: float) -> None:
    """Spoil a plan: it does not end at rest."""
    plan.trajectory.points[-1].velocities[0] = 0.5


def long_ago(plan: Plan, now: float) -> None:
    """Spoil a plan: made from a frame of a minute ago."""
    plan.source_stamp = stamp_of_seconds(now - 60.0)


def joints_not_finite(message: JointState) -> None:
    """Spoil joint states: NaN."""
    message.position[2] = math.nan


def joints_elsewhere(message: JointState) -> None:
    """Spoil joint states: 1 rad from where the arm is."""
    message.position[1] += 1.0


def joint_missing(message: JointState) -> None:
    """Spoil joint states: one of the arm's joints is not among them."""
    message.name, message.position = message.name[:-1], message.position[:-1]
