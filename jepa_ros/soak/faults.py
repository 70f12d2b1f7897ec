"""Faults of a soak: the injector that acts on the graph, the catalogue, and the order in which faults come.

A fault is an event from outside while the arm is in motion. ``must_stop`` tells whether it is a reason to stop: then
the gate must leave TRACKING, and the motion sent must end within ``stop_within`` s. Otherwise the arm continues.
"""

from __future__ import annotations

import math
import os
import random
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

from jepa_msgs.msg import Plan
from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState
from rcl_interfaces.srv import SetParameters
from rclpy.client import Client
from rclpy.node import Node
from rclpy.parameter import Parameter
from rclpy.publisher import Publisher
from rclpy.task import Future
from sensor_msgs.msg import JointState
from std_msgs.msg import Bool, String
from std_srvs.srv import Trigger
from trajectory_msgs.msg import JointTrajectory, JointTrajectoryPoint

from jepa_ros.bringup.process_group import ProcessGroup
from jepa_ros.nodes.common.convert import stamp_of_seconds, to_duration
from jepa_ros.nodes.common.qos import LATCHED, STREAM
from jepa_ros.nodes.simulated_controller import JointTrajectoryControllerState
from jepa_ros.robot.config import RobotConfig
from jepa_ros.soak.goal_feeder import GoalFeeder
from jepa_ros.soak.image_relay import MODE_QOS, MODE_TOPIC
from jepa_ros.soak.observer import Observer

NODES = ("camera", "world_model", "planner", "simulator", "arm_gate")


class FaultInjector:
    """Acts on the graph through ``node``, which is spun elsewhere, and on the processes of ``group``."""

    def __init__(
        self, node: Node, group: ProcessGroup, robot: RobotConfig, observer: Observer, goals: GoalFeeder
    ) -> None:
        self.goals = goals
        self._node, self._group, self._robot, self._observer = node, group, robot, observer
        self._clients: dict[tuple[type, str], Client] = {}
        self._rogues: list[Publisher] = []  # publishers that do not belong to the graph
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


# -- catalogue ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Fault:
    """One kind of fault, at a node (``target``) or at none.

    inject(injector) starts it; the function that it may return is called every ``repeat_every`` s while the fault
    lasts. undo(injector) ends it. duration: s, (least, most). recover_within: s from its end until the arm tracks a
    plan again. ends_process: it ends a process, which is started again. must_be_refused: a service must refuse it.
    """

    kind: str
    inject: Callable[[FaultInjector], Callable[[], None] | None]
    undo: Callable[[FaultInjector], None] = lambda injector: None
    target: str = ""
    must_stop: bool = True
    stop_within: float = 2.0
    duration: tuple[float, float] = (0.8, 2.0)
    recover_within: float = 20.0
    ends_process: bool = False
    must_be_refused: bool = False
    repeat_every: float = 0.05

    def __str__(self) -> str:
        return f"{self.kind} {self.target}".strip()


def _signals(node: str) -> Iterator[Fault]:
    # A killed process may stay announced for its DDS lease (20 s), and one that starts on a busy machine first imports
    # torch or loads a scene.
    ending = {"target": node, "duration": (0.5, 0.5), "recover_within": 90.0, "ends_process": True}
    yield Fault("SIGKILL", lambda injector: injector.end_process(node, signal.SIGKILL), **ending)
    yield Fault("SIGTERM", lambda injector: injector.end_process(node, signal.SIGTERM), **ending)
    pause = partial(FaultInjector.pause_process, name=node)
    yield Fault("SIGSTOP", pause, FaultInjector.resume_processes, node, duration=(1.5, 3.0), recover_within=30.0)


def _images() -> Iterator[Fault]:
    for mode, kind in (
        ("drop", "camera drops out"),
        ("freeze", "frozen image"),
        ("stale", "stale stamps"),
        ("future", "stamps in the future"),
        ("truncate", "truncated images"),
        ("encoding", "unknown encoding"),
    ):
        set_mode = FaultInjector.set_image_mode
        yield Fault(kind, partial(set_mode, mode=mode), partial(set_mode, mode="pass"))


def _rogue_publishers() -> Iterator[Fault]:
    remove = FaultInjector.remove_rogue_publishers
    yield Fault("second publisher to the controller", FaultInjector.add_rogue_publisher, remove, stop_within=2.5)
    for kind, how, stops in (
        ("plan with NaN", plan_with_nan, False),
        ("plan that ends in motion", plan_ending_in_motion, False),
        ("plan from an old frame", plan_from_old_frame, False),
        ("plan far beyond the limits", plan_beyond_limits, True),
    ):
        publish = partial(FaultInjector.publish_plans, how=how)
        yield Fault(kind, publish, remove, must_stop=stops, stop_within=2.5)
    for kind, how in (
        ("joint_states with NaN", joints_with_nan),
        ("joint_states that jump", joints_jumping),
        ("joint_states without a joint", joint_missing),
    ):
        yield Fault(kind, partial(FaultInjector.publish_joint_states, how=how), remove, stop_within=2.5)


def _operators() -> Iterator[Fault]:
    release = partial(FaultInjector.call_trigger, name="release")
    yield Fault("service stop, then release", partial(FaultInjector.call_trigger, name="stop"), release)
    press, unpress = (partial(FaultInjector.set_e_stop, pressed=pressed) for pressed in (True, False))
    yield Fault("e-stop on, then off", press, unpress)
    for node in NODES:
        if node != "simulator":  # it starts only if nothing else subscribes to the controllers' topics
            yield Fault(
                "deactivated, then activated",
                partial(FaultInjector.request_transition, name=node, transition=Transition.TRANSITION_DEACTIVATE),
                partial(FaultInjector.request_transition, name=node, transition=Transition.TRANSITION_ACTIVATE),
                node,
                stop_within=2.5,
                duration=(1.5, 2.5),
                recover_within=30.0,
            )
    for node, parameter, value in (
        ("camera", "max_age", -1.0),
        ("world_model", "max_samples", 10**9),
        ("planner", "deadline", 1e9),
        ("simulator", "timestep", 7.0),
        ("arm_gate", "speed_scale", 7.0),
    ):
        set_parameter = partial(FaultInjector.set_parameter, name=node, parameter=parameter, value=value)
        yield Fault("absurd parameter", set_parameter, target=node, must_stop=False, must_be_refused=True)


def _controllers() -> Iterator[Fault]:
    # Without reports of the controllers the gate latches by the following error, which is another fault's subject.
    if JointTrajectoryControllerState is None:
        return
    for kind, parameter, value, healthy in (
        ("controller paused", "controller_speed", 0.0, 1.0),
        ("controller slowed", "controller_speed", 0.5, 1.0),
        ("controller switched off, then on", "controller_active", False, True),
    ):
        set_parameter = partial(FaultInjector.set_parameter, name="simulator", parameter=parameter)
        yield Fault(kind, partial(set_parameter, value=value), partial(set_parameter, value=healthy), stop_within=2.5)


def _goals() -> Iterator[Fault]:
    # Cancelled repeatedly: the goal may just have been reached, and the next one sent.
    yield Fault("goal cancelled", lambda injector: injector.goals.cancel, stop_within=2.5)
    yield Fault("goal replaced", lambda injector: injector.goals.replace(), must_stop=False)


def catalogue() -> list[Fault]:
    """Return every fault once."""
    of_processes = (fault for node in NODES for fault in _signals(node))
    return [*of_processes, *_images(), *_rogue_publishers(), *_operators(), *_controllers(), *_goals()]


def schedule(seed: int) -> Iterator[Fault]:
    """Yield faults without end, as shuffled decks that have every fault once.

    Two of three decks have no fault that ends a process, so that some processes live long enough to measure whether
    their memory grows.
    """
    rng = random.Random(seed)
    deck = 0
    while True:
        faults = [fault for fault in catalogue() if deck % 3 == 0 or not fault.ends_process]
        rng.shuffle(faults)
        yield from faults
        deck += 1
