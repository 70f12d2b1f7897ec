"""Who listens to the commands that the gate will send, and who else sends some."""

from __future__ import annotations

import difflib

from jepa_ros.doctor.finding import Finding, error, fine, listed
from jepa_ros.doctor.graph import incompatible
from jepa_ros.doctor.observations import End, Job, Seen
from jepa_ros.robot.config import ControllerConfig

GATE = "arm_gate"
ONLOOKERS = ("recorder", "rosbag2", "_ros2cli", "foxglove", "rosbridge", "plotjuggler", "rqt", "rviz")
"""How the names of nodes begin that listen to commands and follow none."""


def check(seen: Seen, job: Job) -> list[Finding]:
    """Each controller of the robot's YAML."""
    return [f for controller in job.robot.controllers for f in _controller(controller, seen, job)]


def _controller(controller: ControllerConfig, seen: Seen, job: Job) -> list[Finding]:
    name, kind = job.of_robot(controller.command_topic), controller.message_type
    topic, found = seen.topic(name), []
    listeners = _followers(topic.listeners)
    if debian := seen.lacking.get(controller.name):
        advice = f"arm_gate cannot send it: install {debian} where the nodes run, and source the distribution."
        found.append(error("package", name, f"{kind} to be installed", "none", advice))
    if rivals := [p.node for p in topic.publishers if p.name != GATE]:
        advice = "Two masters of one arm: end that node. The gate refuses every plan while it is there."
        found.append(error("rival", name, "nobody but arm_gate who publishes", listed(rivals), advice))
    elif len(topic.publishers) > 1:
        gates = listed(p.node for p in topic.publishers)
        found.append(error("rival", name, "one arm_gate", gates, "End all but one of them."))
    state = (seen.controllers or {}).get(controller.name)
    if state not in (None, "active"):
        advice = f"Switch it on: ros2 control switch_controllers --activate {controller.name}."
        return [*found, error("controller", controller.name, "state active", state, advice)]
    problem = _listener(controller, name, kind, listeners, seen, job) or _joints(controller, listeners[0], seen)
    if problem:
        return [*found, problem]
    told = f"{listeners[0].node} listens" + (", active" if state else "")
    return [*found, fine("controller", name, told)]


def _followers(listeners: list[End]) -> list[End]:
    """Those who may act on what they hear."""
    return [end for end in listeners if not end.name.startswith(ONLOOKERS)]


def _listener(
    controller: ControllerConfig, name: str, kind: str, listeners: list[End], seen: Seen, job: Job
) -> Finding | None:
    """What is wrong with who listens."""
    if not listeners:
        return _deaf(controller, name, kind, seen, job)
    if wrong := [end for end in listeners if end.kind != kind]:
        who = listed(f"{end.node} takes {end.kind}" for end in wrong)
        return error("type", name, kind, who, "Correct the controller's type in the robot's YAML.")
    if len(listeners) > 1:
        advice = "Two controllers, or two simulators, follow the same commands: end all but one."
        who = listed(e.node for e in listeners)
        return error("listeners", name, "one listener", f"{len(listeners)}: {who}", advice)
    ours = End(GATE, kind, reliable=True, transient=False)
    if why := incompatible(ours, listeners[0]):
        advice = "It would hear no command: change the QoS of its subscription."
        return error("qos", name, "a listener that hears arm_gate (reliable, volatile)", why, advice)
    return None


def _deaf(controller: ControllerConfig, name: str, kind: str, seen: Seen, job: Job) -> Finding:
    heard = {t: _followers(who.listeners) for t, who in seen.topics.items()}
    alike = sorted(t for t, who in heard.items() if any(end.kind == kind for end in who))
    best = difflib.get_close_matches(name, alike, 1, 0.0)
    there = f"nobody, but {listed(alike)}" if alike else "nobody"
    advice = f"Load and activate {controller.name} (ros2 control list_controllers)."
    if controller.type.startswith("moveit_servo"):  # a node that no controller manager knows
        advice = "Start MoveIt Servo, and name its node in the robot's YAML as it is named here."
        return error("controller", name, "MoveIt Servo, which listens", there, advice)
    if best:
        advice = f"Name the controller in the robot's YAML as it is named here, or activate {controller.name}."
    if seen.controllers is not None and controller.name not in seen.controllers:
        there = f"{there}; the controller manager knows {listed(sorted(seen.controllers))}"
    return error("controller", name, "a controller that listens", there, advice)


def _joints(controller: ControllerConfig, listener: End, seen: Seen) -> Finding | None:
    """The controller's own parameter `joints` beside the YAML's. Where commands carry no names, order counts."""
    node = seen.nodes.get(listener.node)
    own = [] if node is None else [joint for joint in node.joints or [] if joint]
    ordered, wanted = controller.interface == "forward_position", list(controller.joints)
    if not own or own == wanted or (not ordered and sorted(own) == sorted(wanted)):
        return None
    how = "in this order" if ordered else "in any order"
    advice = "Make the controller's joints and the robot's YAML the same."
    what = f"joints of {controller.name}"
    return error("controller_joints", what, f"{listed(wanted, 10)} {how}", listed(own, 10), advice)
