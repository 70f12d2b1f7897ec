"""Reader of SROS2 policies, strict as policy.xsd, version 0.2.0, and a comparison of two policies."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from collections.abc import Sequence
from dataclasses import fields

from jepa_ros.security.policy import RULES, VERSION, Endpoints


class PolicyError(ValueError):
    """The text is not a valid policy."""


def full_name(text: str, node: Endpoints) -> str:
    """Return the full name for an expression of a policy."""
    if text.startswith("~"):
        return node.enclave + text[1:]
    return text if text.startswith("/") else f"{node.namespace.rstrip('/')}/{text}"


def from_xml(text: str) -> list[Endpoints]:
    """Return the profiles of a policy. Raises PolicyError if it is not valid for policy.xsd, version 0.2.0."""
    try:
        root = ET.fromstring(text)
    except ET.ParseError as error:
        raise PolicyError(f"policy: not valid XML ({error})") from None
    if root.tag != "policy" or root.attrib != {"version": VERSION}:
        raise PolicyError(f"policy: must be a <policy version='{VERSION}'>, but is a <{root.tag}> {root.attrib}")
    found = []
    for enclave in _only(_one(root, "enclaves"), "enclave", {"path"}):
        for profile in _only(_one(enclave, "profiles"), "profile", {"ns", "node"}):
            found.append(_profile(profile, enclave.attrib["path"]))
    return found


def _profile(profile: ET.Element, path: str) -> Endpoints:
    node = Endpoints(profile.attrib["node"], profile.attrib["ns"])
    if node.enclave != path:
        raise PolicyError(f"policy: enclave {path}: has the profile of another node, {node.enclave}")
    for rules in profile:
        known = {attribute for element, attribute in RULES.values() if element == rules.tag}
        if not rules.attrib or set(rules.attrib) - known or set(rules.attrib.values()) - {"ALLOW"}:
            raise PolicyError(
                f"policy: {path}: <{rules.tag}> {rules.attrib} is invalid; allowed are {sorted(known)} ALLOW"
            )
        for item in _only(rules, rules.tag[:-1], set()):
            if not (item.text or "").strip():
                raise PolicyError(f"policy: {path}: <{item.tag}> is empty; it must have a name")
            for rule in rules.attrib:
                getattr(node, rule).add(full_name(item.text.strip(), node))
    return node


def _one(parent: ET.Element, tag: str) -> ET.Element:
    if [child.tag for child in parent] != [tag]:
        raise PolicyError(f"policy: <{parent.tag}>: must have one <{tag}>, but has {[child.tag for child in parent]}")
    return parent[0]


def _only(parent: ET.Element, tag: str, attributes: set[str]) -> list[ET.Element]:
    children = list(parent)
    if not children or any(child.tag != tag or set(child.attrib) != attributes for child in children):
        found = [(child.tag, sorted(child.attrib)) for child in children]
        raise PolicyError(f"policy: <{parent.tag}>: must have <{tag}> with {sorted(attributes)}, but has {found}")
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
