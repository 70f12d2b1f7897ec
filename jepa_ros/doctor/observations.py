"""What was seen of a running graph, as plain values: everything that the checks are given."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from jepa_ros.bags.typestore import COMPRESSED_IMAGE, IMAGE
from jepa_ros.robot.config import RobotConfig
from jepa_ros.world_model.config import ModelConfig

JOINT_STATE, STRING = "sensor_msgs/msg/JointState", "std_msgs/msg/String"
IMAGES = (IMAGE, COMPRESSED_IMAGE)


@dataclass(frozen=True)
class End:
    """One publisher or listener. node: its full name. kind: package/msg/Name. transient: durability transient local."""

    node: str
    kind: str
    reliable: bool = True
    transient: bool = False

    @property
    def name(self) -> str:
        """The node's name without its namespace."""
        return self.node.rpartition("/")[2]


@dataclass
class Topic:
    """Who is at a topic, but for the doctor."""

    publishers: list[End] = field(default_factory=list)
    listeners: list[End] = field(default_factory=list)


@dataclass
class Stream:
    """The messages of one topic. received: s on the system's clock. clock: s of /clock at that time, NaN without one.
    stamps: s of the headers, 0 where there was none."""

    received: list[float] = field(default_factory=list)
    clock: list[float] = field(default_factory=list)
    stamps: list[float] = field(default_factory=list)
    frame_ids: list[str] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.received)

    def add(self, received: float, clock: float, stamp: float, frame_id: str) -> None:
        """Take note of a message."""
        self.received.append(received)
        self.clock.append(clock)
        self.stamps.append(stamp)
        self.frame_ids.append(frame_id)


@dataclass(frozen=True)
class JointMessage:
    """One sensor_msgs/JointState. positions rad, velocities rad/s."""

    names: tuple[str, ...]
    positions: tuple[float, ...]
    velocities: tuple[float, ...]


@dataclass(frozen=True)
class Intrinsics:
    """Of a pinhole camera, in pixels."""

    width: int
    height: int
    fx: float
    fy: float
    cx: float
    cy: float


@dataclass
class Camera:
    """One image topic. picture: the newest that could be decoded, (H, W, 3) uint8 rgb. problem: what was wrong with the
    first that could not. encodings, sizes: what there was, once each. same_s: s for which the pixels stayed the same up
    to the end."""

    topic: str
    stream: Stream = field(default_factory=Stream)
    picture: np.ndarray | None = None
    problem: str = ""
    encodings: list[str] = field(default_factory=list)
    sizes: list[tuple[int, int]] = field(default_factory=list)
    intrinsics: Intrinsics | None = None
    same_s: float = 0.0


@dataclass
class Node:
    """What a node says of itself; None where it was not asked or did not answer."""

    use_sim_time: bool | None = None
    frozen_after: float | None = None
    joints: list[str] | None = None


@dataclass
class Seen:
    """All of it. seconds: how long was listened. transforms: child → parent, position (3,) m, quaternion (4,) xyzw.
    controllers: state by name as the controller manager says, None where it could not be asked. clock_moves: /clock was
    heard. lacking: Debian packages by controller whose commands arm_gate could not send where the doctor runs."""

    seconds: float = 5.0
    topics: dict[str, Topic] = field(default_factory=dict)
    nodes: dict[str, Node] = field(default_factory=dict)
    joints: Stream = field(default_factory=Stream)
    joint_messages: list[JointMessage] = field(default_factory=list)
    description: str | None = None
    transforms: dict[str, tuple[str, tuple[float, ...], tuple[float, ...]]] = field(default_factory=dict)
    cameras: list[Camera] = field(default_factory=list)
    controllers: dict[str, str] | None = None
    clock_moves: bool = False
    lacking: dict[str, str] = field(default_factory=dict)

    def topic(self, name: str) -> Topic:
        """Who is there; nobody where there is no such topic."""
        return self.topics.get(name, Topic())

    def publishers(self, name: str, *kinds: str) -> list[End]:
        """Those of a topic that publish one of these types."""
        return [end for end in self.topic(name).publishers if end.kind in kinds]


@dataclass(frozen=True)
class Job:
    """What is to fit together. namespace: of nodes and cameras, "" or with its leading slash. robot_namespace: the same
    of the robot's own topics, None where it is that of the nodes. camera_topics: as the user gave them, one a view of
    the model; empty: the robot's."""

    robot: RobotConfig
    model: ModelConfig
    namespace: str = ""
    camera_topics: tuple[str, ...] = ()
    use_sim_time: bool = False
    robot_namespace: str | None = None

    def full(self, name: str) -> str:
        """A topic's full name."""
        return name if name.startswith("/") else f"{self.namespace}/{name}"

    def of_robot(self, name: str) -> str:
        """Full name of a topic of the robot's own."""
        space = self.namespace if self.robot_namespace is None else self.robot_namespace
        return name if name.startswith("/") else f"{space}/{name}"

    @property
    def cameras(self) -> tuple[str, ...]:
        """Full names of the image topics."""
        return tuple(self.full(name) for name in self.camera_topics or (self.robot.camera.topic,))

    @property
    def joint_states(self) -> str:
        """Full name."""
        return self.of_robot("joint_states")

    @property
    def description(self) -> str:
        """Full name."""
        return self.of_robot("robot_description")

    @property
    def all_joints(self) -> tuple[str, ...]:
        """Joints that must be in joint_states: the arm's, then those that the model takes beside them."""
        state = self.model.proprioception
        return tuple(dict.fromkeys([*self.robot.joints, *(state.gripper if state.kind == "joints" else ())]))
