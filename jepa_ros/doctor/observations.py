"""Observations of a running graph, as plain values: the input of all checks."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np

from jepa_ros.bags.typestore import COMPRESSED_IMAGE, IMAGE
from jepa_ros.robot.config import ControllerConfig, RobotConfig
from jepa_ros.world_model.config import ModelConfig

JOINT_STATE, STRING = "sensor_msgs/msg/JointState", "std_msgs/msg/String"
CONTROLLER_STATE = "control_msgs/msg/JointTrajectoryControllerState"
IMAGES = (IMAGE, COMPRESSED_IMAGE)
PASSIVE_NODES = ("recorder", "rosbag2", "_ros2cli", "foxglove", "rosbridge", "plotjuggler", "rqt", "rviz")
"""First parts of the names of nodes that subscribe to commands without following them."""
UNKNOWN_NODES = ("_NODE_NAME_UNKNOWN_", "_CREATED_BY_BARE_DDS_APP_")
"""Placeholder that ROS returns for the name of a node that is not discovered yet, or that is no ROS node."""


@dataclass(frozen=True)
class Endpoint:
    """One publisher or subscriber. node: its full name. type: package/msg/Name. transient: transient local."""

    node: str
    type: str
    reliable: bool = True
    transient: bool = False

    @property
    def name(self) -> str:
        """Return the node's name without its namespace."""
        return self.node.rpartition("/")[2]

    @property
    def is_known(self) -> bool:
        """Return whether the node's name has been discovered."""
        return self.name not in UNKNOWN_NODES

    @property
    def is_passive(self) -> bool:
        """Return whether the node is known to only record or show what it receives."""
        return self.name.startswith(PASSIVE_NODES)


def find_followers(subscribers: Iterable[Endpoint]) -> list[Endpoint]:
    """Return the subscribers of a command topic that may act on commands."""
    return [end for end in subscribers if not end.is_passive]


def is_ros2_control(controller: ControllerConfig, follower: Endpoint) -> bool:
    """Return whether a node that follows commands is a controller of ros2_control, which is a node of that name."""
    return follower.name == controller.name and not controller.type.startswith("moveit_servo")


@dataclass
class Topic:
    """Publishers and subscribers of a topic, without the doctor."""

    publishers: list[Endpoint] = field(default_factory=list)
    subscribers: list[Endpoint] = field(default_factory=list)


@dataclass
class MessageTimes:
    """Times of the messages of one topic, in s. received: system clock. clock: /clock at that time, NaN without one.
    stamps: of the headers, 0 if not set."""

    received: list[float] = field(default_factory=list)
    clock: list[float] = field(default_factory=list)
    stamps: list[float] = field(default_factory=list)
    frame_ids: list[str] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.received)

    def add(self, received: float, clock: float, stamp: float, frame_id: str) -> None:
        """Add a message."""
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
    """Intrinsics of a pinhole camera, in pixels."""

    width: int
    height: int
    fx: float
    fy: float
    cx: float
    cy: float


@dataclass
class CameraObservations:
    """One image topic. image: the newest that could be decoded, (H, W, 3) uint8 RGB. problem: why an image could not be
    decoded. encodings, sizes: each that was received, once. frozen_s: s for which the last pixels did not change."""

    topic: str
    times: MessageTimes = field(default_factory=MessageTimes)
    image: np.ndarray | None = None
    problem: str = ""
    encodings: list[str] = field(default_factory=list)
    sizes: list[tuple[int, int]] = field(default_factory=list)
    intrinsics: Intrinsics | None = None
    frozen_s: float = 0.0


@dataclass
class NodeParameters:
    """Parameters of a node; None if it was not asked, does not have it, or did not answer.

    interface_name: of forward controllers, what they command. command_interfaces, interpolation_method: of trajectory
    controllers. enforce_command_limits: of controller managers. unanswered: names that it was asked for in vain.
    """

    use_sim_time: bool | None = None
    frozen_after: float | None = None
    joints: list[str] | None = None
    interface_name: str | None = None
    command_interfaces: list[str] | None = None
    interpolation_method: str | None = None
    enforce_command_limits: bool | None = None
    unanswered: list[str] = field(default_factory=list)


@dataclass
class Observations:
    """Everything that was observed in ``seconds``. transforms: child → parent, position (3,) m, quaternion (4,) xyzw.
    controllers: state by name from the controller manager, None if it did not answer. controller_manager: full name of
    its node, "" if there is none. speed_scaling: newest factor by controller, 1 is full speed; only of controllers that
    publish it. clock_moves: /clock was received. missing_packages: Debian package by controller whose commands arm_gate
    could not send on this machine. missing_state_packages: ROS packages without which states cannot be read here."""

    seconds: float = 5.0
    topics: dict[str, Topic] = field(default_factory=dict)
    nodes: dict[str, NodeParameters] = field(default_factory=dict)
    joints: MessageTimes = field(default_factory=MessageTimes)
    joint_messages: list[JointMessage] = field(default_factory=list)
    description: str | None = None
    transforms: dict[str, tuple[str, tuple[float, ...], tuple[float, ...]]] = field(default_factory=dict)
    cameras: list[CameraObservations] = field(default_factory=list)
    controllers: dict[str, str] | None = None
    controller_manager: str = ""
    speed_scaling: dict[str, float] = field(default_factory=dict)
    clock_moves: bool = False
    missing_packages: dict[str, str] = field(default_factory=dict)
    missing_state_packages: tuple[str, ...] = ()

    def topic(self, name: str) -> Topic:
        """Return the publishers and subscribers of a topic; none if it does not exist."""
        return self.topics.get(name, Topic())

    def publishers(self, name: str, *types: str) -> list[Endpoint]:
        """Return the publishers of a topic with one of these types."""
        return [end for end in self.topic(name).publishers if end.type in types]


@dataclass(frozen=True)
class RobotSetup:
    """Robot, model and topic names that shall work together. namespace: of nodes and cameras, "" or with a leading
    slash; robot_namespace: of the robot's own topics, None if it is the same. camera_topics: as the user gave them, one
    for each view of the model; empty: the robot's."""

    robot: RobotConfig
    model: ModelConfig
    namespace: str = ""
    camera_topics: tuple[str, ...] = ()
    use_sim_time: bool = False
    robot_namespace: str | None = None

    def node_topic(self, name: str) -> str:
        """Return the full name of a topic of the nodes."""
        return name if name.startswith("/") else f"{self.namespace}/{name}"

    def robot_topic(self, name: str) -> str:
        """Return the full name of a topic of the robot."""
        space = self.namespace if self.robot_namespace is None else self.robot_namespace
        return name if name.startswith("/") else f"{space}/{name}"

    def state_topic(self, controller: str) -> str:
        """Return the full name of a trajectory controller's state."""
        return self.robot_topic(f"{controller}/controller_state")

    @property
    def image_topics(self) -> tuple[str, ...]:
        """Return the full names of the image topics."""
        return tuple(self.node_topic(name) for name in self.camera_topics or (self.robot.camera.topic,))

    @property
    def joint_states_topic(self) -> str:
        """Return its full name."""
        return self.robot_topic("joint_states")

    @property
    def description_topic(self) -> str:
        """Return the full name of robot_description."""
        return self.robot_topic("robot_description")

    @property
    def required_joints(self) -> tuple[str, ...]:
        """Return the joints that joint_states must have: the arm's, then further ones that the model needs."""
        state = self.model.proprioception
        return tuple(dict.fromkeys([*self.robot.joints, *(state.gripper if state.kind == "joints" else ())]))
