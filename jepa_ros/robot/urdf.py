"""Robot descriptions (URDF): joints and their limits."""

from __future__ import annotations

import math
import xml.etree.ElementTree as ElementTree
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from jepa_ros.errors import InputError

MAX_CHARACTERS = 16_000_000  # of a description
_TYPES = ("revolute", "continuous", "prismatic", "fixed", "floating", "planar")


@dataclass(frozen=True)
class Joint:
    """One joint: type as in URDF; lower, upper in rad or m (±inf: none); velocity in rad/s or m/s (None: not given)."""

    name: str
    type: str
    lower: float
    upper: float
    velocity: float | None


@dataclass(frozen=True)
class RobotDescription:
    """Name and joints of a URDF."""

    name: str
    joints: Mapping[str, Joint]

    @classmethod
    def from_urdf(cls, xml: str) -> RobotDescription:
        """Read a URDF. Raises InputError where it is not a URDF, or limits are not numbers or not in order."""
        if len(xml) > MAX_CHARACTERS:
            raise InputError(f"robot description: expected at most {MAX_CHARACTERS} characters, found {len(xml)}")
        try:
            root = ElementTree.fromstring(xml)
        except (ElementTree.ParseError, ValueError) as error:  # ValueError: e.g. null characters
            raise InputError(f"robot description: expected URDF, found invalid XML ({error})") from None
        if root.tag != "robot":
            raise InputError(f"robot description: expected the root element <robot>, found <{root.tag}>")
        joints: dict[str, Joint] = {}
        for element in root.findall("joint"):
            joint = _joint(element)
            if joint.name in joints:
                raise InputError(f"robot description: joint {joint.name} is defined twice, expected once")
            joints[joint.name] = joint
        if not joints:
            raise InputError("robot description: expected joints, found none")
        return cls(root.get("name", ""), joints)

    def find_continuous(self, names: Sequence[str]) -> list[bool]:
        """Return for each name whether it is a continuous joint of the description."""
        return [name in self.joints and self.joints[name].type == "continuous" for name in names]


def read_gripper_limits(urdf: str, gripper: str) -> tuple[float, float]:
    """Return the lower and upper limit, rad or m, of a gripper's joint. Raises InputError where it has none."""
    joint = RobotDescription.from_urdf(urdf).joints.get(gripper)
    if joint is None:
        raise InputError(f"robot_description: expected the gripper joint {gripper}, found none")
    if not 0.0 < joint.upper - joint.lower < math.inf:
        found = f"{joint.lower:g} and {joint.upper:g}"
        raise InputError(f"robot_description: gripper joint {gripper}: expected two finite limits, found {found}")
    return joint.lower, joint.upper


def replace_continuous_joints(urdf: str, turn: float) -> str:
    """Return the URDF with continuous joints as revolute ones of ±turn rad, since Pinocchio represents continuous
    joints by two numbers. Text that is not a URDF is returned unchanged."""
    if "continuous" not in urdf:
        return urdf
    try:
        root = ElementTree.fromstring(urdf)
    except (ElementTree.ParseError, ValueError):
        return urdf
    for joint in root.findall("joint[@type='continuous']"):
        joint.set("type", "revolute")
        limit = joint.find("limit")
        if limit is None:
            limit = ElementTree.SubElement(joint, "limit", effort="0", velocity="0")
        limit.set("lower", str(-turn))
        limit.set("upper", str(turn))
    return ElementTree.tostring(root, encoding="unicode")


def _joint(element: ElementTree.Element) -> Joint:
    name, kind = element.get("name"), element.get("type")
    if not name:
        raise InputError("robot description: a joint has no name, expected one")
    if kind not in _TYPES:
        raise InputError(f"robot description: joint {name}: expected a type of {', '.join(_TYPES)}, found {kind}")
    limit = element.find("limit")
    lower, upper, velocity = -math.inf, math.inf, None
    if kind in ("revolute", "prismatic"):
        if limit is None:
            raise InputError(f"robot description: joint {name}: expected a <limit>, found none")
        lower, upper = _number(name, limit, "lower", 0.0), _number(name, limit, "upper", 0.0)
        if lower > upper:
            raise InputError(f"robot description: joint {name}: expected lower ≤ upper, found {lower} > {upper}")
    if limit is not None and limit.get("velocity") is not None:
        velocity = _number(name, limit, "velocity", 0.0)
        if velocity < 0:
            raise InputError(f"robot description: joint {name}: expected a velocity limit ≥ 0, found {velocity}")
    return Joint(name, kind, lower, upper, velocity)


def _number(joint: str, limit: ElementTree.Element, key: str, default: float) -> float:
    text = limit.get(key)
    if text is None:
        return default
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise InputError(f"robot description: joint {joint}: expected a finite {key} limit, found {text!r}")
    return value
