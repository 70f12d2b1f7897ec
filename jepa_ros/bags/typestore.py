"""Message types for bags: those of the Jazzy distribution and jepa_msgs' own."""

from __future__ import annotations

from functools import lru_cache

from rosbags.typesys import Stores, get_types_from_msg, get_typestore
from rosbags.typesys.store import Typestore

from jepa_ros.resources import message_definitions


@lru_cache(maxsize=1)
def typestore() -> Typestore:
    """The Jazzy types with jepa_msgs/msg/* beside them."""
    store = get_typestore(Stores.ROS2_JAZZY)
    types = {}
    for path in sorted((message_definitions() / "msg").glob("*.msg")):
        types |= get_types_from_msg(path.read_text(), f"jepa_msgs/msg/{path.stem}")
    store.register(types)
    return store
