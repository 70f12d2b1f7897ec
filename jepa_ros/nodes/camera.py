"""Node camera: checks one camera's images, crops and resizes them to the world model's input.

It drops frames that a model which moves an arm must not see: malformed, stale, future, repeated and frozen ones. They
are counted by cause and reported in diagnostics.

A model with several cameras needs one node for each camera, each in its own namespace. For a model with `cameras`
frame and wrist/frame, the first node runs as usual; the second subscribes to /wrist/image and publishes /wrist/frame:

    ros2 run jepa_ros camera --ros-args -r __ns:=/wrist -p model:=MODEL -r image:=/wrist_camera/color/image_raw

or in a launch file

    Node(package="jepa_ros", executable="camera", name="camera", namespace="wrist", parameters=[{"model": "MODEL"}],
         remappings=[("image", "/wrist_camera/color/image_raw")])
"""

from __future__ import annotations

import sys
import time
from collections import Counter

import cv2
from sensor_msgs.msg import CompressedImage, Image

from jepa_ros.frame_checks import FrameChecks, FrameDropped
from jepa_ros.images import ImageError, preprocess
from jepa_ros.nodes.common.convert import decode_image, image_message, to_ns
from jepa_ros.nodes.common.diagnostics import ERROR, OK, WARN, Meter, Status
from jepa_ros.nodes.common.lifecycle import JepaNode
from jepa_ros.nodes.common.parameters import Parameter
from jepa_ros.nodes.common.process import run_node
from jepa_ros.nodes.common.qos import IMAGES, SENSOR
from jepa_ros.nodes.common.topics import image_topics
from jepa_ros.resources import resolve_model
from jepa_ros.world_model.config import read_config

PARAMETERS = (
    Parameter(
        "transport",
        "auto",
        "raw: sensor_msgs/Image on `image`; compressed: CompressedImage on `image/compressed`; auto: the one that is "
        "published, raw if both are.",
        choices=("auto", "raw", "compressed"),
        at_configure=True,
    ),
    Parameter(
        "size",
        64,
        "Side of the square frames to publish; ignored if a model is given.",
        unit="pixels",
        range=(8, 1024),
        at_configure=True,
    ),
    Parameter(
        "model",
        "",
        "Checkpoint (name or directory) whose image size is used; empty: the parameter size.",
        at_configure=True,
    ),
    Parameter("max_age", 0.5, "Older frames are dropped as stale.", unit="s", range=(0.01, 60.0)),
    Parameter("max_skew", 0.05, "Frames stamped further ahead of the clock are dropped.", unit="s", range=(0.0, 10.0)),
    Parameter(
        "frozen_after",
        1.0,
        "Identical pixels under new stamps for this long mean a frozen camera; such frames are dropped. 0 disables the "
        "check, which simulators need: without sensor noise, all images of an arm at rest are identical.",
        unit="s",
        range=(0.0, 600.0),
    ),
    Parameter("timeout", 1.0, "Without a valid frame for this long, diagnostics report an error.", "s", (0.05, 60.0)),
)


class Camera(JepaNode):
    """See the module. In: image. Out: frame."""

    def __init__(self) -> None:
        super().__init__("camera", PARAMETERS)
        cv2.setNumThreads(1)  # the images are small
        self._checks = FrameChecks(**self._check_limits())
        self._dropped: Counter[str] = Counter()
        self._received, self._passed = Meter(), Meter()
        self._passed_at = self._dropped_at = self._active_at = time.monotonic()
        self._last_drop = ""
        self._source = "none"
        self._age = 0.0
        self._subscriptions_by_kind: dict[type, object] = {}

    # -- lifecycle -----------------------------------------------------------------------------------------------------

    def configure(self) -> None:
        self._size = read_config(resolve_model(self.p.model)).preprocessing.size if self.p.model else self.p.size
        self._checks.restart()
        self._frames = self.create_lifecycle_publisher(Image, "frame", IMAGES)

    def activate(self) -> None:
        self._active_at = self._passed_at = time.monotonic()
        self._subscribe()
        self._watch = self.steady_timer(1.0, self._subscribe_if_silent) if self.p.transport == "auto" else None

    def deactivate(self) -> None:
        self._unsubscribe(Image)
        self._unsubscribe(CompressedImage)
        if self._watch is not None:
            self.destroy_timer(self._watch)

    def parameters_changed(self, names: set[str]) -> None:
        self._checks.configure(**self._check_limits())

    def _check_limits(self) -> dict[str, float]:
        return {"max_age": self.p.max_age, "max_skew": self.p.max_skew, "frozen_after": self.p.frozen_after}

    # -- topics --------------------------------------------------------------------------------------------------------

    def _subscribe(self) -> None:
        names = image_topics(self)
        for kind, transport, topic in ((Image, "raw", names.raw), (CompressedImage, "compressed", names.compressed)):
            if self.p.transport in (transport, "auto") and kind not in self._subscriptions_by_kind:
                self._subscriptions_by_kind[kind] = self.create_subscription(kind, topic, self._on_image, SENSOR)

    def _unsubscribe(self, kind: type) -> None:
        subscription = self._subscriptions_by_kind.pop(kind, None)
        if subscription is not None:
            self.destroy_subscription(subscription)

    def _selects(self, kind: type) -> bool:
        """Return whether images of this type are used; if so, unsubscribe from the other type (transport auto)."""
        if len(self._subscriptions_by_kind) < 2:
            return True
        if kind is CompressedImage and self.count_publishers(self.resolve_topic_name("image")):
            return False
        self._unsubscribe(Image if kind is CompressedImage else CompressedImage)
        return True

    def _subscribe_if_silent(self) -> None:
        if time.monotonic() - self._passed_at > self.p.timeout:
            self._subscribe()

    # -- frames --------------------------------------------------------------------------------------------------------

    def _on_image(self, message: Image | CompressedImage) -> None:
        if not self._selects(type(message)):
            return
        self._received.count()
        stamp, now = to_ns(message.header.stamp), self.get_clock().now().nanoseconds
        self._age = (now - stamp) * 1e-9
        try:
            self._checks.check_stamp(stamp, now)
            rgb = decode_image(message)
            encoding = message.format if isinstance(message, CompressedImage) else message.encoding
            self._source = f"{rgb.shape[1]} x {rgb.shape[0]} {encoding}"
            frame = preprocess(rgb, self._size)
            self._checks.accept(stamp, message.data)
        except (ImageError, FrameDropped) as error:
            self._dropped[error.cause] += 1
            self._dropped_at, self._last_drop = time.monotonic(), error.cause
            self.warn_throttled(error.cause, f"frame dropped: {error}")
            self.diagnostics_changed()
            return
        self._frames.publish(image_message(frame, message.header.stamp, message.header.frame_id))
        self._passed.count()
        self._passed_at = time.monotonic()

    # -- diagnostics ---------------------------------------------------------------------------------------------------

    def diagnose(self) -> list[Status]:
        now = time.monotonic()
        dropping = bool(self._last_drop) and now - self._dropped_at < max(self.p.timeout, 1.0)
        if not self.active:
            level, text = OK, "not active"
        elif now - self._passed_at > self.p.timeout:
            why = f"all are dropped (last cause: {self._last_drop})" if dropping else "no image received"
            level, text = ERROR, f"no valid frames: {why}"
        elif dropping:
            level, text = WARN, f"frames are dropped (last cause: {self._last_drop})"
        else:
            level, text = OK, "frames are published"
        values = {
            "source": self._source,
            "received_hz": self._received.rate(),
            "passed_hz": self._passed.rate(),
            "passed": self._passed.total,
            "dropped": sum(self._dropped.values()),
            **{f"dropped_{cause}": count for cause, count in sorted(self._dropped.items())},
            "age_ms": self._age * 1e3,
            "episodes": self._checks.episodes,
        }
        return [Status("frames", level, text, values)]


if __name__ == "__main__":
    sys.exit(run_node(Camera))
