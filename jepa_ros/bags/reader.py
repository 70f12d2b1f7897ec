"""Opening bags and reading their messages, the robot description and the camera."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

from pydantic import ValidationError
from rosbags.rosbag2 import Reader

from jepa_ros.bags.cameras import COMPRESSED, RAW, namespace
from jepa_ros.bags.recovery import describe_readable
from jepa_ros.bags.typestore import typestore
from jepa_ros.errors import InputError, first_problem
from jepa_ros.world_model.config import CameraReference

NEEDED = {
    "image": (COMPRESSED, RAW),
    "joint_states": ("sensor_msgs/msg/JointState",),
    "executed": ("jepa_msgs/msg/Action",),
    "episode": ("jepa_msgs/msg/Episode",),
}


@contextmanager
def open_bag(path: Path, needed: Mapping[str, tuple[str, ...]] = NEEDED) -> Iterator[Reader]:
    """A reader of the bag directory `path`, closed at the end. needed: message types, one of each must be there.

    Raises InputError that names the bag and what was found, or the topics that are missing and those that are there.
    """
    if not path.exists():
        raise InputError(f"bag {path}: expected a rosbag2 directory, found nothing there")
    try:
        reader = Reader(path)
        reader.open()
        if not all(isinstance(text, str) for c in reader.connections for text in (c.topic, c.msgtype)):
            _close(reader)
            raise ValueError("topics whose names or types are no text")
    except Exception as error:  # garbage may trip any part of the reader, and make it ask for any amount of memory
        found = f"{str(error) or type(error).__name__}; {describe_readable(path)}"
        raise InputError(f"bag {path}: expected a rosbag2 directory, found one that cannot be read: {found}") from None
    there = {c.msgtype for c in reader.connections}
    missing = [topic for topic, kinds in needed.items() if not there & set(kinds)]
    if missing:
        found = ", ".join(sorted(f"{c.topic} ({c.msgtype})" for c in reader.connections)) or "no topic at all"
        _close(reader)
        raise InputError(f"bag {path}: expected the topics {', '.join(missing)}, found {found}")
    try:
        yield reader
    finally:
        _close(reader)


def _close(reader: Reader) -> None:
    with suppress(AttributeError, TypeError):  # of metadata that are no lists; all that was to be read has been
        reader.close()


def read_messages(path: Path, reader: Reader, connections: list) -> Iterator[tuple]:
    """(connection, message) in the order of recording. Raises InputError where the bag at `path` is damaged inside."""
    for connection, _, message in timed_messages(path, reader, connections):
        yield connection, message


def timed_messages(path: Path, reader: Reader, connections: list) -> Iterator[tuple]:
    """(connection, time of recording in ns, message) in that order. Raises InputError as read_messages."""
    raw, count = reader.messages(connections), 0
    while True:
        try:
            item = next(raw, None)
            found = item and (item[0], item[1], typestore().deserialize_cdr(item[2], item[0].msgtype))
        except Exception as error:  # garbage may trip any part of the reader
            damage = f"damage after {count} of them: {error!r}"
            raise InputError(
                f"bag {path}: expected whole messages, found {damage}; {describe_readable(path)}"
            ) from None
        if found is None:
            return
        count += 1
        yield found


def read_robot_description(path: Path) -> str | None:
    """The URDF that the bag holds, or None."""
    with open_bag(path) as reader:
        for connection in reader.connections:
            if connection.msgtype == "std_msgs/msg/String" and connection.topic.endswith("robot_description"):
                for _, message in read_messages(path, reader, [connection]):
                    return message.data
    return None


def read_camera(path: Path, topic: str = "") -> CameraReference | None:
    """Intrinsics of the first camera_info, in the namespace of the image topic where one is given, and the optical
    frame's pose from tf_static; None where either is missing."""
    info, poses = None, {}
    with open_bag(path) as reader:
        wanted = [
            c
            for c in reader.connections
            if c.msgtype == "tf2_msgs/msg/TFMessage"
            or (c.msgtype == "sensor_msgs/msg/CameraInfo" and (not topic or namespace(c.topic) == namespace(topic)))
        ]
        for connection, message in read_messages(path, reader, wanted):
            if connection.msgtype.endswith("CameraInfo"):
                info = message
            else:
                poses |= {t.child_frame_id: t.transform for t in message.transforms}
            if info is not None and info.header.frame_id in poses:
                break
    return camera_reference(path, info, poses)


def camera_reference(path: Path, info, poses: Mapping[str, object]) -> CameraReference | None:
    """From a CameraInfo and the transforms of TF by child frame; None where either is missing. Raises InputError."""
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
