"""Which topics of a bag are a camera's pictures, and what its frames are called in the live graph."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from rosbags.interfaces import Connection
from rosbags.rosbag2 import Reader

from jepa_ros.errors import InputError

RAW, COMPRESSED = "sensor_msgs/msg/Image", "sensor_msgs/msg/CompressedImage"
NO_CAMERAS = ("frame", "goal_image")
"""Topics of our own nodes that a recording may hold beside the camera's."""


def image_connections(bag: Path, reader: Reader, topic: str) -> list[Connection]:
    """Those of one topic's pictures, by its name or that name less `/compressed`; the raw ones where the bag holds
    compressed ones too. Raises InputError that lists the image topics there are."""
    images = _images(reader)
    name = topic.strip("/")
    for wanted in (name, f"{name}/compressed"):
        found = [c for c in images if c.topic.strip("/") == wanted]
        if found:
            return found
    raise InputError(f"bag {bag}: expected the image topic {topic}, found {_listed(images)}")


def camera_names(topics: Iterable[str]) -> list[str]:
    """Of these topics of images the cameras', each once, raw or compressed, without slashes at its ends."""
    return sorted(name for name in set(map(_plain, topics)) if name.rpartition("/")[2] not in NO_CAMERAS)


def camera_connections(bag: Path, reader: Reader, cameras: Sequence[str]) -> list[list[Connection]]:
    """The connections of each camera's pictures, in the order of these image topics; with none named, of the one there
    is. Raises InputError where a topic is missing or named twice, or none is named and there are several."""
    if not cameras:
        images = _images(reader)
        cameras = camera_names(c.topic for c in images)
        if len(cameras) != 1:
            raise InputError(f"bag {bag}: expected one image topic, or the names of cameras, found {_listed(images)}")
    names = [_plain(topic) for topic in cameras]
    if len(set(names)) < len(names):
        raise InputError(f"bag {bag}: expected different cameras, found {', '.join(cameras)}")
    return [image_connections(bag, reader, topic) for topic in cameras]


def frame_topics(cameras: Sequence[str]) -> tuple[str, ...]:
    """ModelConfig.cameras of a model that is trained on these image topics: `frame` for one or none.

    For more it is `frame` in the namespace of each image topic, which is where a camera node in that namespace
    publishes: /image and /wrist/image give frame and wrist/frame. Where namespaces are the same, each whole topic is
    one: /left and /right give left/frame and right/frame.
    """
    if len(cameras) < 2:
        return ("frame",)
    spaces = [namespace(topic) for topic in cameras]
    if len(set(spaces)) < len(spaces):
        spaces = [_plain(topic) for topic in cameras]
    return tuple(f"{space}/frame".lstrip("/") for space in spaces)


def namespace(topic: str) -> str:
    """That of an image topic, without slashes at its ends: of /wrist/image/compressed it is wrist."""
    return _plain(topic).rpartition("/")[0]


def _plain(topic: str) -> str:
    return topic.strip("/").removesuffix("/compressed")


def _images(reader: Reader) -> list[Connection]:
    return [c for c in reader.connections if c.msgtype in (RAW, COMPRESSED)]


def _listed(images: list[Connection]) -> str:
    return ", ".join(sorted({c.topic for c in images})) or "none of images"
