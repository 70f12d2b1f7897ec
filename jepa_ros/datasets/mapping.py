"""Mapping files: which topics of a robot's bags hold the views, joint states and actions of a model, in which units."""

from __future__ import annotations

from collections.abc import Mapping as Dict
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    NonNegativeInt,
    PositiveInt,
    ValidationError,
    field_validator,
    model_validator,
)

from jepa_ros.bags.cameras import plain_topic
from jepa_ros.bags.reader import Bag
from jepa_ros.bags.typestore import ACTION, FLOAT64_ARRAY, JOINT_JOG, TRAJECTORY, TWIST, TWIST_STAMPED
from jepa_ros.errors import InputError, first_problem
from jepa_ros.robot.config import VELOCITY_SPACES
from jepa_ros.text_files import read_yaml

TWIST_FIELDS = ("linear.x", "linear.y", "linear.z", "angular.x", "angular.y", "angular.z")
ACTION_TYPES = {
    "executed": [ACTION],
    "trajectory": [TRAJECTORY],
    "velocity": [TWIST, TWIST_STAMPED, FLOAT64_ARRAY],
    "joint_velocity": [JOINT_JOG],
}
"""Message types by source of the actions; actions from joint states have no topic of their own."""
TOOL = "tool"  # name of the tool's own position, which no object may have


class StrictModel(BaseModel):
    """A model without unknown fields, NaN or Inf."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class View(StrictModel):
    """One camera: an Image or CompressedImage topic, with or without `/compressed`. crop: left, top, width, height in
    pixels, before the centred square is cut out."""

    topic: str
    crop: tuple[NonNegativeInt, NonNegativeInt, PositiveInt, PositiveInt] | None = None


class JointStates(StrictModel):
    """The proprioception: positions of `joints`, then their velocities, then positions of `gripper`.

    unit: of positions and velocities in the bag; datasets hold rad (m for prismatic joints). velocity: measured, or
    differences of positions; auto uses measured velocities where there are any.
    """

    topic: str = "joint_states"
    joints: tuple[str, ...] = Field(min_length=1)
    gripper: tuple[str, ...] = ()
    unit: Literal["rad", "deg"] = "rad"
    velocity: Literal["auto", "measured", "differences"] = "auto"

    @model_validator(mode="after")
    def _different(self) -> JointStates:
        names = (*self.joints, *self.gripper)
        if len(set(names)) < len(names):
            raise ValueError(f"joints: expected different names, found {list(names)}")
        return self


class Executed(StrictModel):
    """Executed actions, published by the gate as jepa_msgs/Action."""

    source: Literal["executed"] = "executed"
    topic: str = "executed"


class Trajectory(StrictModel):
    """A commanded JointTrajectory, as joint_trajectory_controller follows it. An action is the command's mean velocity
    over a tick: of each joint divided by `scale` (rad/s), or in the robot's velocity space."""

    source: Literal["trajectory"]
    topic: str
    joints: tuple[str, ...] = Field((), description="joints of the action, in order; default: those of joint_states")
    scale: float = Field(1.0, gt=0)
    space: Literal["joints", "planar_velocity", "tool_velocity"] = "joints"


class Velocity(StrictModel):
    """A commanded velocity, held until the next one, at most for `hold` s. An action is its mean over a tick, divided
    by `scale`. fields: of a Twist or TwistStamped, in order; or indices of a Float64MultiArray, 0, 1, ..."""

    source: Literal["velocity"]
    topic: str
    fields: tuple[str, ...] = Field(min_length=1)
    scale: float = Field(1.0, gt=0)
    hold: float = Field(0.5, gt=0, description="s; drives stop without new commands")
    space: Literal["command", "planar_velocity", "tool_velocity"] = "command"

    @field_validator("fields")
    @classmethod
    def _known(cls, fields: tuple[str, ...]) -> tuple[str, ...]:
        bad = [f for f in fields if f not in TWIST_FIELDS and not (f.isdigit() and len(f) < 4)]
        if bad or len(set(fields)) < len(fields):
            raise ValueError(
                f"expected different fields of {', '.join(TWIST_FIELDS)}, or indices, found {list(fields)}"
            )
        return fields


class JointVelocity(StrictModel):
    """Commanded velocities of joints by name, as MoveIt Servo receives them in a JointJog; otherwise as Velocity. An
    action has the joints of joint_states, in rad/s divided by `scale`; joints that a command does not name are at rest.
    """

    source: Literal["joint_velocity"]
    topic: str
    scale: float = Field(1.0, gt=0)
    hold: float = Field(0.5, gt=0, description="s; Servo stops without new commands")
    space: Literal["joints"] = "joints"


class States(StrictModel):
    """Differences of joint states: mean velocity over a tick, of each joint divided by `scale` (rad/s), or in the
    robot's velocity space."""

    source: Literal["states"]
    scale: float = Field(1.0, gt=0)
    space: Literal["joints", "planar_velocity", "tool_velocity"] = "joints"


class BagMapping(StrictModel):
    """A mapping file.

    episodes: topic of jepa_msgs/Episode markers; without it (null, or not in the bag) the bag is one episode until a
    gap. clock: header stamps, or the time of recording for robots whose clocks disagree. robot: its tool positions are
    computed with the bag's robot_description. objects: topics of PoseStamped or PointStamped by name.
    """

    views: tuple[View, ...] = Field(min_length=1, max_length=16)
    joint_states: JointStates
    actions: Executed | Trajectory | Velocity | JointVelocity | States = Field(discriminator="source")
    episodes: str | None = "episode"
    clock: Literal["header", "recorded"] = "header"
    robot: str | None = None
    objects: dict[str, str] = {}

    @model_validator(mode="after")
    def _together(self) -> BagMapping:
        names = [plain_topic(view.topic) for view in self.views]
        if len(set(names)) < len(names):
            raise ValueError(f"views: expected different topics, found {names}")
        if (space := self.derived_space) and self.robot is None:
            raise ValueError(f"robot: expected a robot for actions in the space {space}, found none")
        if self.objects and self.robot is None:
            raise ValueError("robot: expected the robot in whose base frame the objects are, found none")
        parse_objects([f"{name}={topic}" for name, topic in self.objects.items()])
        return self

    @property
    def derived_space(self) -> str:
        """The velocity space into which actions are computed from joint positions; empty where they are not."""
        space = getattr(self.actions, "space", "")
        return space if space in VELOCITY_SPACES and self.actions.source != "velocity" else ""


def read_mapping(path: Path) -> BagMapping:
    """Read a mapping file. Raises InputError that names the file, the field, expected and found."""
    if not path.is_file():
        raise InputError(f"mapping {path}: expected a YAML file, found {'a directory' if path.is_dir() else 'nothing'}")
    return _validate(read_yaml(path, "mapping"), f"mapping {path}")


def default_mapping(
    fields: tuple[Sequence[str], Sequence[str]],
    cameras: Sequence[str],
    objects: Dict[str, str],
    robot: str | None,
    velocity: str = "auto",
) -> BagMapping:
    """Return the mapping of bags that this stack recorded. Raises InputError.

    fields: joints and gripper joints. cameras: image topics; empty: the bag's only camera, under any name. objects,
    robot: as in BagMapping.
    """
    joints, gripper = fields
    values = {
        "views": [{"topic": topic} for topic in cameras or ("*",)],
        "joint_states": {"joints": list(joints), "gripper": list(gripper), "velocity": velocity},
        "actions": {"source": "executed"},
        "robot": robot,
        "objects": dict(objects),
    }
    return _validate(values, "topics")


def _validate(values: object, where: str) -> BagMapping:
    try:
        return BagMapping.model_validate(values)
    except ValidationError as error:
        raise InputError(f"{where}: {first_problem(error)}") from None


def parse_objects(values: Sequence[str]) -> dict[str, str]:
    """Return topics by name from options NAME=TOPIC. Raises InputError that names the malformed one."""
    objects: dict[str, str] = {}
    for value in values:
        name, _, topic = value.partition("=")
        if not (name.isidentifier() and name.isascii() and topic.strip("/")):
            raise InputError(f"object '{value}': expected NAME=TOPIC, with a name of letters, digits and underscores")
        if name == TOOL or name in objects:
            why = "the name of the arm's own tool" if name == TOOL else "the name twice"
            raise InputError(f"object '{value}': expected a name of its own, found {why}")
        objects[name] = topic
    return objects


def find_topic(bag: Bag, topic: str, types: Sequence[str], what: str, by_type: bool = False) -> str:
    """Return the bag's topic for `topic`, of one of the types. Raises InputError that lists the bag's topics.

    A name without a leading slash may be in a namespace where it is unique; by_type: it may also have another name
    where it is the only one of its type.
    """
    found = [t.topic for t in bag.topics if t.msgtype in types]
    own = [name for name in found if name.strip("/") == topic.strip("/")]
    if not own and not topic.startswith("/"):
        own = [name for name in found if name.endswith(f"/{topic}")] or (found if by_type else [])
    if len(own) != 1:
        names = " or ".join(dict.fromkeys(name.rpartition("/")[2] for name in types))
        raise InputError(f"bag {bag.path}: expected {what} on the topic {topic} ({names}), found {bag.list_topics()}")
    return own[0]
