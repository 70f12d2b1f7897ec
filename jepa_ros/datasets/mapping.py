"""Mapping files: which topics of a robot's bags are a model's views, joint states and actions, and in which units."""

from __future__ import annotations

from collections.abc import Mapping as Dict
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from jepa_ros.bags.cameras import COMPRESSED, RAW, camera_names
from jepa_ros.bags.typestore import JOINT_JOG
from jepa_ros.datasets.positions import KINDS, parse_objects
from jepa_ros.errors import InputError, first_problem
from jepa_ros.robot.config import RobotConfig
from jepa_ros.text_files import read_yaml

JOINT_STATE, ACTION, EPISODE = "sensor_msgs/msg/JointState", "jepa_msgs/msg/Action", "jepa_msgs/msg/Episode"
TRAJECTORY = "trajectory_msgs/msg/JointTrajectory"
TWIST, TWIST_STAMPED = "geometry_msgs/msg/Twist", "geometry_msgs/msg/TwistStamped"
ARRAY = "std_msgs/msg/Float64MultiArray"
TWIST_FIELDS = ("linear.x", "linear.y", "linear.z", "angular.x", "angular.y", "angular.z")
PLANAR = "planar_velocity"


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class View(_Strict):
    """One camera: an Image or CompressedImage topic, whole or less `/compressed`. crop: left, top, width, height in
    pixels, before the centred square is taken."""

    topic: str
    crop: (
        tuple[
            Annotated[int, Field(ge=0)],
            Annotated[int, Field(ge=0)],
            Annotated[int, Field(gt=0)],
            Annotated[int, Field(gt=0)],
        ]
        | None
    ) = None


class JointStates(_Strict):
    """The proprioception: positions of `joints`, then their velocities, then positions of `gripper`.

    unit: of positions and velocities in the bag; they are kept in rad (or m, of joints that slide). velocity: measured,
    or from the differences of positions; auto takes what is measured where it is.
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


class Executed(_Strict):
    """What the gate let through, as jepa_msgs/Action."""

    source: Literal["executed"] = "executed"
    topic: str = "executed"


class Trajectory(_Strict):
    """A commanded JointTrajectory, as joint_trajectory_controller follows it. An action is the mean velocity of the
    command over a tick, by joint and over `scale` (rad/s), or as the robot's planar velocity."""

    source: Literal["trajectory"]
    topic: str
    joints: tuple[str, ...] = Field((), description="of the action, in order; none: those of the joint states")
    scale: float = Field(1.0, gt=0)
    space: Literal["joints", "planar_velocity"] = "joints"


class Velocity(_Strict):
    """A commanded velocity, held until the next one and for `hold` s at most. An action is its mean over a tick, over
    `scale`. fields: of a Twist or TwistStamped, in order; or the indices of a Float64MultiArray, 0, 1, ..."""

    source: Literal["velocity"]
    topic: str
    fields: tuple[str, ...] = Field(min_length=1)
    scale: float = Field(1.0, gt=0)
    hold: float = Field(0.5, gt=0, description="s; drives stop by themselves when commands cease")
    space: Literal["command", "planar_velocity"] = "command"

    @field_validator("fields")
    @classmethod
    def _known(cls, fields: tuple[str, ...]) -> tuple[str, ...]:
        bad = [f for f in fields if f not in TWIST_FIELDS and not (f.isdigit() and len(f) < 4)]
        if bad or len(set(fields)) < len(fields):
            raise ValueError(f"expected different ones of {', '.join(TWIST_FIELDS)}, or indices, found {list(fields)}")
        return fields


class JointVelocity(_Strict):
    """Commanded velocities of joints by name, as MoveIt Servo takes them in a JointJog; else as Velocity. An action is
    of the joint states' joints, in rad/s over `scale`; a joint that a command does not name stands still."""

    source: Literal["joint_velocity"]
    topic: str
    scale: float = Field(1.0, gt=0)
    hold: float = Field(0.5, gt=0, description="s; Servo stops by itself when commands cease")
    space: Literal["joints"] = "joints"


class States(_Strict):
    """The difference of joint states: mean velocity over a tick, by joint and over `scale` (rad/s), or as the robot's
    planar velocity."""

    source: Literal["states"]
    scale: float = Field(1.0, gt=0)
    space: Literal["joints", "planar_velocity"] = "joints"


class BagMapping(_Strict):
    """The whole of a mapping file.

    episodes: topic of jepa_msgs/Episode markers; null or one that is not there: a bag is one episode until a gap.
    clock: stamps of headers, or the time of recording, for robots whose clocks disagree. robot: whose tool positions
    are computed, from the bag's robot_description. objects: topics of PoseStamped or PointStamped by name.
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
        names = [view.topic.strip("/").removesuffix("/compressed") for view in self.views]
        if len(set(names)) < len(names):
            raise ValueError(f"views: expected different topics, found {names}")
        if getattr(self.actions, "space", "") == PLANAR and self.actions.source != "velocity" and self.robot is None:
            raise ValueError("robot: expected one for actions in the space planar_velocity, found none")
        if self.objects and self.robot is None:
            raise ValueError("robot: expected one whose base frame objects are in, found none")
        parse_objects([f"{name}={topic}" for name, topic in self.objects.items()])
        return self


def read_mapping(path: Path) -> BagMapping:
    """A mapping file. Raises InputError that names the file, the field, expected and found."""
    if not path.is_file():
        raise InputError(f"mapping {path}: expected a YAML file, found {'a directory' if path.is_dir() else 'nothing'}")
    try:
        return BagMapping.model_validate(read_yaml(path, "mapping"))
    except ValidationError as error:
        raise InputError(f"mapping {path}: {first_problem(error)}") from None


def own_mapping(robot: RobotConfig, cameras: Sequence[str], objects: Dict[str, str]) -> BagMapping:
    """That of bags that this stack recorded. No camera named: the one that there is, under any name."""
    return BagMapping(
        views=tuple(View(topic=topic) for topic in cameras or ("*",)),
        joint_states=JointStates(joints=tuple(robot.joints), gripper=tuple(robot.gripper)),
        actions=Executed(),
        robot=robot.name,
        objects=dict(objects),
    )


class Topics:
    """The topics of a bag by what a mapping wants of them."""

    def __init__(self, path: Path, there: Dict[str, tuple[str, int]]):
        self.path, self.there = path, there

    def find(self, topic: str, kinds: Sequence[str], what: str) -> str:
        """The topic that is meant by `topic`, of one of these types. Without a slash at its beginning it may be in a
        namespace, where it is the only such one. Raises InputError that lists the topics there are."""
        found = [name for name, (kind, _) in self.there.items() if kind in kinds]
        own = [name for name in found if name.strip("/") == topic.strip("/")]
        if not own and not topic.startswith("/"):
            own = [name for name in found if name.endswith(f"/{topic}")]
        if len(own) != 1:
            short = " or ".join(dict.fromkeys(kind.rpartition("/")[2] for kind in kinds))
            raise InputError(f"bag {self.path}: expected {what} on the topic {topic} ({short}), found {self.listed()}")
        return own[0]

    def image(self, topic: str) -> str:
        """The topic of a view, raw where the bag holds both; `*` is the only one that there is."""
        images = sorted(name for name, (kind, _) in self.there.items() if kind in (RAW, COMPRESSED))
        if topic == "*":
            plain = camera_names(images)
            if len(plain) != 1:
                what = "one image topic, or the names of cameras" if images else "pictures (Image or CompressedImage)"
                raise InputError(f"bag {self.path}: expected {what}, found {self.listed()}")
            topic = plain[0]
        for wanted in (topic.strip("/"), f"{topic.strip('/')}/compressed"):
            for name in images:
                if name.strip("/") == wanted:
                    return name
        raise InputError(f"bag {self.path}: expected the image topic {topic}, found {self.listed()}")

    def command(self, actions) -> str | None:
        """The topic of the actions, None where they are made of states."""
        if actions.source == "states":
            return None
        kinds = {"executed": [ACTION], "trajectory": [TRAJECTORY], "velocity": [TWIST, TWIST_STAMPED, ARRAY]}
        kinds["joint_velocity"] = [JOINT_JOG]
        return self.find(actions.topic, kinds[actions.source], f"actions ({actions.source})")

    def position(self, name: str, topic: str) -> str:
        """The topic of an object's positions."""
        return self.find(topic, KINDS, f"positions of {name}")

    def listed(self) -> str:
        """The topics there are, as the end of a sentence."""
        return ", ".join(f"{name} ({kind})" for name, (kind, _) in self.there.items()) or "no topic at all"
