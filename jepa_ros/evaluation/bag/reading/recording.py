"""A bag that has been read for a model: its topics, numbers, latents, and counts of what was wrong."""

from __future__ import annotations

import math
import tempfile
from array import array
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch

from jepa_ros.bags.cameras import IMAGE_TYPES, image_topics, namespace, plain_topic
from jepa_ros.bags.reader import Bag, open_bag
from jepa_ros.bags.typestore import ACTION, CAMERA_INFO, EPISODE, JOINT_STATE, STRING, TF_MESSAGE
from jepa_ros.errors import InputError
from jepa_ros.planning.receding_horizon import PlanningSettings
from jepa_ros.robot.config import RobotConfig
from jepa_ros.robot.motion.kinematics import Kinematics
from jepa_ros.robot.urdf import RobotDescription
from jepa_ros.world_model.checkpoint import Checkpoint
from jepa_ros.world_model.config import ModelConfig

COPIED_TYPES = (CAMERA_INFO, TF_MESSAGE)

TopicKey = tuple[str, str]
"""(topic, type)."""
MAX_STAMP_LAG_NS = 500_000_000
"""How far a stamp may lie behind the newest one; further back, time has jumped. The live camera node's `max_age`."""
STRAGGLER_NS = 1_000_000_000
"""Recording time after a jump within which messages from before the jump may still arrive."""
MAX_MEMORY_BYTES = 64 * 2**20
"""Bytes of latents kept in memory; more go to a temporary file."""


@dataclass(frozen=True)
class EvaluationSpec:
    """What is evaluated and how. planning: settings of the planner. horizon: model steps that are predicted and
    planned. plan_states: states of each bag that are planned from."""

    checkpoint: Checkpoint
    robot: RobotConfig
    planning: PlanningSettings | None = None
    horizon: int = 1
    plan_states: int = 0
    seed: int = 0

    @property
    def config(self) -> ModelConfig:
        """The model's configuration."""
        return self.checkpoint.config


@dataclass(frozen=True)
class TopicOptions:
    """Topics given by the user; empty: those that are found. cameras: in the order of the model's cameras."""

    cameras: tuple[str, ...] = ()
    joint_states: str = ""
    executed: str = ""


@dataclass
class BagTopics:
    """Topics that were found. cameras: one for each camera of the model, in its order (either raw or compressed).
    copied: others that the result bag keeps. problems: a line for what is missing, with the topics that exist."""

    cameras: list[TopicKey] = field(default_factory=list)
    joint_states: TopicKey | None = None
    executed: TopicKey | None = None
    episodes: list[TopicKey] = field(default_factory=list)
    description: list[TopicKey] = field(default_factory=list)
    copied: list[TopicKey] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)

    @property
    def keys(self) -> list[TopicKey]:
        """All topics that are read."""
        single = [name for name in (self.joint_states, self.executed) if name is not None]
        return [*self.cameras, *single, *self.episodes, *self.description, *self.copied]


@dataclass
class Series:
    """Rows in the order of arrival, possibly millions: stamps in ns, epochs, and the values (V,) of all rows."""

    stamps: array = field(default_factory=lambda: array("q"))
    epochs: array = field(default_factory=lambda: array("i"))
    values: array = field(default_factory=lambda: array("d"))

    def add(self, stamp: int, epoch: int, values: np.ndarray) -> None:
        """Append a row."""
        self.stamps.append(stamp)
        self.epochs.append(epoch)
        self.values.extend(values.tolist())


@dataclass
class CameraMessages:
    """Messages of one camera. stamps: ns of every message. dropped: images by cause. without_stamp: number of
    headers with stamp 0. problem: error of the first undecodable image."""

    stamps: list[int] = field(default_factory=list)
    dropped: Counter[str] = field(default_factory=Counter)
    frame_id: str = ""
    without_stamp: int = 0
    problem: str = ""


class EpochClock:
    """Assigns stamps to epochs: a new one starts with each jump back in time. jumps: (stamp before, stamp after) in ns.
    stragglers: number of messages from before a jump that arrived after it; they belong to no epoch."""

    def __init__(self) -> None:
        self.epoch = 0
        self.jumps: list[tuple[int, int]] = []
        self.stragglers = 0
        self._newest: int | None = None
        self._jumped_at = 0

    def assign(self, stamp: int, recorded: int) -> int | None:
        """Return the epoch of the next message's stamp, None for a straggler. stamp, recorded: ns."""
        if self._newest is None:
            self._newest = stamp
        just_jumped = self.jumps and recorded - self._jumped_at < STRAGGLER_NS
        if just_jumped and stamp >= self.jumps[-1][0] - MAX_STAMP_LAG_NS > self._newest:
            self.stragglers += 1
            return None
        if stamp < self._newest - MAX_STAMP_LAG_NS:
            self.jumps.append((self._newest, stamp))
            self.epoch, self._jumped_at, self._newest = self.epoch + 1, recorded, stamp
        self._newest = max(self._newest, stamp)
        return self.epoch


class LatentStore:
    """Latents (n, *L) float32 by row."""

    def __init__(self, shape: tuple[int, ...], max_bytes: int = MAX_MEMORY_BYTES):
        self._shape, self._width, self._limit = shape, math.prod(shape), max_bytes
        self._parts: list[np.ndarray] = []
        self._file = None
        self._rows = 0

    def __len__(self) -> int:
        return self._rows

    def add(self, latents: np.ndarray) -> None:
        """Append (b, *L)."""
        self._parts.append(np.array(latents, np.float32).reshape(len(latents), self._width))
        self._rows += len(latents)
        if self._file is None and 4 * self._rows * self._width > self._limit:
            self._file = tempfile.TemporaryFile()
        if self._file is not None:
            for part in self._parts:
                part.tofile(self._file)
            self._parts = []

    def rows(self, index: np.ndarray) -> torch.Tensor:
        """Return the latents (*index, *L) of rows `index`, integers of any shape."""
        index = np.asarray(index)
        if self._file is not None and self._rows:
            self._file.flush()
            whole = np.memmap(self._file, np.float32, "r", shape=(self._rows, self._width))
        else:
            if len(self._parts) != 1:
                self._parts = [np.concatenate([np.zeros((0, self._width), np.float32), *self._parts])]
            whole = self._parts[0]
        return torch.from_numpy(np.array(whole[index.ravel()])).reshape(*index.shape, *self._shape)

    def close(self) -> None:
        """Free memory and disk."""
        if self._file is not None:
            self._file.close()
        self._parts = []


@dataclass
class Recording:
    """A bag as read for a model; n frames, those of the first camera that have a counterpart in every other camera.

    frame_stamps, frame_recorded: ns. training_distance (n,): see BatchEncoder. episodes: (stamp ns, epoch) of each
    start. unreadable: undecodable messages by topic. refused: joint states and actions that do not fit the model, by
    reason. turned_deg: angle by which actions were turned into the model's axes (see bag_reader). unmatched: frames
    of the first camera without a counterpart in another. begin, end: ns of recording time.
    source, topics: the open bag, while it is evaluated.
    """

    path: Path
    latents: LatentStore
    urdf: str | None = None
    source: Bag | None = None
    topics: BagTopics = field(default_factory=BagTopics)
    frame_stamps: list[int] = field(default_factory=list)
    frame_recorded: list[int] = field(default_factory=list)
    frame_epochs: list[int] = field(default_factory=list)
    frozen: list[bool] = field(default_factory=list)
    training_distance: list[float] = field(default_factory=list)
    states: Series = field(default_factory=Series)
    joint_recorded: array = field(default_factory=lambda: array("q"))
    actions: Series = field(default_factory=Series)
    episodes: list[tuple[int, int]] = field(default_factory=list)
    cameras: list[CameraMessages] = field(default_factory=list)
    clock: EpochClock = field(default_factory=EpochClock)
    unreadable: Counter[str] = field(default_factory=Counter)
    refused: Counter[str] = field(default_factory=Counter)
    turned_deg: float = 0.0
    unmatched: int = 0
    not_finite: int = 0
    begin: int | None = None
    end: int = 0

    @property
    def seconds(self) -> float:
        """Time from the first message to the last."""
        return 0.0 if self.begin is None else (self.end - self.begin) * 1e-9

    @property
    def first_stamp(self) -> int:
        """First stamp of a frame, state or action in ns; times in s count from it."""
        stamps = (self.frame_stamps, self.states.stamps, self.actions.stamps)
        return min((min(s) for s in stamps if s), default=0)

    @property
    def frame_times(self) -> np.ndarray:
        """(n,) s since the first stamp."""
        return (np.array(self.frame_stamps, np.int64) - self.first_stamp) * 1e-9

    def find_continuous(self, joints: Sequence[str]) -> np.ndarray:
        """Return a mask (len(joints),): True for continuous joints of the description; all False without one."""
        try:
            found = RobotDescription.from_urdf(self.urdf).find_continuous(joints) if self.urdf is not None else []
        except InputError:  # reported by planner_agreement
            found = []
        return np.array(found or [False] * len(joints), dtype=bool)

    def make_kinematics(self, robot: RobotConfig) -> Kinematics:
        """Return the kinematics of the recorded arm; each thread needs its own.

        Raises InputError where the recording has no robot_description, or that of another robot.
        """
        if self.urdf is None:
            raise InputError(
                f"bag {self.path}: no robot_description, so tool positions are unknown and nothing is planned; give a "
                "URDF with --description FILE"
            )
        try:
            return Kinematics(self.urdf, robot.joints, robot.tool_frame, robot.base_frame)
        except InputError as error:
            raise InputError(f"bag {self.path}: {error}") from None


def expect_topics(bags: Sequence[Path], options: TopicOptions) -> None:
    """Raise InputError if a topic given as an option is in none of the bags. Bags that cannot be opened are skipped."""
    there: set[str] = set()
    for path in bags:
        with suppress(InputError), open_bag(path) as source:
            there |= {plain_topic(t.topic) for t in source.topics}
    given = [("--camera", topic) for topic in options.cameras]
    given += [("--joint-states", options.joint_states), ("--executed", options.executed)]
    for option, topic in given if there else ():
        name = plain_topic(topic).strip("/")
        if name and not any(f"/{found.strip('/')}".endswith(f"/{name}") for found in there):
            raise InputError(f"{option} {topic}: no bag has this topic; give one of {', '.join(sorted(there))}")


def find_topics(source: Bag, config: ModelConfig, robot: RobotConfig, options: TopicOptions) -> BagTopics:
    """Return the topics that a model is evaluated with. What is missing is a line of `problems`, not an error."""
    found, missing = BagTopics(), []
    if not any(t.count for t in source.topics):
        found.problems.append(f"bag {source.path}: no messages ({source.list_topics()})")
        return found
    try:
        found.cameras = _camera_topics(source, config, robot, options.cameras)
    except InputError as error:
        missing.append(str(error).removeprefix(f"bag {source.path}: "))
    found.joint_states = _choose(source, JOINT_STATE, options.joint_states or "joint_states", missing)
    found.executed = _choose(source, ACTION, options.executed or "executed", missing)
    found.episodes = _of_type(source, EPISODE)
    found.description = [t[:2] for t in source.topics if t.msgtype == STRING and t.topic.endswith("robot_description")]
    found.copied = [name for kind in COPIED_TYPES for name in _of_type(source, kind)]
    if missing:
        found.problems.append(f"bag {source.path}: {'; '.join(missing)}; topics in the bag: {source.list_topics()}")
    return found


def _camera_topics(source: Bag, config: ModelConfig, robot: RobotConfig, given: Sequence[str]) -> list[TopicKey]:
    topics = list(given) or _guess_cameras(source, config, robot)
    if len(topics) != len(config.cameras):
        there = ", ".join(topics) or "none"
        raise InputError(
            f"bag {source.path}: the model has the cameras {', '.join(config.cameras)}, the bag has the image topics "
            f"{there}; give --camera TOPIC for each camera, in this order"
        )
    return [max(image_topics(source, topic), key=lambda t: t.count)[:2] for topic in topics]


def _guess_cameras(source: Bag, config: ModelConfig, robot: RobotConfig) -> list[str]:
    """Return image topics for the model's cameras: the only one, the robot's, or those with the cameras' namespaces."""
    there = sorted({plain_topic(t.topic) for t in source.topics if t.msgtype in IMAGE_TYPES and t.count})
    if not there:
        raise InputError(f"bag {source.path}: no images (Image or CompressedImage)")
    if len(config.cameras) > 1:
        # As bags.cameras.frame_topics names them: by namespace, or by the whole topic where namespaces are equal.
        named = {f"{topic}/frame": topic for topic in there}
        named |= {f"{namespace(topic)}/frame".lstrip("/"): topic for topic in reversed(there)}
        return [named[camera] for camera in config.cameras if camera in named]
    wanted = [t for t in there if t in (plain_topic(robot.camera.topic), plain_topic(config.cameras[0]))]
    return wanted[:1] or there


def _choose(source: Bag, kind: str, name: str, missing: list[str]) -> TopicKey | None:
    """Return the topic of this type with the given name, or the one that ends with it, or the only one."""
    there = [t for t in source.topics if t.msgtype == kind and t.count]
    name = name.strip("/")
    for found in (
        [t for t in there if t.topic.strip("/") == name],
        [t for t in there if t.topic.endswith(f"/{name}")],
        there,
    ):
        if len(found) == 1:
            return found[0][:2]
    others = [f"{t.topic} is {t.msgtype}" for t in source.topics if t.topic.strip("/") == name and t.msgtype != kind]
    why = ", ".join(others) or (f"{len(there)} topics have this type" if there else "no topic has this type")
    missing.append(f"no topic {name} of type {kind} ({why})")
    return None


def _of_type(source: Bag, kind: str) -> list[TopicKey]:
    return [t[:2] for t in source.topics if t.msgtype == kind]
