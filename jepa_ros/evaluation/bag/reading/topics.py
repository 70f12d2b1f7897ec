"""Which topics of a bag are what: the model's views, joint states, executed actions, and what else is kept."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from jepa_ros.bags.cameras import IMAGE_TYPES, image_topics, namespace, plain_topic
from jepa_ros.bags.reader import Bag, Topic
from jepa_ros.bags.typestore import ACTION, CAMERA_INFO, EPISODE, JOINT_STATE, STRING, TF_MESSAGE
from jepa_ros.errors import InputError
from jepa_ros.robot.config import RobotConfig
from jepa_ros.world_model.config import ModelConfig

KEPT = (CAMERA_INFO, TF_MESSAGE)

Name = tuple[str, str]
"""(topic, type)."""


@dataclass(frozen=True)
class Options:
    """Topics that the user names; empty: those that are found. cameras: in the order of the model's views."""

    cameras: tuple[str, ...] = ()
    joint_states: str = ""
    executed: str = ""


@dataclass
class Inputs:
    """views: the names of each view's topics, in the model's order (raw and compressed of one camera are not mixed).
    problems: what is missing, a line each, with what there is."""

    views: list[Name] = field(default_factory=list)
    joint_states: Name | None = None
    executed: Name | None = None
    episodes: list[Name] = field(default_factory=list)
    description: list[Name] = field(default_factory=list)
    kept: list[Name] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)

    @property
    def wanted(self) -> list[Name]:
        """All of them."""
        single = [name for name in (self.joint_states, self.executed) if name is not None]
        return [*self.views, *single, *self.episodes, *self.description, *self.kept]


def find(source: Bag, config: ModelConfig, robot: RobotConfig, options: Options) -> Inputs:
    """The topics that a model is judged by. What is missing is a line of `problems`, not an error."""
    found, missing = Inputs(), []
    if not any(t.count for t in source.topics):
        found.problems.append(f"bag {source.path}: expected messages, found none ({source.list_topics()})")
        return found
    try:
        found.views = _views(source, config, robot, options.cameras)
    except InputError as error:
        missing.append(str(error).removeprefix(f"bag {source.path}: "))
    found.joint_states = _one(source, JOINT_STATE, options.joint_states or "joint_states", missing)
    found.executed = _one(source, ACTION, options.executed or "executed", missing)
    found.episodes = _of_type(source, EPISODE)
    found.description = [t[:2] for t in source.topics if t.msgtype == STRING and t.topic.endswith("robot_description")]
    found.kept = [name for kind in KEPT for name in _of_type(source, kind)]
    if missing:
        found.problems.append(f"bag {source.path}: {'; '.join(missing)}; the topics there are: {source.list_topics()}")
    return found


def _views(source: Bag, config: ModelConfig, robot: RobotConfig, given: Sequence[str]) -> list[Name]:
    topics = list(given) or _guessed(source, config, robot)
    if len(topics) != len(config.cameras):
        there = ", ".join(topics) or "none"
        raise InputError(
            f"bag {source.path}: expected an image topic for each view of the model ({', '.join(config.cameras)}), "
            f"found {there}: give --camera for each"
        )
    return [_richest(image_topics(source, topic)) for topic in topics]


def _richest(topics: list[Topic]) -> Name:
    return max(topics, key=lambda t: t.count)[:2]


def _guessed(source: Bag, config: ModelConfig, robot: RobotConfig) -> list[str]:
    """Image topics for the model's views: the only one, the robot's, or those whose namespaces the views have."""
    there = sorted({plain_topic(t.topic) for t in source.topics if t.msgtype in IMAGE_TYPES and t.count})
    if not there:
        raise InputError(f"bag {source.path}: expected pictures (Image or CompressedImage), found none")
    if len(config.cameras) > 1:
        # As bags.cameras.frame_topics names them: by namespace, or by the whole topic where namespaces are the same.
        named = {f"{topic}/frame": topic for topic in there}
        named |= {f"{namespace(topic)}/frame".lstrip("/"): topic for topic in reversed(there)}
        return [named[view] for view in config.cameras if view in named]
    wanted = [t for t in there if t in (plain_topic(robot.camera.topic), plain_topic(config.cameras[0]))]
    return wanted[:1] or there


def _one(source: Bag, kind: str, name: str, missing: list[str]) -> Name | None:
    """The topic of this type that has the name, or that ends with it, or that is the only one."""
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
    why = ", ".join(others) or (f"{len(there)} of that type" if there else "none")
    missing.append(f"expected {name} ({kind}), found {why}")
    return None


def _of_type(source: Bag, kind: str) -> list[Name]:
    return [t[:2] for t in source.topics if t.msgtype == kind]
