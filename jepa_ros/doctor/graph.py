"""Which topics are there, in which namespace, of which type, and whether publishers and listeners hear each other."""

from __future__ import annotations

import difflib

from jepa_ros.doctor.finding import Finding, error, fine, listed, warning
from jepa_ros.doctor.observations import IMAGES, JOINT_STATE, STRING, End, Job, Seen

_PLUMBING = ("/rosout", "/parameter_events", "/diagnostics", "/clock", "/tf", "/tf_static")
_HEARS = {JOINT_STATE: End("", JOINT_STATE, False, False), STRING: End("", STRING, True, True)}
"""How our nodes listen: joint states and pictures as sensor data, the description reliable and transient local."""


def wanted(job: Job) -> dict[str, tuple[str, ...]]:
    """The topics that the robot must publish, and the types that each may have."""
    return {job.joint_states: (JOINT_STATE,), job.description: (STRING,), **dict.fromkeys(job.cameras, IMAGES)}


def misplaced(seen: Seen, job: Job) -> Finding | None:
    """The one finding that explains everything: nothing of the robot is where it was looked for."""
    if any(seen.topic(name).publishers for name in wanted(job)):
        return None
    others = sorted(t for t, who in seen.topics.items() if who.publishers and not t.startswith(_PLUMBING))
    homes = sorted({t.removesuffix("/joint_states") for t in others if t.endswith("/joint_states")})
    here = f"namespace {job.namespace or '/'}"
    if homes:
        best = difflib.get_close_matches(job.namespace, homes, 1, 0.0)[0]
        found = f"none there, but {listed(f'{h}/joint_states' for h in homes)}"
        advice = f"Try --namespace {best.strip('/')}" if best else "Leave out --namespace"
        return error("namespace", here, "joint_states, robot_description and images", found, f"{advice}.")
    if others:
        advice = "Start the robot's driver, or give --namespace and --camera-topic."
        return error("namespace", here, "joint_states, robot_description and images", f"only {listed(others)}", advice)
    advice = "Start the robot; compare ROS_DOMAIN_ID and ROS_AUTOMATIC_DISCOVERY_RANGE of both shells, and the RMW."
    return error("namespace", "the graph", "a robot that publishes", "nobody who publishes anything", advice)


def check(seen: Seen, job: Job) -> list[Finding]:
    """Presence and types of what the robot must publish, and whether our nodes can hear it."""
    found = []
    for name, kinds in wanted(job).items():
        problem = _absent(seen, job, name, kinds) or _mistyped(seen, name, kinds) or _unheard(seen, name, kinds)
        found.append(problem or _silent(seen, job, name, kinds) or _there(seen, name, kinds))
    found += [f for name in wanted(job) for f in _bystanders(seen, name)]
    for name in sorted({"/tf_static", job.full("tf_static"), job.of_robot("tf_static")}):
        bad = [p.node for p in seen.topic(name).publishers if not p.transient]
        if bad:
            advice = "tf2 listeners that start later never hear it: use tf2_ros' static broadcaster."
            found.append(error("qos", name, "publishers with durability transient local", listed(bad), advice))
    return found


def _absent(seen: Seen, job: Job, name: str, kinds: tuple[str, ...]) -> Finding | None:
    if seen.topic(name).publishers:
        return None
    if kinds == IMAGES and seen.topic(f"{name}/compressed").publishers:
        advice = "The camera node takes it by itself; this command looks at it with"
        advice = f"{advice} --camera-topic {name}/compressed."
        return warning("topic", name, "raw pictures", "compressed ones only", advice)
    alike = sorted(t for t, who in seen.topics.items() if any(p.kind in kinds for p in who.publishers))
    if kinds == IMAGES:
        option, alike = "--camera-topic", [t for t in alike if t.rpartition("/")[2] not in ("frame", "goal_image")]
    else:
        option, alike = "", [t for t in alike if t.endswith(name.rpartition("/")[2]) or kinds != (STRING,)]
    homes = [t for t in alike if t.rpartition("/")[2] == name.rpartition("/")[2]]
    best = difflib.get_close_matches(name, alike, 1, 0.0)
    there = f"none, but {listed(alike)}" if alike else "none"
    advice = f"Start what publishes it{', or remap it' if best else ''}."
    if best and option:
        advice = f"Try {option} {best[0]}."
    elif homes:
        advice = f"Try --robot-namespace {homes[0].rpartition('/')[0] or '/'}, or remap it."
    elif name == job.description and not best:
        advice = "Start robot_state_publisher with the arm's URDF."
    return error("topic", name, f"a publisher of {' or '.join(kinds)}", there, advice)


def _mistyped(seen: Seen, name: str, kinds: tuple[str, ...]) -> Finding | None:
    wrong = [p for p in seen.topic(name).publishers if p.kind not in kinds]
    if not wrong:
        return None
    who = listed(f"{p.kind} from {p.node}" for p in wrong)
    return error("type", name, " or ".join(kinds), who, "Remap one of the two topics.")


def incompatible(publisher: End, listener: End) -> str:
    """Why this listener hears nothing of this publisher (DDS: requested and offered QoS); empty where it does."""
    if listener.reliable and not publisher.reliable:
        return "best effort offered, reliable asked for"
    if listener.transient and not publisher.transient:
        return "durability volatile offered, transient local asked for"
    return ""


def _unheard(seen: Seen, name: str, kinds: tuple[str, ...]) -> Finding | None:
    ours = _HEARS.get(kinds[0], End("", kinds[0], False, False))
    for publisher in seen.publishers(name, *kinds):
        if why := incompatible(publisher, ours):
            needs = (
                f"{'reliable' if ours.reliable else 'any'}, {'transient local' if ours.transient else 'any durability'}"
            )
            advice = "Give that publisher this QoS (robot_state_publisher has it)."
            return error("qos", name, f"a publisher that our nodes hear ({needs})", f"{publisher.node}: {why}", advice)
    return None


def _silent(seen: Seen, job: Job, name: str, kinds: tuple[str, ...]) -> Finding | None:
    if name == job.joint_states:
        heard = len(seen.joints)
    elif name == job.description:
        heard = seen.description is not None
    else:
        heard = any(len(c.stream) for c in seen.cameras if c.topic == name)
    if heard:
        return None
    who = listed(p.node for p in seen.publishers(name, *kinds))
    advice = "See whether that node is active, and whether big messages get through (config/fastdds.xml)."
    return error("silent", name, f"messages within {seen.seconds:g} s", f"none from {who}", advice)


def _there(seen: Seen, name: str, kinds: tuple[str, ...]) -> Finding:
    ends = seen.publishers(name, *kinds)
    return fine("topic", name, f"{ends[0].kind} from {listed(e.node for e in ends)}")


def _bystanders(seen: Seen, name: str) -> list[Finding]:
    """Others than our nodes who listen in vain, such as robot_state_publisher to joint states."""
    found = []
    for listener in seen.topic(name).listeners:
        for publisher in seen.topic(name).publishers:
            why = incompatible(publisher, listener) if publisher.kind == listener.kind else ""
            if why and not (publisher.kind == STRING and not publisher.transient):  # told already
                what, pair = f"{name} to {listener.node}", f"{publisher.node}: {why}"
                advice = "That node hears nothing: change the QoS of one of them."
                found.append(warning("qos", what, "a QoS that fits", pair, advice))
    return found
