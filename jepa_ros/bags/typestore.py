"""Message types of bags: names, definitions (ROS 2 Jazzy, MoveIt Servo's JointJog, jepa_msgs) and deserialisation."""

from __future__ import annotations

import re
import struct
from dataclasses import dataclass
from functools import lru_cache
from types import SimpleNamespace
from typing import Any

import numpy as np
from rosbags.typesys import Stores, get_types_from_msg, get_typestore
from rosbags.typesys.store import Typestore

from jepa_ros.resources import message_definitions

IMAGE, COMPRESSED_IMAGE = "sensor_msgs/msg/Image", "sensor_msgs/msg/CompressedImage"
CAMERA_INFO, TF_MESSAGE = "sensor_msgs/msg/CameraInfo", "tf2_msgs/msg/TFMessage"
JOINT_STATE, STRING = "sensor_msgs/msg/JointState", "std_msgs/msg/String"
ACTION, EPISODE = "jepa_msgs/msg/Action", "jepa_msgs/msg/Episode"
TRAJECTORY, JOINT_JOG = "trajectory_msgs/msg/JointTrajectory", "control_msgs/msg/JointJog"
TWIST, TWIST_STAMPED = "geometry_msgs/msg/Twist", "geometry_msgs/msg/TwistStamped"
FLOAT64_ARRAY = "std_msgs/msg/Float64MultiArray"
POSE_STAMPED, POINT_STAMPED = "geometry_msgs/msg/PoseStamped", "geometry_msgs/msg/PointStamped"

# control_msgs/msg/JointJog.msg (ros-controls/control_msgs, branch jazzy), which rosbags' own types lack.
_JOINT_JOG = """std_msgs/Header header
string[] joint_names
float64[] displacements
float64[] velocities
float64 duration
"""
OWN = re.compile(r"jepa_msgs/msg/\w+", re.ASCII)
LONGEST_DEFINITION = 100_000  # characters; longer definitions count as malformed
_ORIGIN = 4  # alignment counts from here, after the encapsulation header
_STAMP, _NAMES = 4, 12


@lru_cache(maxsize=1)
def typestore() -> Typestore:
    """Return the Jazzy types with JointJog and jepa_msgs/msg/* added."""
    store = get_typestore(Stores.ROS2_JAZZY)
    types = get_types_from_msg(_JOINT_JOG, JOINT_JOG)
    for path in sorted((message_definitions() / "msg").glob("*.msg")):
        types |= get_types_from_msg(path.read_text(), f"jepa_msgs/msg/{path.stem}")
    store.register(types)
    return store


@lru_cache(maxsize=64)
def recorded_types(msgtype: str, definition: str) -> Typestore:
    """Return the types for messages of `msgtype` in a bag that holds `definition` of it (ros2msg, or empty).

    A type of jepa_msgs that has changed since the recording is read as it was recorded. All other types, and those
    whose definition is missing or malformed, are the current ones.
    """
    store = typestore()
    if not OWN.fullmatch(msgtype) or not definition or len(definition) > LONGEST_DEFINITION:
        return store
    try:
        found = get_types_from_msg(definition, msgtype)
    except Exception:  # a malformed definition may raise anything in the parser
        return store
    # Python code is generated from these, so only plain names pass; constants are not needed.
    own = {n: ([], fields) for n, (_, fields) in found.items() if OWN.fullmatch(n) and _has_plain_names(fields)}
    changed = {n: (c, fields) for n, (c, fields) in own.items() if fields != store.fielddefs.get(n, ((), ()))[1]}
    if not changed:
        return store
    merged = get_typestore(Stores.EMPTY)
    merged.register(dict(store.fielddefs) | changed)
    return merged


def _has_plain_names(fields: list) -> bool:
    return all(name.isidentifier() and name.isascii() for name, _ in fields)


def full_type(name: str) -> str:
    """Return sensor_msgs/msg/Image for sensor_msgs/Image, the short form that some writers use."""
    package, _, rest = name.partition("/")
    return f"{package}/msg/{rest}" if rest and "/" not in rest else name


def header_stamp(message: Any) -> int:
    """Return the header's stamp in ns; 0 where the driver did not set it or the type has no header."""
    if not hasattr(message, "header"):
        return 0
    return message.header.stamp.sec * 1_000_000_000 + message.header.stamp.nanosec


def serialised_stamp(data: bytes) -> int:
    """Return the header stamp in ns of a serialised message whose first field is the header, without deserialising it.

    Raises ValueError where the bytes are not CDR.
    """
    if len(data) < 12 or data[0] != 0:
        raise ValueError("not a CDR message")
    order = "little" if data[1] & 1 else "big"
    seconds, nanoseconds = (int.from_bytes(data[i : i + 4], order) for i in (4, 8))
    return seconds * 1_000_000_000 + nanoseconds


@dataclass(frozen=True)
class JointState:
    """The fields of sensor_msgs/JointState. name: is the same list object as long as the names stay the same."""

    header: Any
    name: list[str]
    position: np.ndarray
    velocity: np.ndarray
    effort: np.ndarray


class JointStateReader:
    """Deserialises the messages of one topic."""

    def __init__(self) -> None:
        self._known = b""
        self._frame_id, self._name = "", []

    def read(self, data: bytes) -> JointState:
        """Return a message from little-endian CDR. Raises ValueError where it is malformed."""
        if data[:2] != b"\x00\x01":
            raise ValueError("expected little-endian CDR")
        try:
            if not self._known or not data.startswith(self._known, _NAMES):
                self._read_names(data)
            sec, nanosec = struct.unpack_from("<iI", data, _STAMP)
            arrays, at = [], _NAMES + len(self._known)
            for _ in range(3):
                values, at = _doubles(data, at)
                arrays.append(values)
        except (struct.error, UnicodeDecodeError) as error:
            raise ValueError(f"expected a whole message, found {error}") from None
        header = SimpleNamespace(stamp=SimpleNamespace(sec=sec, nanosec=nanosec), frame_id=self._frame_id)
        return JointState(header, self._name, *arrays)

    def _read_names(self, data: bytes) -> None:
        self._known = b""
        frame_id, at = _string(data, _NAMES)
        at = _aligned(at, 4)
        (count,) = struct.unpack_from("<I", data, at)
        at += 4
        names = []
        for _ in range(count):
            name, at = _string(data, _aligned(at, 4))
            names.append(name)
        self._frame_id, self._name, self._known = frame_id, names, bytes(data[_NAMES:at])


def _aligned(at: int, size: int) -> int:
    return at + (_ORIGIN - at) % size


def _string(data: bytes, at: int) -> tuple[str, int]:
    """Return a length-prefixed, zero-terminated string and the position after it."""
    (length,) = struct.unpack_from("<I", data, at)
    end = at + 4 + length
    if end > len(data) or length == 0:
        raise ValueError("expected a string, found none")
    return str(data[at + 4 : end - 1], "utf-8"), end


def _doubles(data: bytes, at: int) -> tuple[np.ndarray, int]:
    at = _aligned(at, 4)
    (count,) = struct.unpack_from("<I", data, at)
    at += 4
    if count:
        at = _aligned(at, 8)
    if at + 8 * count > len(data):
        raise ValueError(f"expected {count} numbers, found fewer")
    return np.frombuffer(data, "<f8", count, at), at + 8 * count
