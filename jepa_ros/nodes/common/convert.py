"""Conversion between ROS messages and numpy: stamps, images, number arrays, trajectories."""

from __future__ import annotations

import array

import numpy as np
from builtin_interfaces.msg import Duration, Time
from sensor_msgs.msg import CompressedImage, Image
from std_msgs.msg import Header
from trajectory_msgs.msg import JointTrajectory as JointTrajectoryMessage
from trajectory_msgs.msg import JointTrajectoryPoint

from jepa_ros.images import decode, decode_compressed
from jepa_ros.robot.motion.trajectory import JointTrajectory
from jepa_ros.robot.motion.trajectory_points import Point, Points


def to_ns(stamp: Time | Duration) -> int:
    """Return a stamp or duration in ns, exact."""
    return stamp.sec * 1_000_000_000 + stamp.nanosec


def to_seconds(stamp: Time | Duration) -> float:
    """Return a stamp or duration in s (a present-day stamp is rounded by up to 0.3 us)."""
    return stamp.sec + stamp.nanosec * 1e-9


def to_stamp(ns: int) -> Time:
    """Return a time in ns as a stamp."""
    return Time(sec=ns // 1_000_000_000, nanosec=ns % 1_000_000_000)


def to_duration(seconds: float) -> Duration:
    """Return a duration in s as a message, rounded to ns."""
    stamp = stamp_of_seconds(seconds)
    return Duration(sec=stamp.sec, nanosec=stamp.nanosec)


def stamp_of_seconds(seconds: float) -> Time:
    """Return a time in s as a stamp, rounded to ns."""
    return to_stamp(round(seconds * 1e9))


def byte_array(values: np.ndarray) -> array.array:
    """Return flattened values for a uint8[] field."""
    return _to_array("B", values)


def float32_array(values: np.ndarray) -> array.array:
    """Return flattened values for a float32[] field."""
    return _to_array("f", values)


def float64_array(values: np.ndarray) -> array.array:
    """Return flattened values for a float64[] field."""
    return _to_array("d", values)


def _to_array(typecode: str, values: np.ndarray) -> array.array:
    """Return flattened values as an array.array, the only type that rclpy takes without checking each element."""
    out = array.array(typecode)
    out.frombytes(memoryview(np.ascontiguousarray(values, typecode)).cast("B"))
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
    """Return a message's image, (H, W, 3) uint8 RGB; for rgb8 a view of its data. Raises ImageError with the cause."""
    m = message
    if isinstance(m, CompressedImage):
        return decode_compressed(m.format, m.data)
    return decode(m.encoding, m.width, m.height, m.step, m.data, m.is_bigendian)


def trajectory_message(trajectory: JointTrajectory, stamp: Time | None = None) -> JointTrajectoryMessage:
    """Return trajectory_msgs/JointTrajectory. stamp: None for 0, which means "start on receipt"."""
    trajectory = _round_times(trajectory)
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


def _round_times(trajectory: JointTrajectory) -> JointTrajectory:
    """Return the same motion with its points at whole nanoseconds, the resolution of messages.

    Rounding the times alone would distort it: where points are 0.2 ms apart, half a nanosecond causes several times the
    jerk limit.
    """
    times = np.round(trajectory.times, 9)
    if trajectory.velocities is None or (times[1:] <= times[:-1]).any():
        return trajectory
    late, accelerations = (times - trajectory.times)[:, None], trajectory.accelerations
    positions = trajectory.positions + trajectory.velocities * late
    velocities = trajectory.velocities if accelerations is None else trajectory.velocities + accelerations * late
    return JointTrajectory(trajectory.names, times, positions, velocities, accelerations)


def points_of(message: JointTrajectoryMessage) -> Points:
    """Return the points of a message as they are; nothing is checked."""
    points = tuple(
        Point(to_ns(p.time_from_start) * 1e-9, p.positions, p.velocities, p.accelerations, p.effort)
        for p in message.points
    )
    return Points(tuple(message.joint_names), points, to_ns(message.header.stamp) * 1e-9)


def trajectory_of(message: JointTrajectoryMessage) -> JointTrajectory:
    """Return the way-points of a message. Raises InputError where it is empty or lengths of its fields differ."""
    return points_of(message).to_trajectory()
