"""Gripper check: whether the fingers move apart at the limit that a robot file calls open."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from collections.abc import Container

import numpy as np
import pinocchio as pin

from jepa_ros.errors import InputError
from jepa_ros.robot.config import RobotConfig
from jepa_ros.robot.motion.kinematics import pinocchio_errors
from jepa_ros.robot.urdf import read_gripper_limits, replace_continuous_joints

MIN_OPENING = 1e-3  # m: a smaller difference shows nothing, as with links without geometry
_PLACED = ("inertial", "collision", "visual")  # elements of a link whose origins are points on it


def check_gripper(robot: RobotConfig, urdf: str) -> list[str]:
    """Return the problem of a gripper that closes at its `open` limit, in one line, or nothing.

    Only a gripper whose fingers mimic its first joint can be judged.
    """
    controller = robot.gripper_controller
    if controller is None or not robot.gripper:
        return []
    try:
        at_lower, at_upper = measure_finger_spread(urdf, robot.gripper[0])
    except InputError as error:
        return [str(error)]
    spread = {"lower": at_lower, "upper": at_upper}
    other = "upper" if controller.open == "lower" else "lower"
    apart = spread[other] - spread[controller.open]
    if apart < MIN_OPENING:
        return []
    return [
        f"gripper_controller: open: {controller.open} brings the fingers together: by the URDF they are "
        f"{1e3 * apart:.0f} mm farther apart at the {other} limit of {robot.gripper[0]}; set open: {other}"
    ]


def measure_finger_spread(urdf: str, gripper: str) -> tuple[float, float]:
    """Return how far apart the fingers are, in m, at the lower and at the upper limit of the joint `gripper`.

    A finger is what the joint, or a joint that mimics it, moves; the distance is the mean one of the fingers' middles
    from their common middle, times two. Both are 0 where there is one finger only. Raises InputError where the joint
    has no range, or where the URDF is invalid.
    """
    limits = read_gripper_limits(urdf, gripper)
    with pinocchio_errors():
        return _measure_at(limits, urdf, gripper)


def _measure_at(limits: tuple[float, float], urdf: str, gripper: str) -> tuple[float, float]:
    root = ElementTree.fromstring(urdf)
    gears = _read_gears(root, gripper)
    fingers = _find_fingers(root, gears)
    if len(fingers) < 2:
        return 0.0, 0.0
    model = pin.buildModelFromXML(replace_continuous_joints(urdf, 2.0 * np.pi))
    data = model.createData()
    points = {link.get("name", ""): _points_on(link) for link in root.findall("link")}

    def spread(at: float) -> float:
        q = pin.neutral(model)
        for joint, (factor, offset) in gears.items():
            q[model.joints[model.getJointId(joint)].idx_q] = factor * at + offset
        pin.framesForwardKinematics(model, data, q)
        middles = []
        for finger in fingers:
            poses = [(data.oMf[model.getFrameId(link, pin.FrameType.BODY)], points[link]) for link in finger]
            middles.append(np.concatenate([p @ pose.rotation.T + pose.translation for pose, p in poses]).mean(axis=0))
        away = np.array(middles) - np.mean(middles, axis=0)
        return 2.0 * float(np.linalg.norm(away, axis=1).mean())

    return spread(limits[0]), spread(limits[1])


def _read_gears(root: ElementTree.Element, gripper: str) -> dict[str, tuple[float, float]]:
    """Return factor and offset of the position of each joint that moves with `gripper`, itself included."""
    gears = {gripper: (1.0, 0.0)}
    mimics: dict[str, tuple[str, float, float]] = {}
    for joint in root.findall("joint"):
        mimic = joint.find("mimic")
        if mimic is not None:
            values = float(mimic.get("multiplier", "1")), float(mimic.get("offset", "0"))
            mimics[joint.get("name", "")] = (mimic.get("joint", ""), *values)
    while new := {name: m for name, m in mimics.items() if name not in gears and m[0] in gears}:
        for name, (of, factor, offset) in new.items():
            gears[name] = (factor * gears[of][0], factor * gears[of][1] + offset)
    return gears


def _find_fingers(root: ElementTree.Element, gears: Container[str]) -> list[list[str]]:
    """Return the links of each finger: of the subtrees that the joints move, those that are in no other."""
    children: dict[str, list[tuple[str, str]]] = {}
    for joint in root.findall("joint"):
        parent, child = joint.find("parent"), joint.find("child")
        if parent is not None and child is not None:
            pair = joint.get("name", ""), child.get("link", "")
            children.setdefault(parent.get("link", ""), []).append(pair)

    def below(link: str) -> list[str]:
        return [link, *(found for _, child in children.get(link, ()) for found in below(child))]

    tops = {child for pairs in children.values() for joint, child in pairs if joint in gears}
    trees = {top: below(top) for top in tops}
    inner = {link for top, tree in trees.items() for link in tree if link != top}
    return [tree for top, tree in sorted(trees.items()) if top not in inner]


def _points_on(link: ElementTree.Element) -> np.ndarray:
    """Return points (n, 3) m of a link in its frame: its origin, its centre of mass, and its shapes' origins."""
    found = [np.zeros(3)]
    for origin in (part.find("origin") for kind in _PLACED for part in link.findall(kind)):
        if origin is not None and (place := origin.get("xyz")):
            found.append(np.array([float(number) for number in place.split()]))
    return np.array(found)
