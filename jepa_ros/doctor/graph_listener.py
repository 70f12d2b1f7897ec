"""Graph listener of the doctor: subscribes to topics and reads parameters; it publishes nothing."""

from __future__ import annotations

import importlib
import math
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from functools import partial
from typing import Any

import numpy as np
from rcl_interfaces.srv import GetParameters
from rclpy.event_handler import SubscriptionEventCallbacks
from rclpy.executors import Executor
from rclpy.node import Node
from rclpy.parameter import parameter_value_to_python
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import CameraInfo, CompressedImage, Image, JointState
from std_msgs.msg import String
from tf2_msgs.msg import TFMessage

from jepa_ros.doctor.inquiry import Inquiry
from jepa_ros.doctor.observations import (
    CONTROLLER_STATE,
    CameraObservations,
    Endpoint,
    Intrinsics,
    JointMessage,
    MessageTimes,
    NodeParameters,
    Observations,
    RobotSetup,
    Topic,
    find_followers,
    is_ros2_control,
)
from jepa_ros.images import ImageError
from jepa_ros.nodes.common.convert import decode_image, to_seconds
from jepa_ros.nodes.common.qos import LATCHED, LISTEN_SOME, LISTEN_TF, LISTEN_TF_STATIC, NEWEST
from jepa_ros.nodes.common.topics import missing_package

DISCOVERY_TIMEOUT = 3.5
"""s until everything that is expected has been discovered, usually 0.1; Fast DDS repeats what was lost after 3 s."""
ANSWER_TIMEOUT = 4.0
"""s after listening, for answers of services: nodes' names and services are discovered later than their topics."""
ASK_PERIOD = 0.2  # s between looks for nodes that have not been asked yet
LIST_CONTROLLERS = "controller_manager_msgs/srv/ListControllers"
_OUR_NODES = ("simulator", "camera", "world_model", "planner", "arm_gate")
_FOLLOWER_PARAMETERS = {
    "joint_trajectory": ("joints", "command_interfaces", "interpolation_method"),
    "forward_position": ("joints", "interface_name"),
}
"""Parameters of the node that follows commands, by command interface; MoveIt Servo is asked for `joints`."""


def observe_graph(
    node: Node,
    executor: Executor,
    setup: RobotSetup,
    seconds: float,
    should_stop: Callable[[], bool] = lambda: False,
    discovery: float = DISCOVERY_TIMEOUT,
    answers: float = ANSWER_TIMEOUT,
) -> Observations:
    """Observe the graph with `node`, which `executor` spins here, for `seconds`.

    Listening starts once everything that is expected has been discovered, or after `discovery` s; after it, nodes that
    have not answered get `answers` s more. should_stop: called repeatedly; true ends it early.
    """
    listener = _DoctorListener(node, setup)
    try:
        listener.spin(executor, discovery, should_stop, until=listener.is_complete)
        listener.start_measuring()
        listener.start_asking()
        listener.spin(executor, seconds, should_stop)
        listener.spin(executor, answers, should_stop, until=listener.is_answered)
        return listener.result(seconds)
    finally:
        listener.close()


def _import_interface(name: str) -> type | None:
    """Return the class of package/msg/Name or package/srv/Name; None if it is not installed."""
    package, folder, type_ = name.split("/")
    with suppress(ImportError, AttributeError):
        return getattr(importlib.import_module(f"{package}.{folder}"), type_)
    return None


class _DoctorListener:
    """Subscriptions and clients, and the observations from them."""

    def __init__(self, node: Node, setup: RobotSetup) -> None:
        self._node, self._setup, self._subscriptions = node, setup, []
        self._observed = Observations(cameras=[CameraObservations(topic) for topic in setup.image_topics])
        self._clock = math.nan
        self._repeated: dict[str, tuple[bytes, float]] = {}  # by topic: the last pixels, and since when
        self._newest: dict[str, Image | CompressedImage] = {}
        self._inquiry, self._is_asking, self._asked_at, self._is_discovered = Inquiry(node), False, 0.0, False
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
        self._state_type = _import_interface(CONTROLLER_STATE)
        self._list_type = _import_interface(LIST_CONTROLLERS)
        for controller in setup.robot.controllers:
            if self._state_type and controller.interface == "joint_trajectory":
                read = partial(self._on_controller_state, controller.name)
                self._subscribe(self._state_type, setup.state_topic(controller.name), read, LISTEN_SOME)

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
            if self._is_asking and time.monotonic() > self._asked_at + ASK_PERIOD:
                self._ask()

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
        topics = {name: self._read_topic(name) for name, _ in self._node.get_topic_names_and_types()}
        return {name: topic for name, topic in topics.items() if topic.publishers or topic.subscribers}

    def _read_topic(self, name: str) -> Topic:
        publishers = self._endpoints(self._node.get_publishers_info_by_topic(name))
        return Topic(publishers, self._endpoints(self._node.get_subscriptions_info_by_topic(name)))

    def _endpoints(self, infos: Iterable[Any]) -> list[Endpoint]:
        found = []
        for info in infos:
            name, qos = f"{info.node_namespace.rstrip('/')}/{info.node_name}", info.qos_profile
            if name != self._node.get_fully_qualified_name():
                is_reliable = qos.reliability == ReliabilityPolicy.RELIABLE
                is_transient = qos.durability == DurabilityPolicy.TRANSIENT_LOCAL
                found.append(Endpoint(name, info.topic_type, is_reliable, is_transient))
        return found

    def start_asking(self) -> None:
        """Ask nodes for parameters, and the controller manager for states, from now on while spinning."""
        self._is_asking = True
        self._ask()

    def _ask(self) -> None:
        """Ask the nodes that have been discovered so far."""
        self._asked_at, setup = time.monotonic(), self._setup
        ends, is_managed = set(), False
        for name in (setup.joint_states_topic, setup.description_topic, *setup.image_topics):
            ends |= {*self._read_topic(name).publishers}
        for controller in setup.robot.controllers:
            topic = self._read_topic(setup.robot_topic(controller.command_topic))
            followers = find_followers(topic.subscribers)
            is_managed |= any(is_ros2_control(controller, end) for end in followers)
            ends |= {*topic.publishers, *followers}
            for end in followers:
                for parameter in _FOLLOWER_PARAMETERS.get(controller.interface, ("joints",)):
                    self._ask_parameter(end, parameter)
        for end in ends:
            self._ask_parameter(end, "use_sim_time")
        running = {f"{ns.rstrip('/')}/{name}" for name, ns in self._node.get_node_names_and_namespaces()}
        for name in {setup.node_topic(name) for name in _OUR_NODES} & running:
            self._ask_parameter(Endpoint(name, ""), "use_sim_time")
            if name == setup.node_topic("camera"):
                self._ask_parameter(Endpoint(name, ""), "frozen_after")
        self._ask_controller_manager()
        self._inquiry.update()
        is_manager_missing = is_managed and not self._observed.controller_manager
        self._is_discovered = all(end.is_known for end in ends) and not is_manager_missing

    def _ask_parameter(self, end: Endpoint, parameter: str) -> None:
        """Ask a node for one parameter: of several, rclcpp's nodes return none if one is not declared."""
        if not end.is_known:
            return

        def read(answer: GetParameters.Response) -> None:
            if answer.values and answer.values[0].type:
                setattr(node, parameter, parameter_value_to_python(answer.values[0]))

        node = self._observed.nodes.setdefault(end.node, NodeParameters())
        request = GetParameters.Request(names=[parameter])
        self._inquiry.ask((end.node, parameter), GetParameters, f"{end.node}/get_parameters", request, read)

    def _ask_controller_manager(self) -> None:
        """Ask for the states of controllers, if there is a manager and its messages are installed."""
        service = self._find_list_controllers()
        if not service:
            return
        self._observed.controller_manager = service.rpartition("/")[0]
        self._ask_parameter(Endpoint(self._observed.controller_manager, ""), "enforce_command_limits")

        def read(answer: Any) -> None:
            self._observed.controllers = {c.name: c.state for c in answer.controller}

        if self._list_type is not None:
            self._inquiry.ask(service, self._list_type, service, self._list_type.Request(), read)

    def _find_list_controllers(self) -> str:
        """Return the service of the robot's controller manager, which may have another name; "" without one."""
        usual = self._setup.robot_topic("controller_manager/list_controllers")
        space = self._setup.robot_topic("")
        there = [name for name, types in self._node.get_service_names_and_types() if LIST_CONTROLLERS in types]
        beside = [name for name in there if name.rpartition("/")[0].rpartition("/")[0] == space.rstrip("/")]
        return usual if usual in there else min(beside, default="")

    def is_answered(self) -> bool:
        """Return whether all nodes are known by name, and these and the controller manager have answered."""
        return self._is_discovered and self._inquiry.is_answered()

    def result(self, seconds: float) -> Observations:
        """Return all observations."""
        o = self._observed
        o.seconds, o.topics, o.clock_moves = seconds, self._read_topics(), not math.isnan(self._clock)
        packages = {c.name: missing_package(c) for c in self._setup.robot.controllers}
        o.missing_packages = {name: package for name, package in packages.items() if package}
        types = {CONTROLLER_STATE: self._state_type, LIST_CONTROLLERS: self._list_type}
        o.missing_state_packages = tuple(name.partition("/")[0] for name, type_ in types.items() if type_ is None)
        for key in self._inquiry.unanswered():
            if isinstance(key, tuple):
                name, parameter = key
                o.nodes[name].unanswered.append(parameter)
        for camera in o.cameras:
            self._decode(camera)
        return o

    def close(self) -> None:
        """Remove all subscriptions and clients from the node."""
        for subscription in self._subscriptions:
            self._node.destroy_subscription(subscription)
        self._inquiry.close()

    # -- messages ------------------------------------------------------------------------------------------------------

    def _add(self, times: MessageTimes, header, info: dict) -> None:
        received = info["received_timestamp"] * 1e-9
        times.add(received, self._clock, to_seconds(header.stamp), header.frame_id)

    def _on_joints(self, m: JointState, info: dict) -> None:
        self._add(self._observed.joints, m.header, info)
        self._observed.joint_messages.append(JointMessage(tuple(m.name), tuple(m.position), tuple(m.velocity)))

    def _on_controller_state(self, name: str, m: Any) -> None:
        # Before Jazzy the message has no factor.
        self._observed.speed_scaling[name] = getattr(m, "speed_scaling_factor", math.nan)

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
