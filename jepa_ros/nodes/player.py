"""player: gives a recording to the graph, as cameras and robot once did, and the time of then on /clock.

Only what the nodes hear is played: images, joint states, executed actions, transforms, the robot's description and
episode markers. Never commands. It begins once the nodes are there, and ends the process (code 0) with the recording,
or begins anew: time then goes back, and a new episode begins everywhere.
"""

from __future__ import annotations

import math
import struct
import sys
import threading
import time
from collections.abc import Iterator
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
FIXED = ("robot_description", "/tf_static")  # said again to whoever comes later
KINDS = {
    *(f"sensor_msgs/msg/{name}" for name in ("Image", "CompressedImage", "CameraInfo", "JointState")),
    *("jepa_msgs/msg/Action", "jepa_msgs/msg/Episode", "std_msgs/msg/String", "tf2_msgs/msg/TFMessage"),
}
CLOCK = 0.01  # s, at most, between two messages on /clock
OFTEN = 0.002  # s, at least
APART = 2 * 10**9  # ns between the stamps of a recording and the time of recording, at which the stamps are followed
WAIT = 60.0  # s for the nodes
REST = 0.5  # s after the last message

PARAMETERS = (
    Parameter("bag", "", "A rosbag2 recording: a directory, or one file of it.", read_only=True),
    Parameter("rate", 1.0, "Seconds of the recording in a second.", range=(0.01, 100.0)),
    Parameter("loop", False, "Begin anew at the end."),
    Parameter("paused", False, "Wait for the service ~/resume before the first message.", read_only=True),
)


class Player(JepaNode):
    """See the module's text. Services ~/pause, ~/resume, ~/rewind (std_srvs/Trigger)."""

    def __init__(self) -> None:
        super().__init__("player", PARAMETERS)
        self._source: Bag | None = None
        self._played = self._passes = 0
        self._steer = threading.Condition()  # of the three that follow
        self._paused = self._rewind = self._ending = False

    # -- lifecycle -----------------------------------------------------------------------------------------------------

    def configure(self) -> None:
        self._source = source = open_bag(Path(self.p.bag))
        self._wanted = self._topics(source)
        self._offset = self._stamps_minus_recorded(source)
        for problem in source.problems:
            self.get_logger().warning(problem)
        self._publishers_of = {}
        for (topic, kind), name in self._wanted.items():
            fixed = name in map(self.resolve_topic_name, FIXED)
            qos = LATCHED if fixed else STREAM
            self._publishers_of[topic, kind] = self.create_publisher(message_class(kind), name, qos)
        self._time = self.create_publisher(Clock, "/clock", STREAM)
        for name, does in (("pause", self._on_pause), ("resume", self._on_resume), ("rewind", self._on_rewind)):
            self.create_service(Trigger, f"~/{name}", does)

    def activate(self) -> None:
        self._paused, self._rewind, self._ending = self.p.paused, False, False
        self._say_what_is_fixed()
        self._thread = threading.Thread(target=self._run, name="player", daemon=True)
        self._thread.start()

    def deactivate(self) -> None:
        with self._steer:
            self._ending = True
            self._steer.notify_all()
        self._thread.join(timeout=5.0)

    def cleanup(self) -> None:
        self._source.close()
        self._source = None

    def refused(self) -> None:
        self.request_exit(2)

    def _topics(self, source: Bag) -> dict[tuple[str, str], str]:
        """The name under which each topic and type of the bag is played. Raises InputError where it has no images."""
        images, space = image_topics(self), self.get_namespace().rstrip("/")
        there = {t.topic: (t.topic, t.msgtype) for t in source.topics if t.count and t.msgtype in KINDS}
        played = {}
        for name in (*images, *map(self.resolve_topic_name, INPUTS)):
            recorded = name if name in there else name.removeprefix(space)  # in this namespace, or in none
            if recorded in there:
                played[there[recorded]] = name
        if not {images.raw, images.compressed} & set(played.values()):
            wanted = f"images on {images.raw} or {images.compressed}"
            raise InputError(f"bag {source.path}: expected {wanted}, found {source.list_topics()}")
        needed = ("joint_states", "robot_description")
        if missing := [n for n in needed if self.resolve_topic_name(n) not in played.values()]:
            self.get_logger().warning(f"bag {source.path}: no {' and no '.join(missing)} in it: nothing can be planned")
        return played

    def _stamps_minus_recorded(self, source: Bag) -> int:
        """ns, of the first image, where the stamps are of another clock than the times of recording: the simulated time
        of a robot, say. Otherwise 0."""
        images = [topic for topic, name in self._wanted.items() if name in image_topics(self)[:2]]
        first = next(iter(source.messages(images)))
        order = "<" if first.data[1] & 1 else ">"  # CDR: four bytes of encapsulation, then the header's stamp
        seconds, nanoseconds = struct.unpack_from(f"{order}iI", first.data, 4)
        apart = seconds * 10**9 + nanoseconds - first.recorded
        return apart if abs(apart) > APART else 0

    def _say_what_is_fixed(self) -> None:
        """The robot's description and fixed transforms at once: nodes need them before the first image."""
        fixed = {self.resolve_topic_name(name) for name in FIXED}
        for topic, name in self._wanted.items():
            if name in fixed:
                for message in self._source.messages([topic]):
                    self._publishers_of[topic].publish(bytes(message.data))
                    break

    # -- steering ------------------------------------------------------------------------------------------------------

    def _on_pause(self, request, response) -> Trigger.Response:
        return self._steered(response, "paused", paused=True)

    def _on_resume(self, request, response) -> Trigger.Response:
        return self._steered(response, "goes on", paused=False)

    def _on_rewind(self, request, response) -> Trigger.Response:
        return self._steered(response, "begins anew", rewind=True)

    def _steered(self, response, text: str, paused: bool | None = None, rewind: bool = False) -> Trigger.Response:
        with self._steer:
            self._paused = self._paused if paused is None else paused
            self._rewind = self._rewind or rewind
            self._steer.notify_all()
        response.success, response.message = True, text
        return response

    # -- the player's thread -------------------------------------------------------------------------------------------

    def _run(self) -> None:
        try:
            self._wait_for_nodes()
            while not self._ending:
                self._passes += 1
                whole = self._play(self._source.messages(list(self._wanted)))
                if whole and not self.p.loop:
                    self.get_logger().info(f"the recording is over: {self._played} messages")
                    self.request_exit(0)
                    return
        except Exception as error:
            if not self._ending and self.context.ok():
                self.get_logger().fatal(f"{type(error).__name__}: {error}")
                self.request_exit(1)

    def _wait_for_nodes(self) -> None:
        """Until somebody hears the images, and latents are made of them: what is played before is lost."""
        images = image_topics(self)
        heard = [p for (_, _), p in self._publishers_of.items() if p.topic_name in images[:2]]
        latents = self.resolve_topic_name("latent")
        end = time.monotonic() + WAIT
        with self._steer:
            while time.monotonic() < end and not self._ending:
                if any(p.get_subscription_count() for p in heard) and self.count_publishers(latents):
                    self._steer.wait(1.0)  # for the rest of discovery
                    return
                self._steer.wait(0.1)
        if not self._ending:
            self.get_logger().warning(f"nobody made latents of the images within {WAIT:g} s: playing all the same")

    def _play(self, messages: Iterator[RawMessage]) -> bool:
        """The recording once; False where it ended before, by a rewind or the node's end."""
        self._now = None
        for message in messages:
            if not self._until(message.recorded + self._offset):
                return False
            self._publishers_of[message.topic, message.msgtype].publish(bytes(message.data))
            self._played += 1
        return self._until(self._now + int(REST * 1e9))

    def _until(self, due: int) -> bool:
        """Let time pass, and tell it on /clock, until it is `due` ns; False where that is not to be waited for."""
        with self._steer:
            if self._now is None:
                self._now, self._then, self._told = due, time.monotonic(), -math.inf
            while not (self._rewind or self._ending):
                now = time.monotonic()
                if self._paused:
                    self._steer.wait(0.1)
                    self._then = time.monotonic()
                    continue
                passed = int((now - self._then) * 1e9 * self.p.rate)
                self._now, self._then = min(self._now + passed, max(due, self._now)), now
                if now - self._told >= OFTEN:
                    self._told = now
                    self._time.publish(Clock(clock=to_stamp(self._now)))
                if self._now >= due:
                    return True
                left = (due - self._now) * 1e-9 / self.p.rate
                self._steer.wait(min(left, CLOCK))
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


def main(argv=None) -> int:
    return run_node(Player, argv)


if __name__ == "__main__":
    sys.exit(main())
