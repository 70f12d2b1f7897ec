"""Reading a bag for a mapping: the stamps of its images and all other signals in one pass, then the chosen images."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from operator import attrgetter
from typing import Any

import cv2
import numpy as np

from jepa_ros.bags.cameras import camera_reference, decode_image, image_topics, namespace
from jepa_ros.bags.reader import Bag
from jepa_ros.bags.recovery import RawMessage
from jepa_ros.bags.typestore import (
    CAMERA_INFO,
    EPISODE,
    FLOAT64_ARRAY,
    JOINT_STATE,
    POINT_STAMPED,
    POSE_STAMPED,
    STRING,
    TF_MESSAGE,
    header_stamp,
    serialised_stamp,
)
from jepa_ros.datasets.mapping import ACTION_TYPES, TWIST_FIELDS, BagMapping, View, find_topic
from jepa_ros.errors import InputError
from jepa_ros.images import ImageError, preprocess
from jepa_ros.world_model.config import CameraReference

PROGRESS_EVERY = 256  # messages between two calls of progress
PENDING_PER_WORKER = 4  # images in work or waiting; the limit bounds memory


@dataclass
class Series:
    """Messages of one topic in the order of recording. stamps: ns. order: index of each message among all messages read
    from the bag. values: contents."""

    stamps: list[int] = field(default_factory=list)
    order: list[int] = field(default_factory=list)
    values: list = field(default_factory=list)

    def add(self, stamp: int, order: int, value) -> None:
        """Append a message."""
        self.stamps.append(stamp)
        self.order.append(order)
        self.values.append(value)


@dataclass(frozen=True)
class Marker:
    """Start of an episode. order: as in Series. stamp: ns. number: of the episode."""

    order: int
    stamp: int
    number: int
    split: str
    task: str


@dataclass
class Signals:
    """The content of a bag for a mapping.

    topics: type and message count by name. The values of `views` are indexes of images in their topic; of `states`
    (2J + G,), with NaN for velocities that were not measured; of `actions` (A,), or (times (k,), positions (k, J)) of a
    trajectory. dropped: number of unusable messages by reason.
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


class _Unusable(Exception):
    """A message cannot be used; the text is the reason, in the plural."""


class SignalReader:
    """Reads the signals of one bag. base_frame: required frame of object positions; empty: any."""

    def __init__(self, bag: Bag, mapping: BagMapping, base_frame: str = ""):
        """Raises InputError where a topic of the mapping is missing."""
        there = {t.topic: (t.msgtype, t.count) for t in bag.topics}
        self.bag, self.mapping, self.base_frame = bag, mapping, base_frame
        images = [image_topics(bag, view.topic)[0].topic for view in mapping.views]
        objects = {name: Series() for name in mapping.objects}
        self.signals = Signals(there, images, [Series() for _ in images], objects=objects)
        self._readers: dict[str, Callable[[RawMessage, int], None]] = {}
        self._image_counts = [0] * len(images)
        for index, topic in enumerate(images):
            self._readers[topic] = partial(self._read_image_stamp, view=index)
        states = find_topic(bag, mapping.joint_states.topic, [JOINT_STATE], "joint states", by_type=True)
        self._readers[states] = self._read_state
        if (source := mapping.actions.source) in ACTION_TYPES:
            types, what = ACTION_TYPES[source], f"actions ({source})"
            command = find_topic(bag, mapping.actions.topic, types, what, by_type=source == "executed")
            self._readers[command] = getattr(self, f"_read_{source}")
        for name, topic in mapping.objects.items():
            found = find_topic(bag, topic, [POSE_STAMPED, POINT_STAMPED], f"positions of {name}")
            self._readers[found] = partial(self._read_object, name=name)
        for topic, (kind, _) in there.items():
            if kind == EPISODE and mapping.episodes and topic.strip("/").endswith(mapping.episodes.strip("/")):
                self._readers[topic] = self._read_marker
            elif kind == STRING and topic.endswith("robot_description"):
                self._readers[topic] = self._read_description
            elif (kind == TF_MESSAGE and topic.endswith("tf_static")) or (
                kind == CAMERA_INFO and namespace(topic) == namespace(images[0])
            ):
                self._readers[topic] = self._read_camera
        self.count = sum(there[topic][1] for topic in self._readers)
        self._columns: tuple[list[str], list[int]] | None = None
        self._info, self._poses = None, {}

    def read(self, progress: Callable[[int], None] = lambda messages: None) -> Signals:
        """Read all signals. progress: called with the number of messages read, of `count`.

        Raises InputError where a needed topic has no usable message.
        """
        s, path = self.signals, self.bag.path
        for order, raw in enumerate(self.bag.messages((topic, s.topics[topic][0]) for topic in self._readers)):
            try:
                self._readers[raw.topic](raw, order)
            except InputError:
                raise
            except _Unusable as reason:
                s.dropped[f"{raw.topic}: {reason}"] += 1
            except Exception:  # garbage may raise anything in the deserialiser
                s.dropped[f"{raw.topic}: malformed messages"] += 1
            if order % PROGRESS_EVERY == 0:
                progress(order)
        s.camera = camera_reference(path, self._info, self._poses)
        needed = [*zip(s.views, s.image_topics, strict=True), (s.states, "joint states")]
        needed += [] if self.mapping.actions.source == "states" else [(s.actions, "actions")]
        for series, what in needed:
            if not series.stamps:
                dropped = [f"{count} of {reason}" for reason, count in sorted(s.dropped.items())]
                found = "; ".join([*dropped, f"topics: {self.bag.list_topics()}"])
                raise InputError(f"bag {path}: expected usable {what}, found none ({found})")
        return s

    def _to_radians(self, values: np.ndarray) -> np.ndarray:
        return np.radians(values) if self.mapping.joint_states.unit == "deg" else values

    def _stamp(self, message: Any, raw: RawMessage) -> int:
        return (header_stamp(message) if self.mapping.clock == "header" else 0) or raw.recorded

    def _read_image_stamp(self, raw: RawMessage, order: int, view: int) -> None:
        number = self._image_counts[view]
        self._image_counts[view] += 1
        stamp = serialised_stamp(raw.data)  # without deserialising the image
        stamp = stamp if self.mapping.clock == "header" else 0
        self.signals.views[view].add(stamp or raw.recorded, order, number)

    def _read_state(self, raw: RawMessage, order: int) -> None:
        m, wanted = raw.deserialise(), self.mapping.joint_states
        names, joints = list(m.name), (*wanted.joints, *wanted.gripper)
        if self._columns is None or self._columns[0] != names:
            if missing := [j for j in joints if j not in names]:
                raise _Unusable(f"messages without the joints {missing}, with {names}")
            self._columns = (names, [names.index(j) for j in joints])
        columns, arm = self._columns[1], len(wanted.joints)
        if len(m.position) != len(names):
            raise _Unusable("messages without a position for each joint")
        position, velocity = m.position[columns], np.full(arm, np.nan)  # NaN: not measured
        if len(m.velocity) == len(names) and wanted.velocity != "differences":
            velocity = m.velocity[columns[:arm]]
        if not np.isfinite(position).all() or np.isinf(velocity).any():
            raise _Unusable("messages with NaN or Inf")
        if wanted.velocity == "measured" and np.isnan(velocity).any():
            raise _Unusable("messages without a velocity for each joint")
        values = np.concatenate([position[:arm], velocity, position[arm:]])
        self.signals.states.add(self._stamp(m, raw), order, self._to_radians(values))

    def _add_action(self, raw: RawMessage, order: int, message: Any, values: np.ndarray) -> None:
        """Add an action. Raises _Unusable if a value is not finite, or their number differs from the first action's."""
        actions = self.signals.actions
        if not np.isfinite(values).all():
            raise _Unusable("messages with NaN or Inf")
        if actions.values and len(actions.values[0]) != len(values):
            raise _Unusable("messages with another number of values")
        actions.add(self._stamp(message, raw), order, values)

    def _read_executed(self, raw: RawMessage, order: int) -> None:
        m, s = raw.deserialise(), self.signals
        if not s.action_space:
            s.action_space, s.action_period = m.action_space, round(float(m.period), 6)  # a float32
        if m.action_space != s.action_space or abs(m.period - s.action_period) > 1e-4 or m.period <= 0:
            raise _Unusable("actions of another space or period than the first")
        self._add_action(raw, order, m, m.values)

    def _read_velocity(self, raw: RawMessage, order: int) -> None:
        m, fields = raw.deserialise(), self.mapping.actions.fields
        if raw.msgtype == FLOAT64_ARRAY:
            values = np.array([m.data[int(f)] if f.isdigit() and int(f) < len(m.data) else np.nan for f in fields])
        else:
            known = twist_values(m)
            values = np.array([known.get(f, np.nan) for f in fields])
        self._add_action(raw, order, m, values)

    def _read_joint_velocity(self, raw: RawMessage, order: int) -> None:
        """Follows moveit_servo's jointDeltaFromJointJog."""
        m, joints = raw.deserialise(), self.mapping.joint_states.joints
        given = dict(zip(m.joint_names, m.velocities, strict=False))
        if len(m.joint_names) != len(m.velocities) or not set(given) & set(joints):
            raise _Unusable("messages without a velocity for each name, or of other joints")
        values = np.array([given.get(joint, 0.0) for joint in joints])
        self._add_action(raw, order, m, self._to_radians(values))

    def _read_trajectory(self, raw: RawMessage, order: int) -> None:
        m = raw.deserialise()
        wanted = self.mapping.actions.joints or self.mapping.joint_states.joints
        names = list(m.joint_names)
        points = [p for p in m.points if len(p.positions) == len(names)]
        if not points or any(j not in names for j in wanted):
            raise _Unusable("trajectories without positions of all joints")
        times = np.array([p.time_from_start.sec + 1e-9 * p.time_from_start.nanosec for p in points])
        positions = self._to_radians(np.array([p.positions for p in points])[:, [names.index(j) for j in wanted]])
        if not np.isfinite(positions).all() or (np.diff(times) <= 0).any():
            raise _Unusable("trajectories with NaN, Inf or times that do not increase")
        self.signals.actions.add(self._stamp(m, raw), order, (times, positions))

    def _read_marker(self, raw: RawMessage, order: int) -> None:
        m = raw.deserialise()
        self.signals.markers.append(Marker(order, self._stamp(m, raw), int(m.id), m.split, m.task))

    def _read_object(self, raw: RawMessage, order: int, name: str) -> None:
        m = raw.deserialise()
        if self.base_frame and m.header.frame_id.strip("/") != self.base_frame:
            where, found = f"bag {self.bag.path}: {raw.topic}", m.header.frame_id or "none"
            raise InputError(f"{where}: expected positions in the frame {self.base_frame}, found {found}")
        point = m.pose.position if raw.msgtype == POSE_STAMPED else m.point
        self.signals.objects[name].add(self._stamp(m, raw), order, np.array([point.x, point.y, point.z]))

    def _read_description(self, raw: RawMessage, order: int) -> None:
        self.signals.urdf = self.signals.urdf or raw.deserialise().data

    def _read_camera(self, raw: RawMessage, order: int) -> None:
        if raw.msgtype == CAMERA_INFO:
            self._info = self._info or raw.deserialise()
        elif self._info is None or self._info.header.frame_id not in self._poses:
            self._poses |= {t.child_frame_id: t.transform for t in raw.deserialise().transforms}


def twist_values(message: Any) -> dict[str, float]:
    """Return the values of a Twist or TwistStamped by TWIST_FIELDS."""
    return {name: float(attrgetter(name)(getattr(message, "twist", message))) for name in TWIST_FIELDS}


def decode_images(
    bag: Bag, topics: Sequence[tuple[str, str]], views: Sequence[View], numbers: np.ndarray, size: int, workers: int
) -> Iterator[tuple[list[int], int, str, np.ndarray | ImageError]]:
    """Decode images with `workers` threads; yield (rows, view, topic, image) in the order of recording.

    topics, views: (name, type) and settings of each view. numbers: (N, views), indexes of images in their topic; an
    index may be in several rows. The yielded image is (size, size, 3) uint8 rgb, or the error.
    """
    wanted: dict[str, list[tuple[int, dict[int, list[int]]]]] = {}
    for view, (topic, _) in enumerate(topics):
        rows: dict[int, list[int]] = {}
        for row, number in enumerate(numbers[:, view]):
            rows.setdefault(int(number), []).append(row)
        wanted.setdefault(topic, []).append((view, rows))
    counts = dict.fromkeys(wanted, 0)
    pending: deque[tuple[list[int], int, str, Future]] = deque()
    cv2.setNumThreads(1)  # the workers already run in parallel
    pool = ThreadPoolExecutor(workers, "decode")
    try:
        for raw in bag.messages(topics):
            number = counts[raw.topic]
            counts[raw.topic] += 1
            for view, rows in wanted[raw.topic]:
                if number in rows:
                    pending.append((rows[number], view, raw.topic, pool.submit(_decode, raw, views[view], size)))
            while len(pending) > PENDING_PER_WORKER * workers:
                *place, job = pending.popleft()
                yield *place, job.result()
        while pending:
            *place, job = pending.popleft()
            yield *place, job.result()
    finally:
        pool.shutdown(cancel_futures=True)


def _decode(raw: RawMessage, view: View, size: int) -> np.ndarray | ImageError:
    """Return the image as the camera node makes it, after the view's crop."""
    try:
        rgb = decode_image(raw.deserialise())
        if view.crop is not None:
            left, top, width, height = view.crop
            if left + width > rgb.shape[1] or top + height > rgb.shape[0]:
                found = f"{rgb.shape[1]} x {rgb.shape[0]} pixels"
                return ImageError("size", f"crop {view.crop}: expected it inside the image, found {found}")
            rgb = rgb[top : top + height, left : left + width]
        return preprocess(rgb, size)
    except ImageError as error:
        return error
    except Exception as error:  # garbage may raise anything in the deserialiser
        return ImageError("unreadable", f"expected a whole message, found {error!r}")
