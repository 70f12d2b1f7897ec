"""Bags with a second camera, made of bags with one."""

import cv2
import numpy as np
from rosbags.rosbag2 import Reader, StoragePlugin, Writer

from jepa_ros.bags.typestore import typestore
from jepa_ros.images import decode_compressed

IMAGE, WRIST = "/image/compressed", "/wrist/image/compressed"
TYPES = typestore()


def negative(frame):
    """What the second camera sees where the first one sees `frame`."""
    return 255 - frame


def add_wrist(source, target, late=0, keep=lambda number: True):
    """The bag `source` with the negative of each kept picture on WRIST, stamped `late` ns later (or earlier)."""
    with Reader(source) as bag, Writer(target, version=9, storage_plugin=StoragePlugin.MCAP) as out:
        made = {c.topic: out.add_connection(c.topic, c.msgtype, typestore=TYPES) for c in bag.connections}
        wrist = out.add_connection(WRIST, "sensor_msgs/msg/CompressedImage", typestore=TYPES)
        number = 0
        for connection, recorded, raw in bag.messages():
            out.write(made[connection.topic], recorded, raw)
            if connection.topic == IMAGE:
                if keep(number):
                    out.write(wrist, recorded + max(late, 0), _negative(raw, late))
                number += 1
    return target


def _negative(raw, late):
    message = TYPES.deserialize_cdr(raw, "sensor_msgs/msg/CompressedImage")
    frame = negative(decode_compressed(message.format, message.data))
    at = message.header.stamp
    stamp = at.sec * 10**9 + at.nanosec + late
    at = TYPES.types["builtin_interfaces/msg/Time"](sec=stamp // 10**9, nanosec=stamp % 10**9)
    message.header = TYPES.types["std_msgs/msg/Header"](stamp=at, frame_id="wrist")
    message.data = cv2.imencode(".png", np.ascontiguousarray(frame[..., ::-1]))[1].ravel()
    return TYPES.serialize_cdr(message, "sensor_msgs/msg/CompressedImage")
