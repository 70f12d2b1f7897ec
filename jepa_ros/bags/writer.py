"""Writing episodes of the simulated cell as rosbag2 (mcap), with the topics of the running graph."""

from __future__ import annotations

import shutil
from pathlib import Path

import cv2
import numpy as np
from rosbags.interfaces import Qos, QosDurability, QosHistory, QosLiveliness, QosReliability, QosTime
from rosbags.rosbag2 import StoragePlugin, Writer

from jepa_ros.bags.typestore import typestore

TOPICS = {
    "/image/compressed": "sensor_msgs/msg/CompressedImage",
    "/camera_info": "sensor_msgs/msg/CameraInfo",
    "/joint_states": "sensor_msgs/msg/JointState",
    "/executed": "jepa_msgs/msg/Action",
    "/episode": "jepa_msgs/msg/Episode",
    "/robot_description": "std_msgs/msg/String",
    "/tf_static": "tf2_msgs/msg/TFMessage",
}
LATCHED = ("/robot_description", "/tf_static")
PNG_LEVEL = 1
RESERVED_BYTES = 16_000_000
"""Disk space that a recording leaves free, so that it can still be closed, joined and described."""


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
        make = self._make
        rotation = make("geometry_msgs/msg/Quaternion", **dict(zip("xyzw", map(float, quaternion), strict=True)))
        translation = make("geometry_msgs/msg/Vector3", **dict(zip("xyz", map(float, position), strict=True)))
        transform = make("geometry_msgs/msg/Transform", translation=translation, rotation=rotation)
        stamped = make(
            "geometry_msgs/msg/TransformStamped",
            header=self._header(t, self._base_frame),
            child_frame_id=self._frame_id,
            transform=transform,
        )
        self._write("/tf_static", t, transforms=[stamped])

    def camera_info(self, t: int, intrinsics: dict[str, float]) -> None:
        """Write pinhole intrinsics in pixels: width, height, fx, fy, cx, cy."""
        i = intrinsics
        k = [i["fx"], 0.0, i["cx"], 0.0, i["fy"], i["cy"], 0.0, 0.0, 1.0]
        p = [i["fx"], 0.0, i["cx"], 0.0, 0.0, i["fy"], i["cy"], 0.0, 0.0, 0.0, 1.0, 0.0]
        roi = self._make(
            "sensor_msgs/msg/RegionOfInterest", x_offset=0, y_offset=0, height=0, width=0, do_rectify=False
        )
        self._write(
            "/camera_info",
            t,
            header=self._header(t, self._frame_id),
            height=int(i["height"]),
            width=int(i["width"]),
            distortion_model="plumb_bob",
            d=np.zeros(5),
            k=np.array(k),
            r=np.eye(3).ravel(),
            p=np.array(p),
            binning_x=0,
            binning_y=0,
            roi=roi,
        )

    def episode(self, t: int, number: int, split: str, task: str) -> None:
        """Mark the start of an episode after a reset."""
        header = self._header(t, self._base_frame)
        self._write("/episode", t, header=header, id=number, reset=True, split=split, task=task)

    def image(self, t: int, rgb: np.ndarray) -> None:
        """Write a camera image (H, W, 3) uint8 rgb, losslessly as PNG."""
        data = cv2.imencode(".png", cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_PNG_COMPRESSION, PNG_LEVEL])[1]
        self._write(
            "/image/compressed",
            t,
            header=self._header(t, self._frame_id),
            format="rgb8; png compressed bgr8",
            data=data.ravel(),
        )

    def joint_state(self, t: int, names: tuple[str, ...], positions, velocities, efforts) -> None:
        """Write joint positions rad, velocities rad/s, efforts N m."""
        self._write(
            "/joint_states",
            t,
            header=self._header(t, ""),
            name=list(names),
            position=np.asarray(positions, float),
            velocity=np.asarray(velocities, float),
            effort=np.asarray(efforts, float),
        )

    def executed(
        self, start: int, end: int, period: float, action_space: str, values: np.ndarray, plan_id: int
    ) -> None:
        """Write an action that the gate executed from `start` on and published at `end`."""
        self._write(
            "/executed",
            end,
            header=self._header(start, self._base_frame),
            period=period,
            action_space=action_space,
            values=np.asarray(values, np.float32),
            plan_id=plan_id,
        )

    def _header(self, t: int, frame_id: str):
        stamp = self._make("builtin_interfaces/msg/Time", sec=t // 10**9, nanosec=t % 10**9)
        return self._make("std_msgs/msg/Header", stamp=stamp, frame_id=frame_id)

    def _make(self, kind: str, **fields):
        return self._types.types[kind](**fields)

    def _write(self, topic: str, t: int, **fields) -> None:
        kind = TOPICS[topic]
        check_disk(self._path)
        self._writer.write(self._connections[topic], t, self._types.serialize_cdr(self._make(kind, **fields), kind))


def qos_profile(latched: bool) -> Qos:
    """Return the QoS profile that a topic is recorded with. latched: transient local."""
    durability = QosDurability.TRANSIENT_LOCAL if latched else QosDurability.VOLATILE
    never = QosTime(2147483647, 4294967295)
    return Qos(
        QosHistory.KEEP_LAST,
        10,
        QosReliability.RELIABLE,
        durability,
        never,
        never,
        QosLiveliness.AUTOMATIC,
        never,
        False,
    )
