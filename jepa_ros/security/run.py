"""``jepa_ros security policy``: write an SROS2 policy from the endpoints of the running nodes.

The nodes of the simulated bring-up are started in their own domain and observed from the first moment until all are
active and images are received: the camera, for one, unsubscribes once it knows which of two topics is published.
"""

from __future__ import annotations

import os
import tempfile
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from jepa_ros.bringup.environment import process_environment
from jepa_ros.bringup.nodes import SimArguments, check_inputs, node_list
from jepa_ros.bringup.up import graph, on_signals
from jepa_ros.errors import InputError
from jepa_ros.graph_clients.session import RclpySession, Stopped
from jepa_ros.reporting.output import prepare_file
from jepa_ros.reporting.progress import ProgressDisplay
from jepa_ros.reporting.result import print_result
from jepa_ros.security.policy import Endpoints, check_commanders, collector_enclave, operator_enclave, to_xml
from jepa_ros.text_files import write_atomically

READY_TIMEOUT = 120.0  # s
SPIN_PERIOD = 0.1  # s
SETTLE_TIME = 3.0  # s of observation once all nodes are active
NOTE = "Made by `jepa_ros security policy`; see docs/how_to/security.md."
_ACTION = "/_action/"  # in the names of the topics and services that an action consists of


def write_policy_file(
    out: str | os.PathLike, namespace: str = "", robot: str = "openarm", model: str = "openarm_reach"
) -> int:
    """Write the policy to ``out``; return 0, or 130 if interrupted.

    Raises InputError: bad input, the graph does not become active, or another node than arm_gate publishes commands.
    """
    from jepa_ros.robot.config import load_robot

    with tempfile.TemporaryDirectory() as folder:
        record = str(Path(folder, "bag"))  # so that the recorder has an enclave, too
        arguments = SimArguments(robot=robot, model=model, namespace=namespace, record=record)
        check_inputs(arguments)
        out = prepare_file(out)
        try:
            nodes = observe_endpoints(arguments)
        except TimeoutError as error:
            raise InputError(f"policy: the nodes do not become active: {error}") from None
        except Stopped:
            return 130
    prefix = nodes[0].namespace.rstrip("/")
    check_commanders(nodes, [f"{prefix}/{c.command_topic}" for c in load_robot(robot).controllers])
    nodes += [collector_enclave(nodes[0].namespace), operator_enclave(nodes, nodes[0].namespace)]
    write_atomically(out, to_xml(nodes, NOTE))
    print_result(f"security policy: {len(nodes)} enclaves, only arm_gate commands the controllers", paths=[out])
    return 0


def observe_endpoints(arguments: SimArguments) -> list[Endpoints]:
    """Start the simulated bring-up, return the endpoints of each node, and end it again.

    Observes until all nodes are active and a frame was received, and SETTLE_TIME longer. Raises TimeoutError if not
    all nodes become active, Stopped if interrupted.
    """
    specs = node_list("sim", arguments)
    environment = process_environment()
    os.environ.update(environment)  # before rclpy is imported
    stop, frames, ready_at, inactive = threading.Event(), [], None, None
    with (
        on_signals(stop.set),
        graph(specs, lambda name, line: None, environment) as group,
        ProgressDisplay() as display,
        RclpySession("security_policy", arguments.namespace) as session,
    ):
        from sensor_msgs.msg import Image

        from jepa_ros.graph_clients.graph_listener import GraphListener
        from jepa_ros.nodes.common.qos import NEWEST

        node = session.node
        nodes = [Endpoints(spec.name, node.get_namespace()) for spec in specs]
        listener = GraphListener(node, [spec.name for spec in specs])
        node.create_subscription(Image, "frame", frames.append, NEWEST)
        task, end = display.add("nodes", len(nodes)), time.monotonic() + READY_TIMEOUT
        while ready_at is None or time.monotonic() < ready_at + SETTLE_TIME:
            session.executor.spin_once(timeout_sec=SPIN_PERIOD)
            for endpoints in nodes:
                _add_present(endpoints, node)
            if stop.is_set():
                raise Stopped
            if (ended := group.poll()) is not None:
                raise TimeoutError(str(ended))
            if (problems := listener.describe_inactive()) != inactive:
                inactive = problems
                display.update(task, len(nodes) - len(inactive), "; ".join(inactive)[:80])
            if ready_at is None and listener.all_active() and frames:
                ready_at = time.monotonic()
            if ready_at is None and time.monotonic() > end:
                raise TimeoutError("; ".join(inactive) or "no frame was received")
    for endpoints in nodes:
        endpoints.subscribe.add("/clock")  # if use_sim_time is set
        if endpoints.name == "simulator":
            endpoints.publish.add("/clock")  # if publish_clock is set
    return nodes


def _add_present(endpoints: Endpoints, observer) -> None:
    """Add the endpoints that a node has now; none if it is not there. observer: a node."""
    from rclpy.action import get_action_client_names_and_types_by_node, get_action_server_names_and_types_by_node
    from rclpy.node import NodeNameNonExistentError

    where = (endpoints.name, endpoints.namespace)
    with suppress(NodeNameNonExistentError):
        endpoints.subscribe |= _names(observer.get_subscriber_names_and_types_by_node(*where))
        endpoints.publish |= _names(observer.get_publisher_names_and_types_by_node(*where))
        endpoints.reply |= _names(observer.get_service_names_and_types_by_node(*where))
        endpoints.request |= _names(observer.get_client_names_and_types_by_node(*where))
        endpoints.execute |= _names(get_action_server_names_and_types_by_node(observer, *where))
        endpoints.call |= _names(get_action_client_names_and_types_by_node(observer, *where))


def _names(names_and_types: Sequence[tuple[str, list[str]]]) -> set[str]:
    return {name for name, _ in names_and_types if _ACTION not in name}
