"""`jepa_ros data inspect`: topics, rates and gaps of a bag, and a drafted mapping with a reason for every choice."""

from __future__ import annotations

import json
import math
import sys
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import yaml

from jepa_ros.bags.cameras import IMAGE_TYPES
from jepa_ros.bags.reader import Bag, open_bag
from jepa_ros.bags.recovery import RawMessage
from jepa_ros.bags.typestore import (
    ACTION,
    EPISODE,
    FLOAT64_ARRAY,
    JOINT_JOG,
    JOINT_STATE,
    TRAJECTORY,
    TWIST,
    TWIST_STAMPED,
    serialised_stamp,
    typestore,
)
from jepa_ros.datasets.mapping import TWIST_FIELDS, read_mapping
from jepa_ros.datasets.signals import twist_values
from jepa_ros.errors import InputError
from jepa_ros.reporting.output import prepare_file
from jepa_ros.reporting.result import print_result, print_table
from jepa_ros.resources import list_robots
from jepa_ros.robot.config import RobotConfig, load_robot

USEFUL_TYPES = (JOINT_STATE, TRAJECTORY, JOINT_JOG, TWIST, TWIST_STAMPED, FLOAT64_ARRAY, ACTION)
GRIPPER_WORDS = ("finger", "gripper", "claw", "jaw", "knuckle")
NOT_COLOUR_WORDS = ("depth", "mask", "disparity", "infra", "ir/", "rviz")
MAX_RADIANS = 2.5 * math.pi  # joint positions beyond this are taken for degrees
GAP_PERIODS = 2.5  # median periods between two messages from which they count as a gap
SAMPLES = 200  # messages of a topic that a draft is based on, evenly spread over the recording


class TopicSample:
    """A topic's type, its number of messages, and some of them."""

    def __init__(self, kind: str, count: int):
        self.kind, self.count, self.messages = kind, count, []

    def add(self, raw: RawMessage) -> None:
        """Keep a message, unless it is malformed or of a type that a draft cannot use."""
        if self.kind in USEFUL_TYPES:
            with suppress(Exception):  # garbage may raise anything in the deserialiser
                self.messages.append(raw.deserialise())


def draft_mapping(bag: Path, samples: dict[str, TopicSample]) -> tuple[str | None, str]:
    """Return the YAML of a mapping and an empty text; or None and the reason why there is none."""
    there = ", ".join(f"{topic} ({sample.kind})" for topic, sample in samples.items()) or "no topic at all"
    executed = _find_executed_robot(samples)
    images, states = _images(samples), _joint_states(samples, executed)
    if images is None:
        return None, f"expected images (Image or CompressedImage), found {there}"
    if states is None:
        return None, f"expected joint states with positions (JointState), found {there}"
    robot = _robot(states[0][0], executed)
    parts = [images, states[0], _actions(samples, states[1]), robot, _episodes(samples), _clock(samples)]
    lines = [f"# Drafted from {bag.name} by `jepa_ros data inspect`. Check each choice; its comment gives the reason."]
    for values, reasons in parts:
        lines += [f"# {reason}" for reason in reasons]
        for key, value in values.items():
            flow = None if isinstance(value, dict | list) else False
            lines += yaml.safe_dump({key: value}, sort_keys=False, width=110, default_flow_style=flow).splitlines()
    return "\n".join(lines) + "\n", ""


def _images(samples: dict[str, TopicSample]) -> tuple[dict, list[str]] | None:
    found = {topic: s for topic, s in samples.items() if s.kind in IMAGE_TYPES and s.count}
    if not found:
        return None
    plain = {topic.removesuffix("/compressed"): s for topic, s in sorted(found.items(), reverse=True)}
    colour = {t: s for t, s in plain.items() if not any(word in t.lower() for word in NOT_COLOUR_WORDS)} or plain
    chosen = sorted(colour)
    reasons = [f"views: {topic} has {colour[topic].count} images of a camera" for topic in chosen]
    if left := sorted(set(plain) - set(colour)):
        reasons.append(f"left out, as their names suggest depth or masks instead of colour: {', '.join(left)}")
    if len(chosen) > 1:
        reasons.append("every view must be present at all times: remove those that the model does not need")
    return {"views": [{"topic": topic} for topic in chosen]}, reasons


def _joint_states(samples: dict[str, TopicSample], robot: RobotConfig | None):
    """Return the part of the mapping with its reasons, and the names of the arm's joints; None without joint states.

    robot: whose actions were executed; its joints are chosen.
    """
    found = []
    for topic, sample in samples.items():
        messages = [m for m in sample.messages if sample.kind == JOINT_STATE and len(m.position) == len(m.name) > 0]
        if messages:
            found.append((len(messages[-1].name), sample.count, topic, messages))
    if not found:
        return None
    count, _, topic, messages = max(found, key=lambda f: f[:3])
    names = [str(name) for name in messages[-1].name]
    fingers = [name for name in names if any(word in name.lower() for word in GRIPPER_WORDS)]
    joints = [name for name in names if name not in fingers] or names
    fingers = [name for name in fingers if name not in joints]
    order = "the joints are in the order of its messages"
    if robot is not None:
        joints, fingers = list(robot.joints), [name for name in robot.gripper if name in names]
        order = f"of these, those of {robot.name}, whose actions were executed"
    reasons = [f"joint_states: {topic} has the most joints ({count}); {order}"]
    reasons += [f"gripper: {', '.join(fingers)} by name; their velocities are left out"] if fingers else []
    farthest = max((float(np.abs(m.position).max()) for m in messages), default=0.0)
    unit = "deg" if farthest > MAX_RADIANS else "rad"
    reasons.append(f"unit: {unit}, as the largest position is {farthest:.3g}")
    columns = [names.index(joint) for joint in joints]
    # joint_state_broadcaster says NaN where the hardware has no velocity
    measured = sum(
        len(m.velocity) == len(m.name) == len(names) and not np.isnan(np.asarray(m.velocity)[columns]).any()
        for m in messages
    )
    velocity = "measured" if measured == len(messages) else "differences" if not measured else "auto"
    reasons.append(f"velocity: {velocity}, as {measured} of {len(messages)} inspected messages have velocities")
    values = {"topic": topic, "joints": joints, "gripper": fingers, "unit": unit, "velocity": velocity}
    return ({"joint_states": values}, reasons), joints


def _actions(samples: dict[str, TopicSample], joints: list[str]) -> tuple[dict, list[str]]:
    values, reason = _best_actions(samples, joints)
    return {"actions": values}, [f"actions: {values['source']}, as {reason}"]


def _best_actions(samples: dict[str, TopicSample], joints: list[str]) -> tuple[dict, str]:
    """Return the best source there is and the reason: executed, trajectory, velocity, states, in this order."""
    by_kind = {kind: [t for t, s in samples.items() if s.kind == kind and s.messages] for kind in USEFUL_TYPES}
    if found := by_kind[ACTION]:
        space = samples[found[0]].messages[0].action_space
        values = {"source": "executed", "topic": found[0]}
        return values, f"{found[0]} holds the actions that were executed (space {space})"
    for topic in sorted(by_kind[TRAJECTORY], key=lambda t: -samples[t].count):
        own = [str(j) for m in samples[topic].messages for j in m.joint_names]
        if set(own) & set(joints):
            chosen = [j for j in joints if j in own]
            values = {"source": "trajectory", "topic": topic, "joints": chosen}
            return values, f"{topic} commands {len(chosen)} of the joints; there are no executed actions"
    for topic in by_kind[JOINT_JOG]:
        if {str(j) for m in samples[topic].messages for j in m.joint_names} & set(joints):
            values = {"source": "joint_velocity", "topic": topic}
            return values, f"{topic} commands velocities of these joints"
    for topic in by_kind[TWIST_STAMPED] + by_kind[TWIST]:
        sent = [twist_values(message) for message in samples[topic].messages]
        if fields := [f for f in TWIST_FIELDS if any(values[f] for values in sent)]:
            scale = round(max(abs(values[f]) for values in sent for f in fields), 3) or 1.0
            values = {"source": "velocity", "topic": topic, "fields": fields, "scale": scale}
            reason = f"{topic} commands velocities; fields that are not always 0, scale is the largest value"
            return values, reason
    for topic in by_kind[FLOAT64_ARRAY]:
        sizes = {len(m.data) for m in samples[topic].messages}
        if sizes == {len(joints)} and "vel" in topic.lower():
            values = {"source": "velocity", "topic": topic, "fields": [str(k) for k in range(len(joints))]}
            return values, f"{topic} has a value for each of {len(joints)} joints and `vel` in its name"
    reason = "there are no executed actions, trajectories or velocity commands of these joints"
    return {"source": "states"}, reason


def _find_executed_robot(samples: dict[str, TopicSample]) -> RobotConfig | None:
    """Return the first robot in config/robots with the action space of the executed actions and joints of the bag; None
    where there is none."""
    space = next((s.messages[0].action_space for s in samples.values() if s.kind == ACTION and s.messages), "")
    states = [m for s in samples.values() if s.kind == JOINT_STATE for m in s.messages[-1:]]
    robots = [robot for robot in map(load_robot, list_robots()) if robot.action_space.type == space]
    return next((r for r in robots if any(set(r.joints) <= set(m.name) for m in states)), None)


def _robot(states: dict, executed: RobotConfig | None) -> tuple[dict, list[str]]:
    """Draft the robot: the one whose actions were executed, or the first one with these joints."""
    if executed is not None:
        why = f"has these joints and the action space {executed.action_space.type}; tool positions are computed"
        return {"robot": executed.name}, [f"robot: {executed.name} {why}"]
    joints = states["joint_states"]["joints"]
    for name in list_robots():
        if set(load_robot(name).joints) <= set(joints):
            return {"robot": name}, [f"robot: {name} has these joints; tool positions are computed"]
    return {"robot": None}, ["robot: no robot in config/robots has these joints; no tool positions are computed"]


def _episodes(samples: dict[str, TopicSample]) -> tuple[dict, list[str]]:
    found = [topic for topic, sample in samples.items() if sample.kind == EPISODE]
    if found:
        return {"episodes": found[0]}, [f"episodes: {found[0]} marks {samples[found[0]].count} episodes"]
    return {"episodes": None}, ["episodes: there are no markers; a bag is one episode until a gap"]


def _clock(samples: dict[str, TopicSample]) -> tuple[dict, list[str]]:
    states = [m for s in samples.values() if s.kind == JOINT_STATE for m in s.messages]
    if states and not any(m.header.stamp.sec for m in states):
        return {"clock": "recorded"}, ["clock: recorded, as joint states have no stamps"]
    reason = "clock: header, the stamps of the messages; use recorded where the clocks of drivers disagree"
    return {"clock": "header"}, [reason]


@dataclass(frozen=True)
class TopicStatistics:
    """Statistics of one topic.

    rate: Hz, from the median period of its stamps. gaps: number. longest_gap: s. back: number of stamps before the
    previous one. offset: median of stamp minus time of recording in s; None without a header.
    """

    topic: str
    type: str
    count: int
    rate: float | None = None
    duration: float = 0.0
    gaps: int = 0
    longest_gap: float = 0.0
    back: int = 0
    offset: float | None = None


def inspect_bag(*, bag: Path, write: Path | None = None, as_json: bool = False) -> int:
    """Print statistics and the drafted mapping, and write it to the file `write`, which must not exist.

    Returns 2 where the bag cannot be read completely. Raises InputError.
    """
    bag = Path(bag)
    if write is not None:
        if Path(write).exists():
            raise InputError(f"--write {write}: exists already; give the name of a new file")
        prepare_file(write, "--write")
    with open_bag(bag) as opened:
        topics, samples = read_topics(opened)
        problems = list(dict.fromkeys(opened.problems))
    if not any(t.count for t in topics):
        raise InputError(problems[0] if problems else f"bag {bag}: contains no messages; give another bag")
    drafted, reason = draft_mapping(bag, samples)
    if as_json:
        found = {"bag": bag.name, "topics": [asdict(t) for t in topics], "problems": problems}
        print(json.dumps(found | {"mapping": drafted}, indent=2))
    else:
        _print_table(bag, topics)
        print(drafted or f"No mapping can be drafted: {reason}")
    for problem in problems:
        print(f"jepa_ros: {problem}", file=sys.stderr)
    if write is not None:
        if drafted is None:
            raise InputError(f"bag {bag}: {reason}")
        Path(write).parent.mkdir(parents=True, exist_ok=True)
        Path(write).write_text(drafted, encoding="utf-8")
        read_mapping(Path(write))
        if not as_json:
            print_result("mapping drafted", ["check each choice before data build"], [write])
    return 2 if problems else 0


def read_topics(bag: Bag) -> tuple[list[TopicStatistics], dict[str, TopicSample]]:
    """Return statistics of every topic, and some of its messages to draft a mapping from."""
    there = {t.topic: (t.msgtype, t.count) for t in bag.topics}
    stamps: dict[str, list[tuple[int, int]]] = {topic: [] for topic in there}
    samples = {topic: TopicSample(kind, count) for topic, (kind, count) in there.items()}
    for raw in bag.messages(bag.topics):
        sample, known = samples[raw.topic], stamps[raw.topic]
        if len(known) % max(1, sample.count // SAMPLES) == 0:
            sample.add(raw)
        known.append((_stamp(raw), raw.recorded))
    return [_statistics(topic, *there[topic], known) for topic, known in stamps.items()], samples


def _stamp(raw: RawMessage) -> int:
    """Return the header's stamp in ns where the type starts with a header; otherwise 0."""
    fields = typestore().fielddefs.get(raw.msgtype)
    if not (fields and fields[1] and fields[1][0][0] == "header"):
        return 0
    try:
        return serialised_stamp(raw.data)
    except ValueError:
        return 0


def _statistics(topic: str, kind: str, count: int, known: list[tuple[int, int]]) -> TopicStatistics:
    if len(known) < 2:
        return TopicStatistics(topic, kind, count)
    stamp, recorded = np.array(known, np.int64).T
    stamped = bool((stamp > 0).all())
    times = stamp if stamped else recorded
    steps = np.diff(times) * 1e-9
    forward = steps[steps > 0]
    period = float(np.median(forward)) if len(forward) else 0.0
    gaps = forward[forward > GAP_PERIODS * period] if period else forward[:0]
    return TopicStatistics(
        topic,
        kind,
        count,
        1 / period if period else None,
        float(times.max() - times.min()) * 1e-9,
        len(gaps),
        float(gaps.max(initial=0.0)),
        int((steps < 0).sum()),
        float(np.median(stamp - recorded)) * 1e-9 if stamped else None,
    )


def _print_table(bag: Path, topics: list[TopicStatistics]) -> None:
    columns = ("topic", "type", "messages", "Hz", "gaps", "longest s", "stamps back", "stamp - recorded s")
    rows = []
    for t in topics:
        figures = [f"{value:.4g}" if value else "" for value in (t.rate, t.gaps, t.longest_gap, t.back)]
        rows.append((t.topic, t.type, t.count, *figures, "" if t.offset is None else f"{t.offset:.3g}"))
    print_table(columns, rows, str(bag))
