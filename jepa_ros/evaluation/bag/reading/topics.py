"""Topics of a bag that are evaluated or copied: camera images, joint states, executed actions, and others."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from jepa_ros.bags.cameras import IMAGE_TYPES, image_topics, namespace, plain_topic
from jepa_ros.bags.reader import Bag, open_bag
from jepa_ros.bags.typestore import ACTION, CAMERA_INFO, EPISODE, JOINT_STATE, STRING, TF_MESSAGE
from jepa_ros.errors import InputError
from jepa_ros.robot.config import RobotConfig
from jepa_ros.world_model.config import ModelConfig

COPIED_TYPES = (CAMERA_INFO, TF_MESSAGE)

TopicKey = tuple[str, str]
"""(topic, type)."""


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
