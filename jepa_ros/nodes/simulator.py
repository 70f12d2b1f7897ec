"""Node simulator: the OpenArm cell in MuJoCo, with the topics of a real arm and its camera.

The control thread runs the controllers' 100 Hz cycle (read, update, write, then 10 ms of physics), another thread
renders the camera's images, and the executor's thread handles trajectories and services. So neither rendering nor a
burst of messages delays control.
"""

from __future__ import annotations

import math
import sys
import threading
import time
from collections.abc import Sequence
from functools import partial

import numpy as np
from builtin_interfaces.msg import Time
from geometry_msgs.msg import TransformStamped
from jepa_msgs.srv import SetState
from rclpy.node import Node
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import CameraInfo, Image, JointState
from std_msgs.msg import String
from std_srvs.srv import Trigger
from tf2_msgs.msg import TFMessage
from trajectory_msgs.msg import JointTrajectory

from jepa_ros.errors import InputError
from jepa_ros.nodes.common.convert import float64_array, image_message, to_stamp
from jepa_ros.nodes.common.diagnostics import ERROR, OK, WARN, Meter, Status
from jepa_ros.nodes.common.lifecycle import JepaNode
from jepa_ros.nodes.common.parameters import ROBOT, Parameter
from jepa_ros.nodes.common.process import run_node
from jepa_ros.nodes.common.qos import CONTROLLER, IMAGES, LATCHED, NEWEST, TF
from jepa_ros.nodes.common.topics import image_topics
from jepa_ros.nodes.simulated_controller import SimulatedController
from jepa_ros.robot.config import load_robot

CYCLE = 0.01  # s between two updates of the controllers
MAX_DELAY = 0.1  # s behind the wall clock; a longer delay is not caught up
REJECTION_SHOWN_FOR = 2.0  # s for which diagnostics report a rejected trajectory
DISCOVERY_TIME = 3.5  # s in which other nodes are discovered: usually 0.1, but Fast DDS repeats lost announcements at 3
NAME_TIMEOUT = 2.0  # s more, in which discovery also provides the node's name
UNKNOWN_NAME = "_NODE_NAME_UNKNOWN_"  # rmw's placeholder
WORLD_FRAME = "world"

PARAMETERS = (
    ROBOT,
    Parameter("task", "reach", "Simulated task whose objects are in the scene.", at_configure=True),
    Parameter("width", 320, "Width of the images.", unit="pixels", range=(16, 1920), at_configure=True),
    Parameter("height", 240, "Height of the images.", unit="pixels", range=(16, 1080), at_configure=True),
    Parameter("rate", 15.0, "Image rate in simulated time; 0: no images.", unit="Hz", range=(0.0, 100.0)),
    Parameter("timestep", 0.002, "Physics time step.", unit="s", range=(0.0005, 0.005), at_configure=True),
    Parameter("tf_rate", 15.0, "Rate of link poses on tf; 0: none.", unit="Hz", range=(0.0, 30.0)),
    Parameter(
        "publish_clock",
        False,
        "Publish simulated time, which starts at 0, on /clock and use it for stamps; otherwise stamps are ROS time.",
        at_configure=True,
    ),
    Parameter(
        "real_time_factor",
        1.0,
        "Simulation speed; 0: as fast as possible, waiting for each image. Values other than 1 require publish_clock.",
        range=(0.0, 20.0),
    ),
    Parameter("blocked_joint", "", "Joint to block, as a collision would; empty: none."),
    Parameter(
        "controller_speed",
        1.0,
        "Speed scaling of the arm's controllers, as a speed slider or a pause (0) of a real robot sets it.",
        range=(0.0, 1.0),
    ),
    Parameter(
        "controller_active",
        True,
        "Activity of the arm's controllers: inactive ones keep their last set-point and receive nothing.",
    ),
    Parameter(
        "render_niceness",
        0,
        "Added to the niceness of the rendering thread, so that under load images are late and not the rest.",
        range=(0, 19),
        at_configure=True,
    ),
)


class Simulator(JepaNode):
    """In: `<controller>/joint_trajectory`. Out: image, camera_info, joint_states, robot_description, tf, tf_static,
    `<controller>/controller_state` where control_msgs is installed, and /clock if asked for.
    Services: reset, set_state."""

    def __init__(self) -> None:
        super().__init__("simulator", PARAMETERS)
        self._created = time.monotonic()
        self._loop: threading.Thread | None = None
        self._renderer = None
        self._lock = threading.Lock()  # for the scene and the controllers
        self._ending = threading.Event()
        self._rejected = 0
        self._last_rejection = ("", 0.0)
        self._images_skipped = 0
        self._time_skipped = 0.0
        self._slowest = 0.0
        self._failure = ""
        self._cycles, self._images = Meter(), Meter()

    def validate(self, values) -> None:
        if values.real_time_factor != 1.0 and not values.publish_clock:
            found = f"{values.real_time_factor:g}"
            raise InputError(f"parameter 'real_time_factor': expected 1 unless publish_clock is set, found {found}")

    def parameters_changed(self, names: set[str]) -> None:
        if "blocked_joint" in names and self.active:
            self._block_joint()
        if {"controller_speed", "controller_active"} & names and self.active:
            self._set_controllers()

    def _set_controllers(self) -> None:
        with self._lock:
            for controller in self._controllers.values():
                controller.set_speed(self.p.controller_speed)
                controller.set_active(self.p.controller_active, self._scene.positions(controller.joints))

    def _block_joint(self) -> None:
        try:
            with self._lock:
                self._scene.block(self.p.blocked_joint)
        except InputError as error:
            self.get_logger().error(f"parameter 'blocked_joint': {error}")

    # -- lifecycle -----------------------------------------------------------------------------------------------------

    def configure(self) -> None:
        from jepa_ros.sim.rendering import RenderWorker
        from jepa_ros.sim.scene import Scene
        from jepa_ros.sim.tasks import make_task

        p = self.p
        robot = load_robot(p.robot)
        task = make_task(p.task, robot, for_goals=False)
        scene = Scene(width=p.width, height=p.height, timestep=p.timestep, add_objects=task.add_objects)
        if missing := [name for name in robot.joints if name not in scene.joint_names]:
            raise InputError(f"robot '{p.robot}': joints: not in the simulated cell: {', '.join(missing)}")
        self._renderer = RenderWorker(scene, self._on_image, p.render_niceness)
        self._refuse_other_publishers([c.command_topic for c in robot.controllers])
        self._controllers = {c.command_topic: SimulatedController(self, c) for c in robot.controllers}
        self._scene = scene
        self._hold()
        self._topics = SimulatorTopics(self, scene, clock=self._simulated_time)
        for topic in self._controllers:
            self.create_subscription(JointTrajectory, topic, partial(self._on_trajectory, topic), CONTROLLER)
        self.create_service(Trigger, "reset", self._on_reset)
        self.create_service(SetState, "set_state", self._on_set_state)

    def activate(self) -> None:
        self._ending.clear()
        self._failure = ""
        self._block_joint()
        self._set_controllers()
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
        self.request_exit(2)

    def _refuse_other_publishers(self, command_topics: list[str]) -> None:
        """Raise InputError if another node publishes joint_states or subscribes to the controllers' topics.

        Discovery takes DISCOVERY_TIME from the node's creation; most of it has passed while the scene was loaded.
        """
        commands = [self.resolve_topic_name(topic) for topic in command_topics]
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
        except Exception as error:  # the physics diverged, or the ROS context was shut down
            if not self._ending.is_set() and self.context.ok():
                self._failure = f"{type(error).__name__}: {error}"
                self.get_logger().fatal(f"control loop failed: {self._failure}")
                self.request_exit(1)

    def _pace(self, due: float) -> float:
        """Sleep until the next cycle is due; return that time (s, steady clock)."""
        factor = self.p.real_time_factor
        if factor == 0:
            time.sleep(0)  # yield to the executor's thread
            return time.monotonic()
        due += CYCLE / factor
        ahead = due - time.monotonic()
        if ahead > 0:
            self._ending.wait(ahead)
        elif -ahead > MAX_DELAY:
            self._time_skipped -= ahead
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
                measured, velocities = scene.positions(controller.joints), scene.velocities(controller.joints)
                scene.command(controller.joints, controller.run_cycle(now * 1e-9, measured, velocities))
            simulated = scene.time
            scene.step(CYCLE)
        if not np.isfinite(state[1]).all():
            raise RuntimeError("the physics diverged")
        stamp = to_stamp(now)
        self._topics.publish_clock(stamp)
        self._topics.publish_joint_states(stamp, state)
        for controller in self._controllers.values():
            controller.publish_state(stamp)
        if poses is not None:
            self._topics.publish_poses(stamp, poses)
        self._render_if_due(stamp, qpos, simulated)
        self._cycles.count()

    def _render_if_due(self, stamp, qpos: np.ndarray, simulated: float) -> None:
        """Pass the state to the rendering thread if an image is due; while that is busy, try again next cycle."""
        rate = self.p.rate
        if rate == 0:
            return
        period = 1.0 / rate
        self._next_image = min(self._next_image, simulated + period)  # the rate may have been raised
        if simulated < self._next_image - 1e-6:
            return
        if self.p.real_time_factor == 0:
            self._renderer.wait_idle(5.0)
        if not self._renderer.submit(qpos, stamp):
            return
        behind = simulated - self._next_image
        if behind > period and self._next_image > 0:
            self._images_skipped += int(behind / period)
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

    # -- rendering thread ----------------------------------------------------------------------------------------------

    def _on_image(self, image: np.ndarray, stamp) -> None:
        if self.active and self.context.ok():
            self._topics.publish_image(stamp, image)
            self._images.count()

    # -- executor's thread ---------------------------------------------------------------------------------------------

    def _on_trajectory(self, topic: str, message: JointTrajectory) -> None:
        if not self.active:
            return
        try:
            with self._lock:
                self._controllers[topic].accept(message, self._now_ns() * 1e-9)
        except InputError as error:
            expectation = str(error).split(", found")[0]  # the same for every rejection of a kind
            self._rejected += 1
            self._last_rejection = (expectation, time.monotonic())
            self.warn_throttled(expectation, f"{topic}: rejected: {error}")
            self.diagnostics_changed()

    def _on_reset(self, request, response):
        self._reset()
        response.success = True
        return response

    def _on_set_state(self, request, response):
        try:
            self._reset(self._read_positions(request.names, request.positions))
            response.success = True
        except InputError as error:
            response.success, response.message = False, str(error)
        return response

    def _reset(self, positions: dict[str, float] | None = None) -> None:
        with self._lock:
            self._scene.reset(positions)
            self._hold()

    def _read_positions(self, names, positions) -> dict[str, float]:
        """Return requested positions by joint. Raises InputError for an unknown joint or a position out of range."""
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
        """Let every controller hold the present positions of its joints."""
        for controller in self._controllers.values():
            controller.hold(self._scene.positions(controller.joints))

    # -- diagnostics ---------------------------------------------------------------------------------------------------

    def diagnose(self) -> list[Status]:
        slowest, self._slowest = self._slowest, 0.0
        rejection, when = self._last_rejection
        render_failure = self._renderer.failure if self._renderer is not None else ""
        if self._failure or render_failure:
            level, text = ERROR, self._failure or f"rendering failed: {render_failure}"
        elif self.active and self.count_publishers("joint_states") > 1:
            level, text = ERROR, "another publisher on joint_states"
        elif rejection and time.monotonic() - when < REJECTION_SHOWN_FOR:
            level, text = WARN, f"trajectory rejected: {rejection}"
        else:
            level, text = OK, "simulating" if self.active else "not active"
        values = {
            "control_hz": self._cycles.rate(),
            "slowest_cycle_ms": slowest * 1e3,
            "image_hz": self._images.rate(),
            "render_ms": self._renderer.seconds * 1e3 if self._renderer is not None else 0.0,
            "images": self._images.total,
            "images_left_out": self._images_skipped,
            "time_let_go_s": self._time_skipped,
            "rejected_trajectories": self._rejected,
        }
        return [Status("simulation", level, text, values)]


class SimulatorTopics:
    """Publishers of one scene; each method is called from one thread only.

    Messages at a high rate are created once and reused, since creating one costs more than sending it.
    """

    def __init__(self, node: JepaNode, scene, *, clock: bool) -> None:
        from jepa_ros.sim.scene import OPTICAL_FRAME

        self._scene, self._frame = scene, OPTICAL_FRAME
        # Absolute, as nodes that use simulated time expect it.
        self._clock = node.create_publisher(Clock, "/clock", NEWEST) if clock else None
        self._joint_states = node.create_publisher(JointState, "joint_states", LATCHED)
        self._images = node.create_publisher(Image, "image", IMAGES)
        self._camera_infos = node.create_publisher(CameraInfo, image_topics(node).info, IMAGES)
        self._description = node.create_publisher(String, "robot_description", LATCHED)
        self._tf = node.create_publisher(TFMessage, "tf", TF)
        self._tf_static = node.create_publisher(TFMessage, "tf_static", LATCHED)
        self._order = sorted(range(len(scene.joint_names)), key=scene.joint_names.__getitem__)
        self._joint_state = JointState(name=sorted(scene.joint_names))
        self._camera_info = camera_info(scene.camera_intrinsics, self._frame)
        self._transforms = {name: _transform(name) for name in scene.link_poses()}
        self._poses = TFMessage(transforms=list(self._transforms.values()))

    def publish_fixed(self, now_ns: int) -> None:
        """Publish what does not change: the robot's description and the camera's pose."""
        self._description.publish(String(data=self._scene.urdf))
        camera = _transform(self._frame)
        camera.header.stamp = to_stamp(now_ns)
        _set_pose(camera, *self._scene.camera_pose)
        self._tf_static.publish(TFMessage(transforms=[camera]))

    def publish_clock(self, stamp: Time) -> None:
        """Publish simulated time, if the simulator provides it."""
        if self._clock is not None:
            self._clock.publish(Clock(clock=stamp))

    def publish_joint_states(self, stamp: Time, state) -> None:
        """Publish joint states in alphabetical order, as joint_state_broadcaster does; state: of Scene.joint_state."""
        message, order = self._joint_state, self._order
        message.header.stamp = stamp
        message.position, message.velocity, message.effort = (float64_array(values[order]) for values in state[1:])
        self._joint_states.publish(message)

    def publish_poses(self, stamp: Time, poses: dict[str, tuple[np.ndarray, np.ndarray]]) -> None:
        """Publish link poses on tf; poses: as Scene.link_poses returns them."""
        for name, pose in poses.items():
            transform = self._transforms[name]
            transform.header.stamp = stamp
            _set_pose(transform, *pose)
        self._tf.publish(self._poses)

    def publish_image(self, stamp: Time, image: np.ndarray) -> None:
        """Publish an image (H, W, 3), uint8 RGB, of the state at `stamp`, and its camera_info."""
        self._images.publish(image_message(image, stamp, self._frame))
        self._camera_info.header.stamp = stamp
        self._camera_infos.publish(self._camera_info)


def camera_info(intrinsics: dict[str, float], frame_id: str) -> CameraInfo:
    """Return sensor_msgs/CameraInfo of an ideal pinhole camera. intrinsics: fx, fy, cx, cy, width, height in pixels."""
    fx, fy, cx, cy = (float(intrinsics[key]) for key in ("fx", "fy", "cx", "cy"))
    message = CameraInfo(
        width=int(intrinsics["width"]),
        height=int(intrinsics["height"]),
        distortion_model="plumb_bob",
        d=[0.0] * 5,
        k=[fx, 0.0, cx, 0.0, fy, cy, 0.0, 0.0, 1.0],
        r=[1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0],
        p=[fx, 0.0, cx, 0.0, 0.0, fy, cy, 0.0, 0.0, 0.0, 1.0, 0.0],
    )
    message.header.frame_id = frame_id
    return message


def _transform(child: str) -> TransformStamped:
    message = TransformStamped(child_frame_id=child)
    message.header.frame_id = WORLD_FRAME
    return message


def _set_pose(message: TransformStamped, position: np.ndarray, quaternion: np.ndarray) -> None:
    translation, rotation = message.transform.translation, message.transform.rotation
    translation.x, translation.y, translation.z = position.tolist()
    rotation.x, rotation.y, rotation.z, rotation.w = quaternion.tolist()


def find_other_publishers(node: Node, published: str, commands: Sequence[str], since: float) -> str:
    """Return which other node publishes `published` or subscribes to one of `commands`, in a sentence; "" if none.

    since: steady time (s) at which discovery began; this returns at most DISCOVERY_TIME after it if there is none.
    """

    def full_name(info) -> str:
        return f"{info.node_namespace.rstrip('/')}/{info.node_name}"

    def find() -> str:
        for info in node.get_publishers_info_by_topic(published):
            return f"{published}: node {full_name(info)} already publishes it"
        for topic in commands:
            for info in node.get_subscriptions_info_by_topic(topic):
                return f"{topic}: node {full_name(info)} already subscribes to it"
        return ""

    while not (found := find()) and time.monotonic() < since + DISCOVERY_TIME:
        time.sleep(0.02)
    end = time.monotonic() + NAME_TIMEOUT
    while UNKNOWN_NAME in found and time.monotonic() < end:
        time.sleep(0.02)
        found = find() or found
    return found


if __name__ == "__main__":
    sys.setswitchinterval(0.001)  # s; so that the control thread waits less for threads that compute
    sys.exit(run_node(Simulator))
