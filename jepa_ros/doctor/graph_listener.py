"""Graph listener of the doctor: subscribes to topics and reads parameters; it publishes nothing."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

import numpy as np
from rcl_interfaces.srv import GetParameters
from rclpy.event_handler import SubscriptionEventCallbacks
from rclpy.executors import Executor
from rclpy.node import Node
from rclpy.parameter import parameter_value_to_python
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from rclpy.task import Future
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import CameraInfo, CompressedImage, Image, JointState
from std_msgs.msg import String
from tf2_msgs.msg import TFMessage

from jepa_ros.doctor.observations import (
    CameraObservations,
    Endpoint,
    Intrinsics,
    JointMessage,
    MessageTimes,
    NodeParameters,
    Observations,
    RobotSetup,
    Topic,
)
from jepa_ros.images import ImageError
from jepa_ros.nodes.common.convert import decode_image, to_seconds
from jepa_ros.nodes.common.qos import LATCHED, LISTEN_SOME, LISTEN_TF, LISTEN_TF_STATIC, NEWEST
from jepa_ros.nodes.common.topics import missing_package

DISCOVERY_TIMEOUT = 3.5
"""s until everything that is expected has been discovered, usually 0.1; Fast DDS repeats what was lost after 3 s."""
ANSWER_TIMEOUT = 1.0  # s after listening, for answers of services
_OUR_NODES = ("simulator", "camera", "world_model", "planner", "arm_gate")


def observe_graph(
    node: Node,
    executor: Executor,
    setup: RobotSetup,
    seconds: float,
    should_stop: Callable[[], bool] = lambda: False,
    discovery: float = DISCOVERY_TIMEOUT,
) -> Observations:
    """Observe the graph with `node`, which `executor` spins here, for `seconds`.

    Listening starts once everything that is expected has been discovered, or after `discovery` s. should_stop: called
    repeatedly; true ends it early.
    """
    listener = _DoctorListener(node, setup)
    try:
        listener.spin(executor, discovery, should_stop, until=listener.is_complete)
        listener.start_measuring()
        listener.request_parameters()
        listener.spin(executor, seconds, should_stop)
        listener.spin(executor, ANSWER_TIMEOUT, should_stop, until=listener.is_answered)
        return listener.result(seconds)
    finally:
        listener.close()


class _DoctorListener:
    """Subscriptions and clients, and the observations from them."""

    def __init__(self, node: Node, setup: RobotSetup) -> None:
        self._node, self._setup, self._subscriptions, self._clients = node, setup, [], []
        self._observed = Observations(cameras=[CameraObservations(topic) for topic in setup.image_topics])
        self._clock = math.nan
        self._repeated: dict[str, tuple[bytes, float]] = {}  # by topic: the last pixels, and since when
        self._newest: dict[str, Image | CompressedImage] = {}
        self._answers: list[Future] = []
        self._subscribe(Clock, "/clock", lambda m: setattr(self, "_clock", to_seconds(m.clock)), LISTEN_SOME)
        self._subscribe(JointState, setup.joint_states_topic, self._on_joints, LISTEN_SOME)
        for qos in (LATCHED, NEWEST):  # the second receives from publishers that our nodes would not
            self._subscribe(String, setup.description_topic, self._on_description, qos)
        for name in {"/tf", setup.node_topic("tf"), setup.robot_topic("tf")}:
            self._subscribe(TFMessage, name, self._on_tf, LISTEN_TF)
        for name in {"/tf_static", setup.node_topic("tf_static"), setup.robot_topic("tf_static")}:
            for qos in (LISTEN_TF_STATIC, NEWEST):
                self._subscribe(TFMessage, name, self._on_tf, qos)
        for camera in self._observed.cameras:
            type_ = CompressedImage if camera.topic.endswith("/compressed") else Image
            self._subscribe(type_, camera.topic, partial(self._on_image, camera), LISTEN_SOME)
            folder = camera.topic.removesuffix("/compressed").rpartition("/")[0]
            self._subscribe(CameraInfo, f"{folder}/camera_info", partial(self._on_info, camera), LISTEN_SOME)

    def _subscribe(self, type_: type, topic: str, callback, qos: QoSProfile) -> None:
        silent = SubscriptionEventCallbacks(use_default_callbacks=False)  # a QoS mismatch is a finding, not a log line
        self._subscriptions.append(self._node.create_subscription(type_, topic, callback, qos, event_callbacks=silent))

    def spin(
        self, executor: Executor, seconds: float, should_stop: Callable[[], bool], until: Callable = lambda: False
    ) -> None:
        """Handle messages for so long, or until a condition holds."""
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0 and not until() and not should_stop():
            executor.spin_once(timeout_sec=min(left, 0.1))

    def is_complete(self) -> bool:
        """Return whether all expected messages were received and every controller's topic has a subscriber."""
        o, setup = self._observed, self._setup
        commands = [setup.robot_topic(c.command_topic) for c in setup.robot.controllers]
        return bool(
            len(o.joints)
            and o.description
            and o.transforms
            and all(len(c.times) and c.intrinsics for c in o.cameras)
            and all(self._node.count_subscribers(topic) for topic in commands)
        )

    def start_measuring(self) -> None:
        """Discard the messages received during discovery, which arrive in a burst."""
        self._observed.joints, self._observed.joint_messages = MessageTimes(), []
        for camera in self._observed.cameras:
            camera.times, camera.sizes, camera.encodings, camera.problem = MessageTimes(), [], [], ""
        self._repeated.clear()

    # -- the graph -----------------------------------------------------------------------------------------------------

    def _read_topics(self) -> dict[str, Topic]:
        """Return all topics with their publishers and subscribers, without the doctor."""
        topics = {}
        for name, _ in self._node.get_topic_names_and_types():
            publishers = self._endpoints(self._node.get_publishers_info_by_topic(name))
            subscribers = self._endpoints(self._node.get_subscriptions_info_by_topic(name))
            if publishers or subscribers:
                topics[name] = Topic(publishers, subscribers)
        return topics

    def _endpoints(self, infos: Iterable[Any]) -> list[Endpoint]:
        found = []
        for info in infos:
            name, qos = f"{info.node_namespace.rstrip('/')}/{info.node_name}", info.qos_profile
            if name != self._node.get_fully_qualified_name():
                is_reliable = qos.reliability == ReliabilityPolicy.RELIABLE
                is_transient = qos.durability == DurabilityPolicy.TRANSIENT_LOCAL
                found.append(Endpoint(name, info.topic_type, is_reliable, is_transient))
        return found

    def request_parameters(self) -> None:
        """Ask nodes for parameters, and the controller manager for states; answers arrive while spinning."""
        setup, topics = self._setup, self._read_topics()
        controllers = [setup.robot_topic(c.command_topic) for c in setup.robot.controllers]
        names = (setup.joint_states_topic, setup.description_topic, *setup.image_topics, *controllers)
        publishers = {end.node for name in names for end in topics.get(name, Topic()).publishers}
        followers = {end.node for name in controllers for end in topics.get(name, Topic()).subscribers}
        running = {f"{ns.rstrip('/')}/{name}" for name, ns in self._node.get_node_names_and_namespaces()}
        ours = {setup.node_topic(name) for name in _OUR_NODES} & running
        for name in sorted(publishers | followers | ours):
            self._request_parameter(name, "use_sim_time")
        for name in sorted(followers):
            self._request_parameter(name, "joints")
        self._request_parameter(setup.node_topic("camera"), "frozen_after")
        self._request_controllers()

    def _request_parameter(self, name: str, parameter: str) -> None:
        def read(answer: GetParameters.Response) -> None:
            if answer.values and answer.values[0].type:
                value = parameter_value_to_python(answer.values[0])
                setattr(self._observed.nodes.setdefault(name, NodeParameters()), parameter, value)

        self._call(GetParameters, f"{name}/get_parameters", GetParameters.Request(names=[parameter]), read)

    def _request_controllers(self) -> None:
        """Ask the controller manager, if controller_manager_msgs is installed; else subscribers must do."""
        try:
            from controller_manager_msgs.srv import ListControllers
        except ImportError:
            return

        def read(answer: ListControllers.Response) -> None:
            self._observed.controllers = {c.name: c.state for c in answer.controller}

        name = self._setup.robot_topic("controller_manager/list_controllers")
        self._call(ListControllers, name, ListControllers.Request(), read)

    def _call(self, kind: type, name: str, request: Any, read: Callable[[Any], None]) -> None:
        """Call a service, if there is one; read: gets its answer."""

        def on_done(future: Future) -> None:
            if not future.cancelled() and future.result() is not None:
                read(future.result())

        client = self._node.create_client(kind, name)
        self._clients.append(client)
        if client.service_is_ready():  # it has been discovered with the topics, or never will be
            future = client.call_async(request)
            future.add_done_callback(on_done)
            self._answers.append(future)

    def is_answered(self) -> bool:
        """Return whether all requests have been answered."""
        return all(future.done() for future in self._answers)

    def result(self, seconds: float) -> Observations:
        """Return all observations."""
        o = self._observed
        o.seconds, o.topics, o.clock_moves = seconds, self._read_topics(), not math.isnan(self._clock)
        packages = {c.name: missing_package(c) for c in self._setup.robot.controllers}
        o.missing_packages = {name: package for name, package in packages.items() if package}
        for camera in o.cameras:
            self._decode(camera)
        return o

    def close(self) -> None:
        """Remove all subscriptions and clients from the node."""
        for subscription in self._subscriptions:
            self._node.destroy_subscription(subscription)
        for client in self._clients:
            self._node.destroy_client(client)

    # -- messages ------------------------------------------------------------------------------------------------------

    def _add(self, times: MessageTimes, header, info: dict) -> None:
        received = info["received_timestamp"] * 1e-9
        times.add(received, self._clock, to_seconds(header.stamp), header.frame_id)

    def _on_joints(self, m: JointState, info: dict) -> None:
        self._add(self._observed.joints, m.header, info)
        self._observed.joint_messages.append(JointMessage(tuple(m.name), tuple(m.position), tuple(m.velocity)))

    def _on_description(self, m: String) -> None:
        self._observed.description = m.data

    def _on_tf(self, m: TFMessage) -> None:
        for transform in m.transforms:
            t, q = transform.transform.translation, transform.transform.rotation
            position, quaternion = (t.x, t.y, t.z), (q.x, q.y, q.z, q.w)
            if np.isfinite([*position, *quaternion]).all() and any(quaternion):
                parent = transform.header.frame_id
                self._observed.transforms[transform.child_frame_id] = (parent, position, quaternion)

    def _on_info(self, camera: CameraObservations, m: CameraInfo) -> None:
        camera.intrinsics = Intrinsics(m.width, m.height, fx=m.k[0], fy=m.k[4], cx=m.k[2], cy=m.k[5])

    def _on_image(self, camera: CameraObservations, m: Image | CompressedImage, info: dict) -> None:
        self._add(camera.times, m.header, info)
        now, data = info["received_timestamp"] * 1e-9, bytes(m.data)
        pixels, since = self._repeated.get(camera.topic, (b"", now))
        self._repeated[camera.topic] = (data, since if pixels == data else now)
        camera.frozen_s = now - self._repeated[camera.topic][1]
        self._newest[camera.topic] = m
        is_compressed = isinstance(m, CompressedImage)
        encoding, size = (m.format, (0, 0)) if is_compressed else (m.encoding, (m.width, m.height))
        if encoding not in camera.encodings:
            camera.encodings.append(encoding)
        if size not in camera.sizes:
            camera.sizes.append(size)

    def _decode(self, camera: CameraObservations) -> None:
        message = self._newest.get(camera.topic)
        if message is None or not len(camera.times):
            return
        try:
            camera.image = decode_image(message).copy()
        except ImageError as problem:
            camera.problem = str(problem)
            return
        if isinstance(message, CompressedImage):
            camera.sizes = [(camera.image.shape[1], camera.image.shape[0])]
