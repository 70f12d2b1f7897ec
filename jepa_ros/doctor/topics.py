"""Checks of topics: namespace, message types and quality of service; then clocks, stamps and rates."""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterator

import numpy as np

from jepa_ros.doctor.finding import Finding, error, join_names, ok, warning
from jepa_ros.doctor.finding import FindingCode as Code
from jepa_ros.doctor.observations import IMAGES, JOINT_STATE, STRING, Endpoint, MessageTimes, Observations, RobotSetup
from jepa_ros.robot.gate.types import GateSettings

_PLUMBING = ("/rosout", "/parameter_events", "/diagnostics", "/clock", "/tf", "/tf_static")
_SUBSCRIPTIONS = {JOINT_STATE: Endpoint("", JOINT_STATE, False, False), STRING: Endpoint("", STRING, True, True)}
"""How the nodes of jepa_ros subscribe: joint states and images best effort, the description reliable and transient
local."""
_GATE = GateSettings()
CAMERA_AGE, CAMERA_AHEAD = 0.5, 0.05  # s, the camera node's max_age and max_skew
SMOOTH_JOINTS_RATE = 20.0  # Hz; the gate works with less, but on old measurements
OTHER_CLOCK_DIFFERENCE = 30.0  # s; more than any delay
SYNC_ADVICE = "Synchronise the clocks of both machines (chrony or NTP)."


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


def check_topics(observed: Observations, setup: RobotSetup) -> Iterator[Finding]:
    """Check that the robot's topics are published with the right types and that the nodes would receive them."""
    for name, types in required_topics(setup).items():
        problem = (
            _check_publishers(observed, setup, name, types)
            or _check_types(observed, name, types)
            or _check_qos(observed, name, types)
            or _check_messages(observed, setup, name, types)
        )
        ends = observed.publishers(name, *types)
        yield problem or ok("topic", name, f"{ends[0].type} from {join_names(e.node for e in ends)}")
    for name in required_topics(setup):
        yield from _check_other_subscribers(observed, name)
    for name in sorted({"/tf_static", setup.node_topic("tf_static"), setup.robot_topic("tf_static")}):
        if volatile := [p.node for p in observed.topic(name).publishers if not p.transient]:
            wanted = "publishers with durability transient local"
            advice = "tf2 listeners that start later never receive it: use tf2_ros' static broadcaster."
            yield error(Code.QOS_STATIC_TF, name, wanted, join_names(volatile), advice)


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
    if wrong := [f"{p.type} from {p.node}" for p in observed.topic(name).publishers if p.type not in types]:
        return error(Code.TOPIC_TYPE, name, " or ".join(types), join_names(wrong), "Remap one of the two topics.")
    return None


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
        is_received = len(observed.joints) > 0
    elif name == setup.description_topic:
        is_received = observed.description is not None
    else:
        is_received = any(len(c.times) for c in observed.cameras if c.topic == name)
    if is_received:
        return None
    nodes = join_names(p.node for p in observed.publishers(name, *types))
    advice = "Check whether that node is active, and whether large messages get through (config/fastdds.xml)."
    return error(Code.TOPIC_SILENT, name, f"messages within {observed.seconds:g} s", f"none from {nodes}", advice)


def _check_other_subscribers(observed: Observations, name: str) -> Iterator[Finding]:
    """Find other nodes that receive nothing, such as robot_state_publisher without joint states."""
    for subscriber in observed.topic(name).subscribers:
        for publisher in observed.topic(name).publishers:
            why = qos_mismatch(publisher, subscriber) if publisher.type == subscriber.type else ""
            if why and not (publisher.type == STRING and not publisher.transient):  # reported already
                subject, pair = f"{name} to {subscriber.node}", f"{publisher.node}: {why}"
                advice = "That node receives nothing: change the QoS of one of them."
                yield warning(Code.QOS_OTHER_NODE, subject, "matching QoS", pair, advice)


# -- clocks, stamps and rates ------------------------------------------------------------------------------------------


def check_times(observed: Observations, setup: RobotSetup) -> Iterator[Finding]:
    """Check the clock first: if it is wrong, all stamps are."""
    clock = _check_clock(observed, setup)
    if clock is not None:
        yield clock
    if clock is None or not clock.level:
        simulated, gate = clock is not None, (_GATE.joint_stamp_timeout, _GATE.skew)
        yield from _check_stamps(setup.joint_states_topic, observed.joints, *gate, simulated)
        for camera in observed.cameras:
            yield from _check_stamps(camera.topic, camera.times, CAMERA_AGE, CAMERA_AHEAD, simulated)
    rates = [(setup.joint_states_topic, observed.joints, _GATE.joint_timeout, SMOOTH_JOINTS_RATE)]
    rates += [(c.topic, c.times, _GATE.latent_timeout, setup.model.control_rate) for c in observed.cameras]
    for topic, times, timeout, good in rates:
        if len(times):
            yield _check_rate(topic, message_rate(times, observed.seconds), 1 / timeout, good)


def _check_clock(observed: Observations, setup: RobotSetup) -> Finding | None:
    """Check simulated time; None if no node uses it and no message is stamped with it."""
    users = sorted(name for name, node in observed.nodes.items() if node.use_sim_time)
    if setup.use_sim_time:
        users.append("--use-sim-time")
    if users and not observed.clock_moves:
        has_publisher = observed.topic("/clock").publishers
        found = "a publisher that sends nothing" if has_publisher else "no publisher"
        advice = f"Start the simulator, or set use_sim_time to false for {join_names(users)}."
        wanted = f"simulated time, which {join_names(users)} wait for"
        return error(Code.CLOCK_MISSING, "/clock", wanted, found, advice)
    if users:
        return ok("clock", "/clock", f"simulated time, used by {join_names(users)}")
    streams = [observed.joints, *(c.times for c in observed.cameras)]
    if observed.clock_moves and any(len(s) and _follows_clock(s) for s in streams):
        found = "stamps of simulated time (/clock)"
        wanted, advice = "stamps of the system clock", "Start the nodes with --use-sim-time."
        return warning(Code.CLOCK_SIMULATED, "/clock", wanted, found, advice)
    return None


def _follows_clock(stream: MessageTimes) -> bool:
    stamps = np.array(stream.stamps)
    wall, simulated = (np.abs(np.array(times) - stamps) for times in (stream.received, stream.clock))
    return bool(np.isfinite(simulated).any() and np.nanmedian(simulated) < OTHER_CLOCK_DIFFERENCE < np.median(wall))


def _check_stamps(topic: str, stream: MessageTimes, behind: float, ahead: float, simulated: bool) -> Iterator[Finding]:
    stamps, what = np.array(stream.stamps), f"stamps of {topic}"
    if zeros := int((stamps == 0).sum()):
        advice = "Let the driver set header.stamp to the time of measurement."
        found = f"0 in {zeros} of {len(stamps)} messages"
        yield error(Code.STAMPS_ZERO, what, "the time of measurement", found, advice)
        return
    if disordered := int((np.diff(stamps) <= 0).sum()):
        advice = "Two publishers on one topic, or a driver that repeats or reorders its messages."
        wanted, found = "later from message to message", f"{disordered} that are not"
        yield error(Code.STAMPS_ORDER, what, wanted, found, advice)
        return
    times = np.array(stream.clock if simulated else stream.received)
    known = np.isfinite(times)
    if not known.any():
        return
    age = float(np.median((times - stamps)[known]))
    if -ahead <= age <= behind:
        yield ok("stamps", what, f"{1e3 * age:.0f} ms old on arrival")
        return
    expected = f"at most {behind:g} s old and {ahead:g} s ahead of this machine's clock"
    where = f"{abs(age):.3g} s {'old' if age > 0 else 'ahead'}"
    if abs(age) > 1e8:
        advice = "One side uses simulated time, the other system time: give all nodes the same use_sim_time."
    elif abs(age) > 1.0:
        advice = SYNC_ADVICE
    else:
        advice = f"{SYNC_ADVICE} If they are, the driver or the network delays messages."
    yield error(Code.CLOCKS_DIFFER, what, expected, where, advice)


def message_rate(times: MessageTimes, seconds: float) -> float:
    """Return messages per second, by the times they were received."""
    n = len(times)
    span = times.received[-1] - times.received[0] if n > 2 else 0.0
    return (n - 1) / span if span > 0 else n / seconds


def _check_rate(topic: str, found: float, least: float, good: float) -> Finding:
    what, shown = f"rate of {topic}", f"{found:.3g} Hz"
    if found < least:
        advice = "Raise the publisher's rate: with a longer gap the gate stops."
        return error(Code.RATE_TOO_LOW, what, f"at least {least:.3g} Hz, better {good:g}", shown, advice)
    if found < 0.9 * good and not math.isclose(found, good):
        return warning(Code.RATE_LOW, what, f"at least {good:g} Hz", shown, "Raise the publisher's rate.")
    return ok("rate", what, shown)
