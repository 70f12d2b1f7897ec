"""The tree of links and joints of a robot description, and the arm in it: a chain of joints without a fork."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from dataclasses import dataclass

from jepa_ros.errors import InputError
from jepa_ros.robot.urdf import RobotDescription

MOVING = ("revolute", "continuous", "prismatic")


@dataclass(frozen=True)
class ArmChain:
    """joints: in the chain's order from base to tool. gripper: joints that move and hang on the tool."""

    base: str
    tool: str
    joints: tuple[str, ...]
    gripper: tuple[str, ...]


class KinematicTree:
    """links: their names. root: the link that hangs on nothing. Raises InputError where the URDF is no such tree."""

    def __init__(self, urdf: str):
        self.description = RobotDescription.from_urdf(urdf)
        root = ElementTree.fromstring(urdf)
        self.links = [link.get("name", "") for link in root.findall("link")]
        self._above: dict[str, tuple[str, str]] = {}  # link: the joint that it hangs on, and that joint's parent link
        self._mimics = {j.get("name") for j in root.findall("joint") if j.find("mimic") is not None}
        for joint in root.findall("joint"):
            parent, child = (joint.find(which) for which in ("parent", "child"))
            if parent is None or child is None:
                name = joint.get("name")
                raise InputError(f"robot description: joint {name}: expected a parent and a child link, found none")
            self._above[child.get("link")] = (joint.get("name"), parent.get("link"))
        tops = [link for link in self.links if link not in self._above]
        if len(tops) != 1:
            raise InputError(f"robot description: expected one link that hangs on nothing, found {tops}")
        self.root = tops[0]
        if loop := sorted(set(self._above) - self._below()):
            raise InputError(f"robot description: expected every link to hang on {self.root}, found {loop[0]} apart")

    def chain(self, base: str, tool: str) -> list[str]:
        """Names of the moving joints from link to link, in order. Raises InputError where it does not hang on base."""
        found, link = [], tool
        while link != base:
            if link not in self._above or len(found) > len(self._above):
                raise InputError(f"robot description: expected link {tool} to hang on {base}, found that it does not")
            joint, link = self._above[link]
            if self._moves(joint):
                found.append(joint)
        return found[::-1]

    def gripper(self, tool: str) -> tuple[str, ...]:
        """The joints that move, follow no other one, and are the first to hang on what is rigid with the tool."""
        group = self._group(tool)
        return tuple(j for j, p in self._above.values() if p in group and self._moves(j) and not self._leads(j, tool))

    def arm(self, base: str | None = None, tool: str | None = None) -> ArmChain:
        """The arm that ends in `tool`; None: the longest chain without a fork. base: None for the root.

        Raises InputError where there is no such link or chain, and where several are the longest.
        """
        base = base or self.root
        for link in (base, tool or base):
            if link not in self.links:
                raise InputError(f"robot description: expected a link '{link}', found {', '.join(self.links)}")
        if tool is None:
            tool = self._tool()
        joints = self.chain(base, tool)
        if not joints:
            raise InputError(f"robot description: expected joints that move from {base} to {tool}, found none")
        return ArmChain(base, tool, tuple(joints), self.gripper(tool))

    def _below(self) -> set[str]:
        """The links that hang on the root."""
        found, new = set(), {self.root}
        while new:
            new = {child for child, (_, parent) in self._above.items() if parent in new}
            found |= new
        return found

    def _tool(self) -> str:
        """The end of the longest chain: where it forks, or ends; of the links there the outermost."""
        ends: dict[str, int] = {}
        for link in self.links:
            joint, _ = self._above.get(link, ("", ""))
            if self._moves(joint) and not self._inner(link):
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
        """Links that are rigid with a link."""
        top = link
        while top in self._above and not self._any(self._above[top][0]):
            top = self._above[top][1]
        group = {top}
        while more := {c for c, (j, p) in self._above.items() if p in group and not self._any(j)} - group:
            group |= more
        return group

    def _any(self, joint: str) -> bool:
        """Whether the joint moves, by itself or after another one."""
        return self.description.joints[joint].type in MOVING

    def _next(self, link: str) -> list[str]:
        """The links that hang on a link's rigid group by a joint that moves, also one that follows another."""
        group = self._group(link)
        return [child for child, (joint, parent) in self._above.items() if parent in group and self._any(joint)]

    def _inner(self, link: str) -> bool:
        return len(self._next(link)) == 1

    def _length(self, link: str) -> int:
        """Joints from the last fork to a link."""
        count = 0
        while link in self._above:
            joint, parent = self._above[link]
            count += self._any(joint)
            if self._any(joint) and len(self._next(parent)) > 1:
                break
            link = parent
        return count

    def _outermost(self, link: str) -> str:
        """Of what is rigid with a link, the one with the most fixed joints before it."""
        depth = {}
        for other in self._group(link):
            depth[other], at = 0, other
            while at != link and at in self._above:
                depth[other], at = depth[other] + 1, self._above[at][1]
        return max(sorted(depth), key=depth.get)

    def _leads(self, joint: str, tool: str) -> bool:
        """Whether a joint leads to the tool: it is the arm's own."""
        return joint in self.chain(self.root, tool)
