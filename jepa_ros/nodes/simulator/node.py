"""simulator: the OpenArm cell in MuJoCo behind the topics of a real one.

A thread of its own runs the 100 Hz cycle of the controllers (read, update, write, then 10 ms of physics), another one
draws the camera's pictures, and the executor's thread takes trajectories and services. So neither drawing nor a burst
of messages delays control.
"""

from __future__ import annotations

import math
import sys
import threading
import time
from collections.abc import Sequence
from functools import partial

import numpy as np
from jepa_msgs.srv import SetState
from rclpy.node import Node
from std_srvs.srv import Trigger
from trajectory_msgs.msg import JointTrajectory

from jepa_ros.errors import InputError
from jepa_ros.nodes.common.convert import to_ns, to_stamp, trajectory_of
from jepa_ros.nodes.common.diagnostics import ERROR, OK, WARN, Meter, Status
from jepa_ros.nodes.common.lifecycle import JepaNode
from jepa_ros.nodes.common.parameters import Parameter
from jepa_ros.nodes.common.process import run_node
from jepa_ros.nodes.common.qos import STREAM
from jepa_ros.nodes.simulator.publishers import SimulatorTopics
from jepa_ros.robot.config import load_robot

CYCLE = 0.01
"""s between two updates of the controllers."""
LATE = 0.1
"""s behind the wall clock beyond which the simulation lets the lost time go, instead of hurrying after it."""

PARAMETERS = (
    Parameter(
        "robot", "openarm", "Robot (name in config/robots, or file) whose controllers it has.", at_configure=True
    ),
    Parameter("width", 320, "Width of the images.", unit="pixels", range=(16, 1920), at_configure=True),
    Parameter("height", 240, "Height of the images.", unit="pixels", range=(16, 1080), at_configure=True),
    Parameter("rate", 15.0, "Images in a second of simulated time; 0: none.", unit="Hz", range=(0.0, 100.0)),
    Parameter("timestep", 0.002, "Step of the physics.", unit="s", range=(0.0005, 0.005), at_configure=True),
    Parameter("tf_rate", 15.0, "Link poses on tf; 0: none.", unit="Hz", range=(0.0, 30.0)),
    Parameter(
        "publish_clock",
        False,
        "Publish /clock: stamps are then simulated time, which starts at 0; otherwise they are the ROS clock's.",
        at_configure=True,
    ),
    Parameter(
        "real_time_factor",
        1.0,
        "Simulated seconds in a second; 0: as fast as it goes, each image awaited. Other than 1 needs publish_clock.",
        range=(0.0, 20.0),
    ),
    Parameter("blocked_joint", "", "A joint that does not move, as if something held it; empty: none."),
    Parameter(
        "render_niceness",
        0,
        "Added to the niceness of the drawing thread: it then yields to all else, and images come later under load.",
        range=(0, 19),
        at_configure=True,
    ),
)


class Simulator(JepaNode):
    """See the module's text; topics and services are in DESIGN's table."""

    def __init__(self) -> None:
        super().__init__("simulator", PARAMETERS)
        self._created = time.monotonic()
        self._loop: threading.Thread | None = None
        self._renderer = None
        self._lock = threading.Lock()  # scene and controllers
        self._ending = threading.Event()
        self._rejected = 0
        self._last_rejection = ("", 0.0)
        self._images_left_out = 0
        self._time_let_go = 0.0
        self._slowest = 0.0
        self._failure = ""
        self._cycles, self._images = Meter(), Meter()

    def validate(self, values) -> None:
        if values.real_time_factor != 1.0 and not values.publish_clock:
            found = f"{values.real_time_factor:g}"
            raise InputError(f"parameter 'real_time_factor': expected 1 unless publish_clock is set, found {found}")

    def parameters_changed(self, names: set[str]) -> None:
        if "blocked_joint" in names and self.active:
            self._block()

    def _block(self) -> None:
        try:
            with self._lock:
                self._scene.block(self.p.blocked_joint)
        except InputError as error:
            self.get_logger().error(f"parameter 'blocked_joint': {error}")

    # -- lifecycle -----------------------------------------------------------------------------------------------------

    def configure(self) -> None:
        from jepa_ros.sim.controller import TrajectoryController
        from jepa_ros.sim.rendering import RenderWorker
        from jepa_ros.sim.scene import Scene

        p = self.p
        robot = load_robot(p.robot)
        scene = Scene(width=p.width, height=p.height, timestep=p.timestep)
        missing = [name for name in robot.joints if name not in scene.joint_names]
        if missing:
            raise InputError(f"robot '{p.robot}': joints: expected ones of the simulated cell, found {missing}")
        self._controllers = {c.command_topic: TrajectoryController(tuple(c.joints)) for c in robot.controllers}
        self._renderer = RenderWorker(scene, self._on_image, p.render_niceness)
        self._refuse_company()
        self._scene = scene
        self._hold()
        self._topics = SimulatorTopics(self, scene, clock=self._simulated_time)
        for topic in self._controllers:
            self.create_subscription(JointTrajectory, topic, partial(self._on_trajectory, topic), STREAM)
        self.create_service(Trigger, "reset", self._on_reset)
        self.create_service(SetState, "set_state", self._on_set_state)

    def activate(self) -> None:
        self._ending.clear()
        self._failure = ""
        self._block()
        self._topics.publish_fixed(self._now_ns())
        self._loop = threading.Thread(target=self._run_loop, name="control", daemon=True)
        self._loop.start()

    def deactivate(self) -> None:
        self._ending.set()
        if self._loop is not None:
            self._loop.join(5.0)
        self._loop = None

    def cleanup(self) -> None:
        if self._renderer is not None:
            self._renderer.close()
        self._renderer = None

    def refused(self) -> None:
        self.request_exit(2)  # a simulator that may not start has nothing to wait for

    def _refuse_company(self) -> None:
        """Raises InputError where somebody else moves or is moved by the same topics. Most of the time that this takes
        went by while scene and OpenGL were loaded."""
        commands = [self.resolve_topic_name(topic) for topic in self._controllers]
        if found := find_other_publishers(self, self.resolve_topic_name("joint_states"), commands, self._created):
            self.cleanup()
            raise InputError(f"{found}; simulate in another ROS_DOMAIN_ID or namespace")

    # -- time ----------------------------------------------------------------------------------------------------------

    @property
    def _simulated_time(self) -> bool:
        return self.p.publish_clock or self.get_parameter("use_sim_time").value

    def _now_ns(self) -> int:
        if self._simulated_time:
            return round((self._scene.time + CYCLE) * 1e9)  # never 0, which means "not started"
        return self.get_clock().now().nanoseconds

    # -- control thread ------------------------------------------------------------------------------------------------

    def _run_loop(self) -> None:
        try:
            due = time.monotonic()
            self._next_image = self._next_tf = 0.0
            while not self._ending.is_set():
                begun = time.monotonic()
                self._cycle()
                self._slowest = max(self._slowest, time.monotonic() - begun)
                due = self._pace(due)
        except Exception as error:  # the physics diverged, or the context went away
            if not self._ending.is_set() and self.context.ok():
                self._failure = f"{type(error).__name__}: {error}"
                self.get_logger().fatal(f"control loop ended: {self._failure}")
                self.request_exit(1)

    def _pace(self, due: float) -> float:
        """Sleeps until the next cycle is due; returns when that is."""
        factor = self.p.real_time_factor
        if factor == 0:
            time.sleep(0)  # lets the executor's thread have its turn
            return time.monotonic()
        due += CYCLE / factor
        ahead = due - time.monotonic()
        if ahead > 0:
            self._ending.wait(ahead)
        elif -ahead > LATE:
            self._time_let_go -= ahead
            due -= ahead
        return due

    def _cycle(self) -> None:
        scene = self._scene
        with self._lock:
            now = self._now_ns()
            state = scene.joint_state()
            qpos = scene.data.qpos.copy()
            poses = scene.link_poses() if self._poses_due() else None
            for controller in self._controllers.values():
                scene.command(controller.joints, controller.update(now * 1e-9))
            simulated = scene.time
            scene.step(CYCLE)
        if not np.isfinite(state[1]).all():
            raise RuntimeError("the physics diverged")
        stamp = to_stamp(now)
        self._topics.publish_clock(stamp)
        self._topics.publish_joint_states(stamp, state)
        if poses is not None:
            self._topics.publish_poses(stamp, poses)
        self._image(stamp, qpos, simulated)
        self._cycles.count()

    def _image(self, stamp, qpos: np.ndarray, simulated: float) -> None:
        """Hands the state to the drawing thread where an image is due; while that is busy, a cycle later."""
        rate = self.p.rate
        if rate == 0:
            return
        period = 1.0 / rate
        self._next_image = min(self._next_image, simulated + period)  # the rate may have been far lower until now
        if simulated < self._next_image - 1e-6:
            return
        if self.p.real_time_factor == 0:
            self._renderer.wait_idle(5.0)
        if not self._renderer.submit(qpos, stamp):
            return
        behind = simulated - self._next_image
        if behind > period and self._next_image > 0:
            self._images_left_out += int(behind / period)
        self._next_image = self._next_image + period if behind <= period else simulated + period

    def _poses_due(self) -> bool:
        rate = self.p.tf_rate
        if rate == 0:
            return False
        self._next_tf = min(self._next_tf, self._scene.time + 1.0 / rate)
        if self._scene.time < self._next_tf - 1e-6:
            return False
        self._next_tf = max(self._next_tf + 1.0 / rate, self._scene.time)
        return True

    # -- drawing thread ------------------------------------------------------------------------------------------------

    def _on_image(self, picture: np.ndarray, stamp) -> None:
        if self.active and self.context.ok():
            self._topics.publish_image(stamp, picture)
            self._images.count()

    # -- executor's thread ---------------------------------------------------------------------------------------------

    def _on_trajectory(self, topic: str, message: JointTrajectory) -> None:
        if not self.active:
            return
        try:
            trajectory = trajectory_of(message)
            with self._lock:
                now = self._now_ns() * 1e-9
                self._controllers[topic].accept(trajectory, to_ns(message.header.stamp) * 1e-9, now)
        except InputError as error:
            self._rejected += 1
            self._last_rejection = (_expectation(error), time.monotonic())
            self.warn_throttled(_expectation(error), f"{topic}: rejected: {error}")
            self.diagnostics_changed()

    def _on_reset(self, request, response):
        with self._lock:
            self._scene.reset()
            self._hold()
        response.success = True
        return response

    def _on_set_state(self, request, response):
        try:
            positions = self._checked(request.names, request.positions)
        except InputError as error:
            response.success, response.message = False, str(error)
            return response
        with self._lock:
            self._scene.reset(positions)
            self._hold()
        response.success = True
        return response

    def _checked(self, names, positions) -> dict[str, float]:
        """The requested positions by joint; InputError where a joint is unknown or would be outside its range."""
        if len(names) != len(positions) or len(set(names)) != len(names):
            raise InputError(f"set_state: expected one position for each name, found {len(names)} and {len(positions)}")
        for name, position in zip(names, positions, strict=True):
            if name not in self._scene.joint_names:
                known = ", ".join(self._scene.joint_names)
                raise InputError(f"set_state: joint '{name}': expected one of {known}")
            low, high = self._scene.model.joint(name).range
            if not (math.isfinite(position) and low - 1e-6 <= position <= high + 1e-6):
                raise InputError(
                    f"set_state: joint '{name}': expected {low:.4g} to {high:.4g} rad, found {position:.4g}"
                )
        return dict(zip(names, positions, strict=True))

    def _hold(self) -> None:
        """Every controller stays where its joints are."""
        for controller in self._controllers.values():
            controller.hold(self._scene.positions(controller.joints))

    # -- diagnostics ---------------------------------------------------------------------------------------------------

    def diagnose(self) -> list[Status]:
        slowest, self._slowest = self._slowest, 0.0
        rejection, when = self._last_rejection
        drawing_failed = self._renderer.failure if self._renderer is not None else ""
        if self._failure or drawing_failed:
            level, text = ERROR, self._failure or f"drawing failed: {drawing_failed}"
        elif self.active and self.count_publishers("joint_states") > 1:
            level, text = ERROR, "somebody else publishes joint_states too"
        elif rejection and time.monotonic() - when < 2.0:
            level, text = WARN, f"trajectory rejected: {rejection}"
        else:
            level, text = OK, "simulating" if self.active else "not active"
        values = {
            "control_hz": self._cycles.rate(),
            "slowest_cycle_ms": slowest * 1e3,
            "image_hz": self._images.rate(),
            "render_ms": self._renderer.seconds * 1e3 if self._renderer is not None else 0.0,
            "images": self._images.total,
            "images_left_out": self._images_left_out,
            "time_let_go_s": self._time_let_go,
            "rejected_trajectories": self._rejected,
        }
        return [Status("simulation", level, text, values)]


def _expectation(error: InputError) -> str:
    """What was expected, without the figures found: the same for every rejection of a kind."""
    return str(error).split(", found")[0]


def main(argv=None) -> int:
    sys.setswitchinterval(0.001)  # s; a thread that computes lets the control thread in sooner
    return run_node(Simulator, argv)


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
