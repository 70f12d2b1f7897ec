"""Subscriptions and publishers of `collect live`: the state of the running graph, and plans for its gate."""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable

import numpy as np
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from jepa_msgs.msg import Action, GateStatus, Plan, PlannerStatus
from rclpy.node import Node
from sensor_msgs.msg import JointState
from std_msgs.msg import String
from std_srvs.srv import Trigger

from jepa_ros.collecting.plan_driver import DrivenPlan
from jepa_ros.errors import InputError
from jepa_ros.graph_clients.graph_listener import GraphListener
from jepa_ros.nodes.common.convert import float32_array, stamp_of_seconds, to_ns, trajectory_message
from jepa_ros.nodes.common.qos import EXECUTED, LATCHED, RELIABLE, SENSOR
from jepa_ros.robot.config import RobotConfig

SILENCE_S = 1.0  # time without gate_status or joint_states after which they count as missing
HEALTHY_LATENT_AGE_MS, HEALTHY_JOINT_AGE_MS = 200.0, 150.0  # ages with which the gate resumes by its default settings
BUSY_STATES = (PlannerStatus.WAITING, PlannerStatus.PLANNING)


class GraphClient(GraphListener):
    """The running graph, by a node that the caller spins. Times are s on the node's clock.

    executed: the newest message. urdf: empty until received. rejection: why the gate rejected the last plan it
    rejected. recording_error: why the recorder stopped. planner_goal: the planner's status text while it has a goal.
    on_executed: called with the action (A,) of each control tick.
    """

    def __init__(self, node: Node, robot: RobotConfig, on_executed: Callable[[np.ndarray], None]) -> None:
        super().__init__(node)
        self._robot, self._on_action = robot, on_executed
        self.executed: Action | None = None
        self.urdf = self.rejection = self.recording_error = self.planner_goal = ""
        self._planner_seen = False
        self._joints_at = -math.inf
        self._joints: np.ndarray | None = None
        self._own_stamps: deque[int] = deque(maxlen=50)  # of the planner_status that this node published
        self._plan = self._status = None
        self.recorder = node.create_client(Trigger, "recorder/episode")
        subscribe = node.create_subscription
        subscribe(JointState, "joint_states", self._on_joints, SENSOR)
        subscribe(Action, "executed", self._on_executed, EXECUTED)
        subscribe(String, "robot_description", lambda m: setattr(self, "urdf", m.data), LATCHED)

    # -- before the arm moves ------------------------------------------------------------------------------------------

    def missing(self) -> list[str]:
        """Return the needed topics and services that were not found yet."""
        needed = (
            ("arm_gate (topic gate_status)", self.gate is not None),
            ("a recorder (service recorder/episode)", self.recorder.service_is_ready()),
            ("robot_description", self.urdf),
            ("joint_states with the arm's joints", self._joints is not None),
            ("executed", self.executed is not None or self.gate is None),  # a missing gate is listed once
            ("the planner's planner_status", self._planner_seen or not self.node.count_publishers("planner_status")),
        )
        return [what for what, found in needed if not found]

    def expect_idle(self) -> None:
        """Raise InputError where the planner has a goal, the gate does not hold, or the action space is another one."""
        if self.planner_goal:
            raise InputError(f"planner: expected no goal, found: {self.planner_goal}")
        if self.gate.state != GateStatus.HOLDING:
            raise InputError(f"arm_gate: expected it to hold the arm, found: {self.gate.text}")
        if (found := self.executed.action_space) != (wanted := self._robot.action_space.type):
            raise InputError(f"executed: expected the action space {wanted}, found {found}")

    def create_publishers(self) -> None:
        """Take the planner's place before the gate."""
        self._plan = self.node.create_publisher(Plan, "plan", RELIABLE)
        self._status = self.node.create_publisher(PlannerStatus, "planner_status", RELIABLE)

    def is_matched(self) -> bool:
        """Check whether the gate's subscriptions were discovered; messages published before are lost."""
        return self._plan.get_subscription_count() > 0 and self._status.get_subscription_count() > 0

    # -- while the arm moves -------------------------------------------------------------------------------------------

    def now(self) -> float:
        return self.node.get_clock().now().nanoseconds * 1e-9

    @property
    def period(self) -> float:
        """Control period in s, rounded: the message's float32 is too coarse for a grid of ticks since 1970."""
        return round(self.executed.period, 6)

    @property
    def joints(self) -> np.ndarray:
        """(J,) rad, the newest measured positions."""
        return self._joints

    def fault(self) -> str:
        """Return in one sentence why the arm does not or must not follow plans; empty if it may."""
        if not self.gate_is_alive:
            return f"no gate_status for {SILENCE_S:g} s"
        if self.gate.state not in (GateStatus.HOLDING, GateStatus.TRACKING):
            return self.gate.text
        if time.monotonic() - self._joints_at > SILENCE_S:
            return f"no joint_states for {SILENCE_S:g} s"
        return ""

    @property
    def gate_is_alive(self) -> bool:
        """True if gate_status was received within SILENCE_S."""
        return time.monotonic() - self.gate_received <= SILENCE_S

    @property
    def at_rest(self) -> bool:
        """True if the gate holds the arm at rest, latched or not."""
        return self.gate.state in (GateStatus.HOLDING, GateStatus.LATCHED, GateStatus.INACTIVE)

    @property
    def is_open(self) -> bool:
        """True if the gate holds, so that it may accept plans."""
        return not self.fault() and self.gate.state == GateStatus.HOLDING

    @property
    def is_healthy(self) -> bool:
        """True if the gate also has recent latents and joint states."""
        gate = self.gate
        healthy = gate and gate.latent_age_ms < HEALTHY_LATENT_AGE_MS and gate.joint_age_ms < HEALTHY_JOINT_AGE_MS
        return bool(healthy) and self.is_open

    def end_reason(self) -> str:
        """Return why collecting cannot continue at all; empty where it can."""
        if self.planner_goal:
            return f"the planner was given a goal ({self.planner_goal})"
        if self.recording_error:
            return f"the recorder reports: {self.recording_error}"
        return "" if self.recorder.service_is_ready() else "the recorder is gone"

    def publish_plan(self, plan: DrivenPlan) -> None:
        message = Plan(plan_id=plan.plan_id)
        message.header.stamp, message.header.frame_id = stamp_of_seconds(plan.start), self._robot.base_frame
        message.source_stamp = stamp_of_seconds(plan.stamp)
        message.valid_until = stamp_of_seconds(plan.valid_until)
        message.trajectory = trajectory_message(plan.trajectory)
        message.action_blocks = float32_array(plan.actions)
        self._plan.publish(message)

    def publish_status(self, text: str, plan_id: int) -> None:
        """Publish a heartbeat, without which the gate stops the arm."""
        message = PlannerStatus(state=PlannerStatus.PLANNING, text=f"collecting: {text}", plan_id=plan_id)
        message.header.stamp, message.header.frame_id = self.node.get_clock().now().to_msg(), self._robot.base_frame
        message.plan_ms = message.deadline_ms = message.slack_ms = message.plan_age_ms = math.nan
        message.splice_error = message.distance = message.predicted_distance = math.nan
        self._own_stamps.append(to_ns(message.header.stamp))
        self._status.publish(message)

    # -- subscriptions -------------------------------------------------------------------------------------------------

    def _on_planner_status(self, message: PlannerStatus, info: dict) -> None:
        if to_ns(message.header.stamp) in self._own_stamps:
            return
        super()._on_planner_status(message, info)
        self._planner_seen = True
        self.planner_goal = message.text or "it is planning" if message.state in BUSY_STATES else ""

    def _on_joints(self, message: JointState) -> None:
        positions = dict(zip(message.name, message.position, strict=False))
        found = np.array([positions.get(j, math.nan) for j in self._robot.joints])
        if np.isfinite(found).all():
            self._joints, self._joints_at = found, time.monotonic()

    def _on_executed(self, message: Action) -> None:
        self.executed = message
        self._on_action(np.array(message.values))

    def _on_diagnostics(self, message: DiagnosticArray) -> None:
        super()._on_diagnostics(message)
        own = self.node.get_namespace().rstrip("/")
        for status in message.status:
            if status.hardware_id == f"{own}/arm_gate" and status.name.endswith(": motion"):
                self.rejection = next((v.value for v in status.values if v.key == "last_rejection"), self.rejection)
            elif status.hardware_id == f"{own}/recorder" and status.name.endswith(": recording"):
                self.recording_error = status.message if status.level == DiagnosticStatus.ERROR else ""
