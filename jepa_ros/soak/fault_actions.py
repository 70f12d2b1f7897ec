"""Fault injector of a soak: signals to processes, service calls, corrupted images, plans and joint states."""

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
from jepa_ros.soak.goal_feeder import GoalFeeder
from jepa_ros.soak.image_relay import MODE_QOS, MODE_TOPIC
from jepa_ros.soak.observer import Observer


class FaultInjector:
    """Acts on the graph through ``node``, which is spun elsewhere, and on the processes of ``group``."""

    def __init__(
        self, node: Node, group: ProcessGroup, robot: RobotConfig, observer: Observer, goals: GoalFeeder
    ) -> None:
        self.goals = goals
        self._node, self._group, self._robot, self._observer = node, group, robot, observer
        self._clients: dict[tuple[type, str], object] = {}
        self._rogues: list = []  # publishers that do not belong to the graph
        self._paused: set[str] = set()  # nodes under SIGSTOP
        self._image_mode = node.create_publisher(String, MODE_TOPIC, MODE_QOS)
        self._e_stop = node.create_publisher(Bool, "e_stop", LATCHED)
        self.e_stop_pressed = False
        self.restarting: dict[str, tuple[float, int]] = {}  # name: (when, process id) of ended nodes not back yet
        self.response: Future | None = None  # of the last service called

    # -- processes -----------------------------------------------------------------------------------------------------

    def end_process(self, name: str, number: int) -> None:
        """Send a node the signal ``number`` that ends it; the group starts it again."""
        if name == "simulator":
            self._observer.unsubscribe_controller()  # or the next one refuses to start
        self.restarting[name] = time.time(), self._group.pids[name]
        self._signal(name, number)

    def pause_process(self, name: str) -> None:
        """Stop a node's process where it is."""
        self._paused.add(name)
        self._signal(name, signal.SIGSTOP)

    def resume_processes(self) -> None:
        """Let every paused process continue."""
        for name in self._paused:
            self._signal(name, signal.SIGCONT)
        self._paused.clear()

    def _signal(self, name: str, number: int) -> None:
        try:
            os.kill(self._group.pids[name], number)
        except ProcessLookupError:  # it has ended already, and is about to be started again
            pass

    # -- topics --------------------------------------------------------------------------------------------------------

    def set_image_mode(self, mode: str) -> None:
        """Forward images, or corrupt them, from now on; see image_relay."""
        self._image_mode.publish(String(data=mode))

    def set_e_stop(self, pressed: bool) -> None:
        """Press or unpress the e-stop."""
        self.e_stop_pressed = pressed
        self._e_stop.publish(Bool(data=pressed))

    def add_rogue_publisher(self) -> None:
        """Add a publisher to the controller's topic. It sends nothing, since the controller would execute it."""
        topic = self._robot.controllers[0].command_topic
        self._rogues.append(self._node.create_publisher(JointTrajectory, topic, STREAM))

    def publish_plans(self, how: Callable[[Plan, float], None]) -> Callable[[], None]:
        """Add a publisher of `plan`; return a function that sends a plan to stay in place, corrupted by ``how``."""
        publisher = self._node.create_publisher(Plan, "plan", STREAM)
        self._rogues.append(publisher)
        return lambda: publisher.publish(self._make_plan(how))

    def publish_joint_states(self, how: Callable[[JointState], None]) -> Callable[[], None]:
        """Add a publisher of `joint_states`; return a function that sends a message corrupted by ``how``."""
        publisher = self._node.create_publisher(JointState, "joint_states", STREAM)
        self._rogues.append(publisher)

        def send() -> None:
            message = JointState(name=list(self._robot.joints), position=self._positions())
            message.header.stamp = self._node.get_clock().now().to_msg()
            how(message)
            publisher.publish(message)

        return send

    def remove_rogue_publishers(self) -> None:
        """Remove every publisher that was added."""
        for publisher in self._rogues:
            self._node.destroy_publisher(publisher)
        self._rogues.clear()

    def _positions(self) -> list[float]:
        measured = self._observer.positions
        return [self._robot.home[j] for j in self._robot.joints] if measured is None else measured.tolist()

    def _make_plan(self, how: Callable[[Plan, float], None]) -> Plan:
        now = self._node.get_clock().now().nanoseconds * 1e-9
        here, rest = self._positions(), [0.0] * len(self._robot.joints)
        plan = Plan(plan_id=2**40, source_stamp=stamp_of_seconds(now), valid_until=stamp_of_seconds(now + 2.0))
        plan.header.stamp = stamp_of_seconds(now + 0.05)
        plan.trajectory.joint_names = list(self._robot.joints)
        for t in (0.0, 0.5):
            point = JointTrajectoryPoint(positions=here, velocities=rest, accelerations=rest)
            point.time_from_start = to_duration(t)
            plan.trajectory.points.append(point)
        how(plan, now)
        return plan

    # -- services ------------------------------------------------------------------------------------------------------

    def call_trigger(self, name: str) -> None:
        """Call the service `stop` or `release`."""
        self._call(Trigger, name, Trigger.Request())

    def request_transition(self, name: str, transition: int) -> None:
        """Request a lifecycle transition (lifecycle_msgs/Transition) of a node."""
        self._call(ChangeState, f"{name}/change_state", ChangeState.Request(transition=Transition(id=transition)))

    def set_parameter(self, name: str, parameter: str, value) -> None:
        """Request that a node sets a parameter."""
        message = Parameter(parameter, value=value).to_parameter_msg()
        self._call(SetParameters, f"{name}/set_parameters", SetParameters.Request(parameters=[message]))

    def _call(self, kind: type, name: str, request) -> None:
        if (kind, name) not in self._clients:
            self._clients[kind, name] = self._node.create_client(kind, name)
        self.response = self._clients[kind, name].call_async(request)


def plan_with_nan(plan: Plan, now: float) -> None:
    """Corrupt a plan: one position is NaN."""
    plan.trajectory.points[-1].positions[0] = math.nan


def plan_beyond_limits(plan: Plan, now: float) -> None:
    """Corrupt a plan: 0.8 rad in 0.1 s."""
    last = plan.trajectory.points[-1]
    last.positions[3] -= 0.8
    last.time_from_start = to_duration(0.1)


def plan_ending_in_motion(plan: Plan, now: float) -> None:
    """Corrupt a plan: it does not end at rest."""
    plan.trajectory.points[-1].velocities[0] = 0.5


def plan_from_old_frame(plan: Plan, now: float) -> None:
    """Corrupt a plan: its source frame is 60 s old."""
    plan.source_stamp = stamp_of_seconds(now - 60.0)


def joints_with_nan(message: JointState) -> None:
    """Corrupt joint states: one position is NaN."""
    message.position[2] = math.nan


def joints_jumping(message: JointState) -> None:
    """Corrupt joint states: one joint is 1 rad from its position."""
    message.position[1] += 1.0


def joint_missing(message: JointState) -> None:
    """Corrupt joint states: one of the arm's joints is missing."""
    message.name, message.position = message.name[:-1], message.position[:-1]
