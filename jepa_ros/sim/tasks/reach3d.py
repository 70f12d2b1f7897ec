"""The reach3d task: bring the tool, in space, to where it is in a goal image, and turn it as it is turned there."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from jepa_ros.robot.config import require_tool_space
from jepa_ros.sim.task import Pose, TaskGoal
from jepa_ros.sim.tasks.reach import Reach

TURN_TOLERANCE_RAD = 0.1


class Reach3d(Reach):
    """Tool positions in the box of the robot's tool_velocity action space, and orientations where the tool turns."""

    spaces = ("tool_velocity",)
    tolerance_m = 0.01
    min_distances_m = (0.12, 0.06)

    def measure_distance(self, pose: Callable[[str], Pose], goal: TaskGoal) -> float:
        """Return the distance of the positions in m. Where the tool turns, an angle to the goal's orientation counts as
        well, if it is the larger one: TURN_TOLERANCE_RAD is as far as tolerance_m."""
        position, rotation = pose(self._robot.tool_frame)
        distance = float(np.linalg.norm(position - goal.target[:3]))
        if require_tool_space(self._robot).max_yaw_speed is None or goal.rotation is None:
            return distance
        cosine = 0.5 * (np.trace(rotation @ goal.rotation.T) - 1.0)
        angle = float(np.arccos(np.clip(cosine, -1.0, 1.0)))
        return max(distance, angle * self.tolerance_m / TURN_TOLERANCE_RAD)
