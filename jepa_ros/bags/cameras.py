"""Camera images in bags: their topics, their names in the running graph, decoding, and the camera's calibration."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import ValidationError

from jepa_ros.bags.reader import Bag, Topic, open_bag
from jepa_ros.bags.typestore import CAMERA_INFO, COMPRESSED_IMAGE, IMAGE, TF_MESSAGE
from jepa_ros.errors import InputError, first_problem
from jepa_ros.images import decode, decode_compressed
from jepa_ros.world_model.config import CameraReference

IMAGE_TYPES = (IMAGE, COMPRESSED_IMAGE)
NOT_CAMERAS = ("frame", "goal_image")  # image topics of our own nodes, which a recording may hold beside the camera's


def plain_topic(topic: str) -> str:
    """Return an image topic without outer slashes and without /compressed."""
    return topic.strip("/").removesuffix("/compressed")


def namespace(topic: str) -> str:
    """Return the namespace of an image topic without outer slashes: wrist for /wrist/image/compressed."""
    return plain_topic(topic).rpartition("/")[0]


def image_topics(bag: Bag, topic: str) -> list[Topic]:
    """Return the bag's topics for one image topic, given with or without /compressed; raw images are preferred.

    The topic * is the bag's only camera. Raises InputError that lists the topics in the bag.
    """
    images = [t for t in bag.topics if t.msgtype in IMAGE_TYPES]
    if topic == "*":
        cameras = camera_names(t.topic for t in images)
        if len(cameras) != 1:
            what = "one image topic, or the names of cameras" if images else "images (Image or CompressedImage)"
            raise InputError(f"bag {bag.path}: expected {what}, found {bag.list_topics()}")
        topic = cameras[0]
    name = topic.strip("/")
    for wanted in (name, f"{name}/compressed"):
        if found := [t for t in images if t.topic.strip("/") == wanted]:
            return found
    raise InputError(f"bag {bag.path}: expected the image topic {topic}, found {bag.list_topics()}")


def camera_names(topics: Iterable[str]) -> list[str]:
    """Return the cameras among image topics, each once (raw or compressed), as `plain_topic`."""
    return sorted(name for name in set(map(plain_topic, topics)) if name.rpartition("/")[2] not in NOT_CAMERAS)


def frame_topics(cameras: Sequence[str]) -> tuple[str, ...]:
    """Return ModelConfig.cameras for a model that is trained on these image topics; `frame` for one or none.

    For several it is `frame` in the namespace of each image topic, where the camera node of that namespace publishes:
    /image and /wrist/image give frame and wrist/frame. Where two namespaces are equal the whole topic is the namespace:
    /left and /right give left/frame and right/frame.
    """
    if len(cameras) < 2:
        return ("frame",)
    spaces = [namespace(topic) for topic in cameras]
    if len(set(spaces)) < len(spaces):
        spaces = [plain_topic(topic) for topic in cameras]
    return tuple(f"{space}/frame".lstrip("/") for space in spaces)


def decode_image(message: Any) -> np.ndarray:
    """Return the (H, W, 3) uint8 rgb image of an Image or CompressedImage message. Raises ImageError."""
    m = message
    if hasattr(m, "format"):
        return decode_compressed(m.format, m.data)
    return decode(m.encoding, m.width, m.height, m.step, m.data, m.is_bigendian)


def read_camera(path: Path, topic: str = "") -> CameraReference | None:
    """Return intrinsics and pose of a bag's camera; None where the bag lacks either.

    Intrinsics are those of the first camera_info, in the namespace of the image topic where one is given; the pose is
    that of its optical frame in the TF messages. Raises InputError where the bag is damaged.
    """
    info, poses = None, {}
    with open_bag(path, strict=True) as bag:
        wanted = [
            t[:2]
            for t in bag.topics
            if t.msgtype == TF_MESSAGE
            or (t.msgtype == CAMERA_INFO and (not topic or namespace(t.topic) == namespace(topic)))
        ]
        for raw, message in bag.decoded(wanted):
            if raw.msgtype == CAMERA_INFO:
                info = message
            else:
                poses |= {t.child_frame_id: t.transform for t in message.transforms}
            if info is not None and info.header.frame_id in poses:
                break
    return camera_reference(path, info, poses)


def camera_reference(path: Path, info: Any, poses: Mapping[str, Any]) -> CameraReference | None:
    """Return a CameraReference from a CameraInfo and the TF transforms by child frame; None where either is missing.

    Raises InputError where the values are invalid.
    """
    pose = None if info is None else poses.get(info.header.frame_id)
    if pose is None:
        return None
    p, q, k = pose.translation, pose.rotation, info.k
    try:
        return CameraReference(
            width=info.width,
            height=info.height,
            fx=k[0],
            fy=k[4],
            cx=k[2],
            cy=k[5],
            position=(p.x, p.y, p.z),
            orientation=(q.x, q.y, q.z, q.w),
        )
    except ValidationError as error:
        raise InputError(f"bag {path}: camera: {first_problem(error)}") from None
