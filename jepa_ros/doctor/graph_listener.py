"""What the doctor hears of a running graph. It publishes nothing: topics are listened to, and parameters asked for."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from functools import partial

import numpy as np
from rcl_interfaces.srv import GetParameters
from rclpy.executors import Executor
from rclpy.node import Node
from rclpy.parameter import parameter_value_to_python
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import CameraInfo, CompressedImage, Image, JointState
from std_msgs.msg import String
from tf2_msgs.msg import TFMessage

from jepa_ros.doctor import observations as records
from jepa_ros.doctor.observations import Camera, End, Intrinsics, Job, JointMessage, Seen, Topic
from jepa_ros.images import ImageError
from jepa_ros.nodes.common.convert import decode_image, to_seconds
from jepa_ros.nodes.common.qos import LATCHED, LISTEN_SOME, LISTEN_TF, LISTEN_TF_STATIC, NEWEST
from jepa_ros.nodes.common.topics import missing_package

DISCOVERY = 3.5
"""s in which everything that is awaited is found, most often 0.1: up to the 3 s after which Fast DDS repeats what was
lost."""
ANSWER = 1.0  # s beyond the listening that an answer is waited for
_OUR_NODES = ("simulator", "camera", "world_model", "planner", "arm_gate")


def watch(
    node: Node,
    executor: Executor,
    job: Job,
    seconds: float,
    stop: Callable[[], bool] = lambda: False,
    discovery: float = DISCOVERY,
) -> Seen:
    """Look around with `node`, which `executor` spins here, and listen for so many s once all that is awaited has been
    found, or was not for `discovery` s. stop: asked now and then whether to end early."""
    eye = _Watch(node, job)
    try:
        eye.spin(executor, discovery, stop, until=eye.complete)
        eye.begin()
        eye.ask()
        eye.spin(executor, seconds, stop)
        eye.spin(executor, ANSWER, stop, until=eye.answered)
        return eye.result(seconds)
    finally:
        eye.close()


class _Watch:
    """Subscriptions and clients, and what came of them."""

    def __init__(self, node: Node, job: Job) -> None:
        self._node, self._job, self._made, self._clients = node, job, [], []
        self._seen = Seen(cameras=[Camera(topic) for topic in job.cameras])
        self._clock = math.nan
        self._frozen: dict[str, tuple[bytes, float]] = {}  # by topic: the last pixels, and since when
        self._newest: dict[str, Image | CompressedImage] = {}
        self._answers: list = []
        self._hear(Clock, "/clock", lambda m: setattr(self, "_clock", to_seconds(m.clock)), LISTEN_SOME)
        self._hear(JointState, job.joint_states, self._on_joints, LISTEN_SOME)
        for qos in (LATCHED, NEWEST):  # the second hears those whom our nodes would not
            self._hear(String, job.description, self._on_description, qos)
        for name in {"/tf", job.full("tf"), job.of_robot("tf")}:
            self._hear(TFMessage, name, self._on_tf, LISTEN_TF)
        for name in {"/tf_static", job.full("tf_static"), job.of_robot("tf_static")}:
            for qos in (LISTEN_TF_STATIC, NEWEST):
                self._hear(TFMessage, name, self._on_tf, qos)
        for camera in self._seen.cameras:
            kind = CompressedImage if camera.topic.endswith("/compressed") else Image
            self._hear(kind, camera.topic, partial(self._on_image, camera), LISTEN_SOME)
            beside = camera.topic.removesuffix("/compressed").rpartition("/")[0]
            self._hear(CameraInfo, f"{beside}/camera_info", partial(self._on_info, camera), LISTEN_SOME)

    def _hear(self, kind: type, topic: str, callback, qos: QoSProfile) -> None:
        from rclpy.event_handler import SubscriptionEventCallbacks

        quiet = SubscriptionEventCallbacks(use_default_callbacks=False)  # what does not fit is told by a finding
        self._made.append(self._node.create_subscription(kind, topic, callback, qos, event_callbacks=quiet))

    def spin(self, executor: Executor, seconds: float, stop: Callable[[], bool], until=lambda: False) -> None:
        """Handle what comes, for so long or until something holds."""
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0 and not until() and not stop():
            executor.spin_once(timeout_sec=min(left, 0.1))

    def complete(self) -> bool:
        """Whether everything awaited was heard, and somebody listens to each controller's topic."""
        s, job = self._seen, self._job
        commands = [job.of_robot(c.command_topic) for c in job.robot.controllers]
        return bool(
            len(s.joints)
            and s.description
            and s.transforms
            and all(len(c.stream) and c.intrinsics for c in s.cameras)
            and all(self._node.count_subscribers(topic) for topic in commands)
        )

    def begin(self) -> None:
        """What was heard until now was for finding, and came in a burst: measuring begins here."""
        self._seen.joints, self._seen.joint_messages = records.Stream(), []
        for camera in self._seen.cameras:
            camera.stream, camera.sizes, camera.encodings, camera.problem = records.Stream(), [], [], ""
        self._frozen.clear()

    # -- the graph -----------------------------------------------------------------------------------------------------

    def _look_around(self) -> dict[str, Topic]:
        """Everybody at every topic but the doctor and plumbing."""
        node, topics = self._node, {}
        for name, _ in node.get_topic_names_and_types():
            topics[name] = Topic(
                self._ends(node.get_publishers_info_by_topic(name)),
                self._ends(node.get_subscriptions_info_by_topic(name)),
            )
        return {name: topic for name, topic in topics.items() if topic.publishers or topic.listeners}

    def _ends(self, infos) -> list[End]:
        own, found = self._node.get_fully_qualified_name(), []
        for info in infos:
            name = f"{info.node_namespace.rstrip('/')}/{info.node_name}"
            qos = info.qos_profile
            if name != own:
                reliable = qos.reliability == ReliabilityPolicy.RELIABLE
                transient = qos.durability == DurabilityPolicy.TRANSIENT_LOCAL
                found.append(End(name, info.topic_type, reliable, transient))
        return found

    def ask(self) -> None:
        """Ask nodes for parameters, and the controller manager for states. Answers come while spinning."""
        job, topics = self._job, self._look_around()
        controllers = [job.of_robot(c.command_topic) for c in job.robot.controllers]
        at = [topics.get(n, Topic()) for n in (job.joint_states, job.description, *job.cameras, *controllers)]
        names = {end.node for topic in at for end in topic.publishers}
        listeners = {end.node for name in controllers for end in topics.get(name, Topic()).listeners}
        running = {f"{ns.rstrip('/')}/{name}" for name, ns in self._node.get_node_names_and_namespaces()}
        ours = {job.full(name) for name in _OUR_NODES} & running
        for name in sorted(names | listeners | ours):
            self._parameter(name, "use_sim_time")
        for name in sorted(listeners):
            self._parameter(name, "joints")
        self._parameter(job.full("camera"), "frozen_after")
        self._controllers()

    def _parameter(self, name: str, parameter: str) -> None:
        client = self._node.create_client(GetParameters, f"{name}/get_parameters")
        self._clients.append(client)

        def told(future) -> None:
            values = [] if future.cancelled() or future.result() is None else future.result().values
            if values and values[0].type:
                value = parameter_value_to_python(values[0])
                setattr(self._seen.nodes.setdefault(name, records.Node()), parameter, value)

        self._call(client, GetParameters.Request(names=[parameter]), told)

    def _controllers(self) -> None:
        """Where controller_manager_msgs is installed and a manager answers; else listeners must do."""
        try:
            from controller_manager_msgs.srv import ListControllers
        except ImportError:
            return
        client = self._node.create_client(ListControllers, self._job.of_robot("controller_manager/list_controllers"))
        self._clients.append(client)

        def told(future) -> None:
            if not future.cancelled() and future.result() is not None:
                self._seen.controllers = {c.name: c.state for c in future.result().controller}

        self._call(client, ListControllers.Request(), told)

    def _call(self, client, request, told) -> None:
        if client.service_is_ready():  # it has been discovered with the topics, or never will be
            future = client.call_async(request)
            future.add_done_callback(told)
            self._answers.append(future)

    def answered(self) -> bool:
        """Whether nobody is waited for any more."""
        return all(future.done() for future in self._answers)

    def result(self, seconds: float) -> Seen:
        """All that was seen."""
        s = self._seen
        s.seconds, s.topics, s.clock_moves = seconds, self._look_around(), not math.isnan(self._clock)
        s.lacking = {c.name: package for c in self._job.robot.controllers if (package := missing_package(c))}
        for camera in s.cameras:
            self._decode(camera)
        return s

    def close(self) -> None:
        """Leave the node as it was."""
        for subscription in self._made:
            self._node.destroy_subscription(subscription)
        for client in self._clients:
            self._node.destroy_client(client)

    # -- messages ------------------------------------------------------------------------------------------------------

    def _add(self, stream: records.Stream, header, info: dict) -> None:
        received = info["received_timestamp"] * 1e-9
        stream.add(received, self._clock, to_seconds(header.stamp), header.frame_id)

    def _on_joints(self, m: JointState, info: dict) -> None:
        self._add(self._seen.joints, m.header, info)
        self._seen.joint_messages.append(JointMessage(tuple(m.name), tuple(m.position), tuple(m.velocity)))

    def _on_description(self, m: String) -> None:
        self._seen.description = m.data

    def _on_tf(self, m: TFMessage) -> None:
        for one in m.transforms:
            t, r = one.transform.translation, one.transform.rotation
            place, turn = (t.x, t.y, t.z), (r.x, r.y, r.z, r.w)
            if np.isfinite([*place, *turn]).all() and any(turn):
                self._seen.transforms[one.child_frame_id] = (one.header.frame_id, place, turn)

    def _on_info(self, camera: Camera, m: CameraInfo) -> None:
        k = m.k
        camera.intrinsics = Intrinsics(m.width, m.height, k[0], k[4], k[2], k[5])

    def _on_image(self, camera: Camera, m: Image | CompressedImage, info: dict) -> None:
        self._add(camera.stream, m.header, info)
        now, data = info["received_timestamp"] * 1e-9, bytes(m.data)
        before = self._frozen.get(camera.topic)
        since = now if before is None or before[0] != data else before[1]
        self._frozen[camera.topic] = (data, since)
        camera.same_s = now - since
        self._newest[camera.topic] = m
        encoding = m.format if isinstance(m, CompressedImage) else m.encoding
        if encoding not in camera.encodings:
            camera.encodings.append(encoding)
        size = (0, 0) if isinstance(m, CompressedImage) else (m.width, m.height)
        if size not in camera.sizes:
            camera.sizes.append(size)

    def _decode(self, camera: Camera) -> None:
        message = self._newest.get(camera.topic)
        if message is None or not len(camera.stream):
            return
        try:
            camera.picture = decode_image(message).copy()
        except ImageError as problem:
            camera.problem = str(problem)
            return
        if isinstance(message, CompressedImage):
            camera.sizes = [(camera.picture.shape[1], camera.picture.shape[0])]


def quiet_node(name: str = "doctor", namespace: str = "") -> Node:
    """A node that tells nothing: no log topic, no parameter services."""
    import rclpy

    return rclpy.create_node(name, namespace=namespace, enable_rosout=False, start_parameter_services=False)
