"""Camera images in bags: topics, names in the running graph, decoding, calibration, and runs of consecutive frames."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import ValidationError

from jepa_ros.bags.reader import Bag, Topic, open_bag
from jepa_ros.bags.typestore import CAMERA_INFO, COMPRESSED_IMAGE, IMAGE, TF_MESSAGE, header_stamp
from jepa_ros.errors import InputError, first_problem
from jepa_ros.images import ImageError, decode, decode_compressed, preprocess
from jepa_ros.world_model.config import CameraReference

IMAGE_TYPES = (IMAGE, COMPRESSED_IMAGE)
NOT_CAMERAS = ("frame", "goal_image")  # image topics that our own nodes publish or receive; no cameras
GAP_PERIODS = 1.5  # largest distance between consecutive frames, in median periods of the topic


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

    Of several topics each gives `frame` in its own namespace, where that camera node publishes: /image and /wrist/image
    give frame and wrist/frame. If two namespaces are equal, whole topics are the namespaces: /left and /right give
    left/frame and right/frame.
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

    Intrinsics come from the first camera_info, in the namespace of `topic` if that is given. The pose is that of its
    optical frame in TF. Raises InputError where the bag is damaged.
    """
    info, poses = None, {}
    with open_bag(path, strict=True) as bag:
        own = [
            t for t in bag.topics if t.msgtype == CAMERA_INFO and (not topic or namespace(t.topic) == namespace(topic))
        ]
        poses_of = [t for t in bag.topics if t.msgtype == TF_MESSAGE]
        for raw, message in bag.decoded(t[:2] for t in own + poses_of):
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
        intrinsics = {"width": info.width, "height": info.height, "fx": k[0], "fy": k[4], "cx": k[2], "cy": k[5]}
        return CameraReference(position=(p.x, p.y, p.z), orientation=(q.x, q.y, q.z, q.w), **intrinsics)
    except ValidationError as error:
        raise InputError(f"bag {path}: camera: {first_problem(error)}") from None


@dataclass(frozen=True)
class FrameRun:
    """Frames of one topic without a gap. frames: (n, size, size, 3) uint8 rgb, preprocessed. stamps: (n,) s, ascending.
    source: "bag topic"."""

    frames: np.ndarray
    stamps: np.ndarray
    source: str


@dataclass
class _Topic:
    """Frames of a topic read so far. stamps: ns. undecodable: number of images. problem: of the first of them."""

    frames: list[np.ndarray | None] = field(default_factory=list)
    stamps: list[int] = field(default_factory=list)
    undecodable: int = 0
    problem: ImageError | None = None


def read_frame_runs(
    bag: Path, topics: Sequence[str], size: int, progress: Callable[[int], None] = lambda frames: None
) -> tuple[list[FrameRun], int]:
    """Return the frame runs of a bag's image topics, and the number of undecodable images that were skipped.

    A topic is an Image or a CompressedImage, with or without `/compressed` in its name. Stamps are the headers', or the
    time of recording where a header has none. Time that jumps backwards, or forwards by more than GAP_PERIODS, starts a
    new run; a repeated stamp is the same frame. progress: called with the number of frames read.

    Raises InputError: no such bag or topic, a damaged bag, or a topic without a decodable image.
    """
    read = {topic: _Topic() for topic in topics}
    with open_bag(bag, strict=True) as opened:
        names = {found.topic: topic for topic in topics for found in image_topics(opened, topic)}
        wanted = [t[:2] for t in opened.topics if t.topic in names and t.msgtype in IMAGE_TYPES]
        for count, (raw, message) in enumerate(opened.decoded(wanted), 1):
            topic, stamp = read[names[raw.topic]], header_stamp(message) or raw.recorded
            if not topic.stamps or stamp != topic.stamps[-1]:
                try:
                    topic.frames.append(preprocess(decode_image(message), size))
                    topic.stamps.append(stamp)
                except ImageError as error:
                    topic.undecodable += 1
                    topic.problem = topic.problem or error
            progress(count)
    runs = []
    for name, topic in read.items():
        if not topic.frames:
            found = f"{topic.undecodable} undecodable ones: {topic.problem}" if topic.undecodable else "none"
            raise InputError(f"bag {bag}: {name}: expected images, found {found}")
        runs += _split_at_gaps(topic, f"{bag} {name}")
    return runs, sum(topic.undecodable for topic in read.values())


def _split_at_gaps(topic: _Topic, source: str) -> Iterator[FrameRun]:
    stamps = np.array(topic.stamps, np.int64)
    steps = np.diff(stamps)
    forward = steps[steps > 0]
    period = np.median(forward) if len(forward) else 0.0
    edges = np.flatnonzero((steps < 0) | (steps > GAP_PERIODS * period)) + 1
    for low, high in zip([0, *edges], [*edges, len(stamps)], strict=True):
        frames = np.stack(topic.frames[low:high])
        topic.frames[low:high] = [None] * (high - low)  # frees them: at most one run is in memory twice
        yield FrameRun(frames, stamps[low:high] * 1e-9, source)
