"""Looks at a running graph: lifecycle states, diagnostics, who publishes what to whom."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Sequence
from importlib.metadata import distributions

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from jepa_msgs.srv import SetState
from lifecycle_msgs.msg import State
from lifecycle_msgs.srv import GetState
from rclpy.node import Node
from rclpy.task import Future

from jepa_ros.nodes.common.qos import DIAGNOSTICS

ASK_AGAIN = 2.0  # s; an answer sent before discovery has matched both ends is lost
_PLUMBING = ("/rosout", "/parameter_events", "/transition_event", "/clock", "/diagnostics", "_action/")


class GraphWatch:
    """Clients of ``node`` (which somebody spins) that ask the named nodes for their state, twice a second."""

    def __init__(self, node: Node, names: Sequence[str]) -> None:
        self._node, self._names = node, list(names)
        self._states: dict[str, int] = {}
        self._clients = {name: node.create_client(GetState, f"{name}/get_state") for name in names}
        self._asked: dict[str, tuple[Future, float]] = {}
        self._diagnostics: dict[str, DiagnosticStatus] = {}
        self._set_state = node.create_client(SetState, "set_state")
        node.create_subscription(DiagnosticArray, "/diagnostics", self._on_diagnostics, DIAGNOSTICS)
        self._timer = node.create_timer(0.5, self._ask)

    def all_active(self) -> bool:
        """Whether every node is active; once it is so, it is not asked again."""
        if any(self._states.get(name) != State.PRIMARY_STATE_ACTIVE for name in self._names):
            return False
        self._timer.cancel()
        return True

    def problems(self) -> list[str]:
        """One phrase for each node that is not active, and why, as far as its diagnostics tell."""
        found = []
        for name in self._names:
            if self._states.get(name) == State.PRIMARY_STATE_ACTIVE:
                continue
            said = [d.message for key, d in self._diagnostics.items() if re.search(rf"\b{name}\b", key) and _says(d)]
            found.append(f"{name} is not active" + (f" ({said[0]})" if said else ""))
        return found

    def set_state(self, joints: Sequence[str], positions) -> Future:
        """Ask the simulator to put joints somewhere (rad) at once."""
        request = SetState.Request(names=list(joints), positions=[float(p) for p in positions])
        return self._set_state.call_async(request)

    def topics(self) -> dict[str, dict]:
        """Topics that the watched nodes publish or hear, and the action: ``{topic: {"type", "from", "to"}}``."""
        found: dict[str, dict] = {}
        for name in self._names:
            namespace = self._node.get_namespace()
            for side, ask in (
                ("from", self._node.get_publisher_names_and_types_by_node),
                ("to", self._node.get_subscriber_names_and_types_by_node),
            ):
                for topic, kinds in ask(name, namespace):
                    if any(part in topic for part in _PLUMBING):
                        continue
                    found.setdefault(topic.lstrip("/"), {"type": kinds[0], "from": [], "to": []})[side].append(name)
        if "planner" in self._names:
            found["reach_goal"] = {"type": "action ReachGoal", "from": ["demo"], "to": ["planner"]}
        return {topic: data for topic, data in found.items() if data["from"]}

    def _ask(self) -> None:
        now = time.monotonic()
        for name, client in self._clients.items():
            future, since = self._asked.get(name, (None, now))
            waits = future is not None and not future.done()
            if not client.service_is_ready() or (waits and now - since < ASK_AGAIN):
                continue
            if waits:
                client.remove_pending_request(future)
            self._asked[name] = client.call_async(GetState.Request()), now
            self._asked[name][0].add_done_callback(lambda future, name=name: self._told(name, future))

    def _told(self, name: str, future: Future) -> None:
        if not future.cancelled() and future.result() is not None:
            self._states[name] = future.result().current_state.id

    def _on_diagnostics(self, message: DiagnosticArray) -> None:
        for status in message.status:
            self._diagnostics[status.name] = status


def distribution() -> str:
    """Name of the ROS distribution in use: the sourced one, else that of the installed wheels."""
    if os.environ.get("ROS_DISTRO"):
        return os.environ["ROS_DISTRO"]
    for package in distributions():
        match = re.fullmatch(r"ros-([a-z]+)-rclpy", package.metadata["Name"] or "")
        if match:
            return match[1]
    return "unknown"


def _says(status: DiagnosticStatus) -> bool:
    return status.level != DiagnosticStatus.OK and bool(status.message)
