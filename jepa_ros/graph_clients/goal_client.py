"""Sends goals to the planner's action ``reach_goal`` and keeps what it answers."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from action_msgs.msg import GoalStatus
from jepa_msgs.action import ReachGoal
from rclpy.action import ActionClient
from rclpy.executors import Executor
from rclpy.node import Node
from sensor_msgs.msg import Image

from jepa_ros.nodes.common.convert import image_message

_HOW = {
    GoalStatus.STATUS_SUCCEEDED: "succeeded",
    GoalStatus.STATUS_CANCELED: "canceled",
    GoalStatus.STATUS_ABORTED: "aborted",
}


@dataclass(frozen=True)
class Outcome:
    """How a goal ended. how: succeeded, canceled, aborted or refused. final_distance: of latents, no unit."""

    how: str
    reached: bool
    reason: str
    final_distance: float


class Request:
    """A goal on its way. ``feedback`` is the newest, ``outcome`` is None until the action has ended."""

    def __init__(self, on_feedback: Callable[[ReachGoal.Feedback], None] | None) -> None:
        self.feedback: ReachGoal.Feedback | None = None
        self.outcome: Outcome | None = None
        self._on_feedback = on_feedback
        self._handle = None
        self._cancel_asked = False

    @property
    def accepted(self) -> bool:
        return self._handle is not None

    def cancel(self) -> None:
        """Ask the planner to give the goal up; also where its acceptance is still on its way."""
        self._cancel_asked = True
        if self._handle is not None and self.outcome is None:
            self._handle.cancel_goal_async()

    def _answered(self, future) -> None:
        handle = future.result()
        if not handle.accepted:
            self.outcome = Outcome("refused", False, "the planner did not accept the goal", float("nan"))
            return
        self._handle = handle
        handle.get_result_async().add_done_callback(self._ended)
        if self._cancel_asked:
            self.cancel()

    def _heard(self, message) -> None:
        self.feedback = message.feedback
        if self._on_feedback is not None:
            self._on_feedback(message.feedback)

    def _ended(self, future) -> None:
        response = future.result()
        result, how = response.result, _HOW.get(response.status, "lost")
        self.outcome = Outcome(how, result.reached, result.reason, result.final_distance)


class GoalClient:
    """Client of ``reach_goal`` for a node that somebody else spins."""

    def __init__(self, node: Node, action: str = "reach_goal") -> None:
        self._node = node
        self._client = ActionClient(node, ReachGoal, action)

    def is_ready(self) -> bool:
        """Whether the planner's action server is there."""
        return self._client.server_is_ready()

    def send(
        self,
        image: np.ndarray | Image,
        tolerance: float = 0.0,
        timeout: float = 0.0,
        on_feedback: Callable[[ReachGoal.Feedback], None] | None = None,
    ) -> Request:
        """Send a goal image, (H, W, 3) uint8 rgb or a message.

        tolerance: latent distance, ``timeout``: s; 0 leaves either to the model and the planner.
        """
        if isinstance(image, np.ndarray):
            image = image_message(image, self._node.get_clock().now().to_msg(), "")
        goal = ReachGoal.Goal(kind=ReachGoal.Goal.IMAGE, image=image, tolerance=tolerance, timeout=timeout)
        return self.ask(goal, on_feedback)

    def ask(self, goal: ReachGoal.Goal, on_feedback: Callable[[ReachGoal.Feedback], None] | None = None) -> Request:
        """Send any goal: a place, joints, a mixture, several in a row."""
        request = Request(on_feedback)
        self._client.send_goal_async(goal, feedback_callback=request._heard).add_done_callback(request._answered)
        return request

    def close(self) -> None:
        self._client.destroy()


def reach(
    node: Node,
    executor: Executor,
    image: np.ndarray | Image,
    timeout: float,
    ready_within: float = 10.0,
    on_feedback: Callable[[ReachGoal.Feedback], None] | None = None,
) -> Outcome:
    """Send one goal image and wait, spinning ``executor``, until it has ended; cancelled after ``timeout`` s.

    Raises TimeoutError where no planner is there within ``ready_within`` s, or it does not answer a cancel.
    """
    client = GoalClient(node)

    def wait(condition: Callable[[], object], seconds: float) -> bool:
        end = time.monotonic() + seconds
        while not condition() and time.monotonic() < end:
            executor.spin_once(timeout_sec=0.05)
        return bool(condition())

    try:
        if not wait(client.is_ready, ready_within):
            raise TimeoutError(f"reach_goal: no planner answers within {ready_within:g} s")
        request = client.send(image, timeout=timeout, on_feedback=on_feedback)
        try:
            if wait(lambda: request.outcome, timeout):
                return request.outcome
        finally:
            if request.outcome is None:  # out of time, or interrupted
                request.cancel()
        if not wait(lambda: request.outcome, 5.0):
            raise TimeoutError("reach_goal: the planner does not answer a cancel within 5 s")
        return request.outcome
    finally:
        client.close()
