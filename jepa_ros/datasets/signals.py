"""The first look at a bag: stamps of its pictures, and everything else of it that episodes are made of."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from jepa_ros.bags.cameras import namespace
from jepa_ros.bags.reader import camera_reference
from jepa_ros.bags.recovery import Rescued
from jepa_ros.bags.source import Source
from jepa_ros.bags.typestore import typestore
from jepa_ros.datasets.mapping import ARRAY, EPISODE, JOINT_STATE, TWIST, BagMapping, Topics
from jepa_ros.datasets.positions import KINDS
from jepa_ros.errors import InputError
from jepa_ros.world_model.config import CameraReference

INFO, TF, TEXT = "sensor_msgs/msg/CameraInfo", "tf2_msgs/msg/TFMessage", "std_msgs/msg/String"


@dataclass
class Series:
    """Messages of one topic as recorded: stamps in ns, running numbers of all messages of the bag, values."""

    stamps: list[int] = field(default_factory=list)
    order: list[int] = field(default_factory=list)
    values: list = field(default_factory=list)

    def add(self, stamp: int, order: int, value) -> None:
        """One more message."""
        self.stamps.append(stamp)
        self.order.append(order)
        self.values.append(value)


@dataclass(frozen=True)
class Marker:
    """Where an episode begins: running number of its message, stamp in ns."""

    order: int
    stamp: int
    number: int
    split: str
    task: str


@dataclass
class Signals:
    """What a bag holds for a mapping.

    views: of each view, values are the numbers of the pictures among those of their topic. states: values (2J + G,),
    velocities NaN where none are measured. actions: (A,), or (times (k,), positions (k, J)) of a trajectory. dropped:
    numbers of messages that cannot be used, by reason.
    """

    topics: dict[str, tuple[str, int]]
    image_topics: list[str]
    views: list[Series]
    states: Series = field(default_factory=Series)
    actions: Series = field(default_factory=Series)
    markers: list[Marker] = field(default_factory=list)
    objects: dict[str, Series] = field(default_factory=dict)
    urdf: str | None = None
    camera: CameraReference | None = None
    dropped: Counter = field(default_factory=Counter)
    action_space: str = ""
    action_period: float = 0.0


class Collector:
    """Reads the signals of one bag. base_frame: that positions of objects must be in; empty: any one."""

    def __init__(self, source: Source, mapping: BagMapping, base_frame: str = ""):
        """Raises InputError where a topic of the mapping is missing."""
        there = {t.topic: (t.msgtype, t.count) for t in source.topics}
        topics = Topics(source.path, there)
        self.source, self.mapping, self.base_frame = source, mapping, base_frame
        images = [topics.image(view.topic) for view in mapping.views]
        self.made = Signals(there, images, [Series() for _ in images], objects={n: Series() for n in mapping.objects})
        self.handlers: dict[str, Callable[[Rescued, int], None]] = {}
        self.counts = [0] * len(images)
        for index, topic in enumerate(images):
            self.handlers[topic] = lambda raw, order, index=index: self._picture(raw, order, index)
        self.handlers[topics.find(mapping.joint_states.topic, [JOINT_STATE], "joint states")] = self._state
        if command := topics.command(mapping.actions):
            self.handlers[command] = getattr(self, f"_{mapping.actions.source}")
        for name, topic in mapping.objects.items():
            self.handlers[topics.position(name, topic)] = lambda raw, order, name=name: self._object(raw, order, name)
        for topic, (kind, _) in there.items():
            if kind == EPISODE and mapping.episodes and topic.strip("/").endswith(mapping.episodes.strip("/")):
                self.handlers[topic] = self._marker
            elif kind == TEXT and topic.endswith("robot_description"):
                self.handlers[topic] = self._description
            elif (kind == TF and topic.endswith("tf_static")) or (
                kind == INFO and namespace(topic) == namespace(images[0])
            ):
                self.handlers[topic] = self._camera
        self._columns: tuple[list[str], list[int]] | None = None
        self._info, self._poses = None, {}

    @property
    def wanted(self) -> set[tuple[str, str]]:
        """Names and types of the topics that are read."""
        return {(topic, self.made.topics[topic][0]) for topic in self.handlers}

    def read(self, progress: Callable[[int], None] = lambda messages: None) -> Signals:
        """All signals. Raises InputError where a kind of message that is needed cannot be used at all."""
        for order, raw in enumerate(self.source.messages(self.wanted)):
            try:
                self.handlers[raw.topic](raw, order)
            except InputError:
                raise
            except Exception:  # garbage in place of a message may trip any part of its deserialisation
                self.made.dropped[f"{raw.topic}: messages that cannot be read"] += 1
            if order % 256 == 0:
                progress(order)
        s, path = self.made, self.source.path
        s.camera = camera_reference(path, self._info, self._poses)
        for series, what in [
            *((v, t) for v, t in zip(s.views, s.image_topics, strict=True)),
            (s.states, "joint states"),
        ]:
            if not series.stamps:
                raise InputError(f"bag {path}: expected {what} that can be used, found none{self._why()}")
        if self.mapping.actions.source != "states" and not s.actions.stamps:
            raise InputError(f"bag {path}: expected actions that can be used, found none{self._why()}")
        return s

    def _why(self) -> str:
        """What was dropped and which topics there are, as the end of a sentence."""
        dropped = [f"{count} of {reason}" for reason, count in sorted(self.made.dropped.items())]
        held = [f"{topic} ({kind}, {count})" for topic, (kind, count) in self.made.topics.items()]
        return " (" + "; ".join([*dropped, "topics: " + ", ".join(held)]) + ")"

    def _read(self, raw: Rescued):
        return typestore().deserialize_cdr(raw.data, raw.msgtype)

    def _stamp(self, message, raw: Rescued) -> int:
        stamp = 0
        if self.mapping.clock == "header" and hasattr(message, "header"):
            stamp = message.header.stamp.sec * 10**9 + message.header.stamp.nanosec
        return stamp or raw.recorded

    def _picture(self, raw: Rescued, order: int, view: int) -> None:
        number = self.counts[view]
        self.counts[view] += 1
        # The header comes first: no need to take a picture apart for its stamp.
        if len(raw.data) < 12 or raw.data[0] != 0:
            raise ValueError("no CDR")
        little = "little" if raw.data[1] & 1 else "big"
        seconds, rest = (int.from_bytes(raw.data[i : i + 4], little) for i in (4, 8))
        stamp = seconds * 10**9 + rest if self.mapping.clock == "header" else 0
        self.made.views[view].add(stamp or raw.recorded, order, number)

    def _state(self, raw: Rescued, order: int) -> None:
        m, wanted, dropped = self._read(raw), self.mapping.joint_states, self.made.dropped
        names, joints = list(m.name), (*wanted.joints, *wanted.gripper)
        if self._columns is None or self._columns[0] != names:
            missing = [j for j in joints if j not in names]
            if missing:
                dropped[f"{raw.topic}: messages without the joints {missing}, with {names}"] += 1
                return
            self._columns = (names, [names.index(j) for j in joints])
        columns, arm = self._columns[1], len(wanted.joints)
        if len(m.position) != len(names):
            dropped[f"{raw.topic}: messages without a position for each joint"] += 1
            return
        measured = len(m.velocity) == len(names) and wanted.velocity != "differences"
        if not measured and wanted.velocity == "measured":
            dropped[f"{raw.topic}: messages without a velocity for each joint"] += 1
            return
        position = m.position[columns]
        velocity = m.velocity[columns[:arm]] if measured else np.full(arm, np.nan)
        if not (np.isfinite(position).all() and (not measured or np.isfinite(velocity).all())):
            dropped[f"{raw.topic}: messages with NaN or Inf"] += 1
            return
        values = np.concatenate([position[:arm], velocity, position[arm:]])
        self.made.states.add(self._stamp(m, raw), order, np.radians(values) if wanted.unit == "deg" else values)

    def _finite(self, raw: Rescued, order: int, stamp: int, values: np.ndarray) -> None:
        """Keep an action that has as many finite numbers as those before it."""
        actions = self.made.actions
        if not np.isfinite(values).all():
            self.made.dropped[f"{raw.topic}: messages with NaN or Inf"] += 1
        elif actions.values and len(actions.values[0]) != len(values):
            self.made.dropped[f"{raw.topic}: messages of another number of values"] += 1
        else:
            actions.add(stamp, order, values)

    def _executed(self, raw: Rescued, order: int) -> None:
        m, s = self._read(raw), self.made
        if not s.action_space:
            s.action_space, s.action_period = m.action_space, round(float(m.period), 6)  # a float32
        if m.action_space != s.action_space or abs(m.period - s.action_period) > 1e-4 or m.period <= 0:
            s.dropped[f"{raw.topic}: actions of another space or period than the first"] += 1
        else:
            self._finite(raw, order, self._stamp(m, raw), m.values)

    def _velocity(self, raw: Rescued, order: int) -> None:
        m, fields = self._read(raw), self.mapping.actions.fields
        if raw.msgtype == ARRAY:
            values = np.array([m.data[int(f)] if f.isdigit() and int(f) < len(m.data) else np.nan for f in fields])
        else:
            twist = m if raw.msgtype == TWIST else m.twist
            known = {
                f"{part}.{axis}": getattr(getattr(twist, part), axis)
                for part in ("linear", "angular")
                for axis in "xyz"
            }
            values = np.array([known.get(f, np.nan) for f in fields])
        self._finite(raw, order, self._stamp(m, raw), values)

    def _joint_velocity(self, raw: Rescued, order: int) -> None:
        """By the rules of moveit_servo's jointDeltaFromJointJog."""
        m, joints = self._read(raw), self.mapping.joint_states.joints
        given = dict(zip(m.joint_names, m.velocities, strict=False))
        if len(m.joint_names) != len(m.velocities) or not set(given) & set(joints):
            self.made.dropped[f"{raw.topic}: velocities that are not one a name, or of other joints"] += 1
            return
        values = np.array([given.get(joint, 0.0) for joint in joints])
        unit = np.radians if self.mapping.joint_states.unit == "deg" else np.asarray
        self._finite(raw, order, self._stamp(m, raw), unit(values))

    def _trajectory(self, raw: Rescued, order: int) -> None:
        m = self._read(raw)
        wanted = self.mapping.actions.joints or self.mapping.joint_states.joints
        names = list(m.joint_names)
        points = [p for p in m.points if len(p.positions) == len(names)]
        if not points or any(j not in names for j in wanted):
            self.made.dropped[f"{raw.topic}: trajectories without positions of all joints"] += 1
            return
        times = np.array([p.time_from_start.sec + 1e-9 * p.time_from_start.nanosec for p in points])
        positions = np.array([p.positions for p in points])[:, [names.index(j) for j in wanted]]
        if self.mapping.joint_states.unit == "deg":
            positions = np.radians(positions)
        if not np.isfinite(positions).all() or (np.diff(times) <= 0).any():
            self.made.dropped[f"{raw.topic}: trajectories with NaN, Inf or times that do not increase"] += 1
            return
        self.made.actions.add(self._stamp(m, raw), order, (times, positions))

    def _marker(self, raw: Rescued, order: int) -> None:
        m = self._read(raw)
        self.made.markers.append(Marker(order, self._stamp(m, raw), int(m.id), m.split, m.task))

    def _object(self, raw: Rescued, order: int, name: str) -> None:
        m = self._read(raw)
        if self.base_frame and m.header.frame_id.strip("/") != self.base_frame:
            raise InputError(
                f"bag {self.source.path}: {raw.topic}: expected positions in the frame {self.base_frame}, "
                f"found {m.header.frame_id or 'none'}"
            )
        point = m.pose.position if raw.msgtype == KINDS[0] else m.point
        self.made.objects[name].add(self._stamp(m, raw), order, np.array([point.x, point.y, point.z]))

    def _description(self, raw: Rescued, order: int) -> None:
        self.made.urdf = self.made.urdf or self._read(raw).data

    def _camera(self, raw: Rescued, order: int) -> None:
        if raw.msgtype == INFO:
            self._info = self._info or self._read(raw)
        elif self._info is None or self._info.header.frame_id not in self._poses:
            self._poses |= {t.child_frame_id: t.transform for t in self._read(raw).transforms}
