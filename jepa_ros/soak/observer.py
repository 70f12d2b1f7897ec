"""What a soak hears of the graph: whether the arm is tracking, what its controller is sent, and how old all of it is.

Times are s since the epoch, those at which DDS wrote or delivered a message.
"""

from __future__ import annotations

import math
from collections import Counter, deque
from dataclasses import dataclass, field

import numpy as np
from jepa_msgs.msg import Action, GateStatus, LatentState, Plan, PlannerStatus
from rclpy.node import Node
from sensor_msgs.msg import JointState
from std_msgs.msg import String
from trajectory_msgs.msg import JointTrajectory

from jepa_ros.errors import InputError
from jepa_ros.nodes.common.convert import to_ns, to_seconds, trajectory_of
from jepa_ros.nodes.common.qos import LATCHED, LISTEN_ALL, LISTEN_NEWEST, LISTEN_SOME
from jepa_ros.robot.config import RobotConfig
from jepa_ros.robot.gate.types import GateCode
from jepa_ros.robot.gate.window_auditor import MAX_STEP_RAD, WindowAuditor
from jepa_ros.robot.motion.limits import JointLimits

SILENT = 0.5  # s without a gate_status that count as no gate


@dataclass
class Reaction:
    """What was seen since a fault at ``since``; None where it was not (yet).

    left: the gate said another state than TRACKING, with ``text``, or said nothing any more (silent). rest: end of the
    last motion sent. back: it tracked again, after ``over`` (the end of the fault).
    """

    since: float
    over: float = math.inf
    left: float | None = None
    text: str = ""
    silent: bool = False
    rest: float | None = None
    back: float | None = None
    gap: float = 0.0  # s, longest time between two gate_status


@dataclass
class Latencies:
    """ms after a frame's stamp at which its latent, its plan, and the gate's following of that plan were published.

    Each entry is (time s, ms, whether no fault was under way).
    """

    latent: list[tuple[float, float, bool]] = field(default_factory=list)
    plan: list[tuple[float, float, bool]] = field(default_factory=list)
    window: list[tuple[float, float, bool]] = field(default_factory=list)


class Observer:
    """Subscriptions of ``node`` and what came in by them."""

    def __init__(self, node: Node, robot: RobotConfig) -> None:
        self.gate: GateStatus | None = None
        self.gate_at = self.joints_at = self.latent_at = -math.inf
        self.positions: np.ndarray | None = None  # (J,) rad, measured
        self.planner: PlannerStatus | None = None
        self.latencies = Latencies()
        self.reaction = Reaction(math.inf)
        self.quiet = True  # no fault under way
        self.unprovoked: Counter[str] = Counter()  # stops without a fault, by the name of their GateCode
        self.violations: list[dict] = []
        self.executed = self.windows = 0
        self.worst = self.step = 0.0
        self._node, self._robot = node, robot
        self._auditor: WindowAuditor | None = None
        self._end = -math.inf  # s, of the last window
        self._sources: deque[tuple[int, float]] = deque(maxlen=50)  # (plan id, stamp of its frame)
        self._subscription = None
        node.create_subscription(GateStatus, "gate_status", self._on_gate_status, LISTEN_ALL)
        node.create_subscription(PlannerStatus, "planner_status", self._on_planner_status, LISTEN_ALL)
        node.create_subscription(LatentState, "latent", self._on_latent, LISTEN_SOME)
        node.create_subscription(Plan, "plan", self._on_plan, LISTEN_ALL)
        node.create_subscription(Action, "executed", self._on_executed, LISTEN_SOME)
        node.create_subscription(JointState, "joint_states", self._on_joint_states, LISTEN_NEWEST)
        node.create_subscription(String, "robot_description", self._on_description, LATCHED)

    # -- the controller's side -----------------------------------------------------------------------------------------

    def hear_controller(self) -> None:
        """Judge windows from now on. A simulator does not start where somebody listens to its controllers already."""
        if self._subscription is None and self._auditor is not None:
            topic = self._robot.controllers[0].command_topic
            self._subscription = self._node.create_subscription(JointTrajectory, topic, self._on_window, LISTEN_ALL)
            self._auditor.path = None

    def deaf(self) -> None:
        """Listen to no controller's topic until ``hear_controller``."""
        if self._subscription is not None:
            self._node.destroy_subscription(self._subscription)
            self._subscription = None

    def expect(self, since: float) -> Reaction:
        """A fault begins now."""
        self.reaction, self.quiet = Reaction(since), False
        return self.reaction

    def look(self, now: float) -> None:
        """Notice what is noticed by time passing: that what was sent has come to its end; that the gate is silent."""
        reaction = self.reaction
        if reaction.rest is None and now >= max(self._end, reaction.since):
            reaction.rest = max(self._end, reaction.since)
        if reaction.left is None and now - max(self.gate_at, reaction.since) > SILENT and now > reaction.since:
            reaction.left, reaction.silent, reaction.text = self.gate_at, True, "the gate is silent"

    def tracking(self, now: float) -> bool:
        """Whether the gate says so, lately."""
        return self.gate is not None and self.gate.state == GateStatus.TRACKING and now - self.gate_at < SILENT

    # -- subscriptions -------------------------------------------------------------------------------------------------

    def _on_description(self, message: String) -> None:
        if self._auditor is None:
            limits = JointLimits.from_robot(self._robot, message.data)
            own = tuple(self._robot.controllers[0].joints)
            if own != limits.names:
                raise InputError(f"soak: expected one controller with the joints {list(limits.names)}, found {own}")
            self._auditor = WindowAuditor(limits)

    def _on_window(self, message: JointTrajectory, info: dict) -> None:
        now, stamp, auditor = info["received_timestamp"] * 1e-9, to_seconds(message.header.stamp), self._auditor
        try:
            trajectory = trajectory_of(message)
        except InputError as error:
            self._violated(now, auditor.record_unreadable(str(error)), message, info)
            return
        problem = auditor.check_window(trajectory, stamp, now, self.positions)
        self.windows, self.worst = auditor.windows, auditor.worst
        self.step = max(self.step, auditor.step if auditor.step <= MAX_STEP_RAD else 0.0)
        self._end = (stamp or now) + trajectory.duration
        if problem:
            self._violated(now, problem, message, info)

    def _violated(
        self, now: float, problem: str, window: JointTrajectory | None = None, info: dict | None = None
    ) -> None:
        entry = {"t": now, "text": problem, "window": None}
        if window is not None:  # late_ms: what it took from the gate to here, where a step is a late window's
            late = 1e-6 * (info["received_timestamp"] - info["source_timestamp"])
            entry |= {"window": _numbers(window), "received_ns": info["received_timestamp"], "late_ms": late}
        self.violations.append(entry)

    def _on_gate_status(self, message: GateStatus, info: dict) -> None:
        written, before = info["source_timestamp"] * 1e-9, self.gate
        reaction, tracks = self.reaction, message.state == GateStatus.TRACKING
        reaction.gap = max(reaction.gap, written - max(self.gate_at, reaction.since))
        self.gate, self.gate_at = message, written
        if reaction.silent and written - reaction.left < SILENT:  # it had spoken; the way here took long
            reaction.left, reaction.silent = None, False
        if written > reaction.since and not tracks and reaction.left is None:
            reaction.left, reaction.text = written, message.text
        if written > reaction.over and tracks and reaction.back is None:
            reaction.back = written
        if self.quiet and message.state == GateStatus.STOPPING and before is not None and before.state != message.state:
            self.unprovoked[GateCode(message.code).name] += 1
        if before is None or message.plan_id in (0, before.plan_id):
            return
        source = next((stamp for plan_id, stamp in reversed(self._sources) if plan_id == message.plan_id), None)
        if source is not None:
            self.latencies.window.append((written, 1e3 * (written - source), self.quiet))

    def _on_planner_status(self, message: PlannerStatus) -> None:
        self.planner = message

    def _on_latent(self, message: LatentState, info: dict) -> None:
        written = self.latent_at = info["source_timestamp"] * 1e-9
        self.latencies.latent.append((written, 1e3 * (written - to_seconds(message.header.stamp)), self.quiet))

    def _on_plan(self, message: Plan, info: dict) -> None:
        if not len(message.action_blocks):
            return  # it ends a goal's motion, or is not the planner's: no frame is behind it
        written, source = info["source_timestamp"] * 1e-9, to_seconds(message.source_stamp)
        self._sources.append((message.plan_id, source))
        self.latencies.plan.append((written, 1e3 * (written - source), self.quiet))

    def _on_executed(self, message: Action) -> None:
        self.executed += 1
        values = np.asarray(message.values)
        if not np.isfinite(values).all():
            self._violated(to_seconds(message.header.stamp), "executed: a value that is not finite")

    def _on_joint_states(self, message: JointState, info: dict) -> None:
        where = {name: i for i, name in enumerate(message.name)}
        if len(message.position) == len(message.name) and all(joint in where for joint in self._robot.joints):
            self.positions = np.array([message.position[where[joint]] for joint in self._robot.joints])
            self.joints_at = info["received_timestamp"] * 1e-9


def _numbers(window: JointTrajectory) -> dict:
    """A window as JSON takes it, to the last digit."""
    return {
        "stamp_ns": to_ns(window.header.stamp),
        "ns": [to_ns(point.time_from_start) for point in window.points],
        "positions": [list(map(repr, point.positions)) for point in window.points],
        "velocities": [list(map(repr, point.velocities)) for point in window.points],
        "accelerations": [list(map(repr, point.accelerations)) for point in window.points],
    }
