"""Checks of the arm: joint names and values, limits in the robot's description, and the controllers."""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterator
from xml.etree import ElementTree

import numpy as np

from jepa_ros.doctor.finding import Finding, error, join_names, ok, warning
from jepa_ros.doctor.finding import FindingCode as Code
from jepa_ros.doctor.observations import Endpoint, JointMessage, Observations, RobotSetup
from jepa_ros.doctor.topics import qos_mismatch
from jepa_ros.errors import InputError
from jepa_ros.robot.config import ControllerConfig
from jepa_ros.robot.motion.limits import JointLimits
from jepa_ros.robot.urdf import RobotDescription

FULL_TURN = 2 * math.pi  # rad; larger positions are most likely in degrees
GATE = "arm_gate"
PASSIVE_NODES = ("recorder", "rosbag2", "_ros2cli", "foxglove", "rosbridge", "plotjuggler", "rqt", "rviz")
"""First parts of the names of nodes that subscribe to commands without following them."""


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
            yield _check_values(messages, setup, description)


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


def _check_values(messages: list[JointMessage], setup: RobotSetup, description: RobotDescription | None) -> Finding:
    what = f"values of {setup.joint_states_topic}"
    messages = [m for m in messages if set(setup.robot.joints) <= set(m.names)]
    for m in messages:
        if len(m.positions) != len(m.names):
            found = f"{len(m.positions)} for {len(m.names)} names"
            return error(Code.VALUES_POSITIONS, what, "a position for each name", found, "Correct the driver.")
    state = setup.model.proprioception
    if state.kind == "joints" and state.joints and any(len(m.velocities) != len(m.names) for m in messages):
        advice = "The model needs velocities: let joint_state_broadcaster publish the velocity interface."
        return error(Code.VALUES_VELOCITIES, what, "a velocity for each name", "positions without", advice)
    rows = np.array([[m.positions[m.names.index(j)] for j in setup.robot.joints] for m in messages])
    if not np.isfinite(rows).all():
        bad = [j for j, is_finite in zip(setup.robot.joints, np.isfinite(rows).all(0), strict=True) if not is_finite]
        found = f"NaN or Inf for {join_names(bad)}"
        return error(Code.VALUES_NOT_FINITE, what, "finite positions", found, "Check the encoders.")
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


# -- controllers -------------------------------------------------------------------------------------------------------


def check_controllers(observed: Observations, setup: RobotSetup) -> Iterator[Finding]:
    """Check that one subscriber follows the commands of each controller, and that no other node sends some."""
    for controller in setup.robot.controllers:
        yield from _check_controller(controller, observed, setup)


def _check_controller(controller: ControllerConfig, observed: Observations, setup: RobotSetup) -> Iterator[Finding]:
    name, type_ = setup.robot_topic(controller.command_topic), controller.message_type
    topic = observed.topic(name)
    subscribers = _followers(topic.subscribers)
    if package := observed.missing_packages.get(controller.name):
        advice = f"arm_gate cannot send it: install {package} where the nodes run, and source the distribution."
        yield error(Code.PACKAGE_MISSING, name, f"{type_} to be installed", "none", advice)
    if rivals := [p.node for p in topic.publishers if p.name != GATE]:
        advice = "End that node: the gate refuses every plan while another node commands the arm."
        yield error(Code.OTHER_COMMANDER, name, "no publisher but arm_gate", join_names(rivals), advice)
    elif len(topic.publishers) > 1:
        gates = join_names(p.node for p in topic.publishers)
        yield error(Code.SEVERAL_GATES, name, "one arm_gate", gates, "End all but one of them.")
    state = (observed.controllers or {}).get(controller.name)
    if state not in (None, "active"):
        advice = f"Activate it: ros2 control switch_controllers --activate {controller.name}."
        yield error(Code.CONTROLLER_INACTIVE, controller.name, "state active", state, advice)
        return
    problem = _check_subscribers(controller, name, subscribers, observed)
    problem = problem or _check_joint_order(controller, subscribers[0], observed)
    yield problem or ok("controller", name, f"{subscribers[0].node} subscribes{', active' if state else ''}")


def _followers(subscribers: list[Endpoint]) -> list[Endpoint]:
    """Return the subscribers that may act on commands."""
    return [end for end in subscribers if not end.name.startswith(PASSIVE_NODES)]


def _check_subscribers(
    controller: ControllerConfig, name: str, subscribers: list[Endpoint], observed: Observations
) -> Finding | None:
    type_ = controller.message_type
    if not subscribers:
        return _explain_no_subscriber(controller, name, observed)
    if wrong := [end for end in subscribers if end.type != type_]:
        who = join_names(f"{end.node} subscribes to {end.type}" for end in wrong)
        return error(Code.CONTROLLER_TYPE, name, type_, who, "Correct the controller's type in the robot's YAML.")
    if len(subscribers) > 1:
        advice = "Two controllers, or two simulators, follow the same commands: end all but one."
        who = join_names(e.node for e in subscribers)
        return error(Code.CONTROLLER_SEVERAL, name, "one subscriber", f"{len(subscribers)}: {who}", advice)
    ours = Endpoint(GATE, type_, reliable=True, transient=False)
    if why := qos_mismatch(ours, subscribers[0]):
        advice = "It would receive no command: change the QoS of its subscription."
        wanted = "a subscriber that receives from arm_gate (reliable, volatile)"
        return error(Code.QOS_CONTROLLER, name, wanted, why, advice)
    return None


def _explain_no_subscriber(controller: ControllerConfig, name: str, observed: Observations) -> Finding:
    followers = {t: _followers(ends.subscribers) for t, ends in observed.topics.items()}
    alike = sorted(t for t, ends in followers.items() if any(end.type == controller.message_type for end in ends))
    actual = f"none, but {join_names(alike)}" if alike else "none"
    advice = f"Load and activate {controller.name} (ros2 control list_controllers)."
    if controller.type.startswith("moveit_servo"):  # a node without a controller manager
        advice = "Start MoveIt Servo, and name its node in the robot's YAML as it is named here."
        return error(Code.CONTROLLER_MISSING, name, "MoveIt Servo as subscriber", actual, advice)
    if difflib.get_close_matches(name, alike, 1, 0.0):
        advice = f"Name the controller in the robot's YAML as it is named here, or activate {controller.name}."
    if observed.controllers is not None and controller.name not in observed.controllers:
        actual = f"{actual}; the controller manager knows {join_names(sorted(observed.controllers))}"
    return error(Code.CONTROLLER_MISSING, name, "a controller that subscribes", actual, advice)


def _check_joint_order(controller: ControllerConfig, subscriber: Endpoint, observed: Observations) -> Finding | None:
    """Compare the controller's parameter `joints` with the YAML's; the order matters if commands carry no names."""
    node = observed.nodes.get(subscriber.node)
    own = [] if node is None else [joint for joint in node.joints or [] if joint]
    ordered, wanted = controller.interface == "forward_position", list(controller.joints)
    if not own or own == wanted or (not ordered and sorted(own) == sorted(wanted)):
        return None
    expected = f"{join_names(wanted, 10)} in {'this' if ordered else 'any'} order"
    advice = "Give the controller and the robot's YAML the same joints."
    return error(Code.CONTROLLER_JOINTS, f"joints of {controller.name}", expected, join_names(own, 10), advice)
