"""Checks of the arm: joint names and values, and limits in the robot's description."""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterator
from xml.etree import ElementTree

import numpy as np

from jepa_ros.doctor.finding import Finding, error, join_names, ok, warning
from jepa_ros.doctor.finding import FindingCode as Code
from jepa_ros.doctor.observations import JOINT_STATE, JointMessage, Observations, RobotSetup
from jepa_ros.errors import InputError
from jepa_ros.robot.motion.limits import JointLimits
from jepa_ros.robot.urdf import RobotDescription

FULL_TURN = 2 * math.pi  # rad; larger positions are most likely in degrees
STEP_OF_ANOTHER_ARM = 0.02  # rad between messages; more, there and back, is not one arm
RETURNS_OF_ANOTHER_ARM = 3  # messages that return by such a step


def check_joints(observed: Observations, setup: RobotSetup) -> Iterator[Finding]:
    """Check the description, then joint_states, then the positions against the limits."""
    description = None
    if observed.description is not None:
        described, description = _check_description(observed.description, setup)
        yield described
    ours = [m for m in observed.joint_messages if set(m.names) & set(setup.required_joints)]
    if messages := ours or observed.joint_messages:
        named = _check_names(messages, setup)
        yield named
        if not named.level:
            yield from _check_velocities(messages, setup)
            yield _check_values(messages, observed, setup, description)


def _check_description(urdf: str, setup: RobotSetup) -> tuple[Finding, RobotDescription | None]:
    """Return a finding, and the description if it has the arm's joints with limits."""
    what, robot = setup.description_topic, setup.robot
    try:
        description = RobotDescription.from_urdf(urdf)
    except InputError as problem:
        text = str(problem).removeprefix("robot description: ")
        code = Code.LIMITS_MISSING if "<limit>" in text else Code.DESCRIPTION_INVALID
        return error(code, what, "a URDF with limits", text, "Publish the arm's own URDF."), None
    joints = description.joints
    if missing := [j for j in robot.joints if j not in joints]:
        advice = f"Publish the description of {robot.name}, or name its joints in the robot's YAML."
        there = join_names(n for n, j in joints.items() if j.type != "fixed")
        return error(Code.DESCRIPTION_JOINTS, what, f"the joints {join_names(missing)}", there, advice), None
    if bare := [j for j in robot.joints if joints[j].lower == joints[j].upper]:  # both are 0 if not given
        advice = "Give them <limit lower, upper, velocity> in the URDF: the gate enforces these."
        found = f"none for {join_names(bare)}"
        return error(Code.LIMITS_MISSING, what, "position and velocity limits of every joint", found, advice), None
    try:
        JointLimits.from_description(description, robot.joint_limits, robot.joints, robot.position_margin)
    except InputError as problem:
        advice = "Correct the URDF or the robot's YAML."
        return error(Code.LIMITS_INVALID, what, "limits that the gate can use", str(problem), advice), None
    links = [link.get("name", "") for link in ElementTree.fromstring(urdf).findall("link")]
    if missing := [name for name in (robot.base_frame, robot.tool_frame) if name not in links]:
        near = [m for name in missing for m in difflib.get_close_matches(name, sorted(filter(None, links)), 2, 0.5)]
        advice = "Correct base_frame or tool_frame in the robot's YAML."
        there = f"none of that name{f', but {join_names(near)}' if near else ''}"
        finding = error(Code.DESCRIPTION_LINKS, what, f"the links {join_names(missing)}", there, advice)
        return finding, description
    return ok("limits", what, f"limits of {len(robot.joints)} joints"), description


def _check_names(messages: list[JointMessage], setup: RobotSetup) -> Finding:
    what, wanted = f"joints of {setup.joint_states_topic}", setup.required_joints
    names = max((m.names for m in messages), key=lambda n: len(set(n) & set(wanted)))
    if missing := [j for j in wanted if j not in names]:
        others = [n for n in names if n not in wanted]
        near = sorted({m for j in missing for m in difflib.get_close_matches(j, others, 1, 0.6)})
        there = f"{join_names(missing)} missing; there are {join_names(near or names)}"
        advice = "Name the joints in the robot's YAML as the driver does, or take the model and robot of that arm."
        expected = f"the {len(wanted)} joints of {setup.robot.name} and the model"
        return error(Code.JOINTS_MISSING, what, expected, there, advice)
    if twice := sorted({n for n in wanted if names.count(n) > 1}):
        found = f"{join_names(twice)} twice"
        return error(Code.JOINTS_DUPLICATE, what, "each joint once", found, "Correct the driver.")
    order = [n for n in names if n in wanted]
    note = "" if order == list(wanted) else ", in another order than in the YAML: they are read by name"
    return ok("joints", what, f"all {len(wanted)}{note}")


def _check_velocities(messages: list[JointMessage], setup: RobotSetup) -> Iterator[Finding]:
    """Find joints whose velocity is not measured; nothing if all are. Efforts are used by no node."""
    missing: set[str] = set()
    for m in messages:
        measured = dict(zip(m.names, m.velocities, strict=False)) if len(m.velocities) == len(m.names) else {}
        ours = [name for name in m.names if name in setup.required_joints]
        missing |= {name for name in ours if not math.isfinite(measured.get(name, math.nan))}
    if missing:
        advice = "Not measured: speed is taken from differences of positions. Better let joint_state_broadcaster "
        advice += "publish the velocity interface."
        found = f"none, or NaN, for {join_names(j for j in setup.required_joints if j in missing)}"
        what = f"velocities of {setup.joint_states_topic}"
        yield warning(Code.VELOCITIES_NOT_MEASURED, what, "a velocity for each joint", found, advice)


def _check_contradiction(rows: np.ndarray, observed: Observations, setup: RobotSetup) -> Finding | None:
    """Find two publishers with other positions each: one joint goes there and back from message to message.

    rows: (n, J) rad, in the order of arrival.
    """
    publishers = observed.publishers(setup.joint_states_topic, JOINT_STATE)
    if len(publishers) < 2:
        return None
    steps = np.diff(rows, axis=0)
    large = np.abs(steps) > STEP_OF_ANOTHER_ARM
    returns = (large[1:] & large[:-1] & (steps[1:] * steps[:-1] < 0)).sum(0)
    if returns.max(initial=0) < RETURNS_OF_ANOTHER_ARM:
        return None
    worst = int(returns.argmax())
    found = (
        f"{join_names(end.node for end in publishers)}: {setup.robot.joints[worst]} at {rows[:, worst].min():.3f} and "
    )
    found += f"{rows[:, worst].max():.3f} rad by turns"
    advice = "End all but one of them, or remap the other arm's."
    what = f"publishers of {setup.joint_states_topic}"
    return error(Code.JOINTS_CONTRADICT, what, "one position of each joint", found, advice)


def _check_values(
    messages: list[JointMessage], observed: Observations, setup: RobotSetup, description: RobotDescription | None
) -> Finding:
    what = f"values of {setup.joint_states_topic}"
    messages = [m for m in messages if set(setup.robot.joints) <= set(m.names)]
    for m in messages:
        if len(m.positions) != len(m.names):
            found = f"{len(m.positions)} for {len(m.names)} names"
            return error(Code.VALUES_POSITIONS, what, "a position for each name", found, "Correct the driver.")
    rows = np.array([[m.positions[m.names.index(j)] for j in setup.robot.joints] for m in messages])
    if not np.isfinite(rows).all():
        bad = [j for j, is_finite in zip(setup.robot.joints, np.isfinite(rows).all(0), strict=True) if not is_finite]
        found = f"NaN or Inf for {join_names(bad)}"
        return error(Code.VALUES_NOT_FINITE, what, "finite positions", found, "Check the encoders.")
    if (contradiction := _check_contradiction(rows, observed, setup)) is not None:
        return contradiction
    if description is None:
        return ok("values", what, "finite")
    return _check_ranges(rows, setup, description)


def _check_ranges(rows: np.ndarray, setup: RobotSetup, description: RobotDescription) -> Finding:
    """Check joint positions (n, J) rad against the description's limits."""
    what, names, margin = f"positions of {setup.joint_states_topic}", setup.robot.joints, setup.robot.position_margin
    joints = [description.joints[name] for name in names]
    low, high = np.array([(joint.lower, joint.upper) for joint in joints]).T
    angles = np.array([joint.type != "prismatic" for joint in joints])
    limited = np.isfinite(low) & angles  # a continuous joint may have made many turns

    def beyond(q: np.ndarray, kept: float = 0.0) -> np.ndarray:
        """Return how far (J,) positions come beyond the limits, less `kept` rad."""
        return np.maximum(np.maximum(q - (high - kept), (low + kept) - q), 0.0).max(0)

    def show(by_joint: np.ndarray) -> tuple[int, str]:
        worst = int(by_joint.argmax())
        return worst, f"{names[worst]} at {rows[-1, worst]:.3f} rad"

    in_degrees = np.where(angles, np.deg2rad(rows), rows)
    if (np.abs(rows[:, limited]) > FULL_TURN).any() and beyond(in_degrees).max() < 0.05:
        worst = int(np.abs(rows).max(0).argmax())
        found = f"{names[worst]} at {rows[-1, worst]:.4g}"
        return error(
            Code.UNITS_DEGREES, what, "radians", found, "These look like degrees: let the driver convert them."
        )
    if (out := beyond(rows)).max() > 0:
        worst, found = show(out)
        advice = "Move the arm inside by hand. If it is inside, the zero or the description is another arm's."
        return error(Code.RANGE_OUTSIDE, what, f"{low[worst]:.3f} to {high[worst]:.3f} rad", found, advice)
    if (near := beyond(rows, margin)).max() > 0:
        advice = "From there the gate allows only motion inwards."
        return warning(Code.RANGE_NEAR_LIMIT, what, f"{margin:g} rad of distance to both limits", show(near)[1], advice)
    return ok("range", what, "inside all limits")
