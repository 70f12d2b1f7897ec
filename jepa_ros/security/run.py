"""``jepa_ros security policy``: an SROS2 policy from what the nodes of the simulated bring-up really open.

The nodes are started in a domain of their own, and looked at from their first moment until all are active and images
arrive: the camera, for one, lets go of a topic as soon as it has seen which of two is published.
"""

from __future__ import annotations

import os
import tempfile
import threading
import time
from collections.abc import Sequence
from pathlib import Path

from jepa_ros.bringup.environment import process_environment
from jepa_ros.bringup.nodes import Arguments, check_inputs, node_list
from jepa_ros.bringup.up import graph, on_signals
from jepa_ros.errors import InputError
from jepa_ros.reporting.progress import ProgressDisplay
from jepa_ros.security.policy import Endpoints, check_commanders, collector, operator, to_xml

READY_WITHIN = 120.0  # s
LOOK_EVERY = 0.1  # s
AFTERWARDS = 3.0  # s that are looked at once all nodes are active
NOTE = "Made by `jepa_ros security policy`; docs/how_to/security.md says what for."
_ACTION = "/_action/"  # in the names of the topics and services that an action consists of


class Interrupted(Exception):
    """Somebody asked for the end."""


def write_policy_file(
    out: str | os.PathLike,
    namespace: str = "",
    robot: str = "openarm",
    model: str = "openarm_reach",
) -> int:
    """Write the policy to ``out``; returns 0, 1 where the graph did not come up, 130 where it was interrupted.

    Raises InputError for bad input, and where another node than arm_gate opens a controller's topic.
    """
    from jepa_ros.robot.config import load_robot

    out = Path(out)
    if out.is_dir():
        raise InputError(f"out {out}: expected a file, found a directory")
    with tempfile.TemporaryDirectory() as folder:
        record = str(Path(folder, "bag"))  # for the recorder's enclave
        arguments = Arguments(robot=robot, model=model, namespace=namespace, record=record)
        check_inputs(arguments)
        try:
            nodes = live_endpoints(arguments)
        except TimeoutError as error:
            raise InputError(f"policy: expected all nodes to become active, found: {error}") from None
        except Interrupted:
            return 130
    prefix = nodes[0].namespace.rstrip("/")
    check_commanders(nodes, [f"{prefix}/{c.command_topic}" for c in load_robot(robot).controllers])
    nodes += [collector(nodes[0].namespace), operator(nodes, nodes[0].namespace)]
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(to_xml(nodes, NOTE), encoding="utf-8")
    return 0


def live_endpoints(arguments: Arguments) -> list[Endpoints]:
    """Start the simulated bring-up and note what each of its nodes opens; it is ended before this returns.

    Raises TimeoutError where not all nodes become active, Interrupted.
    """
    specs = node_list("sim", arguments)
    environment = process_environment()
    os.environ.update(environment)  # before rclpy is imported
    stop = threading.Event()
    with on_signals(stop.set), graph(specs, lambda name, line: None, environment) as group, ProgressDisplay() as work:
        look = _Look([spec.name for spec in specs], arguments.namespace)
        try:
            return look.until_ready(group, work, stop)
        finally:
            look.close()


class _Look:
    """A node of ours that reads the graph."""

    def __init__(self, names: Sequence[str], namespace: str) -> None:
        import rclpy
        from rclpy.executors import SingleThreadedExecutor
        from rclpy.signals import SignalHandlerOptions
        from sensor_msgs.msg import Image

        from jepa_ros.graph_clients.graph_watch import GraphWatch
        from jepa_ros.nodes.common.qos import NEWEST

        rclpy.init(args=[], signal_handler_options=SignalHandlerOptions.NO)
        self._namespace = "/" + namespace.strip("/")
        self._node = rclpy.create_node("security_policy", namespace=self._namespace)
        self._executor = SingleThreadedExecutor()
        self._executor.add_node(self._node)
        self._watch = GraphWatch(self._node, names)
        self._found = {name: Endpoints(name, self._namespace) for name in names}
        self._frames: list = []
        self._node.create_subscription(Image, "frame", lambda message: self._frames.append(None), NEWEST)

    def until_ready(self, group, work: ProgressDisplay, stop: threading.Event) -> list[Endpoints]:
        """Look until all nodes are active and a frame has passed, and a little longer."""
        task = work.add("nodes", len(self._found))
        end, ready_at, missing = time.monotonic() + READY_WITHIN, None, None
        while ready_at is None or time.monotonic() < ready_at + AFTERWARDS:
            self._executor.spin_once(timeout_sec=LOOK_EVERY)
            for node in self._found.values():
                node.add(self._read(node.name))
            if stop.is_set():
                raise Interrupted
            ended = group.poll()
            if ended is not None:
                raise TimeoutError(str(ended))
            problems = self._watch.problems()
            if problems != missing:
                missing = problems
                work.update(task, len(self._found) - len(problems), "; ".join(problems)[:80])
            if ready_at is None and self._watch.all_active() and self._frames:
                ready_at = time.monotonic()
            if ready_at is None and time.monotonic() > end:
                raise TimeoutError("; ".join(problems) or "no frame has come")
        nodes = list(self._found.values())
        for node in nodes:
            node.subscribe.add("/clock")  # every node does where use_sim_time is set
            if node.name == "simulator":
                node.publish.add("/clock")  # where publish_clock is set
        return nodes

    def _read(self, name: str) -> Endpoints:
        """What the graph says now that a node opens; nothing where it is not there."""
        from rclpy.action import get_action_client_names_and_types_by_node, get_action_server_names_and_types_by_node
        from rclpy.node import NodeNameNonExistentError

        node, where = self._node, (name, self._namespace)
        try:
            return Endpoints(
                name,
                self._namespace,
                subscribe=_names(node.get_subscriber_names_and_types_by_node(*where)),
                publish=_names(node.get_publisher_names_and_types_by_node(*where)),
                reply=_names(node.get_service_names_and_types_by_node(*where)),
                request=_names(node.get_client_names_and_types_by_node(*where)),
                execute=_names(get_action_server_names_and_types_by_node(node, *where)),
                call=_names(get_action_client_names_and_types_by_node(node, *where)),
            )
        except NodeNameNonExistentError:
            return Endpoints(name, self._namespace)

    def close(self) -> None:
        import rclpy

        self._executor.remove_node(self._node)
        self._node.destroy_node()
        self._executor.shutdown(timeout_sec=1.0)
        rclpy.try_shutdown()


def _names(names_and_types: Sequence[tuple[str, list[str]]]) -> set[str]:
    return {name for name, _ in names_and_types if _ACTION not in name}
