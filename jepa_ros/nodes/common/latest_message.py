"""The newest message of a topic that a node cannot do without."""

from __future__ import annotations

import time

from rclpy.qos import QoSProfile

from jepa_ros.nodes.common.lifecycle import JepaNode
from jepa_ros.nodes.common.qos import LATCHED


class LatestMessage:
    """The newest message of a topic, from the constructor on, and when it came; wakes a node that waits for it.

    message: None until the first. received: steady time in s.
    """

    def __init__(self, node: JepaNode, kind: type, topic: str, qos: QoSProfile = LATCHED) -> None:
        self.message = None
        self.received = float("-inf")
        self._node = node
        node.create_subscription(kind, topic, self._on_message, qos)

    def _on_message(self, message) -> None:
        first, self.message, self.received = self.message is None, message, time.monotonic()
        if first:
            self._node.retry_now()
