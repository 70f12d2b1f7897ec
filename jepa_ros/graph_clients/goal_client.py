"""Goals for the planner's action ``reach_goal``: terms, a client, and waiting for the result."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from action_msgs.msg import GoalStatus
from jepa_msgs.action import ReachGoal
from jepa_msgs.msg import GoalTerm
from rclpy.action import ActionClient
from rclpy.node import Node
from sensor_msgs.msg import Image

from jepa_ros.nodes.common.convert import image_message
from jepa_ros.planning.codes import PlannerCode

_STATUS = {
    GoalStatus.STATUS_SUCCEEDED: "succeeded",
    GoalStatus.STATUS_CANCELED: "canceled",
    GoalStatus.STATUS_ABORTED: "aborted",
}


def image_term(*images: np.ndarray | Image, tolerance: float = 0.0) -> GoalTerm:
    """Return a term for goal images, (H, W, 3) uint8 RGB or messages, one for each camera in the model's order.

    tolerance: latent distance; 0 for the model's own.
    """
    messages = [image if isinstance(image, Image) else image_message(image, None, "") for image in images]
    return GoalTerm(kind=GoalTerm.IMAGE, images=messages, tolerance=tolerance)


def pose_term(xyz: Sequence[float], frame_id: str = "", tolerance: float = 0.0) -> GoalTerm:
    """Return a term for a position (3,) m of the tool. frame_id: empty for the robot's base frame. tolerance: m."""
    term = GoalTerm(kind=GoalTerm.POSE, tolerance=tolerance)
    term.pose.header.frame_id = frame_id
    p = term.pose.pose.position
    p.x, p.y, p.z = map(float, xyz)
    return term


def joints_term(positions: Mapping[str, float], tolerance: float = 0.0) -> GoalTerm:
    """Return a term for joint positions in rad by name. tolerance: rad."""
    names, values = list(positions), [float(value) for value in positions.values()]
    return GoalTerm(kind=GoalTerm.JOINTS, joints=names, positions=values, tolerance=tolerance)


def object_term(name: str, xyz: Sequence[float], tolerance: float = 0.0) -> GoalTerm:
    """Return a term for a position (3,) m of an object that the model has a probe for. tolerance: m."""
    term = pose_term(xyz, tolerance=tolerance)
    term.kind, term.object = GoalTerm.OBJECT, name
    return term


@dataclass(frozen=True)
class Outcome:
    """How a goal ended. status: succeeded, canceled, aborted, or refused (the planner is not active).

    code: see PlannerCode. final_distance: of latents (no unit), m or rad, as the kind of the goal's first term.
    """

    status: str
    reached: bool
    code: int
    reason: str
    final_distance: float


class Request:
    """A goal on its way. ``feedback`` is the newest; ``outcome`` is None until the action has ended."""

    def __init__(self, on_feedback: Callable[[ReachGoal.Feedback], None] | None) -> None:
        self.feedback: ReachGoal.Feedback | None = None
        self.outcome: Outcome | None = None
        self._on_feedback = on_feedback
        self._handle = None
        self._cancel_requested = False

    @property
    def accepted(self) -> bool:
        return self._handle is not None

    def cancel(self) -> None:
        """Ask the planner to cancel the goal, now or as soon as it is accepted."""
        self._cancel_requested = True
        if self._handle is not None and self.outcome is None:
            self._handle.cancel_goal_async()

    def _on_response(self, future) -> None:
        handle = future.result()
        if not handle.accepted:
            text = "the planner is not active"
            self.outcome = Outcome("refused", False, PlannerCode.DEACTIVATED, text, float("nan"))
            return
        self._handle = handle
        handle.get_result_async().add_done_callback(self._on_result)
        if self._cancel_requested:
            self.cancel()

    def _on_feedback_message(self, message) -> None:
        self.feedback = message.feedback
        if self._on_feedback is not None:
            self._on_feedback(message.feedback)

    def _on_result(self, future) -> None:
        response = future.result()
        result, status = response.result, _STATUS.get(response.status, "lost")
        self.outcome = Outcome(status, result.reached, result.code, result.reason, result.final_distance)


class GoalClient:
    """Client of ``reach_goal`` for a node that is spun elsewhere."""

    def __init__(self, node: Node, action: str = "reach_goal") -> None:
        self._client = ActionClient(node, ReachGoal, action)

    def is_ready(self) -> bool:
        """Return whether the planner's action server has been discovered."""
        return self._client.server_is_ready()

    def send(self, goal: ReachGoal.Goal, on_feedback: Callable[[ReachGoal.Feedback], None] | None = None) -> Request:
        """Send a goal; it replaces the one under way, if any."""
        request = Request(on_feedback)
        sent = self._client.send_goal_async(goal, feedback_callback=request._on_feedback_message)
        sent.add_done_callback(request._on_response)
        return request

    def send_image(self, image: np.ndarray | Image, tolerance: float = 0.0, timeout: float = 0.0) -> Request:
        """Send a goal image, as `image_term`. timeout: s; 0 for the planner's own."""
        return self.send(ReachGoal.Goal(terms=[image_term(image, tolerance=tolerance)], timeout=timeout))

    def close(self) -> None:
        self._client.destroy()
