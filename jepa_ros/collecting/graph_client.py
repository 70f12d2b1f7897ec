"""What collecting hears from the running graph, and what it says to it."""

from __future__ import annotations

import math
import os
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
from jepa_ros.nodes.common.convert import float32_array, stamp_of_seconds, to_ns, trajectory_message
from jepa_ros.nodes.common.qos import DIAGNOSTICS, EXECUTED, LATCHED, RELIABLE, SENSOR
from jepa_ros.robot.config import RobotConfig

SILENT = 1.0  # s without gate_status or joint_states after which they are missing
HEALTHY = (200.0, 150.0)  # ms, ages of latents and joint states that the gate goes on with
BUSY = (PlannerStatus.WAITING, PlannerStatus.PLANNING)


class CollectGraph:
    """Subscriptions, publishers and services of a node that somebody else spins. Times in s on the node's clock.

    gate, executed: the newest messages. on_executed: called with each control tick's values (A,).
    """

    def __init__(self, node: Node, robot: RobotConfig, on_executed: Callable[[np.ndarray], None]) -> None:
        self.node, self._robot, self._on_values = node, robot, on_executed
        self.gate: GateStatus | None = None
        self.executed: Action | None = None
        self.urdf = ""
        self.refusal = ""  # why the gate refused the last plan that it refused
        self.recording_ended = ""  # why, if so
        self.goal = ""  # what the planner is about, if it has a goal
        self._planner_heard = False
        self._gate_at = self._joints_at = -math.inf
        self._joints: np.ndarray | None = None
        self._said: deque[int] = deque(maxlen=50)  # stamps of our own planner_status
        self._plan = self._status = None
        self.recorder = node.create_client(Trigger, "recorder/episode")
        hear = node.create_subscription
        hear(GateStatus, "gate_status", self._on_gate, RELIABLE)
        hear(PlannerStatus, "planner_status", self._on_planner, RELIABLE)
        hear(JointState, "joint_states", self._on_joints, SENSOR)
        hear(Action, "executed", self._on_executed, EXECUTED)
        hear(String, "robot_description", lambda m: setattr(self, "urdf", m.data), LATCHED)
        hear(DiagnosticArray, "/diagnostics", self._on_diagnostics, DIAGNOSTICS)

    # -- before anything moves -----------------------------------------------------------------------------------------

    def missing(self) -> list[str]:
        """What is not there yet of what collecting needs."""
        found = []
        if self.gate is None:
            found.append("arm_gate (topic gate_status)")
        if not self.recorder.service_is_ready():
            found.append("a recorder (service recorder/episode)")
        for what, there in (
            ("robot_description", self.urdf),
            ("joint_states with the arm's joints", self._joints is not None),
            ("executed", self.executed is not None or self.gate is None),  # one line for a gate that is not there
        ):
            found += [] if there else [what]
        if self.node.count_publishers("planner_status") and not self._planner_heard:
            found.append("the planner's planner_status")
        return found

    def expect_idle(self) -> None:
        """Raise InputError where the planner has a goal, the gate does not hold, or actions are of another space."""
        if self.goal:
            raise InputError(f"planner: expected one without a goal, or none, found one that says: {self.goal}")
        if self.gate.state != GateStatus.HOLDING:
            raise InputError(f"arm_gate: expected one that holds the arm, found: {self.gate.text}")
        if self.executed.action_space != self._robot.action_space.type:
            found = self.executed.action_space
            raise InputError(f"executed: expected the action space {self._robot.action_space.type}, found {found}")

    def announce(self) -> None:
        """Become the one who makes plans."""
        self._plan = self.node.create_publisher(Plan, "plan", RELIABLE)
        self._status = self.node.create_publisher(PlannerStatus, "planner_status", RELIABLE)

    def heard(self) -> bool:
        """Whether the gate's subscriptions have been found; what is said before is lost."""
        return self._plan.get_subscription_count() > 0 and self._status.get_subscription_count() > 0

    # -- while it moves ------------------------------------------------------------------------------------------------

    def now(self) -> float:
        return self.node.get_clock().now().nanoseconds * 1e-9

    @property
    def period(self) -> float:
        """s of a control tick. The message's 32 bits are not enough for a grid since 1970."""
        return round(self.executed.period, 6)

    @property
    def joints(self) -> np.ndarray:
        """(J,) rad, the newest measured positions."""
        return self._joints

    def trouble(self) -> str:
        """Why the arm does not or must not follow plans, in one sentence; empty where nothing is wrong."""
        if not self.gate_heard:
            return f"arm_gate has said nothing for {SILENT:g} s"
        if self.gate.state not in (GateStatus.HOLDING, GateStatus.TRACKING):
            return self.gate.text
        if time.monotonic() - self._joints_at > SILENT:
            return f"no joint_states for {SILENT:g} s"
        return ""

    @property
    def gate_heard(self) -> bool:
        """Whether the gate has said something of late."""
        return time.monotonic() - self._gate_at <= SILENT

    @property
    def holding(self) -> bool:
        """Whether the gate holds the arm at rest, latched or not."""
        return self.gate.state in (GateStatus.HOLDING, GateStatus.LATCHED, GateStatus.INACTIVE)

    @property
    def open(self) -> bool:
        """Whether the gate holds, so that it may let plans in."""
        return not self.trouble() and self.gate.state == GateStatus.HOLDING

    @property
    def healthy(self) -> bool:
        """Whether it also has all that it needs by its usual settings."""
        latent, joint = HEALTHY
        return self.open and self.gate.latent_age_ms < latent and self.gate.joint_age_ms < joint

    def ended(self) -> str:
        """Why collecting cannot go on at all; empty where it can."""
        if self.goal:
            return f"the planner was given a goal ({self.goal})"
        if self.recording_ended:
            return f"the recorder says: {self.recording_ended}"
        return "" if self.recorder.service_is_ready() else "the recorder is gone"

    def send(self, plan: DrivenPlan) -> None:
        """Hand a plan to the gate."""
        message = Plan(plan_id=plan.plan_id)
        message.header.stamp, message.header.frame_id = stamp_of_seconds(plan.start), self._robot.base_frame
        message.source_stamp = stamp_of_seconds(plan.stamp)
        message.valid_until = stamp_of_seconds(plan.valid_until)
        message.trajectory = trajectory_message(plan.trajectory)
        message.action_blocks = float32_array(plan.actions)
        self._plan.publish(message)

    def alive(self, text: str, plan_id: int) -> None:
        """A sign of life: the gate stops an arm that nobody plans for."""
        message = PlannerStatus(state=PlannerStatus.PLANNING, text=f"collecting: {text}", plan_id=plan_id)
        message.header.stamp, message.header.frame_id = self.node.get_clock().now().to_msg(), self._robot.base_frame
        for field in ("plan_ms", "deadline_ms", "slack_ms", "plan_age_ms", "splice_error"):
            setattr(message, field, math.nan)
        message.distance = message.predicted_distance = math.nan
        self._said.append(to_ns(message.header.stamp))
        self._status.publish(message)

    # -- what is heard -------------------------------------------------------------------------------------------------

    def _on_gate(self, message: GateStatus) -> None:
        self.gate, self._gate_at = message, time.monotonic()

    def _on_planner(self, message: PlannerStatus) -> None:
        if to_ns(message.header.stamp) in self._said:
            return
        self._planner_heard = True
        self.goal = message.text or "it is planning" if message.state in BUSY else ""

    def _on_joints(self, message: JointState) -> None:
        places = dict(zip(message.name, message.position, strict=False))
        if all(j in places for j in self._robot.joints):
            found = np.array([places[j] for j in self._robot.joints])
            if np.isfinite(found).all():
                self._joints, self._joints_at = found, time.monotonic()

    def _on_executed(self, message: Action) -> None:
        self.executed = message
        self._on_values(np.array(message.values))

    def _on_diagnostics(self, message: DiagnosticArray) -> None:
        own = self.node.get_namespace().rstrip("/")
        for status in message.status:
            if status.hardware_id == f"{own}/arm_gate" and status.name.endswith(": motion"):
                self.refusal = next((v.value for v in status.values if v.key == "last_rejection"), self.refusal)
            elif status.hardware_id == f"{own}/recorder" and status.name.endswith(": recording"):
                self.recording_ended = status.message if status.level == DiagnosticStatus.ERROR else ""


def domain() -> str:
    """Where the graph was looked for, in words."""
    return f"in ROS domain {os.environ.get('ROS_DOMAIN_ID') or 0}"
