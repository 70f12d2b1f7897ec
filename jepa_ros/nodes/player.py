"""Node player: publishes a recording to the graph, in place of cameras and robot, and its time on /clock.

It plays only what the nodes subscribe to: images, joint states, executed actions, transforms, the robot's description
and episode markers; never commands. It starts once the nodes are running. At the end of the recording it ends the
process (exit code 0) or, with `loop`, restarts: time then jumps back, and every node begins a new episode.
"""

from __future__ import annotations

import math
import struct
import sys
import threading
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from rosgraph_msgs.msg import Clock
from std_srvs.srv import Trigger

from jepa_ros.bags.reader import Bag, open_bag
from jepa_ros.bags.recovery import RawMessage
from jepa_ros.errors import InputError
from jepa_ros.nodes.common.convert import to_stamp
from jepa_ros.nodes.common.diagnostics import OK, WARN, Status
from jepa_ros.nodes.common.lifecycle import JepaNode
from jepa_ros.nodes.common.parameters import Parameter
from jepa_ros.nodes.common.process import run_node
from jepa_ros.nodes.common.qos import LATCHED, STREAM
from jepa_ros.nodes.common.topics import image_topics, message_class

INPUTS = ("joint_states", "executed", "episode", "robot_description", "/tf", "/tf_static")
FIXED = ("robot_description", "/tf_static")  # transient local, so that late subscribers receive them
KINDS = {
    *(f"sensor_msgs/msg/{name}" for name in ("Image", "CompressedImage", "CameraInfo", "JointState")),
    *("jepa_msgs/msg/Action", "jepa_msgs/msg/Episode", "std_msgs/msg/String", "tf2_msgs/msg/TFMessage"),
}
CLOCK_MAX_PERIOD = 0.01  # s between two messages on /clock
CLOCK_MIN_PERIOD = 0.002  # s
STAMP_OFFSET_MIN = 2 * 10**9  # ns; stamps that differ more from the times of recording are of another clock
NODES_TIMEOUT = 60.0  # s
END_PAUSE = 0.5  # s after the last message

PARAMETERS = (
    Parameter("bag", "", "A rosbag2 recording: directory, or one of its files.", read_only=True),
    Parameter("rate", 1.0, "Playback speed; 1: real time.", range=(0.01, 100.0)),
    Parameter("loop", False, "Restart at the end of the bag."),
    Parameter("paused", False, "Wait for the service ~/resume before the first message.", read_only=True),
)


class Player(JepaNode):
    """See the module. Services ~/pause, ~/resume, ~/rewind (std_srvs/Trigger)."""

    def __init__(self) -> None:
        super().__init__("player", PARAMETERS)
        self._source: Bag | None = None
        self._played = self._passes = 0
        self._control = threading.Condition()  # guards the next three
        self._paused = self._rewind = self._ending = False

    # -- lifecycle -----------------------------------------------------------------------------------------------------

    def configure(self) -> None:
        self._source = source = open_bag(Path(self.p.bag))
        self._names = self._find_topics(source)
        self._offset = self._read_stamp_offset(source)
        for problem in source.problems:
            self.get_logger().warning(problem)
        fixed = set(map(self.resolve_topic_name, FIXED))
        self._publishers_of = {
            (topic, kind): self.create_publisher(message_class(kind), name, LATCHED if name in fixed else STREAM)
            for (topic, kind), name in self._names.items()
        }
        self._time = self.create_publisher(Clock, "/clock", STREAM)
        self.create_service(Trigger, "~/pause", partial(self._on_control, "paused", "_paused", True))
        self.create_service(Trigger, "~/resume", partial(self._on_control, "resumed", "_paused", False))
        self.create_service(Trigger, "~/rewind", partial(self._on_control, "restarted", "_rewind", True))

    def activate(self) -> None:
        self._paused, self._rewind, self._ending = self.p.paused, False, False
        # The description and fixed transforms at once: nodes need them before the first image.
        fixed = set(map(self.resolve_topic_name, FIXED))
        for topic, name in self._names.items():
            if name in fixed and (message := next(iter(self._source.messages([topic])), None)):
                self._publishers_of[topic].publish(bytes(message.data))
        self._thread = threading.Thread(target=self._run, name="player", daemon=True)
        self._thread.start()

    def deactivate(self) -> None:
        with self._control:
            self._ending = True
            self._control.notify_all()
        self._thread.join(timeout=5.0)

    def cleanup(self) -> None:
        self._source.close()
        self._source = None

    def refused(self) -> None:
        self.request_exit(2)

    def _find_topics(self, source: Bag) -> dict[tuple[str, str], str]:
        """Return the name to publish each of the bag's topics and types under. Raises InputError without images."""
        images, space = image_topics(self), self.get_namespace().rstrip("/")
        recorded = {t.topic: (t.topic, t.msgtype) for t in source.topics if t.count and t.msgtype in KINDS}
        played = {}
        for name in (*images, *map(self.resolve_topic_name, INPUTS)):
            if found := recorded.get(name) or recorded.get(name.removeprefix(space)):  # in this namespace, or in none
                played[found] = name
        if not {images.raw, images.compressed} & set(played.values()):
            wanted = f"images on {images.raw} or {images.compressed}"
            raise InputError(f"bag {source.path}: expected {wanted}, found {source.list_topics()}")
        needed = ("joint_states", "robot_description")
        if missing := [n for n in needed if self.resolve_topic_name(n) not in played.values()]:
            self.get_logger().warning(f"bag {source.path}: no {' and no '.join(missing)}: nothing can be planned")
        return played

    def _read_stamp_offset(self, source: Bag) -> int:
        """Return the first image's stamp minus its time of recording, in ns; 0 if both are of the same clock.

        They differ, for example, in recordings of a simulated robot.
        """
        images = [topic for topic, name in self._names.items() if name in image_topics(self)[:2]]
        first = next(iter(source.messages(images)))
        order = "<" if first.data[1] & 1 else ">"  # CDR: four bytes of encapsulation, then the header's stamp
        seconds, nanoseconds = struct.unpack_from(f"{order}iI", first.data, 4)
        offset = seconds * 10**9 + nanoseconds - first.recorded
        return offset if abs(offset) > STAMP_OFFSET_MIN else 0

    def _on_control(self, text: str, flag: str, value: bool, request, response) -> Trigger.Response:
        with self._control:
            setattr(self, flag, value)
            self._control.notify_all()
        response.success, response.message = True, text
        return response

    # -- the player's thread -------------------------------------------------------------------------------------------

    def _run(self) -> None:
        try:
            self._wait_for_nodes()
            while not self._ending:
                self._passes += 1
                complete = self._play(self._source.messages(list(self._names)))
                if complete and not self.p.loop:
                    self.get_logger().info(f"end of the recording: {self._played} messages published")
                    self.request_exit(0)
                    return
        except Exception as error:
            if not self._ending and self.context.ok():
                self.get_logger().fatal(f"{type(error).__name__}: {error}")
                self.request_exit(1)

    def _wait_for_nodes(self) -> None:
        """Wait for a subscriber of the images and a publisher of latents: earlier messages would be lost."""
        raw, compressed, _ = image_topics(self)
        images = [p for p in self._publishers_of.values() if p.topic_name in (raw, compressed)]
        latents = self.resolve_topic_name("latent")
        end = time.monotonic() + NODES_TIMEOUT
        with self._control:
            while time.monotonic() < end and not self._ending:
                if any(p.get_subscription_count() for p in images) and self.count_publishers(latents):
                    self._control.wait(1.0)  # for the rest of discovery
                    return
                self._control.wait(0.1)
        if not self._ending:
            self.get_logger().warning(f"no node publishes latents after {NODES_TIMEOUT:g} s; playing anyway")

    def _play(self, messages: Iterator[RawMessage]) -> bool:
        """Play the recording once; return False if a rewind or the node's end cut it short."""
        self._now = None
        for message in messages:
            if not self._advance_to(message.recorded + self._offset):
                return False
            self._publishers_of[message.topic, message.msgtype].publish(bytes(message.data))
            self._played += 1
        return self._advance_to(self._now + int(END_PAUSE * 1e9))

    def _advance_to(self, due: int) -> bool:
        """Wait and publish /clock until it shows `due` (ns); return False on a rewind or the node's end."""
        with self._control:
            if self._now is None:
                self._now, self._then, self._clock_sent = due, time.monotonic(), -math.inf
            while not (self._rewind or self._ending):
                now = time.monotonic()
                if self._paused:
                    self._control.wait(0.1)
                    self._then = time.monotonic()
                    continue
                passed = int((now - self._then) * 1e9 * self.p.rate)
                self._now, self._then = min(self._now + passed, max(due, self._now)), now
                if now - self._clock_sent >= CLOCK_MIN_PERIOD:
                    self._clock_sent = now
                    self._time.publish(Clock(clock=to_stamp(self._now)))
                if self._now >= due:
                    return True
                left = (due - self._now) * 1e-9 / self.p.rate
                self._control.wait(min(left, CLOCK_MAX_PERIOD))
            self._rewind = False
            return False

    # -- reports -------------------------------------------------------------------------------------------------------

    def diagnose(self) -> list[Status]:
        if self._source is None:
            return [Status("recording", OK, "not configured")]
        values = {"bag": self._source.path, "messages": self._played, "passes": self._passes, "rate": self.p.rate}
        if self._paused:
            return [Status("recording", WARN, "paused: call ~/resume", values)]
        return [Status("recording", OK, "playing" if self._passes else "waiting for the nodes", values)]


if __name__ == "__main__":
    sys.exit(run_node(Player))
