"""What arm_gate tells: executed control ticks, gate_status, and its part of the diagnostics."""

from __future__ import annotations

from jepa_msgs.msg import Action, GateStatus
from rclpy.qos import QoSProfile, ReliabilityPolicy

from jepa_ros.nodes.common.convert import float32_array, to_stamp
from jepa_ros.nodes.common.diagnostics import ERROR, OK, WARN, Status
from jepa_ros.nodes.common.lifecycle import RELIABLE, JepaNode
from jepa_ros.robot.gate.types import ExecutedTick, GateReport, GateState

EXECUTED = QoSProfile(depth=50, reliability=ReliabilityPolicy.RELIABLE)


class GateTopics:
    """Publishers of `executed` and `gate_status`. frame: of both. space: name of the executed actions' space.
    period: s, of a control tick."""

    def __init__(self, node: JepaNode, frame: str, space: str, period: float) -> None:
        self._node, self._frame, self._space, self._period = node, frame, space, period
        self._executed = node.create_lifecycle_publisher(Action, "executed", EXECUTED)
        self._status = node.create_publisher(GateStatus, "gate_status", RELIABLE)

    def executed(self, tick: ExecutedTick) -> None:
        message = Action(period=self._period, action_space=self._space, plan_id=tick.plan_id)
        message.header.stamp, message.header.frame_id = to_stamp(round(tick.start * 1e9)), self._frame
        message.values = float32_array(tick.values)
        self._executed.publish(message)

    def status(self, report: GateReport) -> None:
        message = GateStatus(
            state=int(report.state),
            text=report.text,
            speed_scale=report.speed_scale,
            latent_age_ms=report.latent_age * 1e3,
            plan_age_ms=report.plan_age * 1e3,
            joint_age_ms=report.joint_age * 1e3,
            following_error=report.following_error,
            min_distance=report.min_distance,
            clipped=report.clipped,
            rejected=report.rejected,
            stops=report.stops,
            plan_id=report.plan_id,
        )
        message.header.stamp, message.header.frame_id = self._node.get_clock().now().to_msg(), self._frame
        self._status.publish(message)


def motion_status(report: GateReport, trouble: str, troubled: bytes, values: dict) -> Status:
    """trouble: with whom the gate shares the controllers, or that there are none; its level. values: more to tell."""
    level = troubled if trouble else OK
    if report.state == GateState.LATCHED:
        level = ERROR
    elif report.state in (GateState.STOPPING, GateState.INACTIVE):
        level = max(level, WARN)
    told = {
        "state": report.state.name,
        "following_error": report.following_error,
        "latent_age_ms": report.latent_age * 1e3,
        "joint_age_ms": report.joint_age * 1e3,
        "clipped": report.clipped,
        "rejected": report.rejected,
        "last_rejection": report.last_rejection,
        "stops": report.stops,
    }
    return Status("motion", level, trouble or report.text, told | values)
