"""Robot file check: lists all problems of a robot's YAML file, alone and against its URDF (`jepa_ros robot check`)."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
from pydantic import ValidationError

from jepa_ros.errors import InputError, problems
from jepa_ros.resources import resolve_robot
from jepa_ros.robot.config import RobotConfig, read_robot_file
from jepa_ros.robot.files.draft import read_urdf
from jepa_ros.robot.files.gripper import check_gripper
from jepa_ros.robot.files.kinematic_tree import KinematicTree
from jepa_ros.robot.files.open_marks import OpenMark, find_open_marks
from jepa_ros.robot.motion.action_space import make_space
from jepa_ros.robot.motion.kinematics import Kinematics
from jepa_ros.robot.motion.limits import JointLimits
from jepa_ros.robot.urdf import Joint

MAX_ANGLE = 2.0 * math.pi + 1e-3  # rad; a larger limit is in degrees, or belongs to a continuous joint
MAX_VELOCITY = 40.0  # rad/s; the OpenArm's wrist has 21
MAX_POSITION_ERROR = 5e-3  # m, of inverse kinematics at a corner of the workspace
MAX_ANGLE_ERROR = 0.05  # rad, of the same, where the tool turns


def run_robot_check(robot: str, urdf: Path | None = None) -> int:
    """Run `jepa_ros robot check`: print the problems; return 1 if there are any. Raises InputError for unreadable
    files."""
    path = resolve_robot(robot)
    description = read_urdf(urdf) if urdf else None
    found = find_problems(path, description)
    for problem in found:
        print(f"{path.name}: {problem}")
    against = f"checked with {urdf}" if urdf else "checked alone; --urdf FILE also checks names, limits, frames, reach"
    count = f"{len(found) or 'no'} problem{'s' * (len(found) != 1)}"
    print(f"{path.name}: {count}, {against}")
    return 1 if found else 0


def find_problems(path: Path, urdf: str | None = None) -> list[str]:
    """Return the problems of a robot's file, one line each. Raises InputError where file or URDF cannot be read."""
    todos = [_describe_mark(mark, path) for mark in find_open_marks(path)]
    try:
        robot = read_robot_file(path)
    except ValidationError as error:
        return todos + problems(error)
    found = todos + _check_values(robot)
    return found + (_check_against_urdf(robot, KinematicTree(urdf), urdf) if urdf is not None else [])


def _describe_mark(mark: OpenMark, path: Path) -> str:
    place = f"line {mark.line}" if mark.path == path else f"{mark.path.name}, line {mark.line}"
    return f"{place}: open TODO: {mark.text}"


def _check_values(robot: RobotConfig) -> list[str]:
    found = []
    for name in robot.joints:
        limit = robot.joint_limits[name]
        for kind in ("acceleration", "jerk"):
            if not getattr(limit, f"has_{kind}_limits") or getattr(limit, f"max_{kind}") is None:
                found.append(f"joint_limits of {name}: expected has_{kind}_limits: true and max_{kind}, found none")
        if limit.max_velocity > MAX_VELOCITY:
            found.append(f"joint_limits of {name}: expected max_velocity in rad/s, found {limit.max_velocity:g}")
        values = {"home": robot.home[name], "min_position": limit.min_position, "max_position": limit.max_position}
        for key, value in values.items():
            if value is not None and abs(value) > MAX_ANGLE:
                found.append(f"{key} of {name}: expected rad, found {value:g}: degrees?")
    return found


def _check_against_urdf(robot: RobotConfig, tree: KinematicTree, urdf: str) -> list[str]:
    joints = tree.description.joints
    absent = [n for n in robot.joints if n not in joints]
    found = [f"joints: expected joints of the URDF, found {name}" for name in absent]
    found += [f"gripper: expected a joint of the URDF, found {name}" for name in robot.gripper if name not in joints]
    frames = {"base_frame": robot.base_frame, "tool_frame": robot.tool_frame}
    missing = {key: link for key, link in frames.items() if link not in tree.links}
    found += [f"{key}: expected a link of the URDF, found {link}" for key, link in missing.items()]
    if not absent and not missing:
        found += _check_order(robot, tree)
    for name in robot.joints:
        if name in joints:
            found += _check_limits(robot, joints[name], tree)
    return found if found else _check_reach(robot, urdf) + check_gripper(robot, urdf)


def _check_order(robot: RobotConfig, tree: KinematicTree) -> list[str]:
    try:
        chain = tree.chain(robot.base_frame, robot.tool_frame)
    except InputError as error:
        return [str(error)]
    if chain == robot.joints:
        return []
    if sorted(chain) == sorted(robot.joints):
        return [f"joints: expected the order from base to tool {chain}, found {robot.joints}"]
    between = f"from {robot.base_frame} to {robot.tool_frame}"
    missing = [f"joints: expected also {name}, which moves {between}" for name in chain if name not in robot.joints]
    outside = [f"joints: expected joints {between}, found {n}" for n in robot.joints if n not in chain]
    return missing + outside


def _check_limits(robot: RobotConfig, joint: Joint, tree: KinematicTree) -> list[str]:
    name, limit = joint.name, robot.joint_limits[joint.name]
    if joint.type == "revolute" and max(abs(joint.lower), abs(joint.upper)) > MAX_ANGLE:
        return [f"limits of {name} in the URDF: expected rad, found {joint.lower:g} to {joint.upper:g}: degrees?"]
    # Missing acceleration and jerk limits are reported by _check_values; here any value will do.
    keys = vars(limit) | {f"has_{kind}_limits": True for kind in ("acceleration", "jerk")}
    keys |= {"max_acceleration": limit.max_acceleration or 1.0, "max_jerk": limit.max_jerk or 1.0}
    try:
        limits = JointLimits.from_description(tree.description, {name: keys}, [name], robot.position_margin)
    except InputError as error:
        return [str(error)]
    low, high, home = limits.lower[0], limits.upper[0], robot.home[name]
    if low <= home <= high:
        return []
    return [f"home of {name}: expected {low:.3f} to {high:.3f} (limits minus position_margin), found {home:g}"]


def _check_reach(robot: RobotConfig, urdf: str) -> list[str]:
    """Check that the corners of the workspace are within reach with the orientations that the tool may have there."""
    try:
        kinematics = Kinematics(urdf, robot.joints, robot.tool_frame, robot.base_frame)
        space = make_space(robot, kinematics, 0.1)
    except InputError as error:
        return [str(error)]
    home = np.array([robot.home[j] for j in robot.joints])
    found: dict[str, str] = {}
    for target, rotation in space.corner_poses:
        weight = space.posture_weight
        q, miss = kinematics.inverse(target, rotation, home, home, iterations=200, posture_weight=weight)
        place = ", ".join(f"{x:g}" for x in target)
        off = _angle(kinematics.forward(q)[1] @ rotation.T) if space.axes > space.position_axes else 0.0
        if miss > MAX_POSITION_ERROR:
            found.setdefault(place, f"workspace: corner ({place}) m is out of reach by {miss:.3f} m")
        elif off > MAX_ANGLE_ERROR:
            found.setdefault(place, f"yaw: at the corner ({place}) m the tool cannot turn as far, by {off:.2f} rad")
    return list(found.values())


def _angle(rotation: np.ndarray) -> float:
    """Return the angle of a rotation (3, 3), rad."""
    return float(np.arccos(np.clip(0.5 * (np.trace(rotation) - 1.0), -1.0, 1.0)))
