"""Joint names, order and values, and the limits in the robot's description."""

from __future__ import annotations

import difflib
import math

import numpy as np

from jepa_ros.doctor.finding import Finding, error, fine, listed, warning
from jepa_ros.doctor.observations import Job, JointMessage, Seen
from jepa_ros.errors import InputError
from jepa_ros.robot.motion.limits import JointLimits
from jepa_ros.robot.urdf import RobotDescription

FULL_TURN = 2 * math.pi  # rad; an arm that stands further than this from zero most likely speaks of degrees


def check(seen: Seen, job: Job) -> list[Finding]:
    """The description, then what joint_states say, then one beside the other."""
    found, description = [], None
    if seen.description is not None:
        described, description = _description(seen.description, job)
        found += described
    messages = [m for m in seen.joint_messages if set(m.names) & set(job.all_joints)] or seen.joint_messages
    if messages:
        named = _names(messages, job)
        found += named
        if not any(f.level for f in named):
            found += _values(messages, job, description)
    return found


def _description(urdf: str, job: Job) -> tuple[list[Finding], RobotDescription | None]:
    """Findings, and the description where its joints are the arm's and have limits."""
    what = job.description
    try:
        description = RobotDescription.from_urdf(urdf)
    except InputError as problem:
        text = str(problem).removeprefix("robot description: ")
        kind = "limits" if "<limit>" in text else "description"
        return [error(kind, what, "a URDF with limits", text, "Publish the arm's own URDF.")], None
    missing = [j for j in job.robot.joints if j not in description.joints]
    if missing:
        advice = f"Publish the description of {job.robot.name}, or name its joints in the robot's YAML."
        there = listed(n for n, j in description.joints.items() if j.type != "fixed")
        return [error("description", what, f"the joints {listed(missing)}", there, advice)], None
    if bare := [j for j in job.robot.joints if _unlimited(description, job, j)]:
        advice = "Give them <limit lower, upper, velocity> in the URDF: the gate keeps to these."
        found = f"none for {listed(bare)}"
        return [error("limits", what, "position and velocity limits of every joint", found, advice)], None
    try:
        JointLimits.from_description(description, job.robot.joint_limits, job.robot.joints, job.robot.position_margin)
    except InputError as problem:
        return [error("limits", what, "limits that the gate can use", str(problem), "Mend the URDF or the YAML.")], None
    return _links(urdf, job) or [fine("limits", what, f"limits of {len(job.robot.joints)} joints")], description


def _unlimited(description: RobotDescription, job: Job, name: str) -> bool:
    joint, own = description.joints[name], job.robot.joint_limits[name]
    return not (joint.velocity or own.max_velocity) or joint.lower == joint.upper  # both are 0 where none is given


def _links(urdf: str, job: Job) -> list[Finding]:
    """Base and tool frame must be links of the description."""
    from xml.etree import ElementTree

    links = {link.get("name") for link in ElementTree.fromstring(urdf).findall("link")}
    missing = [name for name in (job.robot.base_frame, job.robot.tool_frame) if name not in links]
    if not missing:
        return []
    near = [m for name in missing for m in difflib.get_close_matches(name, sorted(filter(None, links)), 2, 0.5)]
    advice = "Correct base_frame or tool_frame in the robot's YAML."
    there = f"none of that name{f', but {listed(near)}' if near else ''}"
    return [error("description", job.description, f"the links {listed(missing)}", there, advice)]


def _names(messages: list[JointMessage], job: Job) -> list[Finding]:
    what, wanted = f"joints of {job.joint_states}", job.all_joints
    names = max((m.names for m in messages), key=lambda n: len(set(n) & set(wanted)))
    missing = [j for j in wanted if j not in names]
    if missing:
        strangers = [n for n in names if n not in wanted]
        near = sorted({m for j in missing for m in difflib.get_close_matches(j, strangers, 1, 0.6)})
        there = f"{listed(missing)} missing; there are {listed(near or names)}"
        advice = "Name the joints in the robot's YAML as the driver does, or take the model and robot of that arm."
        return [error("joints", what, f"the {len(wanted)} joints of {job.robot.name} and the model", there, advice)]
    if twice := sorted({n for n in wanted if names.count(n) > 1}):
        return [error("joints", what, "each joint once", f"{listed(twice)} twice", "Mend the driver.")]
    order = [n for n in names if n in wanted]
    note = "" if order == list(wanted) else ", in another order than the YAML's: they are taken by name"
    return [fine("joints", what, f"all {len(wanted)}{note}")]


def _values(messages: list[JointMessage], job: Job, description: RobotDescription | None) -> list[Finding]:
    what = f"values of {job.joint_states}"
    messages = [m for m in messages if set(job.robot.joints) <= set(m.names)]
    for m in messages:
        if len(m.positions) != len(m.names):
            found = f"{len(m.positions)} for {len(m.names)} names"
            return [error("values", what, "a position for each name", found, "Mend the driver.")]
    state = job.model.proprioception
    if state.kind == "joints" and state.joints and any(len(m.velocities) != len(m.names) for m in messages):
        advice = "The model takes velocities: have joint_state_broadcaster give the velocity interface."
        return [error("values", what, "a velocity for each name", "positions without", advice)]
    rows = np.array([[m.positions[m.names.index(j)] for j in job.robot.joints] for m in messages])
    if not np.isfinite(rows).all():
        bad = [j for j, ok in zip(job.robot.joints, np.isfinite(rows).all(0), strict=True) if not ok]
        return [error("values", what, "finite positions", f"NaN or Inf for {listed(bad)}", "See the encoders.")]
    if description is None:
        return [fine("values", what, "finite")]
    return _ranges(rows, job, description)


def _ranges(rows: np.ndarray, job: Job, description: RobotDescription) -> list[Finding]:
    """rows (n, J) rad."""
    what, names = f"positions of {job.joint_states}", job.robot.joints
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
        return [error("units", what, "radians", found, "That looks like degrees: have the driver convert them.")]
    if out.max() > 0:
        worst = int(out.argmax())
        found = f"{names[worst]} at {rows[-1, worst]:.3f} rad"
        expected = f"{low[worst]:.3f} to {high[worst]:.3f} rad"
        advice = "Move the arm inside by hand; if it is inside, zero or description are another arm's."
        return [error("range", what, expected, found, advice)]
    margin = job.robot.position_margin
    near = np.maximum(np.maximum(rows - (high - margin), (low + margin) - rows), 0.0).max(0)
    if near.max() > 0:
        worst = int(near.argmax())
        found = f"{names[worst]} at {rows[-1, worst]:.3f} rad"
        expected = f"{margin:g} rad of distance to both limits"
        return [warning("range", what, expected, found, "The gate lets only inward motion through from there.")]
    return [fine("range", what, "inside all limits")]
