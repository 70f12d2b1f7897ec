"""Small bags of invented video: a bright square that wanders over a chequered ground, and nothing but a camera."""

import cv2
import numpy as np
from rosbags.rosbag2 import StoragePlugin, Writer

from jepa_ros.bags.typestore import typestore

RAW, COMPRESSED = "sensor_msgs/msg/Image", "sensor_msgs/msg/CompressedImage"
FIRST = 1_700_000_000_000_000_000
PERIOD = 50_000_000
TYPES = typestore()


def wander(count, seed=0, size=16):
    """Frames (count, size, size, 3) uint8."""
    rng = np.random.default_rng(seed)
    ground = ((np.indices((size, size)) // 2).sum(0) % 2 * 40 + 20).astype(np.uint8)
    frames = np.repeat(np.stack([ground] * 3, -1)[None], count, axis=0)
    place, speed = rng.uniform(2, size - 5, 2), rng.uniform(-1, 1, 2)
    for frame in frames:
        speed = np.clip(speed + rng.uniform(-0.5, 0.5, 2), -1.5, 1.5)
        speed = np.where((place + speed < 0) | (place + speed > size - 4), -speed, speed)
        place = place + speed
        y, x = place.round().astype(int)
        frame[y : y + 4, x : x + 4] = (250, 120, 60)
    return frames


def times(count, start=0):
    """Stamps in ns at the camera's period."""
    return FIRST + start + PERIOD * np.arange(count)


def message(frame, stamp, kind=RAW, data=None):
    """An image message in CDR; data in place of the frame's own bytes where given."""

    def make(name, **fields):
        return TYPES.types[name](**fields)

    at = make("builtin_interfaces/msg/Time", sec=int(stamp) // 10**9, nanosec=int(stamp) % 10**9)
    header = make("std_msgs/msg/Header", stamp=at, frame_id="camera")
    if kind == COMPRESSED:
        png = cv2.imencode(".png", cv2.cvtColor(frame, cv2.COLOR_RGB2BGR))[1].ravel() if data is None else data
        fields = {"header": header, "format": "rgb8; png compressed bgr8", "data": png}
    else:
        height, width, _ = frame.shape
        pixels = np.ascontiguousarray(frame).ravel() if data is None else data
        fields = {"header": header, "height": height, "width": width, "encoding": "rgb8", "is_bigendian": 0}
        fields |= {"step": 3 * width, "data": pixels}
    return TYPES.serialize_cdr(make(kind, **fields), kind)


def write_video(path, topics, storage=StoragePlugin.MCAP):
    """A bag at `path`. topics: {name: (kind, [(stamp in the header, time of recording, frame, bytes or None)])}."""
    with Writer(path, version=9, storage_plugin=storage) as bag:
        for name, (kind, messages) in topics.items():
            connection = bag.add_connection(name, kind, typestore=TYPES)
            for stamp, recorded, frame, data in messages:
                bag.write(connection, int(recorded), message(frame, stamp, kind, data))
    return path


def video(frames, stamps):
    """Messages for `write_video` that are recorded when they are stamped."""
    return [(t, t, frame, None) for t, frame in zip(stamps, frames, strict=True)]
