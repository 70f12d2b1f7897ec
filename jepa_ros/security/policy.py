"""SROS2 policies: the endpoints of each node as XML for ``ros2 security create_permission``.

The format is sros2's policy.xsd, version 0.2.0: one enclave for each node, with one profile that lists topics, services
and actions. What is not allowed is denied.
"""

from __future__ import annotations

import xml.etree.ElementTree as ET
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from jepa_ros.errors import InputError

VERSION = "0.2.0"
OPERATOR, COLLECT = "operator", "collect"
TOOLS = (COLLECT, OPERATOR)
# (element, attribute): a list in a profile and the right that it grants, in the order of the file.
RULES: Mapping[str, tuple[str, str]] = {
    "subscribe": ("topics", "subscribe"),
    "publish": ("topics", "publish"),
    "reply": ("services", "reply"),
    "request": ("services", "request"),
    "execute": ("actions", "execute"),
    "call": ("actions", "call"),
}
E_STOP = "e_stop"


@dataclass
class Endpoints:
    """Endpoints of one node: full names of topics, services and actions, by the right that they need."""

    name: str
    namespace: str = "/"
    subscribe: set[str] = field(default_factory=set)
    publish: set[str] = field(default_factory=set)
    reply: set[str] = field(default_factory=set)
    request: set[str] = field(default_factory=set)
    execute: set[str] = field(default_factory=set)
    call: set[str] = field(default_factory=set)

    @property
    def enclave(self) -> str:
        """Return the path of its enclave: its full name."""
        return f"{self.namespace.rstrip('/')}/{self.name}"


def operator_enclave(nodes: Iterable[Endpoints], namespace: str = "/") -> Endpoints:
    """Return the enclave of operators and their tools: subscribe to everything, call every service and action, press
    the e-stop. It publishes nothing that moves the arm: no plans, no joint states, no commands.
    """
    enclave = Endpoints(OPERATOR, namespace)
    for node in nodes:
        enclave.subscribe |= node.publish
        enclave.request |= node.reply
        enclave.call |= node.execute
    enclave.publish = {f"{namespace.rstrip('/')}/{E_STOP}"}
    return _add_node_endpoints(enclave)


def collector_enclave(namespace: str = "/") -> Endpoints:
    """Return the enclave of `jepa_ros collect live`, which sends plans to arm_gate in place of the planner."""
    base, enclave = namespace.rstrip("/"), Endpoints(COLLECT, namespace)
    inputs = ("gate_status", "planner_status", "joint_states", "executed", "robot_description", "joy", "twist")
    enclave.subscribe = {f"{base}/{topic}" for topic in inputs} | {"/diagnostics"}
    enclave.publish = {f"{base}/{topic}" for topic in ("plan", "planner_status")}
    enclave.request = {f"{base}/recorder/episode"}
    enclave.reply = {f"{enclave.enclave}/{service}" for service in ("pause", "resume", "end_episode")}
    return _add_node_endpoints(enclave)


def _add_node_endpoints(enclave: Endpoints) -> Endpoints:
    """Add the endpoints that every plain rclpy node opens."""
    enclave.publish |= {"/rosout", "/parameter_events"}
    enclave.subscribe |= {"/clock"}
    services = ("describe_parameters", "get_parameter_types", "get_parameters", "list_parameters", "set_parameters")
    services += ("set_parameters_atomically", "get_type_description")
    enclave.reply |= {f"{enclave.enclave}/{service}" for service in services}
    return enclave


def check_commanders(nodes: Collection[Endpoints], commands: Sequence[str]) -> None:
    """Raise InputError unless only arm_gate publishes to the controllers' topics ``commands``."""
    for topic in commands:
        publishers = sorted(node.name for node in nodes if topic in node.publish)
        if publishers != ["arm_gate"]:
            names = ", ".join(publishers) or "no node"
            raise InputError(f"policy: {topic}: only arm_gate may publish it, but {names} does")


def to_xml(nodes: Sequence[Endpoints], note: str = "") -> str:
    """Return the policy as XML; it does not depend on the order of the nodes."""
    policy = ET.Element("policy", version=VERSION)
    enclaves = ET.SubElement(policy, "enclaves")
    for node in sorted(nodes, key=lambda node: (node.name in TOOLS, node.enclave)):
        profiles = ET.SubElement(ET.SubElement(enclaves, "enclave", path=node.enclave), "profiles")
        profile = ET.SubElement(profiles, "profile", ns=node.namespace, node=node.name)
        for rule, (element, attribute) in RULES.items():
            names = sorted(expression(name, node) for name in getattr(node, rule))
            if names:
                rules = ET.SubElement(profile, element, {attribute: "ALLOW"})
                for name in names:
                    ET.SubElement(rules, element[:-1]).text = name
    ET.indent(policy)
    comment = f"<!-- {note} -->\n" if note else ""
    return f'<?xml version="1.0" encoding="UTF-8"?>\n{comment}{ET.tostring(policy, encoding="unicode")}\n'


def expression(name: str, node: Endpoints) -> str:
    """Return a full name as policies write it: ~/x for the node's own, x in its namespace, else /x."""
    if name.startswith(f"{node.enclave}/"):
        return "~" + name[len(node.enclave) :]
    prefix = node.namespace.rstrip("/") + "/"
    return name[len(prefix) :] if prefix != "/" and name.startswith(prefix) else name
