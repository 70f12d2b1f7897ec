"""What the graph says and what controllers are sent, heard from outside; and relays that put faults in between.

Times in s of the system's clock unless said otherwise; joints in the robot's order, rad and rad/s.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from diagnostic_msgs.msg import DiagnosticArray
from jepa_msgs.msg import GateStatus, LatentState, Plan, PlannerStatus
from sensor_msgs.msg import JointState
from std_msgs.msg import String
from trajectory_msgs.msg import JointTrajectory

from jepa_ros.errors import InputError
from jepa_ros.nodes.common.convert import to_seconds, trajectory_of
from jepa_ros.nodes.common.qos import LATCHED, LISTEN_ALL, STREAM
from jepa_ros.robot.config import load_robot
from jepa_ros.robot.gate.window_auditor import WindowAuditor
from jepa_ros.robot.motion.limits import JointLimits

ROBOT = load_robot("openarm")
COMMANDS = f"{ROBOT.controllers[0].name}/joint_trajectory"


class Sample(NamedTuple):
    """received, stamp: s. q, qd: (7,)."""

    received: float
    stamp: float
    q: np.ndarray
    qd: np.ndarray


class Relay:
    """Passes a topic's messages on. change: message → messages to pass on instead; None lets all through as it is."""

    def __init__(self, client, kind: type, source: str, sink: str):
        self.change: Callable | None = None
        self.passed = 0
        self._publisher = client.node.create_publisher(kind, sink, STREAM)
        client.node.create_subscription(kind, source, self._on_message, STREAM)

    def _on_message(self, message) -> None:
        for out in [message] if self.change is None else self.change(message):
            self._publisher.publish(out)
            self.passed += 1

    def drop(self) -> None:
        """Nothing passes any more."""
        self.change = lambda message: []


class Listener:
    """Keeps what is heard since `clear`. auditor: judges the windows. measured: gets the auditor's largest breach."""

    def __init__(self, client):
        self.client = client
        self.measured: dict = {}
        self.clear()
        self._listen()

    def clear(self) -> None:
        """Forget what was heard."""
        self.samples: list[Sample] = []
        self.windows: list[tuple[float, float]] = []  # received, sent
        self.gate: list[tuple[float, float, GateStatus]] = []  # received, sent
        self.latents: list[tuple[float, LatentState]] = []  # sent
        self.plans: list[tuple[float, Plan]] = []  # received
        self.words: list[tuple[float, str]] = []  # received, "node: what it says"
        self._said: dict[str, str] = {}

    def _listen(self) -> None:
        node = self.client.node
        node.create_subscription(JointState, "joint_states", self._on_joint_states, LISTEN_ALL)
        node.create_subscription(GateStatus, "gate_status", self._on_gate_status, LISTEN_ALL)
        node.create_subscription(PlannerStatus, "planner_status", self._on_planner_status, LISTEN_ALL)
        node.create_subscription(LatentState, "latent", self._on_latent, LISTEN_ALL)
        node.create_subscription(Plan, "plan", self._on_plan, LISTEN_ALL)
        node.create_subscription(DiagnosticArray, "/diagnostics", self._on_diagnostics, LISTEN_ALL)

    def listen_as_controller(self) -> None:
        """Once the simulator is there: it refuses to start where somebody else listens to its commands."""
        topic = self.client.node.create_subscription(JointTrajectory, COMMANDS, self._on_window, LISTEN_ALL)
        self._as_controller = topic
        self.auditor = WindowAuditor(self.limits)

    def stop_listening_as_controller(self) -> None:
        self.client.node.destroy_subscription(self._as_controller)

    def _read_limits(self) -> JointLimits:
        found = self.client.collect(String, "robot_description", LATCHED)
        self.client.wait_for(lambda: found, "robot_description", 60.0)
        return JointLimits.from_robot(ROBOT, found[-1].data)

    def _on_joint_states(self, m: JointState, info: dict) -> None:
        columns = [m.name.index(j) for j in ROBOT.joints]
        q, qd = np.array(m.position)[columns], np.array(m.velocity)[columns]
        self.samples.append(Sample(info["received_timestamp"] * 1e-9, to_seconds(m.header.stamp), q, qd))

    def _on_window(self, m: JointTrajectory, info: dict) -> None:
        sent = info["source_timestamp"] * 1e-9
        self.windows.append((info["received_timestamp"] * 1e-9, sent))
        try:
            self._judge(trajectory_of(m), to_seconds(m.header.stamp), self.clock(sent))
        except InputError as error:
            self.auditor.record_unreadable(str(error))
        self.measured["max_violation"] = self.auditor.worst

    def _judge(self, window, stamp: float, now: float) -> None:
        """Without a stamp a window counts from now, and is taken over at its first point."""
        measured = self.samples[-1].q if self.samples else None
        if stamp:
            self.auditor.check_window(window, stamp, now, measured)
        else:
            self.auditor.check_window(window, now, now + float(window.times[0]), measured)

    def clock(self, then: float) -> float:
        """The controller's clock at a moment of the system's."""
        return then

    def _on_gate_status(self, m: GateStatus, info: dict) -> None:
        self.gate.append((info["received_timestamp"] * 1e-9, info["source_timestamp"] * 1e-9, m))
        self._hear("arm_gate", m.text)

    def _on_planner_status(self, m: PlannerStatus) -> None:
        self._hear("planner", m.text)

    def _on_latent(self, m: LatentState, info: dict) -> None:
        self.latents.append((info["source_timestamp"] * 1e-9, m))

    def _on_plan(self, m: Plan, info: dict) -> None:
        self.plans.append((info["received_timestamp"] * 1e-9, m))

    def _on_diagnostics(self, m: DiagnosticArray) -> None:
        for status in m.status:
            if status.level != b"\x00":
                self._hear(status.name, status.message)

    def _hear(self, who: str, text: str) -> None:
        if self._said.get(who) != text:
            self._said[who] = text
            self.words.append((time.time(), f"{who}: {text}"))

    @property
    def gate_state(self) -> int | None:
        return self.gate[-1][2].state if self.gate else None

    @property
    def speed(self) -> float:
        return float(np.abs(self.samples[-1].qd).max()) if self.samples else 0.0

    @property
    def position(self) -> np.ndarray:
        return self.samples[-1].q

    def says(self, pattern: str, since: float, timeout: float = 15.0) -> str:
        """What some node has said since then that this (a regular expression) is found in, from "node: text"."""
        said = lambda: next((w for t, w in self.words if t >= since and re.search(pattern, w)), None)  # noqa: E731
        end = time.monotonic() + timeout
        while not (found := said()) and time.monotonic() < end:
            self.client.spin(0.05)
        assert found, f"nobody said {pattern!r}, but {sorted({w for t, w in self.words if t >= since})}"
        return found

    def diagnostic(self, name: str) -> dict[str, str]:
        """The next figures of a status, by its name."""
        found: list = []

        def hear(m: DiagnosticArray) -> None:
            found.extend({v.key: v.value for v in s.values} for s in m.status if s.name == name)

        topic = self.client.node.create_subscription(DiagnosticArray, "/diagnostics", hear, 10)
        try:
            return self.client.wait_for(lambda: found, f"diagnostics of {name}")[-1]
        finally:
            self.client.node.destroy_subscription(topic)
