"""Listening to a running graph: lifecycle states, diagnostics, the status of gate and planner, who publishes what."""

from __future__ import annotations

import math
import os
import re
import time
from collections.abc import Sequence
from importlib.metadata import distributions

import rclpy
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from jepa_msgs.msg import GateStatus, PlannerStatus
from jepa_msgs.srv import SetState
from lifecycle_msgs.srv import GetState
from rclpy.node import Node
from rclpy.task import Future

from jepa_ros.nodes.common.qos import DIAGNOSTICS, LISTEN_ALL

ASK_PERIOD = 0.5  # s between two questions for lifecycle states
ASK_AGAIN = 2.0  # s; an answer sent before discovery has matched both ends is lost
_PLUMBING = ("/rosout", "/parameter_events", "/transition_event", "/clock", "/diagnostics", "_action/")
_GET_STATE = "/get_state"


class GraphListener:
    """Subscriptions and clients of `node`, which is spun elsewhere. Subclasses add topics and extend the callbacks.

    names: nodes whose lifecycle state is asked for, in the namespace of `node`, until all are active.
    gate, planner: newest messages. gate_at, planner_at: when they were published, s since the epoch. gate_received:
    steady time in s.
    """

    def __init__(self, node: Node, names: Sequence[str] = ()) -> None:
        self.node, self.names = node, list(names)
        self.gate: GateStatus | None = None
        self.planner: PlannerStatus | None = None
        self.gate_at = self.planner_at = self.gate_received = -math.inf
        self.states: dict[str, str] = {}  # by node: label of its lifecycle state
        self.diagnostics: dict[str, DiagnosticStatus] = {}  # by "node: what"
        self._clients: dict = {}
        self._asked: dict[str, tuple[Future, float]] = {}
        self._set_state = None
        node.create_subscription(GateStatus, "gate_status", self._on_gate_status, LISTEN_ALL)
        node.create_subscription(PlannerStatus, "planner_status", self._on_planner_status, LISTEN_ALL)
        node.create_subscription(DiagnosticArray, "/diagnostics", self._on_diagnostics, DIAGNOSTICS)
        if self.names:
            self._timer = node.create_timer(ASK_PERIOD, self._ask_states)

    # -- nodes ---------------------------------------------------------------------------------------------------------

    def discover_nodes(self) -> list[str]:
        """Return the lifecycle nodes discovered in this namespace, and ask for their states."""
        prefix = f"{self.node.get_namespace().rstrip('/')}/"
        found = [
            service.removesuffix(_GET_STATE).removeprefix(prefix)
            for service, _ in self.node.get_service_names_and_types()
            if service.endswith(_GET_STATE) and service.startswith(prefix)
        ]
        self.names = sorted(name for name in found if "/" not in name)
        for gone in self.states.keys() - set(self.names):
            del self.states[gone]
        self._ask_states()
        return self.names

    def all_active(self) -> bool:
        """Return whether every named node is active; once this is so, they are not asked again."""
        if any(self.states.get(name) != "active" for name in self.names):
            return False
        self._timer.cancel()
        return True

    def describe_inactive(self) -> list[str]:
        """Return one phrase for each named node that is not active, with the cause that its diagnostics give."""
        found = []
        for name in self.names:
            if self.states.get(name) != "active":
                causes = [d.message for d in self.diagnostics_of(name) if d.level != DiagnosticStatus.OK and d.message]
                found.append(f"{name} is not active" + (f" ({causes[0]})" if causes else ""))
        return found

    def diagnostics_of(self, name: str) -> list[DiagnosticStatus]:
        """Return the newest diagnostics of a node of this namespace."""
        full = f"{self.node.get_namespace().rstrip('/')}/{name}"
        return [status for status in self.diagnostics.values() if status.hardware_id == full]

    def list_topics(self) -> dict[str, dict]:
        """Return the topics between the named nodes, and the action: ``{topic: {"type", "from", "to"}}``."""
        found: dict[str, dict] = {}
        namespace = self.node.get_namespace()
        for name in self.names:
            for side, ask in (
                ("from", self.node.get_publisher_names_and_types_by_node),
                ("to", self.node.get_subscriber_names_and_types_by_node),
            ):
                for topic, kinds in ask(name, namespace):
                    if any(part in topic for part in _PLUMBING):
                        continue
                    found.setdefault(topic.lstrip("/"), {"type": kinds[0], "from": [], "to": []})[side].append(name)
        if "planner" in self.names:
            found["reach_goal"] = {"type": "action ReachGoal", "from": ["demo"], "to": ["planner"]}
        return {topic: data for topic, data in found.items() if data["from"]}

    def set_state(self, joints: Sequence[str], positions) -> Future:
        """Ask the simulator to put joints at positions (rad) at once."""
        if self._set_state is None:
            self._set_state = self.node.create_client(SetState, "set_state")
        request = SetState.Request(names=list(joints), positions=[float(p) for p in positions])
        return self._set_state.call_async(request)

    def _ask_states(self) -> None:
        now = time.monotonic()
        for name in self.names:
            if name not in self._clients:
                self._clients[name] = self.node.create_client(GetState, f"{name}{_GET_STATE}")
            client = self._clients[name]
            future, since = self._asked.get(name, (None, now))
            is_pending = future is not None and not future.done()
            if not client.service_is_ready() or (is_pending and now - since < ASK_AGAIN):
                continue
            if is_pending:
                client.remove_pending_request(future)
            self._asked[name] = client.call_async(GetState.Request()), now
            self._asked[name][0].add_done_callback(lambda future, name=name: self._on_state(name, future))

    def _on_state(self, name: str, future: Future) -> None:
        if not future.cancelled() and future.result() is not None:
            self.states[name] = future.result().current_state.label

    # -- topics --------------------------------------------------------------------------------------------------------

    def _on_gate_status(self, message: GateStatus, info: dict) -> None:
        self.gate, self.gate_at = message, info["source_timestamp"] * 1e-9
        self.gate_received = time.monotonic()

    def _on_planner_status(self, message: PlannerStatus, info: dict) -> None:
        self.planner, self.planner_at = message, info["source_timestamp"] * 1e-9

    def _on_diagnostics(self, message: DiagnosticArray) -> None:
        for status in message.status:
            self.diagnostics[status.name] = status


def middleware() -> str:
    """Return the name of the RMW implementation in use."""
    return rclpy.get_rmw_implementation_identifier()


def distribution() -> str:
    """Return the name of the ROS distribution in use: the sourced one, else that of the installed wheels."""
    if os.environ.get("ROS_DISTRO"):
        return os.environ["ROS_DISTRO"]
    for package in distributions():
        match = re.fullmatch(r"ros-([a-z]+)-rclpy", package.metadata["Name"] or "")
        if match:
            return match[1]
    return "unknown"
