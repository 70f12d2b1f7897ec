"""Observer of a soak: whether the arm tracks plans, whether its controller receives valid windows, and latencies.

Times are in s since the epoch, at which DDS wrote or delivered a message.
"""

from __future__ import annotations

import math
from collections import Counter, deque
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jepa_msgs.msg import Action, GateStatus, LatentState, Plan
from rclpy.node import Node
from sensor_msgs.msg import JointState
from std_msgs.msg import String
from trajectory_msgs.msg import JointTrajectory

from jepa_ros.errors import InputError
from jepa_ros.graph_clients.graph_listener import GraphListener
from jepa_ros.nodes.common.convert import to_ns, to_seconds, trajectory_of
from jepa_ros.nodes.common.qos import LATCHED, LISTEN_ALL, LISTEN_NEWEST, LISTEN_SOME
from jepa_ros.robot.config import RobotConfig
from jepa_ros.robot.gate.types import GateCode
from jepa_ros.robot.gate.window_auditor import MAX_STEP_RAD, WindowAuditor
from jepa_ros.robot.motion.limits import JointLimits

GATE_SILENT_AFTER = 0.5  # s without gate_status


@dataclass
class Reaction:
    """Reaction to a fault that began at ``began`` and ended at ``ended``; None for what has not been observed (yet).

    stopped_tracking: the gate reported another state than TRACKING, with ``code`` (name of a GateCode) and ``text``, or
    no gate_status was received any more (is_silent). at_rest: end of the last motion sent. tracking_again: after the
    fault. longest_gap: s between two gate_status.
    """

    began: float
    ended: float = math.inf
    stopped_tracking: float | None = None
    code: str = ""
    text: str = ""
    is_silent: bool = False
    at_rest: float | None = None
    tracking_again: float | None = None
    longest_gap: float = 0.0


class Observer(GraphListener):
    """Subscribes with ``node`` and keeps what a soak needs of the messages.

    latencies: ms from a frame's stamp to the publication of its latent, of its plan, and of the first window of that
    plan; each entry is (time s, ms, whether no fault was active).
    """

    def __init__(self, node: Node, robot: RobotConfig, names: Sequence[str]) -> None:
        super().__init__(node, names)
        self.joints_at = self.latent_at = -math.inf
        self.positions: np.ndarray | None = None  # (J,) rad, measured
        self.latencies: dict[str, list[tuple[float, float, bool]]] = {"latent": [], "plan": [], "window": []}
        self.reaction = Reaction(math.inf)
        self.is_undisturbed = True  # no fault is active
        self.unprovoked: Counter[str] = Counter()  # stops without a fault, by name of their GateCode
        self.violations: list[dict] = []
        self.windows = 0
        self.worst = self.step = 0.0
        self._robot = robot
        self._auditor: WindowAuditor | None = None
        self._motion_end = -math.inf  # s, of the last window
        self._sources: deque[tuple[int, float]] = deque(maxlen=50)  # (plan id, stamp of its frame)
        self._subscription = None
        node.create_subscription(LatentState, "latent", self._on_latent, LISTEN_SOME)
        node.create_subscription(Plan, "plan", self._on_plan, LISTEN_ALL)
        node.create_subscription(Action, "executed", self._on_executed, LISTEN_SOME)
        node.create_subscription(JointState, "joint_states", self._on_joint_states, LISTEN_NEWEST)
        node.create_subscription(String, "robot_description", self._on_description, LATCHED)

    # -- the controller's side -----------------------------------------------------------------------------------------

    def subscribe_controller(self) -> None:
        """Check windows from now on. A simulator refuses to start if its controllers' topics are subscribed already."""
        if self._subscription is None and self._auditor is not None:
            topic = self._robot.controllers[0].command_topic
            self._subscription = self.node.create_subscription(JointTrajectory, topic, self._on_window, LISTEN_ALL)
            self._auditor.path = None

    def unsubscribe_controller(self) -> None:
        """Stop checking windows until ``subscribe_controller``."""
        if self._subscription is not None:
            self.node.destroy_subscription(self._subscription)
            self._subscription = None

    def begin_fault(self, began: float) -> Reaction:
        """Observe the reaction to a fault that begins now."""
        self.reaction, self.is_undisturbed = Reaction(began), False
        return self.reaction

    def update(self, now: float) -> None:
        """Detect what only the passing of time shows: the end of the motion sent, and a silent gate."""
        reaction = self.reaction
        if reaction.at_rest is None and now >= max(self._motion_end, reaction.began):
            reaction.at_rest = max(self._motion_end, reaction.began)
        silence = now - max(self.gate_at, reaction.began)
        if reaction.stopped_tracking is None and silence > GATE_SILENT_AFTER and now > reaction.began:
            reaction.stopped_tracking, reaction.is_silent, reaction.text = self.gate_at, True, "no gate_status"

    def is_tracking(self, now: float) -> bool:
        """Return whether the gate has lately reported that it is tracking."""
        is_recent = now - self.gate_at < GATE_SILENT_AFTER
        return self.gate is not None and self.gate.state == GateStatus.TRACKING and is_recent

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
            self._add_violation(now, auditor.record_unreadable(str(error)), message, info)
            return
        problem = auditor.check_window(trajectory, stamp, now, self.positions)
        self.windows, self.worst = auditor.windows, auditor.worst
        self.step = max(self.step, auditor.step if auditor.step <= MAX_STEP_RAD else 0.0)
        self._motion_end = (stamp or now) + trajectory.duration
        if problem:
            self._add_violation(now, problem, message, info)

    def _add_violation(
        self, now: float, problem: str, window: JointTrajectory | None = None, info: dict | None = None
    ) -> None:
        entry = {"t": now, "text": problem, "window": None}
        if window is not None:  # late_ms: delay from the gate to here, to tell a late window from a jump
            late = 1e-6 * (info["received_timestamp"] - info["source_timestamp"])
            entry |= {"window": _numbers(window), "received_ns": info["received_timestamp"], "late_ms": late}
        self.violations.append(entry)

    def _on_gate_status(self, message: GateStatus, info: dict) -> None:
        written, before, last = info["source_timestamp"] * 1e-9, self.gate, self.gate_at
        super()._on_gate_status(message, info)
        reaction, tracks = self.reaction, message.state == GateStatus.TRACKING
        reaction.longest_gap = max(reaction.longest_gap, written - max(last, reaction.began))
        if reaction.is_silent and written - reaction.stopped_tracking < GATE_SILENT_AFTER:  # it was only delayed
            reaction.stopped_tracking, reaction.is_silent = None, False
        if written > reaction.began and not tracks and reaction.stopped_tracking is None:
            reaction.stopped_tracking, reaction.text = written, message.text
            reaction.code = GateCode(message.code).name
        if written > reaction.ended and tracks and reaction.tracking_again is None:
            reaction.tracking_again = written
        stops = message.state == GateStatus.STOPPING and before is not None and before.state != message.state
        if stops and self.is_undisturbed:
            self.unprovoked[GateCode(message.code).name] += 1
        if before is None or message.plan_id in (0, before.plan_id):
            return
        source = next((stamp for plan_id, stamp in reversed(self._sources) if plan_id == message.plan_id), None)
        if source is not None:
            self._add_latency("window", written, source)

    def _on_latent(self, message: LatentState, info: dict) -> None:
        written = self.latent_at = info["source_timestamp"] * 1e-9
        self._add_latency("latent", written, to_seconds(message.header.stamp))

    def _on_plan(self, message: Plan, info: dict) -> None:
        if not len(message.action_blocks):
            return  # it ends a goal's motion, or is not the planner's: it was made from no frame
        written, source = info["source_timestamp"] * 1e-9, to_seconds(message.source_stamp)
        self._sources.append((message.plan_id, source))
        self._add_latency("plan", written, source)

    def _add_latency(self, kind: str, written: float, stamp: float) -> None:
        self.latencies[kind].append((written, 1e3 * (written - stamp), self.is_undisturbed))

    def _on_executed(self, message: Action) -> None:
        values = np.asarray(message.values)
        if not np.isfinite(values).all():
            self._add_violation(to_seconds(message.header.stamp), "executed: non-finite value")

    def _on_joint_states(self, message: JointState, info: dict) -> None:
        where = {name: i for i, name in enumerate(message.name)}
        if len(message.position) == len(message.name) and all(joint in where for joint in self._robot.joints):
            self.positions = np.array([message.position[where[joint]] for joint in self._robot.joints])
            self.joints_at = info["received_timestamp"] * 1e-9


def _numbers(window: JointTrajectory) -> dict:
    """Return a window as JSON values, with all digits."""
    return {
        "stamp_ns": to_ns(window.header.stamp),
        "ns": [to_ns(point.time_from_start) for point in window.points],
        "positions": [list(map(repr, point.positions)) for point in window.points],
        "velocities": [list(map(repr, point.velocities)) for point in window.points],
        "accelerations": [list(map(repr, point.accelerations)) for point in window.points],
    }
