"""A URDF made from a compiled MuJoCo model, so that one description serves simulation, kinematics and the gate."""

from __future__ import annotations

from xml.etree import ElementTree as ET

import mujoco
import numpy as np


def urdf_from_mujoco(
    model: mujoco.MjModel,
    *,
    name: str,
    prefix: str,
    velocity_limits: dict[str, float],
    sites: dict[str, str],
) -> str:
    """URDF text of all bodies whose name starts with `prefix`, rooted at the link `world`.

    Link frames are the body frames (moved to the joint's anchor where a joint has one). velocity_limits: rad/s of each
    joint; effort limits are the servos' force ranges in N m. sites: MuJoCo site → name of the link fixed there. A joint
    that an equality constraint ties to another becomes a URDF mimic joint.
    """
    robot = ET.Element("robot", name=name)
    ET.SubElement(robot, "link", name="world")
    mimics = _mimics(model)
    anchors = {0: np.zeros(3)}
    for body in range(1, model.nbody):
        if not model.body(body).name.startswith(prefix):
            continue
        joint = model.body_jntadr[body] if model.body_jntnum[body] else None
        anchors[body] = model.jnt_pos[joint].copy() if joint is not None else np.zeros(3)
        _add_link(robot, model, body, anchors[body])
        _add_joint(robot, model, body, joint, anchors, velocity_limits, mimics)
    for site, link in sites.items():
        body = int(model.site(site).bodyid[0])
        ET.SubElement(robot, "link", name=link)
        element = ET.SubElement(robot, "joint", name=f"{link}_fixed", type="fixed")
        ET.SubElement(element, "parent", link=model.body(body).name)
        ET.SubElement(element, "child", link=link)
        _origin(element, model.site(site).pos - anchors[body], model.site(site).quat)
    ET.indent(robot)
    return ET.tostring(robot, encoding="unicode")


def _mimics(model: mujoco.MjModel) -> dict[int, tuple[str, float]]:
    """Joint index → (the joint that it follows, factor), from the joint equalities."""
    found = {}
    for eq in range(model.neq):
        if model.eq_type[eq] == mujoco.mjtEq.mjEQ_JOINT and model.eq_obj2id[eq] >= 0:
            found[int(model.eq_obj2id[eq])] = (model.joint(model.eq_obj1id[eq]).name, 1.0 / model.eq_data[eq][1])
    return found


def _add_link(robot: ET.Element, model: mujoco.MjModel, body: int, anchor: np.ndarray) -> None:
    link = ET.SubElement(robot, "link", name=model.body(body).name)
    inertial = ET.SubElement(link, "inertial")
    _origin(inertial, model.body_ipos[body] - anchor, model.body_iquat[body])
    ET.SubElement(inertial, "mass", value=f"{model.body_mass[body]:.9g}")
    xx, yy, zz = (f"{v:.9g}" for v in model.body_inertia[body])
    ET.SubElement(inertial, "inertia", ixx=xx, iyy=yy, izz=zz, ixy="0", ixz="0", iyz="0")


def _add_joint(robot, model, body, joint, anchors, velocity_limits, mimics) -> None:
    parent = int(model.body_parentid[body])
    kind = "fixed" if joint is None else "revolute"
    name = f"{model.body(body).name}_fixed" if joint is None else model.joint(joint).name
    element = ET.SubElement(robot, "joint", name=name, type=kind)
    ET.SubElement(element, "parent", link=model.body(parent).name)
    ET.SubElement(element, "child", link=model.body(body).name)
    rotated = np.zeros(3)
    mujoco.mju_rotVecQuat(rotated, anchors[body], model.body_quat[body])
    _origin(element, model.body_pos[body] + rotated - anchors[parent], model.body_quat[body])
    if joint is None:
        return
    ET.SubElement(element, "axis", xyz=_numbers(model.jnt_axis[joint]))
    lower, upper = model.jnt_range[joint]
    actuators = [a for a in range(model.nu) if model.actuator_trnid[a, 0] == joint]
    effort = float(model.actuator_forcerange[actuators[0], 1]) if actuators else 0.0
    limit = {"lower": lower, "upper": upper, "effort": effort, "velocity": velocity_limits.get(name, 0.0)}
    ET.SubElement(element, "limit", {k: f"{v:.9g}" for k, v in limit.items()})
    if joint in mimics:
        leader, factor = mimics[joint]
        ET.SubElement(element, "mimic", joint=leader, multiplier=f"{factor:.9g}", offset="0")


def _origin(element: ET.Element, position: np.ndarray, quaternion: np.ndarray) -> None:
    matrix = np.zeros(9)
    mujoco.mju_quat2Mat(matrix, np.asarray(quaternion, dtype=float))
    r = matrix.reshape(3, 3)
    pitch = np.arctan2(-r[2, 0], np.hypot(r[0, 0], r[1, 0]))
    if np.hypot(r[0, 0], r[1, 0]) < 1e-9:
        roll, yaw = np.arctan2(-r[1, 2], r[1, 1]), 0.0
    else:
        roll, yaw = np.arctan2(r[2, 1], r[2, 2]), np.arctan2(r[1, 0], r[0, 0])
    ET.SubElement(element, "origin", xyz=_numbers(position), rpy=_numbers((roll, pitch, yaw)))


def _numbers(values) -> str:
    return " ".join(f"{float(v) + 0.0:.9g}" for v in values)
