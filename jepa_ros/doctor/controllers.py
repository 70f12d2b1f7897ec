"""Checks of the controllers: who follows the gate's commands, in which state, and what it takes them for."""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterator

from jepa_ros.doctor.finding import Finding, error, join_names, ok, warning
from jepa_ros.doctor.finding import FindingCode as Code
from jepa_ros.doctor.observations import (
    Endpoint,
    NodeParameters,
    Observations,
    RobotSetup,
    find_followers,
    is_ros2_control,
)
from jepa_ros.doctor.topics import qos_mismatch
from jepa_ros.robot.config import ControllerConfig

GATE = "arm_gate"


def check_controllers(observed: Observations, setup: RobotSetup) -> Iterator[Finding]:
    """Check that one subscriber follows the commands of each controller, and that no other node sends some."""
    for controller in setup.robot.controllers:
        yield from _check_controller(controller, observed, setup)
    yield from _show_limit_enforcement(observed)


def _show_limit_enforcement(observed: Observations) -> Iterator[Finding]:
    """Say who enforces limits, if the controller manager tells. Both are all right: the gate always does."""
    manager = observed.controller_manager
    is_enforced = observed.nodes.get(manager, NodeParameters()).enforce_command_limits
    if is_enforced is not None:
        who = "arm_gate and the controller manager do" if is_enforced else "arm_gate alone does"
        found = f"enforce_command_limits is {str(is_enforced).lower()}: {who}"
        yield ok("limit_enforcement", f"limits at {manager}", found)


def _check_controller(controller: ControllerConfig, observed: Observations, setup: RobotSetup) -> Iterator[Finding]:
    name, type_ = setup.robot_topic(controller.command_topic), controller.message_type
    topic = observed.topic(name)
    subscribers = find_followers(topic.subscribers)
    if package := observed.missing_packages.get(controller.name):
        advice = f"arm_gate cannot send it: where the nodes run, run make setup-robot, or install {package} there."
        yield error(Code.PACKAGE_MISSING, name, f"{type_} to be installed", "none", advice)
    if rivals := [p.node for p in topic.publishers if p.name != GATE]:
        advice = "End that node: the gate refuses every plan while another node commands the arm."
        yield error(Code.OTHER_COMMANDER, name, "no publisher but arm_gate", join_names(rivals), advice)
    elif len(topic.publishers) > 1:
        gates = join_names(p.node for p in topic.publishers)
        yield error(Code.SEVERAL_GATES, name, "one arm_gate", gates, "End all but one of them.")
    state = (observed.controllers or {}).get(controller.name)
    if state not in (None, "active"):
        manager = observed.controller_manager
        where = "" if manager in ("", "/controller_manager") else f" -c {manager}"
        commands = [f"ros2 control set_controller_state{where} {controller.name} inactive"] * (state == "unconfigured")
        commands.append(f"ros2 control switch_controllers{where} --activate {controller.name}")
        advice = f"Activate it: {'; '.join(commands)}."
        yield error(Code.CONTROLLER_INACTIVE, controller.name, "state active", state, advice)
        return
    if problem := _check_subscribers(controller, name, subscribers, observed):
        yield problem
        return
    [follower] = subscribers
    problems = [*_check_meaning(controller, follower, observed)]
    if (order := _check_joint_order(controller, follower, observed)) is not None:
        problems.append(order)
    if observed.controllers is not None and state is None and is_ros2_control(controller, follower):
        there = join_names(sorted(observed.controllers))
        advice = "Set --robot-namespace to the controller manager's. The controller may be inactive."
        wanted = f"{observed.controller_manager} to know this controller"
        problems.append(warning(Code.CONTROLLER_UNLISTED, controller.name, wanted, f"only {there}", advice))
    yield from problems
    if not problems:
        yield ok("controller", name, f"{follower.node} subscribes{', active' if state else ''}")
    yield from _check_speed_scaling(controller, observed)


def _check_meaning(controller: ControllerConfig, follower: Endpoint, observed: Observations) -> Iterator[Finding]:
    """Check by the follower's parameters what it takes commands for. Not answered: see `check_answers`."""
    if (node := observed.nodes.get(follower.node)) is None:
        return
    what = f"commands of {controller.name}"
    if controller.interface == "forward_position":
        if node.interface_name is not None and node.interface_name != "position":
            found = f"'{node.interface_name}'"
            advice = (
                "It would take positions in rad for something else: load a controller with interface_name: position."
            )
            yield error(Code.COMMAND_MEANING, what, "its parameter interface_name to be position", found, advice)
        elif node.interface_name is None and "interface_name" not in node.unanswered:
            advice = "It is no forward_command_controller: find out whether it takes positions in rad."
            found = f"{follower.node} without that parameter"
            yield warning(Code.COMMAND_MEANING_UNKNOWN, what, "a controller with interface_name", found, advice)
    if controller.interface == "joint_trajectory":
        if node.command_interfaces and "position" not in node.command_interfaces:
            wanted, found = "its parameter command_interfaces to have position", join_names(node.command_interfaces)
            advice = "The gate checks positions: give the controller the position interface, or another controller."
            yield error(Code.COMMAND_MEANING, what, wanted, found, advice)
        if node.interpolation_method == "none":
            advice = "Its set-points jump from point to point: set interpolation_method: splines."
            wanted = "its parameter interpolation_method to be splines"
            yield error(Code.INTERPOLATION_NONE, what, wanted, "none", advice)


def _check_speed_scaling(controller: ControllerConfig, observed: Observations) -> Iterator[Finding]:
    factor = observed.speed_scaling.get(controller.name, math.nan)
    if math.isfinite(factor) and abs(factor - 1.0) > 1e-3:
        advice = "Plans are refused meanwhile: set the speed slider to 100 %, or end the pause."
        found = f"{factor:.3g}{', which is a pause' if factor == 0 else ''}"
        yield warning(Code.SPEED_SCALED, f"speed scaling of {controller.name}", "a factor of 1", found, advice)


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
    followers = {t: find_followers(ends.subscribers) for t, ends in observed.topics.items()}
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
