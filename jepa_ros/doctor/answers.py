"""Checks that every question was answered: what could not be asked was not checked, and is a finding of its own."""

from __future__ import annotations

from collections.abc import Iterator

from jepa_ros.doctor.finding import Finding, error, join_names, warning
from jepa_ros.doctor.finding import FindingCode as Code
from jepa_ros.doctor.observations import (
    CONTROLLER_STATE,
    Endpoint,
    Observations,
    RobotSetup,
    find_followers,
    is_ros2_control,
)
from jepa_ros.robot.config import ControllerConfig

DECISIVE = ("joints", "interface_name")
"""Parameters of forward controllers that decide where the arm goes: their commands carry neither names nor units."""


def check_answers(observed: Observations, setup: RobotSetup) -> Iterator[Finding]:
    """Find nodes, controllers and the controller manager that did not answer, and packages that were missing to ask."""
    yield from _check_parameters(observed, setup)
    yield from _check_nameless(observed, setup)
    managed = [c for c in setup.robot.controllers if _is_managed(c, observed, setup)]
    if managed and observed.controllers is None:
        yield _explain_unknown_states(observed, setup)
    for controller in managed:
        if controller.interface == "joint_trajectory" and controller.name not in observed.speed_scaling:
            yield from _explain_unknown_scaling(controller.name, observed, setup)


def _check_parameters(observed: Observations, setup: RobotSetup) -> Iterator[Finding]:
    ordered = [c for c in setup.robot.controllers if c.interface == "forward_position"]
    decisive = {end.node for c in ordered for end in find_followers(_subscribers(c, observed, setup))}
    for name, node in sorted(observed.nodes.items()):
        if not node.unanswered:
            continue
        wanted = f"an answer about its parameters {join_names(node.unanswered)}"
        found = "no answer: these were not checked"
        if name in decisive and (open_ := [p for p in node.unanswered if p in DECISIVE]):
            advice = f"Look yourself before anything moves: {'; '.join(f'ros2 param get {name} {p}' for p in open_)}."
            yield error(Code.NO_ANSWER, name, wanted, found, advice)
        else:
            advice = f"Run the doctor again, or look yourself: ros2 param get {name} {node.unanswered[0]}."
            yield warning(Code.NO_ANSWER, name, wanted, found, advice)


def _check_nameless(observed: Observations, setup: RobotSetup) -> Iterator[Finding]:
    """Find publishers and followers whose node is not known: they could not be asked."""
    for name in (setup.joint_states_topic, setup.description_topic, *setup.image_topics):
        if any(not end.is_known for end in observed.topic(name).publishers):
            advice = "Run the doctor again. If it stays, the publisher is no ROS node."
            wanted, found = "the name of each publishing node", "one without: it could not be asked"
            yield warning(Code.UNKNOWN_NODE, name, wanted, found, advice)
    for controller in setup.robot.controllers:
        if any(not end.is_known for end in find_followers(_subscribers(controller, observed, setup))):
            advice = "Run the doctor again: it could not ask what that node takes commands for."
            wanted, found = "the name of the node that follows commands", "one without"
            kind = error if controller.interface == "forward_position" else warning
            yield kind(Code.UNKNOWN_NODE, setup.robot_topic(controller.command_topic), wanted, found, advice)


def _subscribers(controller: ControllerConfig, observed: Observations, setup: RobotSetup) -> list[Endpoint]:
    return observed.topic(setup.robot_topic(controller.command_topic)).subscribers


def _is_managed(controller: ControllerConfig, observed: Observations, setup: RobotSetup) -> bool:
    """Return whether a controller manager should know the controller."""
    if controller.type.startswith("moveit_servo"):
        return False
    followers = find_followers(_subscribers(controller, observed, setup))
    return bool(observed.controller_manager) or any(is_ros2_control(controller, end) for end in followers)


def _explain_unknown_states(observed: Observations, setup: RobotSetup) -> Finding:
    manager = observed.controller_manager or setup.robot_topic("controller_manager")
    if "controller_manager_msgs" in observed.missing_state_packages:
        wanted = "controller_manager_msgs, to ask which controllers are active"
        return warning(
            Code.STATE_PACKAGE_MISSING, manager, wanted, "none here: not asked", _install("controller_manager_msgs")
        )
    wanted = "an answer of list_controllers"
    if observed.controller_manager:
        advice = "Restart the controller manager if it hangs: ros2 control list_controllers must answer, too."
        return error(Code.NO_ANSWER, manager, wanted, "no answer: whether controllers are active is not known", advice)
    advice = "If the manager is in another namespace, give --robot-namespace. Else: ros2 control list_controllers."
    found = "no such service: whether controllers are active is not known"
    return warning(Code.NO_ANSWER, manager, wanted, found, advice)


def _explain_unknown_scaling(controller: str, observed: Observations, setup: RobotSetup) -> Iterator[Finding]:
    topic = setup.state_topic(controller)
    if "control_msgs" in observed.missing_state_packages:
        wanted = "control_msgs, to read the controller's speed scaling"
        yield warning(Code.STATE_PACKAGE_MISSING, topic, wanted, "none here: not read", _install("control_msgs"))
    elif (
        observed.publishers(topic, CONTROLLER_STATE)
        and (observed.controllers or {}).get(controller, "active") == "active"
    ):
        wanted, found = "the controller's state, with its speed scaling", "no message: speed scaling is not known"
        advice = "Check whether the controller is active and its manager runs."
        yield warning(Code.NO_ANSWER, topic, wanted, found, advice)


def _install(package: str) -> str:
    return f"Run make setup-robot, or install ros-jazzy-{package.replace('_', '-')} and source the distribution."
