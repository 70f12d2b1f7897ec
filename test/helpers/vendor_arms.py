"""Small URDFs of arms as their vendors publish them: joints, limits and frames, without meshes."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path

TABLE = Path(__file__).with_name("vendor_arms.txt")
# Robots whose description is that of another: the other arm.
SAME = {"openarm_v10_left": "openarm_v10"}
INERTIA = '<inertial><mass value="1"/><inertia ixx="1" iyy="1" izz="1" ixy="0" ixz="0" iyz="0"/></inertial>'


@cache
def published(robot: str) -> str:
    """The URDF of a robot in config/robots; of the OpenArm 2 it is the simulated one's, which is this version."""
    if robot.startswith("openarm") and "v10" not in robot:
        from helpers.sim_arm import scene

        return scene().urdf
    section = re.split(r"^\[(\w+)\]$", TABLE.read_text(), flags=re.MULTILINE)
    rows = section[section.index(SAME.get(robot, robot)) + 1].splitlines()
    joints = [row.split(" | ") for row in rows if row and not row.startswith("#")]
    links = dict.fromkeys(link for joint in joints for link in joint[2:4])
    parts = [f'<link name="{link}">{INERTIA}</link>' for link in links]
    return f'<robot name="{robot}">{"".join(parts + [_joint(*joint) for joint in joints])}</robot>'


def _joint(name, kind, parent, child, xyz, rpy, axis="", limit="", mimic="") -> str:
    parts = [f'<parent link="{parent}"/><child link="{child}"/><origin xyz="{xyz}" rpy="{rpy}"/>']
    if axis:
        values = limit.split()
        keys = ("lower", "upper", "velocity")[-len(values) :]
        limits = " ".join(f'{key}="{value}"' for key, value in zip(keys, values, strict=True))
        parts.append(f'<axis xyz="{axis}"/><limit effort="1" {limits}/>')
    if mimic:
        parts.append(f'<mimic joint="{mimic}"/>')
    return f'<joint name="{name}" type="{kind}">{"".join(parts)}</joint>'
