"""camera: one camera's images, checked, cropped and resized to what the world model sees.

Whatever does not belong in front of a model that moves an arm ends here: malformed, stale, future, repeated and frozen
frames are counted by cause, named in diagnostics, and never pass.

A model of several cameras needs one such node each, in a namespace of its own: with `cameras` of frame and wrist/frame
the first one runs as ever, and a second one, which takes /wrist/image and gives /wrist/frame, beside it:

    ros2 run jepa_ros camera --ros-args -r __ns:=/wrist -p model:=MODEL -r image:=/wrist_camera/color/image_raw

or in a launch file

    Node(package="jepa_ros", executable="camera", name="camera", namespace="wrist", parameters=[{"model": "MODEL"}],
         remappings=[("image", "/wrist_camera/color/image_raw")])
"""

from __future__ import annotations

import json
import sys
import time
from collections import Counter

import cv2
from sensor_msgs.msg import CompressedImage, Image

from jepa_ros.errors import InputError
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

PARAMETERS = (
    Parameter(
        "transport",
        "auto",
        "Subscribe to sensor_msgs/Image on `image` (raw), to CompressedImage on `image/compressed`, or to whichever is "
        "published (auto; raw where both are).",
        choices=("auto", "raw", "compressed"),
        at_configure=True,
    ),
    Parameter(
        "size",
        64,
        "Side of the square frames that are published; used where no model is named.",
        unit="pixels",
        range=(8, 1024),
        at_configure=True,
    ),
    Parameter(
        "model",
        "",
        "Checkpoint (name or directory) whose config.json says the size; empty: the parameter size.",
        at_configure=True,
    ),
    Parameter("max_age", 0.5, "Older frames are dropped as stale.", unit="s", range=(0.01, 60.0)),
    Parameter("max_skew", 0.05, "Frames stamped further ahead of the clock are dropped.", unit="s", range=(0.0, 10.0)),
    Parameter(
        "frozen_after",
        1.0,
        "New stamps on the very same pixels for so long count as a camera that hangs, and such frames are dropped. 0 "
        "switches it off, as simulators need: without sensor noise an arm at rest looks the same for ever.",
        unit="s",
        range=(0.0, 600.0),
    ),
    Parameter("timeout", 1.0, "Without a good frame for so long, diagnostics say error.", unit="s", range=(0.05, 60.0)),
)


class Camera(JepaNode):
    """See the module's text. in: image; out: frame."""

    def __init__(self) -> None:
        super().__init__("camera", PARAMETERS)
        cv2.setNumThreads(1)  # the pictures are small, the cores are few
        self._checks = FrameChecks(**self._bounds())
        self._dropped: Counter[str] = Counter()
        self._received, self._passed = Meter(), Meter()
        self._passed_at = self._dropped_at = self._active_at = time.monotonic()
        self._last_drop = ""
        self._source = "none"
        self._age = 0.0
        self._subscriptions_by_kind: dict[type, object] = {}

    # -- lifecycle -----------------------------------------------------------------------------------------------------

    def configure(self) -> None:
        self._size = _model_size(self.p.model) if self.p.model else self.p.size
        self._checks.restart()
        self._frames = self.create_lifecycle_publisher(Image, "frame", IMAGES)

    def activate(self) -> None:
        self._active_at = self._passed_at = time.monotonic()
        self._subscribe()
        self._watch = self.steady_timer(1.0, self._look_for_both) if self.p.transport == "auto" else None

    def deactivate(self) -> None:
        self._unsubscribe(Image)
        self._unsubscribe(CompressedImage)
        if self._watch is not None:
            self.destroy_timer(self._watch)

    def parameters_changed(self, names: set[str]) -> None:
        self._checks.configure(**self._bounds())

    def _bounds(self) -> dict[str, float]:
        return {"max_age": self.p.max_age, "max_skew": self.p.max_skew, "frozen_after": self.p.frozen_after}

    # -- topics --------------------------------------------------------------------------------------------------------

    def _subscribe(self) -> None:
        names = image_topics(self)
        topics = {Image: names.raw, CompressedImage: names.compressed}
        wanted = {"raw": [Image], "compressed": [CompressedImage], "auto": [Image, CompressedImage]}[self.p.transport]
        for kind in wanted:
            if kind not in self._subscriptions_by_kind:
                subscription = self.create_subscription(kind, topics[kind], self._on_image, SENSOR)
                self._subscriptions_by_kind[kind] = subscription

    def _unsubscribe(self, kind: type) -> None:
        subscription = self._subscriptions_by_kind.pop(kind, None)
        if subscription is not None:
            self.destroy_subscription(subscription)

    def _settle(self, kind: type) -> bool:
        """With transport auto: whether frames of this kind are the ones to use. The other kind is then let go."""
        if len(self._subscriptions_by_kind) < 2:
            return True
        if kind is CompressedImage and self.count_publishers(self.resolve_topic_name("image")):
            return False
        self._unsubscribe(Image if kind is CompressedImage else CompressedImage)
        return True

    def _look_for_both(self) -> None:
        if time.monotonic() - self._passed_at > self.p.timeout:
            self._subscribe()

    # -- frames --------------------------------------------------------------------------------------------------------

    def _on_image(self, message: Image | CompressedImage) -> None:
        if not self._settle(type(message)):
            return
        self._received.count()
        stamp, now = to_ns(message.header.stamp), self.get_clock().now().nanoseconds
        self._age = (now - stamp) * 1e-9
        try:
            self._checks.check_stamp(stamp, now)
            rgb = decode_image(message)
            self._source = _describe(message, rgb.shape)
            frame = preprocess(rgb, self._size)
            self._checks.accept(stamp, message.data)
        except (ImageError, FrameDropped) as error:
            self._drop(error)
            return
        self._frames.publish(image_message(frame, message.header.stamp, message.header.frame_id))
        self._passed.count()
        self._passed_at = time.monotonic()

    def _drop(self, error: ImageError | FrameDropped) -> None:
        self._dropped[error.cause] += 1
        self._dropped_at, self._last_drop = time.monotonic(), error.cause
        self.warn_throttled(error.cause, f"frame dropped: {error}")
        self.diagnostics_changed()

    # -- diagnostics ---------------------------------------------------------------------------------------------------

    def diagnose(self) -> list[Status]:
        now = time.monotonic()
        dropping = bool(self._last_drop) and now - self._dropped_at < max(self.p.timeout, 1.0)
        if not self.active:
            level, text = OK, "not active"
        elif now - self._passed_at > self.p.timeout:
            why = f"all are dropped, the last as {self._last_drop}" if dropping else "none arrive"
            level, text = ERROR, f"no frame passes: {why}"
        elif dropping:
            level, text = WARN, f"frames are dropped, the last as {self._last_drop}"
        else:
            level, text = OK, "frames pass"
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


def _describe(message: Image | CompressedImage, shape: tuple[int, ...]) -> str:
    encoding = message.format if isinstance(message, CompressedImage) else message.encoding
    return f"{shape[1]} x {shape[0]} {encoding}"


def _model_size(model: str) -> int:
    """Side of a checkpoint's frames in pixels; reads its config.json only. Raises InputError."""
    path = resolve_model(model) / "config.json"
    try:
        size = json.loads(path.read_text())["preprocessing"]["size"]
    except FileNotFoundError:
        raise InputError(
            f"model '{model}': expected a checkpoint with a config.json, found a directory without"
        ) from None
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"model '{model}': expected preprocessing.size in config.json, found {error!r}") from None
    if not isinstance(size, int) or not 8 <= size <= 1024:
        raise InputError(f"model '{model}': preprocessing.size: expected 8 to 1024 pixels, found {size!r}")
    return size


def main(argv=None) -> int:
    return run_node(Camera, argv)


if __name__ == "__main__":
    sys.exit(main())
