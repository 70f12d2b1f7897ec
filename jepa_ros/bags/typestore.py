"""Message types for bags: those of the Jazzy distribution, MoveIt Servo's joint commands and jepa_msgs' own."""

from __future__ import annotations

from functools import lru_cache

from rosbags.typesys import Stores, get_types_from_msg, get_typestore
from rosbags.typesys.store import Typestore

from jepa_ros.resources import message_definitions

JOINT_JOG = "control_msgs/msg/JointJog"
# control_msgs/msg/JointJog.msg (ros-controls/control_msgs, branch jazzy), which rosbags' own types lack.
_JOINT_JOG = """std_msgs/Header header
string[] joint_names
float64[] displacements
float64[] velocities
float64 duration
"""


@lru_cache(maxsize=1)
def typestore() -> Typestore:
    """The Jazzy types with JointJog and jepa_msgs/msg/* beside them."""
    store = get_typestore(Stores.ROS2_JAZZY)
    types = get_types_from_msg(_JOINT_JOG, JOINT_JOG)
    for path in sorted((message_definitions() / "msg").glob("*.msg")):
        types |= get_types_from_msg(path.read_text(), f"jepa_msgs/msg/{path.stem}")
    store.register(types)
    return store
