"""The small bag of reach_bag, with the position of an object beside it."""

import numpy as np
from rosbags.rosbag2 import Reader, StoragePlugin, Writer

from helpers import reach_bag
from jepa_ros.bags.typestore import typestore

POSE, POINT = "geometry_msgs/msg/PoseStamped", "geometry_msgs/msg/PointStamped"


def place(stamp):
    """(3,) m: where the object is at a time in ns."""
    s = (stamp - reach_bag.FIRST) * 1e-9
    return np.array([0.2 + 0.01 * np.sin(s), -0.3, 0.02])


def write(path, kind=POSE, topic="/puck", frame="world", episodes=range(6), **options):
    """As reach_bag.write, and `topic` of this kind in a frame, with the images of some episodes."""
    source, types = reach_bag.write(path / "plain", **options), typestore()
    make = types.types.__getitem__
    with Reader(source) as reader, Writer(path / "bag", version=9, storage_plugin=StoragePlugin.MCAP) as writer:
        copies = {c.id: writer.add_connection(c.topic, c.msgtype, typestore=types) for c in reader.connections}
        own, number = writer.add_connection(topic, kind, typestore=types), -1
        for connection, stamp, raw in reader.messages():
            writer.write(copies[connection.id], stamp, raw)
            number += connection.topic == "/episode"
            if not connection.topic.startswith("/image") or number not in episodes:
                continue
            point = make("geometry_msgs/msg/Point")(*place(stamp))
            time = make("builtin_interfaces/msg/Time")(sec=stamp // 10**9, nanosec=stamp % 10**9)
            header = make("std_msgs/msg/Header")(stamp=time, frame_id=frame)
            if kind == POSE:
                turn = make("geometry_msgs/msg/Quaternion")(x=0.0, y=0.0, z=0.0, w=1.0)
                message = make(POSE)(header=header, pose=make("geometry_msgs/msg/Pose")(point, turn))
            else:
                message = make(POINT)(header=header, point=point)
            writer.write(own, stamp, types.serialize_cdr(message, kind))
    return path / "bag"
