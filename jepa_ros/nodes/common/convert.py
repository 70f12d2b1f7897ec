"""Between ROS messages and numpy: stamps, images, number arrays, trajectories."""

from __future__ import annotations

import array

import numpy as np
from builtin_interfaces.msg import Duration, Time
from sensor_msgs.msg import CompressedImage, Image
from std_msgs.msg import Header
from trajectory_msgs.msg import JointTrajectory as JointTrajectoryMessage
from trajectory_msgs.msg import JointTrajectoryPoint

from jepa_ros.errors import InputError
from jepa_ros.images import decode, decode_compressed
from jepa_ros.robot.motion.trajectory import JointTrajectory


def to_ns(stamp: Time | Duration) -> int:
    """Nanoseconds of a stamp or duration, exact."""
    return stamp.sec * 1_000_000_000 + stamp.nanosec


def to_seconds(stamp: Time | Duration) -> float:
    """Seconds of a stamp or duration (a present-day stamp is good to 0.3 us)."""
    return stamp.sec + stamp.nanosec * 1e-9


def to_stamp(ns: int) -> Time:
    """The stamp of so many nanoseconds."""
    return Time(sec=ns // 1_000_000_000, nanosec=ns % 1_000_000_000)


def to_duration(seconds: float) -> Duration:
    """The duration of so many seconds, to the nanosecond."""
    ns = round(seconds * 1e9)
    return Duration(sec=ns // 1_000_000_000, nanosec=ns % 1_000_000_000)


def stamp_of_seconds(seconds: float) -> Time:
    """The stamp of so many seconds since the clock's zero."""
    return to_stamp(round(seconds * 1e9))


def byte_array(values: np.ndarray) -> array.array:
    """uint8 values as what a uint8[] field takes at once: ndarray, bytes and memoryview are converted byte by byte."""
    out = array.array("B")
    out.frombytes(memoryview(np.ascontiguousarray(values, np.uint8)).cast("B"))
    return out


def float32_array(values: np.ndarray) -> array.array:
    """Flattened values as what a float32[] field takes at once."""
    out = array.array("f")
    out.frombytes(memoryview(np.ascontiguousarray(values, np.float32)).cast("B"))
    return out


def float64_array(values: np.ndarray) -> array.array:
    """Flattened values as what a float64[] field takes at once."""
    out = array.array("d")
    out.frombytes(memoryview(np.ascontiguousarray(values, np.float64)).cast("B"))
    return out


def image_message(rgb: np.ndarray, stamp: Time | None, frame_id: str) -> Image:
    """Return (H, W, 3) uint8 RGB as sensor_msgs/Image rgb8. stamp: None for zero."""
    height, width = rgb.shape[:2]
    message = Image(
        header=Header(stamp=stamp or Time(), frame_id=frame_id),
        height=height,
        width=width,
        encoding="rgb8",
        step=3 * width,
    )
    message.data = byte_array(rgb)
    return message


def decode_image(message: Image | CompressedImage) -> np.ndarray:
    """(H, W, 3) uint8 RGB of a message; for rgb8 a view of its data. Raises ImageError with the cause."""
    if isinstance(message, CompressedImage):
        return decode_compressed(message.format, message.data)
    m = message
    return decode(m.encoding, m.width, m.height, m.step, m.data, m.is_bigendian)


def trajectory_message(trajectory: JointTrajectory, stamp: Time | None = None) -> JointTrajectoryMessage:
    """As trajectory_msgs/JointTrajectory; stamp None means 0, "from when it is received"."""
    trajectory = _at_whole_nanoseconds(trajectory)
    message = JointTrajectoryMessage(joint_names=list(trajectory.names))
    if stamp is not None:
        message.header.stamp = stamp
    for i, t in enumerate(trajectory.times):
        point = JointTrajectoryPoint(time_from_start=to_duration(float(t)))
        for field in ("positions", "velocities", "accelerations"):
            values = getattr(trajectory, field)
            if values is not None:
                setattr(point, field, float64_array(values[i]))
        message.points.append(point)
    return message


def _at_whole_nanoseconds(trajectory: JointTrajectory) -> JointTrajectory:
    """The same motion with its points at times that a message can say.

    Rounding the times alone would bend it: where points are 0.2 ms apart half a nanosecond is several times the limit
    of jerk.
    """
    times = np.round(trajectory.times, 9)
    if trajectory.velocities is None or (times[1:] <= times[:-1]).any():
        return trajectory
    late, accelerations = (times - trajectory.times)[:, None], trajectory.accelerations
    positions = trajectory.positions + trajectory.velocities * late
    velocities = trajectory.velocities if accelerations is None else trajectory.velocities + accelerations * late
    return JointTrajectory(trajectory.names, times, positions, velocities, accelerations)


def trajectory_of(message: JointTrajectoryMessage) -> JointTrajectory:
    """The way-points of a message. Raises InputError where it is empty or its fields do not fit together."""
    names, points = tuple(message.joint_names), message.points
    if not names or not points:
        found = "no joint names" if not names else "no points"
        raise InputError(f"trajectory: expected joint names and points, found {found}")
    fields = {}
    for field in ("positions", "velocities", "accelerations"):
        rows = [getattr(p, field) for p in points]
        lengths = sorted({len(row) for row in rows})
        if lengths == [0] and field != "positions":
            fields[field] = None
        elif lengths != [len(names)]:
            raise InputError(f"trajectory {field}: expected {len(names)} a point, found {lengths}")
        else:
            fields[field] = np.array(rows, dtype=float)
    times = np.array([to_ns(p.time_from_start) for p in points]) * 1e-9
    return JointTrajectory(names, times, **fields)
