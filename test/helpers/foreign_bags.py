"""Bags of a robot that is not ours: joints that turn steadily, pictures whose grey tells the time, all commands."""

import hashlib
import math

import cv2
import numpy as np
from rosbags.rosbag2 import CompressionFormat, CompressionMode, StoragePlugin, Writer

from jepa_ros.bags.typestore import typestore

FIRST = 1_700_000_000 * 10**9
JOINTS = ("shoulder", "elbow", "gripper_left")
RATES = np.array([0.3, -0.2, 0.1])
"""rad/s of the joints."""
TYPES = typestore()
KINDS = {
    "trajectory": ("/arm/joint_trajectory", "trajectory_msgs/msg/JointTrajectory"),
    "twist": ("/cmd_vel", "geometry_msgs/msg/Twist"),
    "stamped": ("/servo/delta_twist_cmds", "geometry_msgs/msg/TwistStamped"),
    "jog": ("/servo_node/delta_joint_cmds", "control_msgs/msg/JointJog"),
    "array": ("/velocity_controller/commands", "std_msgs/msg/Float64MultiArray"),
}


def grey(t):
    """The value of all pixels at t s."""
    return round(50 * t) % 256


def position(t):
    """(3,) rad at t s."""
    return RATES * t + 0.5


def tree(path):
    """Digests of all files under a directory by name."""
    files = sorted(p for p in path.rglob("*") if p.is_file())
    return {str(p.relative_to(path)): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}


def make(kind, **fields):
    """A message."""
    return TYPES.types[kind](**fields)


def header(ns, frame=""):
    """A header stamped ns."""
    time = make("builtin_interfaces/msg/Time", sec=int(ns // 10**9), nanosec=int(ns % 10**9))
    return make("std_msgs/msg/Header", stamp=time, frame_id=frame)


def image(ns, value, raw):
    """A picture of 32 x 24 pixels, its left half black."""
    rgb = np.full((24, 32, 3), value, np.uint8)
    rgb[:, :4] = 0
    if raw:
        return "sensor_msgs/msg/Image", dict(
            header=header(ns), height=24, width=32, encoding="rgb8", is_bigendian=0, step=96, data=rgb.ravel()
        )
    data = cv2.imencode(".png", rgb)[1].ravel()
    return "sensor_msgs/msg/CompressedImage", dict(header=header(ns), format="png", data=data)


def vector(x, y, z):
    return make("geometry_msgs/msg/Vector3", x=float(x), y=float(y), z=float(z))


def twist(t):
    """x speeds up with time."""
    return make("geometry_msgs/msg/Twist", linear=vector(0.1 * t, 0.0, 0.0), angular=vector(0.0, 0.0, -0.2))


def trajectory(ns, t, names=JOINTS[:2]):
    """From where the joints are now to where they will be in a second, which they will have reached in half of it."""
    duration = make("builtin_interfaces/msg/Duration", sec=0, nanosec=500_000_000)
    empty = np.empty(0)
    point = make(
        "trajectory_msgs/msg/JointTrajectoryPoint",
        positions=position(t + 0.5)[: len(names)],
        velocities=empty,
        accelerations=empty,
        effort=empty,
        time_from_start=duration,
    )
    return dict(header=header(ns), joint_names=list(names), points=[point])


def command(kind, ns, t):
    """Fields of a command of a kind at t s."""
    if kind == "trajectory":
        return trajectory(ns, t)
    if kind == "twist":
        return dict(linear=twist(t).linear, angular=twist(t).angular)
    if kind == "stamped":
        return dict(header=header(ns), twist=twist(t))
    if kind == "jog":  # of the elbow alone in the beginning
        names = JOINTS[1::-1] if t > 0.95 else JOINTS[1:2]
        rates = np.array([RATES[JOINTS.index(name)] for name in names])
        return dict(header=header(ns), joint_names=names, displacements=np.empty(0), velocities=rates, duration=0.0)
    layout = make("std_msgs/msg/MultiArrayLayout", dim=[], data_offset=0)
    return dict(layout=layout, data=RATES[:2].astype(float))


def joint_state(ns, t, velocity=True, degrees=False, ahead=0.0):
    """All joints in another order than a mapping asks for. velocity: whether it is there, or its value. ahead: rad that
    the first joint has turned besides, reported within half a turn."""
    q, v = position(t)[[2, 0, 1]], RATES[[2, 0, 1]]
    if ahead:
        q[1] = math.remainder(q[1] + ahead, 2.0 * math.pi)
    if isinstance(velocity, float):
        v = np.full(3, velocity)
    turn = np.degrees if degrees else np.asarray
    none = np.empty(0)
    names = [JOINTS[i] for i in (2, 0, 1)]
    return dict(
        header=header(ns),
        name=names,
        position=turn(q),
        velocity=turn(v) if velocity is not False else none,
        effort=none,
    )


def write(
    path,
    *,
    seconds=4.0,
    commands="trajectory",
    raw=False,
    cameras=("/camera/image",),
    storage=StoragePlugin.MCAP,
    compression=None,
    velocity=True,
    degrees=False,
    ahead=0.0,
    skip=lambda topic, t: False,
    stamp=lambda topic, t: t,
    broken=lambda t: False,
    states=True,
):
    """A bag of 20 Hz pictures, 50 Hz joint states, 10 Hz commands. skip, stamp, broken: leave out messages, change
    their stamps (s), spoil their pictures."""
    image_kind = image(0, 0, raw)[0]
    topics = {f"{camera}{'' if raw else '/compressed'}": image_kind for camera in cameras}
    topics |= {"/joint_states": "sensor_msgs/msg/JointState"} if states else {}
    topics |= {KINDS[commands][0]: KINDS[commands][1]} if commands else {}
    rates = {
        topic: 50.0 if "joint_states" in topic else 20.0 if topic in list(topics)[: len(cameras)] else 10.0
        for topic in topics
    }
    writer = Writer(path, version=9, storage_plugin=storage)
    if compression is not None:
        writer.set_compression(compression, CompressionFormat.ZSTD)
    with writer as bag:
        made = {topic: bag.add_connection(topic, kind, typestore=TYPES) for topic, kind in topics.items()}
        events = [(k / rate, topic) for topic, rate in rates.items() for k in range(round(seconds * rate) + 1)]
        for t, topic in sorted(events):
            if skip(topic, t):
                continue
            recorded, ns = FIRST + round(t * 1e9), FIRST + round(stamp(topic, t) * 1e9)
            kind = topics[topic]
            if kind == image_kind:
                fields = image(ns, grey(t), raw)[1]
                if broken(t):
                    fields["data"] = fields["data"][: len(fields["data"]) // 2]
            elif topic == "/joint_states":
                fields = joint_state(ns, t, velocity, degrees, ahead)
            else:
                fields = command(commands, ns, t)
            bag.write(made[topic], recorded, TYPES.serialize_cdr(make(kind, **fields), kind))
    return path


MODES = {"file": CompressionMode.FILE, "message": CompressionMode.MESSAGE, "storage": CompressionMode.STORAGE}
