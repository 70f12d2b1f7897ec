"""SROS2 policies: what each node opens, as the XML that ``ros2 security create_permission`` takes.

The format is sros2's policy.xsd, version 0.2.0: one enclave for each node, in it one profile with lists of topics,
services and actions. Whatever is not allowed is denied.
"""

from __future__ import annotations

import xml.etree.ElementTree as ET
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields

from jepa_ros.errors import InputError

VERSION = "0.2.0"
OPERATOR, COLLECT = "operator", "collect"
TOOLS = (COLLECT, OPERATOR)
# (element, attribute): a list in a profile and what it allows, in the order in which they are written.
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
    """What one node opens: full names of topics, services and actions by what it does with them."""

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
        """Path of its enclave: its full name."""
        return f"{self.namespace.rstrip('/')}/{self.name}"

    def add(self, other: Endpoints) -> None:
        """Add what ``other`` opens."""
        for rule in RULES:
            getattr(self, rule).update(getattr(other, rule))


def operator(nodes: Iterable[Endpoints], namespace: str = "/") -> Endpoints:
    """The enclave of people and their tools: hear everything, ask for everything that is offered, press the e-stop.

    It publishes nothing that moves the arm: no plans, no joint states, no commands.
    """
    who = Endpoints(OPERATOR, namespace)
    for node in nodes:
        who.subscribe |= node.publish
        who.request |= node.reply
        who.call |= node.execute
    who.publish = {f"{namespace.rstrip('/')}/{E_STOP}"}
    return _tool(who)


def collector(namespace: str = "/") -> Endpoints:
    """The enclave of `jepa_ros collect live`, which takes the planner's place before arm_gate."""
    base, who = namespace.rstrip("/"), Endpoints(COLLECT, namespace)
    heard = ("gate_status", "planner_status", "joint_states", "executed", "robot_description", "joy", "twist")
    who.subscribe = {f"{base}/{topic}" for topic in heard} | {"/diagnostics"}
    who.publish = {f"{base}/{topic}" for topic in ("plan", "planner_status")}
    who.request = {f"{base}/recorder/episode"}
    who.reply = {f"{who.enclave}/{service}" for service in ("pause", "resume", "end_episode")}
    return _tool(who)


def _tool(who: Endpoints) -> Endpoints:
    """With what every node opens that is no lifecycle node."""
    who.publish |= {"/rosout", "/parameter_events"}
    who.subscribe |= {"/clock"}
    services = ("describe_parameters", "get_parameter_types", "get_parameters", "list_parameters", "set_parameters")
    services += ("set_parameters_atomically", "get_type_description")
    who.reply |= {f"{who.enclave}/{service}" for service in services}
    return who


def check_commanders(nodes: Iterable[Endpoints], commands: Sequence[str], commander: str = "arm_gate") -> None:
    """Raise InputError unless exactly the node ``commander`` publishes to the controllers' topics ``commands``."""
    nodes = list(nodes)
    for topic in commands:
        who = sorted(node.name for node in nodes if topic in node.publish)
        if who != [commander]:
            raise InputError(f"policy: {topic}: expected {commander} alone to publish it, found {who}")


def to_xml(nodes: Sequence[Endpoints], note: str = "") -> str:
    """The policy as text; the same for the same endpoints, in whatever order they were found."""
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
    """A full name as policies write it: ~/x for the node's own, x for one in its namespace, else /x."""
    if name.startswith(f"{node.enclave}/"):
        return "~" + name[len(node.enclave) :]
    prefix = node.namespace.rstrip("/") + "/"
    return name[len(prefix) :] if prefix != "/" and name.startswith(prefix) else name


def full_name(text: str, node: Endpoints) -> str:
    """What an expression of a policy means; the opposite of ``expression``."""
    if text.startswith("~"):
        return node.enclave + text[1:]
    return text if text.startswith("/") else f"{node.namespace.rstrip('/')}/{text}"


def from_xml(text: str) -> list[Endpoints]:
    """The profiles of a policy. Raises InputError where it is not one of version 0.2.0 as policy.xsd has it."""
    try:
        root = ET.fromstring(text)
    except ET.ParseError as error:
        raise InputError(f"policy: expected XML, found {error}") from None
    if root.tag != "policy" or root.attrib != {"version": VERSION}:
        raise InputError(f"policy: expected <policy version='{VERSION}'>, found <{root.tag}> {root.attrib}")
    found = []
    for enclave in _only(_one(root, "enclaves"), "enclave", {"path"}):
        for profile in _only(_one(enclave, "profiles"), "profile", {"ns", "node"}):
            found.append(_profile(profile, enclave.attrib["path"]))
    return found


def _profile(profile: ET.Element, path: str) -> Endpoints:
    node = Endpoints(profile.attrib["node"], profile.attrib["ns"])
    if node.enclave != path:
        raise InputError(f"policy: enclave {path}: expected the profile of that node, found {node.enclave}")
    for rules in profile:
        known = {attribute for element, attribute in RULES.values() if element == rules.tag}
        if not rules.attrib or set(rules.attrib) - known or set(rules.attrib.values()) - {"ALLOW"}:
            raise InputError(f"policy: {path}: expected {sorted(known)} ALLOW, found <{rules.tag}> {rules.attrib}")
        for item in _only(rules, rules.tag[:-1], set()):
            if not (item.text or "").strip():
                raise InputError(f"policy: {path}: expected a name in <{item.tag}>, found nothing")
            for rule in rules.attrib:
                getattr(node, rule).add(full_name(item.text.strip(), node))
    return node


def _one(parent: ET.Element, tag: str) -> ET.Element:
    if [child.tag for child in parent] != [tag]:
        raise InputError(f"policy: <{parent.tag}>: expected one <{tag}>, found {[child.tag for child in parent]}")
    return parent[0]


def _only(parent: ET.Element, tag: str, attributes: set[str]) -> list[ET.Element]:
    children = list(parent)
    if not children or any(child.tag != tag or set(child.attrib) != attributes for child in children):
        found = [(child.tag, sorted(child.attrib)) for child in children]
        raise InputError(f"policy: <{parent.tag}>: expected <{tag}> with {sorted(attributes)}, found {found}")
    return children


def differences(wanted: Sequence[Endpoints], found: Sequence[Endpoints]) -> list[str]:
    """One line for each right that only one of two policies gives."""
    lines = []
    policies = [{node.enclave: node for node in nodes} for nodes in (wanted, found)]
    for enclave in sorted(set(policies[0]) | set(policies[1])):
        nodes = [policy.get(enclave, Endpoints("nobody")) for policy in policies]
        for rule in (f.name for f in fields(Endpoints) if f.name in RULES):
            a, b = getattr(nodes[0], rule), getattr(nodes[1], rule)
            lines += [f"{enclave}: {rule} {name}: only in the first" for name in sorted(a - b)]
            lines += [f"{enclave}: {rule} {name}: only in the second" for name in sorted(b - a)]
    return lines
