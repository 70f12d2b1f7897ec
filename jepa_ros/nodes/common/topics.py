"""Topic names, message types of topics, and waiting for a topic's first message."""

from __future__ import annotations

import importlib.util
import os
from typing import TYPE_CHECKING, NamedTuple

from jepa_ros.errors import InputError
from jepa_ros.nodes.common.qos import LATCHED
from jepa_ros.robot.config import ControllerConfig

if TYPE_CHECKING:
    from jepa_ros.nodes.common.lifecycle import JepaNode


class ImageTopics(NamedTuple):
    """Full names: the image topic, image_transport's `<image>/compressed`, and the camera_info beside the image."""

    raw: str
    compressed: str
    info: str


def image_topics(node) -> ImageTopics:
    """Return the topics of the camera that a node follows by its topic `image`, which may be remapped.

    Remappings of `image/compressed` and `camera_info` take precedence over the names derived from `image`.
    """
    raw = node.resolve_topic_name("image")

    def resolve(name: str, default: str) -> str:
        resolved = node.resolve_topic_name(name)
        return default if resolved == f"{node.get_namespace().rstrip('/')}/{name}" else resolved

    info = f"{raw.rpartition('/')[0]}/camera_info"
    return ImageTopics(raw, resolve("image/compressed", f"{raw}/compressed"), resolve("camera_info", info))


def robot_topic(node, name: str) -> str:
    """Return the name of one of the robot's topics in its `robot_namespace`, which is a parameter of the node."""
    space = node.p.robot_namespace
    if not space or name.startswith("/"):
        return name
    return "/".join(["", *filter(None, space.split("/")), name])


def message_class(kind: str) -> type:
    """Return the Python class of package/msg/Name. Raises ImportError or AttributeError where it is not installed."""
    package, _, name = kind.split("/")
    return getattr(importlib.import_module(f"{package}.msg"), name)


def missing_package(controller: ControllerConfig) -> str:
    """Return the Debian package with a controller's command messages if they are not installed, else "".

    control_msgs is part of ROS distributions, not of the wheels: `make setup-robot` builds it beside these.
    """
    package = controller.message_type.partition("/")[0]
    if importlib.util.find_spec(package) is not None:
        return ""
    return f"ros-{os.environ.get('ROS_DISTRO', 'jazzy')}-{package.replace('_', '-')}"


def command_class(controller: ControllerConfig) -> type:
    """Return the Python class of a controller's commands. Raises InputError where it is not installed."""
    if debian := missing_package(controller):
        package = controller.message_type.partition("/")[0]
        raise InputError(
            f"command_interface '{controller.interface}': ROS package {package} not found: run make setup-robot, or "
            f"install {debian} and source the distribution"
        )
    return message_class(controller.message_type)


class LatestMessage:
    """The newest message of a latched topic that configure needs; the first one makes the node try again at once.

    message: None before the first.
    """

    def __init__(self, node: JepaNode, kind: type, topic: str) -> None:
        self.message, self._node = None, node
        node.create_subscription(kind, topic, self._on_message, LATCHED)

    def _on_message(self, message) -> None:
        is_first, self.message = self.message is None, message
        if is_first:
            self._node.retry_now()
