"""Names of topics that belong together, and the types of what they carry."""

from __future__ import annotations

import importlib.util
import os
import time
from typing import TYPE_CHECKING, NamedTuple

from jepa_ros.errors import InputError
from jepa_ros.nodes.common.qos import LATCHED
from jepa_ros.robot.config import ControllerConfig

if TYPE_CHECKING:
    from rclpy.qos import QoSProfile

    from jepa_ros.nodes.common.lifecycle import JepaNode


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


class LatestMessage:
    """The newest message of a topic that a node needs before it can be configured; it wakes a waiting node.

    message: None until the first one. received: steady time in s.
    """

    def __init__(self, node: JepaNode, kind: type, topic: str, qos: QoSProfile = LATCHED) -> None:
        self.message = None
        self.received = float("-inf")
        self._node = node
        node.create_subscription(kind, topic, self._on_message, qos)

    def _on_message(self, message) -> None:
        first, self.message, self.received = self.message is None, message, time.monotonic()
        if first:
            self._node.retry_now()
