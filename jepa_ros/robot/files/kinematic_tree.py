"""Kinematic tree of a robot description, and the arm in it: the longest chain of joints without a branch."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from dataclasses import dataclass

from jepa_ros.errors import InputError
from jepa_ros.robot.urdf import RobotDescription

MOVING = ("revolute", "continuous", "prismatic")


@dataclass(frozen=True)
class ArmChain:
    """joints: from base to tool. gripper: moving joints attached to the tool."""

    base: str
    tool: str
    joints: tuple[str, ...]
    gripper: tuple[str, ...]


class KinematicTree:
    """links: names of all links. root: the link without a parent. Raises InputError where the URDF is not a tree."""

    def __init__(self, urdf: str):
        self.description = RobotDescription.from_urdf(urdf)
        root = ElementTree.fromstring(urdf)
        self.links = [link.get("name", "") for link in root.findall("link")]
        self._parents: dict[str, tuple[str, str]] = {}  # link: its joint and parent link
        self._mimics = {j.get("name") for j in root.findall("joint") if j.find("mimic") is not None}
        for joint in root.findall("joint"):
            name = joint.get("name", "")
            parent, child = (joint.find(which) for which in ("parent", "child"))
            if parent is None or child is None:
                raise InputError(f"robot description: joint {name}: expected a parent and a child link, found less")
            self._parents[child.get("link", "")] = (name, parent.get("link", ""))
        tops = [link for link in self.links if link not in self._parents]
        if len(tops) != 1:
            raise InputError(f"robot description: expected one link without a parent, found {tops}")
        self.root = tops[0]
        if loop := sorted(set(self._parents) - self._descendants()):
            raise InputError(f"robot description: expected all links connected to {self.root}, found {loop[0]} apart")

    def chain(self, base: str, tool: str) -> list[str]:
        """Return the moving joints from base to tool, in order. Raises InputError where there is no such chain."""
        found: list[str] = []
        link = tool
        while link != base:
            if link not in self._parents or len(found) > len(self._parents):
                raise InputError(f"robot description: expected link {tool} below {base}, found it elsewhere")
            joint, link = self._parents[link]
            if self._moves(joint):
                found.append(joint)
        return found[::-1]

    def gripper(self, tool: str) -> tuple[str, ...]:
        """Return the moving joints, without mimic joints, attached to what is rigid with the tool."""
        group = self._group(tool)
        return tuple(
            j for j, p in self._parents.values() if p in group and self._moves(j) and not self._leads_to(j, tool)
        )

    def arm(self, base: str | None = None, tool: str | None = None) -> ArmChain:
        """Return the arm that ends in `tool`; None: the longest chain without a branch. base: None for the root.

        Raises InputError where there is no such link or chain, or where several chains are the longest.
        """
        base = base or self.root
        for link in (base, tool or base):
            if link not in self.links:
                raise InputError(f"robot description: expected a link '{link}', found {', '.join(self.links)}")
        if tool is None:
            tool = self._tool()
        joints = self.chain(base, tool)
        if not joints:
            raise InputError(f"robot description: expected moving joints from {base} to {tool}, found none")
        return ArmChain(base, tool, tuple(joints), self.gripper(tool))

    def _descendants(self) -> set[str]:
        """Return all links connected to the root."""
        found, new = set(), {self.root}
        while new:
            new = {child for child, (_, parent) in self._parents.items() if parent in new}
            found |= new
        return found

    def _tool(self) -> str:
        """Return the end of the longest chain, where it branches or ends; of the rigid links there the outermost."""
        ends: dict[str, int] = {}
        for link in self.links:
            joint, _ = self._parents.get(link, ("", ""))
            if self._moves(joint) and not self._continues(link):
                ends[self._outermost(link)] = self._length(link)
        longest = [link for link, length in ends.items() if length == max(ends.values())]
        if len(longest) != 1:
            found = ", ".join(longest) or "none"
            raise InputError(f"robot description: expected one longest chain, or --tool; found the ends {found}")
        return longest[0]

    def _moves(self, joint: str) -> bool:
        known = self.description.joints.get(joint)
        return known is not None and known.type in MOVING and joint not in self._mimics

    def _group(self, link: str) -> set[str]:
        """Return the links that are rigid with a link."""
        top = link
        while top in self._parents and not self._moves_or_mimics(self._parents[top][0]):
            top = self._parents[top][1]
        group = {top}
        while more := {c for c, (j, p) in self._parents.items() if p in group and not self._moves_or_mimics(j)} - group:
            group |= more
        return group

    def _moves_or_mimics(self, joint: str) -> bool:
        """True where the joint moves, also as a mimic joint."""
        return self.description.joints[joint].type in MOVING

    def _children(self, link: str) -> list[str]:
        """Return the links attached to a link's rigid group by a moving joint, also a mimic joint."""
        group = self._group(link)
        return [
            child
            for child, (joint, parent) in self._parents.items()
            if parent in group and self._moves_or_mimics(joint)
        ]

    def _continues(self, link: str) -> bool:
        return len(self._children(link)) == 1

    def _length(self, link: str) -> int:
        """Return the number of joints from the last branch to a link."""
        count = 0
        while link in self._parents:
            joint, parent = self._parents[link]
            count += self._moves_or_mimics(joint)
            if self._moves_or_mimics(joint) and len(self._children(parent)) > 1:
                break
            link = parent
        return count

    def _outermost(self, link: str) -> str:
        """Return the link, of those rigid with a link, that has the most fixed joints before it."""
        depth = {}
        for other in self._group(link):
            depth[other], at = 0, other
            while at != link and at in self._parents:
                depth[other], at = depth[other] + 1, self._parents[at][1]
        return max(sorted(depth), key=lambda other: depth[other])

    def _leads_to(self, joint: str, tool: str) -> bool:
        """True where a joint of the arm leads to the tool."""
        return joint in self.chain(self.root, tool)
