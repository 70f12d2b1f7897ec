"""Writing rosbag2 recordings (mcap): episodes of the simulated cell, and the topics of a running graph."""

from __future__ import annotations

import os
import shutil
import time
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

import cv2
import mcap.writer
import numpy as np
import yaml
from rosbags.interfaces import Qos, QosDurability, QosHistory, QosLiveliness, QosReliability, QosTime
from rosbags.rosbag2 import StoragePlugin, Writer
from rosbags.rosbag2.metadata import dump_qos_v9

from jepa_ros.bags.typestore import (
    ACTION,
    CAMERA_INFO,
    COMPRESSED_IMAGE,
    EPISODE,
    JOINT_STATE,
    STRING,
    TF_MESSAGE,
    typestore,
)
from jepa_ros.errors import InputError
from jepa_ros.text_files import write_atomically

TOPICS = {
    "/image/compressed": COMPRESSED_IMAGE,
    "/camera_info": CAMERA_INFO,
    "/joint_states": JOINT_STATE,
    "/executed": ACTION,
    "/episode": EPISODE,
    "/robot_description": STRING,
    "/tf_static": TF_MESSAGE,
}
LATCHED = ("/robot_description", "/tf_static")
PNG_LEVEL = 1
RESERVED_BYTES = 16_000_000
"""Disk space that a recording leaves free, so that it can still be closed, joined and described."""
FLUSH_PERIOD_S = 1.0
CHUNK_BYTES = 4 << 20
DISK_CHECK_PERIOD_S = 0.5


class DiskFull(Exception):
    """The disk has no room for the next message. The messages before it are complete once the writer is closed."""


def check_disk(path: Path) -> None:
    """Raise DiskFull where less than RESERVED_BYTES are free on the disk of `path`."""
    if (free := shutil.disk_usage(path).free) < RESERVED_BYTES:
        raise DiskFull(f"bag {path}: expected {RESERVED_BYTES / 1e6:g} MB of free disk, found {free / 1e6:.1f} MB")


class EpisodeWriter:
    """A bag at `path` (a directory that must not exist); a context manager that closes it. Times are ns.

    Writing raises DiskFull where less than RESERVED_BYTES are free.
    """

    def __init__(self, path: Path, frame_id: str, base_frame: str):
        self._types = typestore()
        self._path, self._frame_id, self._base_frame = Path(path), frame_id, base_frame
        self._writer = Writer(path, version=9, storage_plugin=StoragePlugin.MCAP)

    def __enter__(self) -> EpisodeWriter:
        self._writer.open()
        self._connections = {
            topic: self._writer.add_connection(
                topic, kind, typestore=self._types, offered_qos_profiles=[qos_profile(topic in LATCHED)]
            )
            for topic, kind in TOPICS.items()
        }
        return self

    def __exit__(self, *exception: object) -> None:
        self._writer.close()

    def robot_description(self, t: int, urdf: str) -> None:
        """Write the URDF."""
        self._write("/robot_description", t, data=urdf)

    def camera_pose(self, t: int, position: np.ndarray, quaternion: np.ndarray) -> None:
        """Write the pose of the camera's optical frame in the base frame: m, xyzw."""
        rotation = self._make("geometry_msgs/msg/Quaternion", *map(float, quaternion))
        translation = self._make("geometry_msgs/msg/Vector3", *map(float, position))
        transform = self._make("geometry_msgs/msg/Transform", translation, rotation)
        header = self._header(t, self._base_frame)
        stamped = self._make("geometry_msgs/msg/TransformStamped", header, self._frame_id, transform)
        self._write("/tf_static", t, transforms=[stamped])

    def camera_info(self, t: int, intrinsics: dict[str, float]) -> None:
        """Write pinhole intrinsics in pixels: width, height, fx, fy, cx, cy."""
        i = intrinsics
        k = [i["fx"], 0.0, i["cx"], 0.0, i["fy"], i["cy"], 0.0, 0.0, 1.0]
        p = [i["fx"], 0.0, i["cx"], 0.0, 0.0, i["fy"], i["cy"], 0.0, 0.0, 0.0, 1.0, 0.0]
        pixels = {"height": int(i["height"]), "width": int(i["width"]), "binning_x": 0, "binning_y": 0}
        pixels["roi"] = self._make("sensor_msgs/msg/RegionOfInterest", 0, 0, 0, 0, False)
        lens = {"distortion_model": "plumb_bob", "d": np.zeros(5)}
        matrices = {"k": np.array(k), "r": np.eye(3).ravel(), "p": np.array(p)}
        self._write("/camera_info", t, header=self._header(t, self._frame_id), **pixels, **lens, **matrices)

    def episode(self, t: int, number: int, split: str, task: str) -> None:
        """Mark the start of an episode after a reset."""
        header = self._header(t, self._base_frame)
        self._write("/episode", t, header=header, id=number, reset=True, split=split, task=task)

    def image(self, t: int, rgb: np.ndarray) -> None:
        """Write a camera image (H, W, 3) uint8 rgb, losslessly as PNG."""
        data = cv2.imencode(".png", cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_PNG_COMPRESSION, PNG_LEVEL])[1]
        header, kind = self._header(t, self._frame_id), "rgb8; png compressed bgr8"
        self._write("/image/compressed", t, header=header, format=kind, data=data.ravel())

    def joint_state(self, t: int, names: tuple[str, ...], positions, velocities, efforts) -> None:
        """Write joint positions rad, velocities rad/s, efforts N m."""
        arrays = {"position": positions, "velocity": velocities, "effort": efforts}
        arrays = {name: np.asarray(values, float) for name, values in arrays.items()}
        self._write("/joint_states", t, header=self._header(t, ""), name=list(names), **arrays)

    def executed(
        self, start: int, end: int, period: float, action_space: str, values: np.ndarray, plan_id: int
    ) -> None:
        """Write an action that the gate executed from `start` on and published at `end`."""
        action = {"period": period, "action_space": action_space, "values": np.asarray(values, np.float32)}
        self._write("/executed", end, header=self._header(start, self._base_frame), plan_id=plan_id, **action)

    def _header(self, t: int, frame_id: str):
        stamp = self._make("builtin_interfaces/msg/Time", t // 10**9, t % 10**9)
        return self._make("std_msgs/msg/Header", stamp, frame_id)

    def _make(self, kind: str, *values, **fields):
        """Return a message; values are those of its first fields, in order."""
        return self._types.types[kind](*values, **fields)

    def _write(self, topic: str, t: int, **fields) -> None:
        kind = TOPICS[topic]
        check_disk(self._path)
        self._writer.write(self._connections[topic], t, self._types.serialize_cdr(self._make(kind, **fields), kind))


def qos_profile(latched: bool) -> Qos:
    """Return the QoS profile that a topic is recorded with. latched: transient local."""
    durability = QosDurability.TRANSIENT_LOCAL if latched else QosDurability.VOLATILE
    never = QosTime(2147483647, 4294967295)
    history, reliability, liveliness = QosHistory.KEEP_LAST, QosReliability.RELIABLE, QosLiveliness.AUTOMATIC
    return Qos(history, 10, reliability, durability, never, never, liveliness, never, False)


class LiveBag:
    """A bag at `path`, a directory that must not exist; a new file is started after `split_bytes` of messages.

    about: texts for metadata.yaml and every file. attachments: files by name, stored in every file. For one thread
    only. Raises InputError where `path` exists or cannot be created.
    """

    def __init__(
        self, path: Path, split_bytes: float, about: Mapping[str, str], attachments: Mapping[str, bytes] | None = None
    ):
        self.path, self._split_bytes = Path(path), split_bytes
        self._about, self._attachments = dict(about), dict(attachments or {})
        self._topics: dict[str, tuple[str, list]] = {}  # type and QoS, as rosbag2 writes it, by name
        self._counts: Counter[str] = Counter()
        self._files: list[dict] = []
        self.bytes = 0
        try:
            self.path.mkdir(parents=True)
        except OSError as error:
            raise InputError(f"bag {path}: expected a new directory, found {error.strerror.lower()}") from None
        self._start_file()

    @property
    def messages(self) -> int:
        """Number of messages written."""
        return self._counts.total()

    @staticmethod
    def knows(kind: str) -> bool:
        """Check whether this type (package/msg/Name) is known: one of the distribution, or of jepa_msgs."""
        return kind in typestore().types

    def add_topic(self, topic: str, kind: str, latched: bool) -> None:
        """Add a topic of a known type (package/msg/Name). latched: late subscribers receive the last message."""
        self._topics[topic] = (kind, dump_qos_v9([qos_profile(latched)]))
        self._register(topic)

    def write(self, topic: str, data: bytes, received: int, sent: int) -> None:
        """Write a serialised message of a topic that was added. received, sent: ns. Raises DiskFull."""
        if (now := time.monotonic()) - self._disk_checked >= DISK_CHECK_PERIOD_S:
            self._disk_checked = now
            check_disk(self.path)
        self._writer.add_message(self._channels[topic], received, data, sent)
        self._counts[topic] += 1
        file = self._files[-1]
        file["message_count"] += 1
        file["first"] = min(file["first"], received)
        file["last"] = max(file["last"], received)
        self._size += len(data)
        self.bytes += len(data)
        if self._size > self._split_bytes:
            self._finish_file()
            self._start_file()
        else:
            self.flush_when_due()

    def flush_when_due(self) -> None:
        """Flush buffered messages to the operating system, once per FLUSH_PERIOD_S."""
        if time.monotonic() - self._flushed >= FLUSH_PERIOD_S:
            self._writer.flush()
            self._flushed = time.monotonic()

    def close(self) -> None:
        """Write the index and metadata.yaml; an empty last file is removed."""
        self._finish_file()

    def _start_file(self) -> None:
        name = f"{self.path.name}_{len(self._files)}.mcap"
        self._files.append({"path": name, "message_count": 0, "first": 2**63, "last": 0})
        self._stream = (self.path / name).open("xb")
        lz4 = mcap.writer.CompressionType.LZ4
        self._writer = mcap.writer.Writer(self._stream, chunk_size=CHUNK_BYTES, compression=lz4)
        self._writer.start(profile="ros2", library="jepa_ros")
        self._schemas: dict[str, int] = {}
        self._channels: dict[str, int] = {}
        self._size, self._flushed, self._disk_checked = 0, time.monotonic(), 0.0
        now = time.time_ns()
        for attached, data in self._attachments.items():
            kind = "application/json" if attached.endswith(".json") else "text/plain"
            self._writer.add_attachment(now, now, attached, kind, data)
        self._writer.add_metadata("jepa_ros", self._about)
        for topic in self._topics:
            self._register(topic)
        self._write_metadata()

    def _register(self, topic: str) -> None:
        kind, profiles = self._topics[topic]
        if kind not in self._schemas:
            text = typestore().generate_msgdef(kind, ros_version=2)[0]
            self._schemas[kind] = self._writer.register_schema(kind, "ros2msg", text.encode())
        self._channels[topic] = self._writer.register_channel(
            topic, "cdr", self._schemas[kind], {"offered_qos_profiles": yaml.safe_dump(profiles)}
        )

    def _finish_file(self) -> None:
        self._writer.finish()
        self._stream.close()
        if not self._files[-1]["message_count"] and len(self._files) > 1:
            (self.path / self._files.pop()["path"]).unlink()
        self._write_metadata()

    def _write_metadata(self) -> None:
        """Write metadata.yaml (rosbag2 version 9), at the start and at the end of each file."""
        held = [f for f in self._files if f["message_count"]]
        begin, end = min((f["first"] for f in held), default=0), max((f["last"] for f in held), default=0)
        information = {
            "version": 9,
            "storage_identifier": "mcap",
            "duration": {"nanoseconds": end - begin},
            "starting_time": {"nanoseconds_since_epoch": begin},
            "message_count": self.messages,
            "topics_with_message_count": [
                {
                    "topic_metadata": {
                        "name": topic,
                        "type": kind,
                        "serialization_format": "cdr",
                        "offered_qos_profiles": profiles,
                        "type_description_hash": typestore().hash_rihs01(kind),
                    },
                    "message_count": self._counts[topic],
                }
                for topic, (kind, profiles) in self._topics.items()
            ],
            "compression_format": "",
            "compression_mode": "",
            "relative_file_paths": [f["path"] for f in self._files],
            "files": [
                {
                    "path": f["path"],
                    "starting_time": {"nanoseconds_since_epoch": f["first"] if f["message_count"] else 0},
                    "duration": {"nanoseconds": max(f["last"] - f["first"], 0)},
                    "message_count": f["message_count"],
                }
                for f in self._files
            ],
            "custom_data": self._about,
            "ros_distro": os.environ.get("ROS_DISTRO", "jazzy"),
        }
        text = yaml.safe_dump({"rosbag2_bagfile_information": information}, sort_keys=False)
        write_atomically(self.path / "metadata.yaml", text)
