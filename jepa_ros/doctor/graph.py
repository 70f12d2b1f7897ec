"""Check of topics: published in the expected namespace, with the expected type and quality of service."""

from __future__ import annotations

import difflib

from jepa_ros.doctor.finding import Finding, error, join_names, ok, warning
from jepa_ros.doctor.finding import FindingCode as Code
from jepa_ros.doctor.observations import IMAGES, JOINT_STATE, STRING, Endpoint, Observations, RobotSetup

_PLUMBING = ("/rosout", "/parameter_events", "/diagnostics", "/clock", "/tf", "/tf_static")
_SUBSCRIPTIONS = {JOINT_STATE: Endpoint("", JOINT_STATE, False, False), STRING: Endpoint("", STRING, True, True)}
"""How the nodes of jepa_ros subscribe: joint states and images best effort, the description reliable and transient
local."""


def required_topics(setup: RobotSetup) -> dict[str, tuple[str, ...]]:
    """Return the topics that the robot must publish, and the types that each may have."""
    images = dict.fromkeys(setup.image_topics, IMAGES)
    return {setup.joint_states_topic: (JOINT_STATE,), setup.description_topic: (STRING,), **images}


def find_missing_robot(observed: Observations, setup: RobotSetup) -> Finding | None:
    """Return a finding if none of the robot's topics is published where it is expected: no other check makes sense."""
    if any(observed.topic(name).publishers for name in required_topics(setup)):
        return None
    others = sorted(t for t, ends in observed.topics.items() if ends.publishers and not t.startswith(_PLUMBING))
    homes = sorted({t.removesuffix("/joint_states") for t in others if t.endswith("/joint_states")})
    subject, wanted = f"namespace {setup.namespace or '/'}", "joint_states, robot_description and images"
    if homes:
        best = difflib.get_close_matches(setup.namespace, homes, 1, 0.0)[0]
        found = f"none there, but {join_names(f'{h}/joint_states' for h in homes)}"
        advice = f"Try --namespace {best.strip('/')}" if best else "Leave out --namespace"
        return error(Code.NAMESPACE_OTHER, subject, wanted, found, f"{advice}.")
    if others:
        advice = "Start the robot's driver, or give --namespace and --camera-topic."
        return error(Code.NAMESPACE_EMPTY, subject, wanted, f"only {join_names(others)}", advice)
    advice = "Start the robot; compare ROS_DOMAIN_ID and ROS_AUTOMATIC_DISCOVERY_RANGE of both shells, and the RMW."
    return error(Code.NAMESPACE_EMPTY, "the graph", "a robot that publishes", "no publishers at all", advice)


def check(observed: Observations, setup: RobotSetup) -> list[Finding]:
    """Check that the robot's topics are published with the right types and that the nodes would receive them."""
    found = []
    for name, types in required_topics(setup).items():
        problem = (
            _check_publishers(observed, setup, name, types)
            or _check_types(observed, name, types)
            or _check_qos(observed, name, types)
            or _check_messages(observed, setup, name, types)
        )
        ends = observed.publishers(name, *types)
        found.append(problem or ok("topic", name, f"{ends[0].type} from {join_names(e.node for e in ends)}"))
    found += [f for name in required_topics(setup) for f in _check_other_subscribers(observed, name)]
    for name in sorted({"/tf_static", setup.node_topic("tf_static"), setup.robot_topic("tf_static")}):
        if volatile := [p.node for p in observed.topic(name).publishers if not p.transient]:
            wanted = "publishers with durability transient local"
            advice = "tf2 listeners that start later never receive it: use tf2_ros' static broadcaster."
            found.append(error(Code.QOS_STATIC_TF, name, wanted, join_names(volatile), advice))
    return found


def _check_publishers(observed: Observations, setup: RobotSetup, name: str, types: tuple[str, ...]) -> Finding | None:
    if observed.topic(name).publishers:
        return None
    if types == IMAGES and observed.topic(f"{name}/compressed").publishers:
        advice = f"The camera node subscribes to it by itself; for the doctor give --camera-topic {name}/compressed."
        return warning(Code.TOPIC_COMPRESSED, name, "raw images", "compressed ones only", advice)
    alike = sorted(t for t, ends in observed.topics.items() if any(p.type in types for p in ends.publishers))
    last = name.rpartition("/")[2]
    if types == IMAGES:
        alike = [t for t in alike if t.rpartition("/")[2] not in ("frame", "goal_image")]
    else:
        alike = [t for t in alike if t.endswith(last) or types != (STRING,)]
    same_name = [t for t in alike if t.rpartition("/")[2] == last]
    best = difflib.get_close_matches(name, alike, 1, 0.0)
    advice = f"Start its publisher{', or remap it' if best else ''}."
    if best and types == IMAGES:
        advice = f"Try --camera-topic {best[0]}."
    elif same_name:
        advice = f"Try --robot-namespace {same_name[0].rpartition('/')[0] or '/'}, or remap it."
    elif name == setup.description_topic and not best:
        advice = "Start robot_state_publisher with the arm's URDF."
    actual = f"none, but {join_names(alike)}" if alike else "none"
    return error(Code.TOPIC_MISSING, name, f"a publisher of {' or '.join(types)}", actual, advice)


def _check_types(observed: Observations, name: str, types: tuple[str, ...]) -> Finding | None:
    wrong = [f"{p.type} from {p.node}" for p in observed.topic(name).publishers if p.type not in types]
    if not wrong:
        return None
    advice = "Remap one of the two topics."
    return error(Code.TOPIC_TYPE, name, " or ".join(types), join_names(wrong), advice)


def qos_mismatch(publisher: Endpoint, subscriber: Endpoint) -> str:
    """Return why the subscriber receives nothing from the publisher (requested and offered QoS of DDS), or ""."""
    if subscriber.reliable and not publisher.reliable:
        return "best effort offered, reliable requested"
    if subscriber.transient and not publisher.transient:
        return "durability volatile offered, transient local requested"
    return ""


def _check_qos(observed: Observations, name: str, types: tuple[str, ...]) -> Finding | None:
    ours = _SUBSCRIPTIONS.get(types[0], Endpoint("", types[0], False, False))
    needs = f"{'reliable' if ours.reliable else 'any'}, {'transient local' if ours.transient else 'any durability'}"
    for publisher in observed.publishers(name, *types):
        if why := qos_mismatch(publisher, ours):
            advice = "Give that publisher this QoS (robot_state_publisher has it)."
            wanted = f"a publisher that our nodes receive from ({needs})"
            return error(Code.QOS_PUBLISHER, name, wanted, f"{publisher.node}: {why}", advice)
    return None


def _check_messages(observed: Observations, setup: RobotSetup, name: str, types: tuple[str, ...]) -> Finding | None:
    if name == setup.joint_states_topic:
        is_received = len(observed.joints)
    elif name == setup.description_topic:
        is_received = observed.description is not None
    else:
        is_received = any(len(c.times) for c in observed.cameras if c.topic == name)
    if is_received:
        return None
    nodes = join_names(p.node for p in observed.publishers(name, *types))
    advice = "Check whether that node is active, and whether large messages get through (config/fastdds.xml)."
    wanted = f"messages within {observed.seconds:g} s"
    return error(Code.TOPIC_SILENT, name, wanted, f"none from {nodes}", advice)


def _check_other_subscribers(observed: Observations, name: str) -> list[Finding]:
    """Find other nodes that receive nothing, such as robot_state_publisher without joint states."""
    found = []
    for subscriber in observed.topic(name).subscribers:
        for publisher in observed.topic(name).publishers:
            why = qos_mismatch(publisher, subscriber) if publisher.type == subscriber.type else ""
            if why and not (publisher.type == STRING and not publisher.transient):  # reported already
                subject, pair = f"{name} to {subscriber.node}", f"{publisher.node}: {why}"
                advice = "That node receives nothing: change the QoS of one of them."
                found.append(warning(Code.QOS_OTHER_NODE, subject, "matching QoS", pair, advice))
    return found
