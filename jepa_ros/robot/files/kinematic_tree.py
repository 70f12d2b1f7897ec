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
        mimics = {joint.get("name") for joint in root.findall("joint") if joint.find("mimic") is not None}
        self._moving = {name for name, joint in self.description.joints.items() if joint.type in MOVING}
        self._driven = self._moving - mimics  # moving joints but mimic joints
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
        connected, new = set(), {self.root}
        while new:
            new = {child for child, (_, parent) in self._parents.items() if parent in new}
            connected |= new
        if loop := sorted(set(self._parents) - connected):
            raise InputError(f"robot description: expected all links connected to {self.root}, found {loop[0]} apart")

    def chain(self, base: str, tool: str) -> list[str]:
        """Return the moving joints from base to tool, in order. Raises InputError where there is no such chain."""
        found: list[str] = []
        link = tool
        while link != base:
            if link not in self._parents or len(found) > len(self._parents):
                raise InputError(f"robot description: expected link {tool} below {base}, found it elsewhere")
            joint, link = self._parents[link]
            if joint in self._driven:
                found.append(joint)
        return found[::-1]

    def gripper(self, tool: str) -> tuple[str, ...]:
        """Return the moving joints, without mimic joints, attached to what is rigid with the tool."""
        group, own = self._group(tool), self._driven - set(self.chain(self.root, tool))
        return tuple(joint for joint, parent in self._parents.values() if parent in group and joint in own)

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

    def _tool(self) -> str:
        """Return the end of the longest chain, where it branches or ends; of the rigid links there the outermost."""
        ends: dict[str, int] = {}
        for link in self.links:
            joint, _ = self._parents.get(link, ("", ""))
            if joint in self._driven and len(self._children(link)) != 1:
                ends[self._outermost(link)] = self._length(link)
        longest = [link for link, length in ends.items() if length == max(ends.values())]
        if len(longest) != 1:
            found = ", ".join(longest) or "none"
            raise InputError(f"robot description: expected one longest chain, or --tool; found the ends {found}")
        return longest[0]

    def _group(self, link: str) -> set[str]:
        """Return the links that are rigid with a link."""
        top = link
        while top in self._parents and self._parents[top][0] not in self._moving:
            top = self._parents[top][1]
        group = {top}
        while more := {c for c, (j, p) in self._parents.items() if p in group and j not in self._moving} - group:
            group |= more
        return group

    def _children(self, link: str) -> list[str]:
        """Return the links attached to a link's rigid group by a moving joint, also a mimic joint."""
        group = self._group(link)
        return [child for child, (joint, parent) in self._parents.items() if parent in group and joint in self._moving]

    def _length(self, link: str) -> int:
        """Return the number of joints from the last branch to a link."""
        count = 0
        while link in self._parents:
            joint, parent = self._parents[link]
            if joint in self._moving:
                count += 1
                if len(self._children(parent)) > 1:
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
