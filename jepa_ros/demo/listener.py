"""Recording of every topic of the loop, at low cost, since the graph shares the processor.

Times of messages are those at which DDS wrote or delivered them (s since the epoch), not those at which this process
handled them.
"""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
from diagnostic_msgs.msg import DiagnosticArray
from jepa_msgs.msg import GateStatus, LatentState, Plan, PlannerStatus
from rclpy.node import Node
from rclpy.serialization import deserialize_message
from sensor_msgs.msg import Image, JointState
from tf2_msgs.msg import TFMessage
from trajectory_msgs.msg import JointTrajectory

from jepa_ros.demo.record import DemoRecord, Frame, PlanSeen
from jepa_ros.graph_clients.graph_listener import GraphListener
from jepa_ros.nodes.common.convert import decode_image, to_ns
from jepa_ros.nodes.common.qos import LISTEN_ALL, LISTEN_TF_STATIC, SENSOR
from jepa_ros.robot.config import RobotConfig
from jepa_ros.robot.transforms import TransformTree

_JPEG = [cv2.IMWRITE_JPEG_QUALITY, 93]


class Recorder(GraphListener):
    """Subscriptions of `node` that add to `record`.

    goal (index of the active goal, -1 for none) and distance (m) are stored with each frame. tool_xyz: (3,) m in the
    base frame, at tool_stamp (s); None before it is known. live_latency_ms: of the newest plan that the gate follows.
    """

    def __init__(self, node: Node, robot: RobotConfig, names: Sequence[str], record: DemoRecord) -> None:
        super().__init__(node, names)
        self.record, self.goal, self.distance = record, -1, float("nan")
        self.live_latency_ms: float | None = None
        self.tool_xyz: np.ndarray | None = None
        self.tool_stamp = 0.0
        self._robot = robot
        self._tree = TransformTree()
        self._sources: dict[int, float] = {}
        self._joints: bytes | None = None  # the newest joint_states, serialised: most are never read
        node.create_subscription(Image, "image", self._on_image, SENSOR)
        node.create_subscription(JointState, "joint_states", self._on_joints, SENSOR, raw=True)
        node.create_subscription(LatentState, "latent", self._on_latent, SENSOR)
        node.create_subscription(Plan, "plan", self._on_plan, LISTEN_ALL)
        node.create_subscription(TFMessage, "tf", self._on_tf, SENSOR)
        node.create_subscription(TFMessage, "tf_static", self._tree.add, LISTEN_TF_STATIC)

    def subscribe_to_commands(self) -> None:
        """Record the controllers' commands from now on. A simulator does not start while others subscribe to them."""
        for controller in self._robot.controllers:
            self.node.create_subscription(
                JointTrajectory, controller.command_topic, self._on_window, LISTEN_ALL, raw=True
            )

    def _on_image(self, message: Image, info: dict) -> None:
        stamp = to_ns(message.header.stamp)
        self.record.images.append((stamp, info["publication_sequence_number"]))
        ok, data = cv2.imencode(".jpg", cv2.cvtColor(decode_image(message), cv2.COLOR_RGB2BGR), _JPEG)
        if ok:
            tool = None if self.tool_xyz is None else self.tool_xyz.copy()
            self.record.frames.append(
                Frame(stamp * 1e-9, data.tobytes(), self.goal, self.distance, self._positions(), tool)
            )

    def _on_joints(self, data: bytes) -> None:
        self._joints = data

    def _positions(self) -> dict[str, float] | None:
        if self._joints is None or self.goal < 0:
            return None
        message = deserialize_message(self._joints, JointState)
        return dict(zip(message.name, message.position, strict=True))

    def _on_latent(self, message: LatentState, info: dict) -> None:
        self.record.latents.append((to_ns(message.header.stamp), info["publication_sequence_number"]))

    def _on_plan(self, message: Plan, info: dict) -> None:
        if not len(message.action_blocks):
            return  # it ends a goal's motion: no search, no frame
        source = to_ns(message.source_stamp) * 1e-9
        seen = PlanSeen(message.plan_id, source, info["source_timestamp"] * 1e-9, info["received_timestamp"] * 1e-9)
        self.record.plans.append(seen)
        self.record.plan_goals[message.plan_id] = self.goal
        self._sources[message.plan_id] = source

    def _on_planner_status(self, message: PlannerStatus, info: dict) -> None:
        super()._on_planner_status(message, info)
        if message.deadline_ms > 0:
            self.record.deadline_ms = message.deadline_ms
        if message.plan_id and message.plan_id not in self.record.plan_ms:
            self.record.plan_ms[message.plan_id] = message.plan_ms
            self.record.iterations[message.plan_id] = message.iterations

    def _on_gate_status(self, message: GateStatus, info: dict) -> None:
        changed = self.gate is None or self.gate.plan_id != message.plan_id
        super()._on_gate_status(message, info)
        self.record.statuses.append((self.gate_at, message.plan_id))
        if changed and message.plan_id in self._sources:
            self.live_latency_ms = 1e3 * (self.gate_at - self._sources[message.plan_id])

    def _on_diagnostics(self, message: DiagnosticArray) -> None:
        super()._on_diagnostics(message)
        values = {pair.key: pair.value for status in message.status for pair in status.values}
        for p in ("p50", "p99"):
            if f"plan_to_window_{p}_ms" in values:
                self.record.gate_own_ms[p] = float(values[f"plan_to_window_{p}_ms"])

    def _on_window(self, data: bytes, info: dict) -> None:
        self.record.windows.append(info["source_timestamp"] * 1e-9)

    def pose(self, frame: str) -> tuple[np.ndarray, np.ndarray] | None:
        """Return position (3,) m and rotation (3, 3) of a TF frame in the base frame; None before its first
        transform."""
        return self._tree.pose(frame, self._robot.base_frame)

    def _on_tf(self, message: TFMessage) -> None:
        self._tree.add(message)
        pose = self.pose(self._robot.tool_frame)
        if pose is not None:
            self.tool_xyz = pose[0]
            self.tool_stamp = to_ns(message.transforms[0].header.stamp) * 1e-9
