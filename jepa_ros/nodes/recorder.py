"""Node recorder: records the graph's inputs and outputs to a rosbag2 bag (mcap) that other tools can read.

A separate thread writes the messages as they were received, serialised. No other node depends on this one: if the disk
is full, it reports an error and stops recording, and the graph continues.
"""

from __future__ import annotations

import queue
import sys
import threading
from functools import partial
from itertools import count
from pathlib import Path

from jepa_msgs.msg import Episode
from rclpy.qos import DurabilityPolicy, ReliabilityPolicy
from std_srvs.srv import Trigger

from jepa_ros import __version__
from jepa_ros.bags.writer import DiskFull, LiveBag
from jepa_ros.errors import InputError
from jepa_ros.nodes.common.diagnostics import ERROR, OK, WARN, Meter, Status
from jepa_ros.nodes.common.lifecycle import JepaNode
from jepa_ros.nodes.common.parameters import COMMAND_INTERFACE, MODEL, ROBOT, ROBOT_NAMESPACE, Parameter
from jepa_ros.nodes.common.process import run_node
from jepa_ros.nodes.common.qos import LATCHED, make_qos
from jepa_ros.nodes.common.topics import image_topics, message_class, robot_topic
from jepa_ros.resources import resolve_model, resolve_robot
from jepa_ros.robot.config import load_robot
from jepa_ros.world_model.config import CONFIG, identify

INPUTS = ("joint_states", "robot_description", "/tf", "/tf_static", "/clock")
RESULTS = (
    *("executed", "episode", "goal_image", "latent", "surprise", "plan", "imagined_path"),
    *("planner_status", "gate_status", "e_stop", "gripper", "/diagnostics"),
)
BACKLOG_LIMIT = 256 << 20  # bytes that may wait to be written; further messages are dropped and counted
DISCOVERY_PERIOD = 0.5  # s between two checks for new topics

PARAMETERS = (
    Parameter("out", "runs/recording", "Directory of the bag; a number is added if it exists.", read_only=True),
    ROBOT,
    MODEL,
    ROBOT_NAMESPACE,
    COMMAND_INTERFACE,
    Parameter("inputs", True, "Record the nodes' inputs: images, joint states, transforms.", at_configure=True),
    Parameter(
        "images",
        "raw",
        "Image topics to record: raw, compressed (image_transport), or both.",
        choices=("raw", "compressed", "both"),
        at_configure=True,
    ),
    Parameter("topics", [], "Additional topics to record.", element=str, read_only=True),
    Parameter("split_mb", 2000.0, "Size at which a new file starts.", "MB", (1.0, 1e6), at_configure=True),
    Parameter("split", "train", "Dataset split of the episodes.", choices=("train", "val", "test"), at_configure=True),
    Parameter("task", "", "Name of the task, stored with each episode.", at_configure=True),
)


class Recorder(JepaNode):
    """See the module. Service ~/episode marks the start of an episode."""

    def __init__(self) -> None:
        super().__init__("recorder", PARAMETERS)
        self._bag: LiveBag | None = None
        self._failure = ""
        self._jobs: queue.SimpleQueue = queue.SimpleQueue()  # functions for the writer's thread, which owns the bag
        self._pending = self._lost = 0  # bytes that wait to be written; messages dropped
        self._lock = threading.Lock()  # for _pending
        self._writer: threading.Thread | None = None

    # -- lifecycle -----------------------------------------------------------------------------------------------------

    def configure(self) -> None:
        p = self.p
        robot, model = load_robot(p.robot, p.command_interface), resolve_model(p.model)
        config = model / CONFIG
        if not config.is_file():
            raise InputError(f"model {p.model}: no {CONFIG} in it")
        about = {"jepa_ros": __version__, "model": model.name, "robot": robot.name, "task": p.task}
        about["model_id"] = identify(model)
        attachments = {"model_config.json": config.read_bytes(), "robot.yaml": resolve_robot(p.robot).read_bytes()}
        self._names = self._list_topics(robot)
        self._recorded: set[str] = set()
        self._episodes, self._failure, self._lost = 0, "", 0
        self._rate = Meter()
        self._bag = LiveBag(_find_unused(Path(p.out)), p.split_mb * 1e6, about, attachments)
        self.get_logger().info(f"recording to {self._bag.path}")
        self._marker = self.create_publisher(Episode, "episode", LATCHED)
        self.create_service(Trigger, "~/episode", self._on_episode)

    def activate(self) -> None:
        self._jobs, self._pending = queue.SimpleQueue(), 0
        self._writer = threading.Thread(target=self._run_jobs, name="writer", daemon=True)
        self._writer.start()
        self._discover()
        self._discovery_timer = self.steady_timer(DISCOVERY_PERIOD, self._discover)

    def deactivate(self) -> None:
        self.destroy_timer(self._discovery_timer)
        self._jobs.put(None)
        self._writer.join()

    def cleanup(self) -> None:
        bag, self._bag = self._bag, None
        bag.close()
        self.get_logger().info(f"recorded {bag.messages} messages, {bag.bytes / 1e6:.1f} MB, in {bag.path}")

    def _list_topics(self, robot) -> list[str]:
        """Return the full names of the topics to record if they are published."""
        commands = [robot_topic(self, c.command_topic) for c in robot.controllers]
        names, self._needed = [*RESULTS, *commands, *self.p.topics], []
        if self.p.inputs:
            raw, compressed, info = image_topics(self)
            kinds = {"raw": [raw], "compressed": [compressed], "both": [raw, compressed]}[self.p.images]
            names += [*(robot_topic(self, name) for name in INPUTS), *kinds, info]
            self._needed = [*kinds, self.resolve_topic_name(robot_topic(self, "joint_states"))]
        return list(dict.fromkeys(self.resolve_topic_name(name) for name in names))

    # -- topics --------------------------------------------------------------------------------------------------------

    def _discover(self) -> None:
        """Subscribe to the topics that have a publisher by now."""
        if self._failure:
            return
        for name in [n for n in self._names if n not in self._recorded]:
            publishers = self.get_publishers_info_by_topic(name)
            if publishers and publishers[0].topic_type:
                self._subscribe(name, publishers)

    def _subscribe(self, name: str, publishers: list) -> None:
        self._recorded.add(name)
        kind = publishers[0].topic_type
        latched = all(p.qos_profile.durability == DurabilityPolicy.TRANSIENT_LOCAL for p in publishers)
        reliable = all(p.qos_profile.reliability == ReliabilityPolicy.RELIABLE for p in publishers)
        qos = make_qos(100, reliable, latched)
        try:
            message = message_class(kind) if LiveBag.knows(kind) else None
        except (ImportError, AttributeError):
            message = None
        if message is None:
            self.get_logger().warning(f"{name} is not recorded: message type {kind} is not installed")
            return
        self._jobs.put(partial(self._bag.add_topic, name, kind, latched))
        self.create_subscription(message, name, partial(self._on_message, name), qos, raw=True)

    def _on_message(self, name: str, data: bytes, info: dict) -> None:
        if not self.active:
            return
        if self._failure or self._pending > BACKLOG_LIMIT:
            self._lost += 1
            return
        received = self.get_clock().now().nanoseconds
        with self._lock:
            self._pending += len(data)
        self._jobs.put(partial(self._write_message, name, data, received, info["source_timestamp"] or received))

    def _on_episode(self, request, response) -> Trigger.Response:
        if not self.active:
            response.success, response.message = False, "the recorder is not active"
            return response
        marker = Episode(id=self._episodes, reset=True, split=self.p.split, task=self.p.task)
        marker.header.stamp = self.get_clock().now().to_msg()
        self._marker.publish(marker)
        response.success, response.message = True, f"episode {self._episodes} begins"
        self._episodes += 1
        return response

    # -- the writer's thread -------------------------------------------------------------------------------------------

    def _run_jobs(self) -> None:
        """Run jobs until one is None."""
        while True:
            try:
                job = self._jobs.get(timeout=0.5)
            except queue.Empty:
                job = self._bag.flush_when_due
            if job is None:
                return
            try:
                job()
            except (DiskFull, OSError) as error:
                if not self._failure:
                    self._failure = f"recording stopped: {error}"
                    self.get_logger().error(self._failure)
                    self.diagnostics_changed()

    def _write_message(self, name: str, data: bytes, received: int, sent: int) -> None:
        with self._lock:
            self._pending -= len(data)
        if not self._failure:
            self._bag.write(name, data, received, sent)
            self._rate.count()

    # -- reports -------------------------------------------------------------------------------------------------------

    def diagnose(self) -> list[Status]:
        bag = self._bag
        if bag is None:
            return [Status("recording", OK, "not configured")]
        values = {"bag": bag.path, "messages": bag.messages, "megabytes": bag.bytes / 1e6, "lost": self._lost}
        values |= {"messages_per_s": self._rate.rate(), "waiting_megabytes": self._pending / 1e6}
        values["topics"] = len(self._recorded)
        if self._failure:
            return [Status("recording", ERROR, self._failure, values)]
        missing = [n for n in self._needed if n not in self._recorded]
        text = f"no publisher of {', '.join(missing)}" if missing else f"recording to {bag.path}"
        return [Status("recording", WARN if missing or self._lost else OK, text, values)]


def _find_unused(path: Path) -> Path:
    """Return the first of path, path-2, path-3, ... that does not exist."""
    paths = (path if number == 1 else path.with_name(f"{path.name}-{number}") for number in count(1))
    return next(path for path in paths if not path.exists())


if __name__ == "__main__":
    sys.exit(run_node(Recorder))
