"""Names of topics that belong together, and the types of what they carry."""

from __future__ import annotations

import importlib.util
import os
from typing import NamedTuple

from jepa_ros.errors import InputError
from jepa_ros.nodes.common.parameters import Parameter
from jepa_ros.robot.config import ControllerConfig

ROBOT_NAMESPACE = Parameter(
    "robot_namespace",
    "",
    "Namespace of the robot's own topics (joint_states, robot_description, controllers); empty: the node's own.",
    read_only=True,
)


class ImageTopics(NamedTuple):
    """Full names: images, `<image>/compressed` of image_transport, and the camera_info beside the images."""

    raw: str
    compressed: str
    info: str


def image_topics(node) -> ImageTopics:
    """Of the camera that a node follows by its topic `image`, which may be remapped; so may be `image/compressed` and
    `camera_info`, and that comes first."""
    raw = node.resolve_topic_name("image")
    return ImageTopics(
        raw,
        _own(node, "image/compressed") or f"{raw}/compressed",
        _own(node, "camera_info") or f"{raw.rpartition('/')[0]}/camera_info",
    )


def robot_topic(node, name: str) -> str:
    """A topic of the robot's own, by its name relative to the robot's namespace, for a node with ROBOT_NAMESPACE."""
    space = node.p.robot_namespace
    if not space or name.startswith("/"):
        return name
    return "/".join(["", *filter(None, space.split("/")), name])


def _own(node, name: str) -> str:
    """What the topic is remapped to; empty where it is not."""
    resolved = node.resolve_topic_name(name)
    return "" if resolved == f"{node.get_namespace().rstrip('/')}/{name}" else resolved


def message_class(kind: str) -> type:
    """The Python class of package/msg/Name. Raises ImportError or AttributeError where it is not installed."""
    package, _, name = kind.split("/")
    return getattr(importlib.import_module(f"{package}.msg"), name)


def missing_package(controller: ControllerConfig) -> str:
    """The Debian package with the messages of a controller's commands where they are not installed; else empty.

    control_msgs comes with distributions, not with the wheels.
    """
    package = controller.message_type.partition("/")[0]
    if importlib.util.find_spec(package) is not None:
        return ""
    return f"ros-{os.environ.get('ROS_DISTRO', 'jazzy')}-{package.replace('_', '-')}"


def command_class(controller: ControllerConfig) -> type:
    """The Python class of a controller's commands. Raises InputError where it is not installed."""
    if debian := missing_package(controller):
        package = controller.message_type.partition("/")[0]
        raise InputError(
            f"command_interface '{controller.interface}': expected the ROS package {package}, found none: install "
            f"{debian} and source the distribution"
        )
    return message_class(controller.message_type)
