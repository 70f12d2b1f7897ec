"""SROS2 policies: the endpoints of each node as XML for ``ros2 security create_permission``.

The format is sros2's policy.xsd, version 0.2.0: one enclave for each node, with one profile that lists topics, services
and actions. What is not allowed is denied.
"""

from __future__ import annotations

import xml.etree.ElementTree as ET
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields

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

    def add(self, other: Endpoints) -> None:
        """Add the endpoints of ``other``."""
        for rule in RULES:
            getattr(self, rule).update(getattr(other, rule))


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


def check_commanders(nodes: Iterable[Endpoints], commands: Sequence[str], commander: str = "arm_gate") -> None:
    """Raise InputError unless only the node ``commander`` publishes to the controllers' topics ``commands``."""
    nodes = list(nodes)
    for topic in commands:
        publishers = sorted(node.name for node in nodes if topic in node.publish)
        if publishers != [commander]:
            names = ", ".join(publishers) or "no node"
            raise InputError(f"policy: {topic}: only {commander} may publish it, but {names} does")


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


def full_name(text: str, node: Endpoints) -> str:
    """Return the full name for an expression of a policy; the inverse of ``expression``."""
    if text.startswith("~"):
        return node.enclave + text[1:]
    return text if text.startswith("/") else f"{node.namespace.rstrip('/')}/{text}"


def from_xml(text: str) -> list[Endpoints]:
    """Return the profiles of a policy. Raises InputError if it is not valid for policy.xsd, version 0.2.0."""
    try:
        root = ET.fromstring(text)
    except ET.ParseError as error:
        raise InputError(f"policy: not valid XML ({error})") from None
    if root.tag != "policy" or root.attrib != {"version": VERSION}:
        raise InputError(f"policy: must be a <policy version='{VERSION}'>, but is a <{root.tag}> {root.attrib}")
    found = []
    for enclave in _only(_one(root, "enclaves"), "enclave", {"path"}):
        for profile in _only(_one(enclave, "profiles"), "profile", {"ns", "node"}):
            found.append(_profile(profile, enclave.attrib["path"]))
    return found


def _profile(profile: ET.Element, path: str) -> Endpoints:
    node = Endpoints(profile.attrib["node"], profile.attrib["ns"])
    if node.enclave != path:
        raise InputError(f"policy: enclave {path}: has the profile of another node, {node.enclave}")
    for rules in profile:
        known = {attribute for element, attribute in RULES.values() if element == rules.tag}
        if not rules.attrib or set(rules.attrib) - known or set(rules.attrib.values()) - {"ALLOW"}:
            raise InputError(
                f"policy: {path}: <{rules.tag}> {rules.attrib} is invalid; allowed are {sorted(known)} ALLOW"
            )
        for item in _only(rules, rules.tag[:-1], set()):
            if not (item.text or "").strip():
                raise InputError(f"policy: {path}: <{item.tag}> is empty; it must have a name")
            for rule in rules.attrib:
                getattr(node, rule).add(full_name(item.text.strip(), node))
    return node


def _one(parent: ET.Element, tag: str) -> ET.Element:
    if [child.tag for child in parent] != [tag]:
        raise InputError(f"policy: <{parent.tag}>: must have one <{tag}>, but has {[child.tag for child in parent]}")
    return parent[0]


def _only(parent: ET.Element, tag: str, attributes: set[str]) -> list[ET.Element]:
    children = list(parent)
    if not children or any(child.tag != tag or set(child.attrib) != attributes for child in children):
        found = [(child.tag, sorted(child.attrib)) for child in children]
        raise InputError(f"policy: <{parent.tag}>: must have <{tag}> with {sorted(attributes)}, but has {found}")
    return children


def differences(wanted: Sequence[Endpoints], found: Sequence[Endpoints]) -> list[str]:
    """Return one line for each right that only one of two policies grants."""
    lines = []
    policies = [{node.enclave: node for node in nodes} for nodes in (wanted, found)]
    for enclave in sorted(set(policies[0]) | set(policies[1])):
        nodes = [policy.get(enclave, Endpoints("none")) for policy in policies]
        for rule in (f.name for f in fields(Endpoints) if f.name in RULES):
            a, b = getattr(nodes[0], rule), getattr(nodes[1], rule)
            lines += [f"{enclave}: {rule} {name}: only in the first" for name in sorted(a - b)]
            lines += [f"{enclave}: {rule} {name}: only in the second" for name in sorted(b - a)]
    return lines
