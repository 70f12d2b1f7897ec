"""Check of the controllers: one subscriber that follows the gate's commands, and no other node that sends some."""

from __future__ import annotations

import difflib

from jepa_ros.doctor.finding import Finding, error, join_names, ok
from jepa_ros.doctor.finding import FindingCode as Code
from jepa_ros.doctor.graph import qos_mismatch
from jepa_ros.doctor.observations import Endpoint, Observations, RobotSetup
from jepa_ros.robot.config import ControllerConfig

GATE = "arm_gate"
PASSIVE_NODES = ("recorder", "rosbag2", "_ros2cli", "foxglove", "rosbridge", "plotjuggler", "rqt", "rviz")
"""First parts of the names of nodes that subscribe to commands without following them."""


def check(observed: Observations, setup: RobotSetup) -> list[Finding]:
    """Check each controller of the robot's YAML."""
    return [f for controller in setup.robot.controllers for f in _check_controller(controller, observed, setup)]


def _check_controller(controller: ControllerConfig, observed: Observations, setup: RobotSetup) -> list[Finding]:
    name, type_ = setup.robot_topic(controller.command_topic), controller.message_type
    topic, found = observed.topic(name), []
    subscribers = _followers(topic.subscribers)
    if package := observed.missing_packages.get(controller.name):
        advice = f"arm_gate cannot send it: install {package} where the nodes run, and source the distribution."
        found.append(error(Code.PACKAGE_MISSING, name, f"{type_} to be installed", "none", advice))
    if rivals := [p.node for p in topic.publishers if p.name != GATE]:
        advice = "End that node: the gate refuses every plan while another node commands the arm."
        found.append(error(Code.OTHER_COMMANDER, name, "no publisher but arm_gate", join_names(rivals), advice))
    elif len(topic.publishers) > 1:
        gates = join_names(p.node for p in topic.publishers)
        found.append(error(Code.SEVERAL_GATES, name, "one arm_gate", gates, "Endpoint all but one of them."))
    state = (observed.controllers or {}).get(controller.name)
    if state not in (None, "active"):
        advice = f"Activate it: ros2 control switch_controllers --activate {controller.name}."
        return [*found, error(Code.CONTROLLER_INACTIVE, controller.name, "state active", state, advice)]
    problem = _check_subscribers(controller, name, type_, subscribers, observed, setup)
    problem = problem or _check_joints(controller, subscribers[0], observed)
    if problem:
        return [*found, problem]
    text = f"{subscribers[0].node} subscribes" + (", active" if state else "")
    return [*found, ok("controller", name, text)]


def _followers(subscribers: list[Endpoint]) -> list[Endpoint]:
    """Return the subscribers that may act on commands."""
    return [end for end in subscribers if not end.name.startswith(PASSIVE_NODES)]


def _check_subscribers(
    controller: ControllerConfig,
    name: str,
    type_: str,
    subscribers: list[Endpoint],
    observed: Observations,
    setup: RobotSetup,
) -> Finding | None:
    if not subscribers:
        return _no_subscriber(controller, name, type_, observed, setup)
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


def _no_subscriber(
    controller: ControllerConfig, name: str, type_: str, observed: Observations, setup: RobotSetup
) -> Finding:
    followers = {t: _followers(ends.subscribers) for t, ends in observed.topics.items()}
    alike = sorted(t for t, ends in followers.items() if any(end.type == type_ for end in ends))
    best = difflib.get_close_matches(name, alike, 1, 0.0)
    actual = f"none, but {join_names(alike)}" if alike else "none"
    advice = f"Load and activate {controller.name} (ros2 control list_controllers)."
    if controller.type.startswith("moveit_servo"):  # a node without a controller manager
        advice = "Start MoveIt Servo, and name its node in the robot's YAML as it is named here."
        return error(Code.CONTROLLER_MISSING, name, "MoveIt Servo as subscriber", actual, advice)
    if best:
        advice = f"Name the controller in the robot's YAML as it is named here, or activate {controller.name}."
    if observed.controllers is not None and controller.name not in observed.controllers:
        actual = f"{actual}; the controller manager knows {join_names(sorted(observed.controllers))}"
    return error(Code.CONTROLLER_MISSING, name, "a controller that subscribes", actual, advice)


def _check_joints(controller: ControllerConfig, subscriber: Endpoint, observed: Observations) -> Finding | None:
    """Compare the controller's parameter `joints` with the YAML's; the order matters if commands carry no names."""
    node = observed.nodes.get(subscriber.node)
    own = [] if node is None else [joint for joint in node.joints or [] if joint]
    ordered, wanted = controller.interface == "forward_position", list(controller.joints)
    if not own or own == wanted or (not ordered and sorted(own) == sorted(wanted)):
        return None
    how = "in this order" if ordered else "in any order"
    advice = "Give the controller and the robot's YAML the same joints."
    wanted = f"{join_names(wanted, 10)} {how}"
    return error(Code.CONTROLLER_JOINTS, f"joints of {controller.name}", wanted, join_names(own, 10), advice)
