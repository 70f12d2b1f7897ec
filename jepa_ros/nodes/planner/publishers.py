"""What the planner publishes, as messages."""

from __future__ import annotations

import math
from collections.abc import Sequence

from geometry_msgs.msg import Point
from jepa_msgs.action import ReachGoal
from jepa_msgs.msg import GoalTerm, Plan, PlannerStatus
from sensor_msgs.msg import Image
from visualization_msgs.msg import Marker, MarkerArray

from jepa_ros.nodes.common.convert import float32_array, stamp_of_seconds, to_duration, trajectory_message
from jepa_ros.nodes.common.qos import LATCHED, NEWEST, RELIABLE
from jepa_ros.planning.receding_horizon import PlanStep


class PlannerTopics:
    """plan, imagined_path, planner_status and goal_image of one node; rclpy publishers may be used from any thread."""

    def __init__(self, node, base_frame: str, model_id: str):
        self._node, self._base_frame, self._model_id = node, base_frame, model_id
        self._plan = node.create_lifecycle_publisher(Plan, "plan", RELIABLE)
        self._path = node.create_lifecycle_publisher(MarkerArray, "imagined_path", NEWEST)
        self._status = node.create_lifecycle_publisher(PlannerStatus, "planner_status", RELIABLE)
        self._goal_image = node.create_lifecycle_publisher(Image, "goal_image", LATCHED)

    def plan(self, step: PlanStep, goal_id: str) -> None:
        """A plan to hand over."""
        message = Plan(plan_id=step.plan_id, goal_id=goal_id, model_id=self._model_id)
        message.header.stamp = stamp_of_seconds(step.start)
        message.header.frame_id = self._base_frame
        message.source_stamp = stamp_of_seconds(step.source_stamp)
        message.valid_until = stamp_of_seconds(step.valid_until)
        message.trajectory = trajectory_message(step.trajectory)
        if step.motion is not None:
            message.action_blocks = float32_array(step.motion.actions)
            message.cost, message.predicted_distance = step.motion.cost, step.motion.predicted_distance
        self._plan.publish(message)

    def goal_images(self, goal: ReachGoal.Goal) -> None:
        """The images that a goal asks for, if any: recordings and displays cannot see what is asked of an action."""
        term = next((term for term in goal.terms if term.kind == GoalTerm.IMAGE), None)
        for image in term.images if term is not None else ():
            self._goal_image.publish(image)

    def imagined_path(self, step: PlanStep, points: Sequence[tuple[float, float, float]]) -> None:
        """Where the model expects the tool to be, step by step, in m in the base frame."""
        marker = Marker(ns="imagined_path", type=Marker.LINE_STRIP, action=Marker.ADD)
        marker.header.stamp, marker.header.frame_id = stamp_of_seconds(step.source_stamp), self._base_frame
        marker.scale.x, marker.lifetime = 0.008, to_duration(0.5)
        marker.color.r, marker.color.g, marker.color.b, marker.color.a = 0.1, 0.7, 1.0, 0.9
        marker.pose.orientation.w = 1.0
        marker.points = [Point(x=float(x), y=float(y), z=float(z)) for x, y, z in points]
        self._path.publish(MarkerArray(markers=[marker]))

    def status(self, message: PlannerStatus, step: PlanStep | None) -> None:
        """planner_status, with the figures of the plan just made or NaN."""
        message.header.stamp = self._node.get_clock().now().to_msg()
        message.header.frame_id = self._base_frame
        message.plan_age_ms = message.splice_error = message.predicted_distance = math.nan
        if step is not None:
            message.plan_age_ms = 1e3 * (step.start - step.source_stamp)
            message.splice_error = step.splice_error
            message.predicted_distance = step.motion.predicted_distance
            message.iterations, message.samples = step.motion.iterations, step.motion.samples
        self._status.publish(message)
