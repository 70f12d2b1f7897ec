"""Image relay between camera driver and camera node: forwards images, or corrupts them on request.

A process of its own (``python -m jepa_ros.soak.image_relay``), so that the observer is not delayed. Subscribes to
``image`` and ``soak/image_mode`` (std_msgs/String: pass, drop, freeze, stale, future, truncate or encoding); publishes
``image_seen``.

Forwarded images get sensor noise in one row: simulated images have none, so that a frozen camera could not be told from
an arm at rest.
"""

from __future__ import annotations

import array
import random
import sys
import threading

from rclpy.node import Node
from sensor_msgs.msg import Image
from std_msgs.msg import String

from jepa_ros.bringup.up import on_signals
from jepa_ros.graph_clients.session import RclpySession
from jepa_ros.nodes.common.convert import to_ns, to_stamp
from jepa_ros.nodes.common.qos import IMAGES, LATCHED, make_qos

MODE_TOPIC = "soak/image_mode"
MODE_QOS = LATCHED
STAMP_ERROR_NS = 5_000_000_000  # of stale and future stamps
NOISY_VALUES = 64


class ImageRelay:
    """Forwards images in the mode that was last received, as long as ``node`` is spun."""

    def __init__(self, node: Node) -> None:
        self._mode = "pass"
        self._frozen: array.array | None = None
        self._random = random.Random(0)
        self._out = node.create_publisher(Image, "image_seen", IMAGES)
        node.create_subscription(String, MODE_TOPIC, self._on_mode, MODE_QOS)
        node.create_subscription(Image, "image", self._on_image, make_qos(3, reliable=False))

    def _on_mode(self, message: String) -> None:
        self._mode, self._frozen = message.data, None

    def _on_image(self, message: Image) -> None:
        if self._mode == "drop":
            return
        if self._mode == "freeze":
            self._frozen = self._frozen if self._frozen is not None else message.data
            message.data = self._frozen
        else:
            for i in range(NOISY_VALUES):
                message.data[i] ^= self._random.getrandbits(1)
        if self._mode in ("stale", "future"):
            ns = to_ns(message.header.stamp)
            message.header.stamp = to_stamp(ns - STAMP_ERROR_NS if self._mode == "stale" else ns + STAMP_ERROR_NS)
        elif self._mode == "truncate":
            message.data = message.data[: len(message.data) // 2]
        elif self._mode == "encoding":
            message.encoding = "32FC7"
        self._out.publish(message)


def main() -> int:
    """Run until SIGINT or SIGTERM."""
    stop = threading.Event()
    with on_signals(stop.set), RclpySession("soak_relay") as session:
        ImageRelay(session.node)
        while not stop.is_set():
            session.executor.spin_once(timeout_sec=0.1)
    return 0


if __name__ == "__main__":
    sys.exit(main())
