"""Check of joint names, order and values, and of the limits in the robot's description."""

from __future__ import annotations

import difflib
import math

import numpy as np

from jepa_ros.doctor.finding import Finding, error, join_names, ok, warning
from jepa_ros.doctor.finding import FindingCode as Code
from jepa_ros.doctor.observations import JointMessage, Observations, RobotSetup
from jepa_ros.errors import InputError
from jepa_ros.robot.motion.limits import JointLimits
from jepa_ros.robot.urdf import RobotDescription

FULL_TURN = 2 * math.pi  # rad; larger positions are most likely in degrees


def check(observed: Observations, setup: RobotSetup) -> list[Finding]:
    """Check the description, then joint_states, then the positions against the limits."""
    found, description = [], None
    if observed.description is not None:
        described, description = _description(observed.description, setup)
        found += described
    messages = [
        m for m in observed.joint_messages if set(m.names) & set(setup.required_joints)
    ] or observed.joint_messages
    if messages:
        named = _names(messages, setup)
        found += named
        if not any(f.level for f in named):
            found += _values(messages, setup, description)
    return found


def _description(urdf: str, setup: RobotSetup) -> tuple[list[Finding], RobotDescription | None]:
    """Return findings, and the description if it has the arm's joints with limits."""
    what = setup.description_topic
    try:
        description = RobotDescription.from_urdf(urdf)
    except InputError as problem:
        text = str(problem).removeprefix("robot description: ")
        code = Code.LIMITS_MISSING if "<limit>" in text else Code.DESCRIPTION_INVALID
        return [error(code, what, "a URDF with limits", text, "Publish the arm's own URDF.")], None
    missing = [j for j in setup.robot.joints if j not in description.joints]
    if missing:
        advice = f"Publish the description of {setup.robot.name}, or name its joints in the robot's YAML."
        there = join_names(n for n, j in description.joints.items() if j.type != "fixed")
        return [error(Code.DESCRIPTION_JOINTS, what, f"the joints {join_names(missing)}", there, advice)], None
    if bare := [j for j in setup.robot.joints if _unlimited(description, setup, j)]:
        advice = "Give them <limit lower, upper, velocity> in the URDF: the gate enforces these."
        found = f"none for {join_names(bare)}"
        return [error(Code.LIMITS_MISSING, what, "position and velocity limits of every joint", found, advice)], None
    try:
        JointLimits.from_description(
            description, setup.robot.joint_limits, setup.robot.joints, setup.robot.position_margin
        )
    except InputError as problem:
        advice = "Correct the URDF or the robot's YAML."
        return [error(Code.LIMITS_INVALID, what, "limits that the gate can use", str(problem), advice)], None
    return _links(urdf, setup) or [ok("limits", what, f"limits of {len(setup.robot.joints)} joints")], description


def _unlimited(description: RobotDescription, setup: RobotSetup, name: str) -> bool:
    joint, own = description.joints[name], setup.robot.joint_limits[name]
    return not (joint.velocity or own.max_velocity) or joint.lower == joint.upper  # both are 0 if not given


def _links(urdf: str, setup: RobotSetup) -> list[Finding]:
    """Check that base and tool frame are links of the description."""
    from xml.etree import ElementTree

    links = {link.get("name") for link in ElementTree.fromstring(urdf).findall("link")}
    missing = [name for name in (setup.robot.base_frame, setup.robot.tool_frame) if name not in links]
    if not missing:
        return []
    near = [m for name in missing for m in difflib.get_close_matches(name, sorted(filter(None, links)), 2, 0.5)]
    advice = "Correct base_frame or tool_frame in the robot's YAML."
    there = f"none of that name{f', but {join_names(near)}' if near else ''}"
    return [error(Code.DESCRIPTION_LINKS, setup.description_topic, f"the links {join_names(missing)}", there, advice)]


def _names(messages: list[JointMessage], setup: RobotSetup) -> list[Finding]:
    what, wanted = f"joints of {setup.joint_states_topic}", setup.required_joints
    names = max((m.names for m in messages), key=lambda n: len(set(n) & set(wanted)))
    missing = [j for j in wanted if j not in names]
    if missing:
        others = [n for n in names if n not in wanted]
        near = sorted({m for j in missing for m in difflib.get_close_matches(j, others, 1, 0.6)})
        there = f"{join_names(missing)} missing; there are {join_names(near or names)}"
        advice = "Name the joints in the robot's YAML as the driver does, or take the model and robot of that arm."
        expected = f"the {len(wanted)} joints of {setup.robot.name} and the model"
        return [error(Code.JOINTS_MISSING, what, expected, there, advice)]
    if twice := sorted({n for n in wanted if names.count(n) > 1}):
        found = f"{join_names(twice)} twice"
        return [error(Code.JOINTS_DUPLICATE, what, "each joint once", found, "Correct the driver.")]
    order = [n for n in names if n in wanted]
    note = "" if order == list(wanted) else ", in another order than in the YAML: they are read by name"
    return [ok("joints", what, f"all {len(wanted)}{note}")]


def _values(messages: list[JointMessage], setup: RobotSetup, description: RobotDescription | None) -> list[Finding]:
    what = f"values of {setup.joint_states_topic}"
    messages = [m for m in messages if set(setup.robot.joints) <= set(m.names)]
    for m in messages:
        if len(m.positions) != len(m.names):
            found = f"{len(m.positions)} for {len(m.names)} names"
            return [error(Code.VALUES_POSITIONS, what, "a position for each name", found, "Correct the driver.")]
    state = setup.model.proprioception
    if state.kind == "joints" and state.joints and any(len(m.velocities) != len(m.names) for m in messages):
        advice = "The model needs velocities: let joint_state_broadcaster publish the velocity interface."
        return [error(Code.VALUES_VELOCITIES, what, "a velocity for each name", "positions without", advice)]
    rows = np.array([[m.positions[m.names.index(j)] for j in setup.robot.joints] for m in messages])
    if not np.isfinite(rows).all():
        bad = [j for j, is_finite in zip(setup.robot.joints, np.isfinite(rows).all(0), strict=True) if not is_finite]
        found = f"NaN or Inf for {join_names(bad)}"
        return [error(Code.VALUES_NOT_FINITE, what, "finite positions", found, "Check the encoders.")]
    if description is None:
        return [ok("values", what, "finite")]
    return _ranges(rows, setup, description)


def _ranges(rows: np.ndarray, setup: RobotSetup, description: RobotDescription) -> list[Finding]:
    """rows (n, J) rad."""
    what, names = f"positions of {setup.joint_states_topic}", setup.robot.joints
    bounds = [(description.joints[j].lower, description.joints[j].upper) for j in names]
    low, high = np.array(bounds).T
    turns = np.array([description.joints[j].type != "prismatic" for j in names])

    def beyond(q: np.ndarray) -> np.ndarray:
        return np.maximum(np.maximum(q - high, low - q), 0.0).max(0)

    out = beyond(rows)
    in_degrees = np.where(turns, np.deg2rad(rows), rows)
    if (np.abs(rows[:, turns]) > FULL_TURN).any() and beyond(in_degrees).max() < 0.05:
        worst = int(np.abs(rows).max(0).argmax())
        found = f"{names[worst]} at {rows[-1, worst]:.4g}"
        advice = "These look like degrees: let the driver convert them."
        return [error(Code.UNITS_DEGREES, what, "radians", found, advice)]
    if out.max() > 0:
        worst = int(out.argmax())
        found = f"{names[worst]} at {rows[-1, worst]:.3f} rad"
        expected = f"{low[worst]:.3f} to {high[worst]:.3f} rad"
        advice = "Move the arm inside by hand. If it is inside, the zero or the description is another arm's."
        return [error(Code.RANGE_OUTSIDE, what, expected, found, advice)]
    margin = setup.robot.position_margin
    near = np.maximum(np.maximum(rows - (high - margin), (low + margin) - rows), 0.0).max(0)
    if near.max() > 0:
        worst = int(near.argmax())
        found = f"{names[worst]} at {rows[-1, worst]:.3f} rad"
        expected = f"{margin:g} rad of distance to both limits"
        advice = "From there the gate allows only motion inwards."
        return [warning(Code.RANGE_NEAR_LIMIT, what, expected, found, advice)]
    return [ok("range", what, "inside all limits")]
