"""Whether somebody else is on topics that a node wants for itself: it may be a robot next door."""

from __future__ import annotations

import time
from collections.abc import Sequence

from rclpy.node import Node

DISCOVERY = 3.5
"""s in which somebody else on these topics is noticed: most often 0.1, but where the first announcements are lost, up
to the 3 s after which Fast DDS repeats them."""
NAMED = 2.0
"""s more, in which discovery tells the node's name as well."""
UNKNOWN = "_NODE_NAME_UNKNOWN_"  # rmw's word for it


def find_other_publishers(node: Node, published: str, heard: Sequence[str], since: float) -> str:
    """Who else publishes the topic `published` or listens to one of `heard`, in one sentence; "" where nobody does.

    since: steady time (s) from which on the node could discover others; it takes until DISCOVERY after that.
    """

    def company() -> str:
        for info in node.get_publishers_info_by_topic(published):
            return f"{published}: expected nobody else to publish it, found node {_full_name(info)}"
        for topic in heard:
            for info in node.get_subscriptions_info_by_topic(topic):
                return f"{topic}: expected nobody else to listen to it, found node {_full_name(info)}"
        return ""

    end = since + DISCOVERY
    while not (found := company()) and time.monotonic() < end:
        time.sleep(0.02)
    named = time.monotonic() + NAMED
    while UNKNOWN in found and time.monotonic() < named:
        time.sleep(0.02)
        found = company() or found
    return found


def _full_name(info) -> str:
    return f"{info.node_namespace.rstrip('/')}/{info.node_name}"
