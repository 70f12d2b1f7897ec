"""Hard constraints on planned motion: keep-out boxes, self-collision, joint limits, workspace.

Checked twice: approximately and fast on tool positions, for the thousands of samples of a search, and exactly on the
joint path of the plan that is handed over. In 3-D motion spaces the fast check covers keep-out boxes only.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.ndimage import distance_transform_edt

from jepa_ros.errors import InputError
from jepa_ros.robot.collision.clearance import OUTWARD_TOLERANCE, SAMPLE_PERIOD, Box, Clearance
from jepa_ros.robot.collision.self_collision import SelfCollision
from jepa_ros.robot.config import RobotConfig
from jepa_ros.robot.motion.limits import JointLimits
from jepa_ros.robot.motion.motion_space import MotionSpace
from jepa_ros.robot.motion.path import Path
from jepa_ros.robot.motion.trajectory import JointTrajectory

GRID_M = 0.01
"""Spacing of the clearance field's nodes."""
SOFT_MARGIN_M = 0.03
"""Clearance below which a path has a price."""
M_PER_RAD = 0.3
"""Converts the distance to a joint limit in rad to clearance in m."""
MAX_CLEARANCE_M = 10.0
"""Clearance of free space: infinite values cannot be interpolated."""
UNREACHABLE_M = -0.05
"""Clearance of a position without an inverse kinematics solution."""


class Guardrails:
    """Constraints on motions of the tool in `space`, of D coordinates.

    limits, collision: None switches the check off. margin: m kept to boxes and between links; the limits include their
    own margin. The search keeps to the workspace by space.constrain, so only the exact check tests the workspace. A
    clearance field is computed once, by inverse kinematics on a grid over the workspace; links that are moved later
    (SelfCollision.set_joints) count in the exact check only.

    Raises InputError if joint names differ, or if the robot at home is nearer to itself than the margin.
    """

    def __init__(
        self,
        space: MotionSpace,
        limits: JointLimits | None,
        collision: SelfCollision | None,
        boxes: Sequence[Box] = (),
        margin: float = 0.02,
    ):
        self.space, self.limits, self.collision = space, limits, collision
        self.boxes, self.margin = tuple(boxes), margin
        self.joints = space.kinematics.joints
        for name, found in (
            ("joint limits", None if limits is None else limits.names),
            ("self-collision", None if collision is None else collision.joints),
        ):
            if found is not None and tuple(found) != self.joints:
                raise InputError(f"{name}: expected the joints {list(self.joints)}, found {list(found)}")
        if not 0 <= margin < np.inf:
            raise InputError(f"guardrails: margin: expected a finite value of at least 0 m, found {margin}")
        border = (space.normals, space.offsets)
        self._exact = Clearance(space.kinematics, limits, collision, self.boxes, margin, border)
        self._exact.check_home(space.posture)
        self._field, self._origin, self._soft = self._compute_field()

    @classmethod
    def from_robot(cls, robot: RobotConfig, urdf: str, space: MotionSpace, limits: JointLimits | None) -> Guardrails:
        """Return the guardrails of a robot's configuration. urdf: its description. See Clearance.from_robot."""
        exact = Clearance.from_robot(robot, urdf, space.kinematics)
        return cls(space, limits, exact.collision, exact.boxes, exact.margin)

    # -- tool positions ------------------------------------------------------------------------------------------------

    def clearance(self, xy: np.ndarray) -> np.ndarray:
        """Return the clearance (...) m of tool positions xy (..., D) m, less the margin; negative if forbidden.

        Exact for boxes. Self-collision and joint limits come from the field, for the posture that inverse kinematics
        gives for a position. UNREACHABLE_M where there is none, MAX_CLEARANCE_M at most.
        """
        xy = np.asarray(xy, dtype=float)
        return np.minimum(self._self_clearance(xy), self._box_clearance(xy))

    def feasible(self, paths: np.ndarray) -> np.ndarray:
        """Check that all points of paths (S, M, D) m have a clearance of at least 0: (S,) bool.

        A path that starts with less is feasible if its clearance never falls below that of its start.
        """
        clearance = self.clearance(paths)
        return np.all(clearance >= np.minimum(0.0, clearance[:, :1] - OUTWARD_TOLERANCE), axis=1)

    def price(self, paths: np.ndarray) -> np.ndarray:
        """Return penalties (S,) >= 0 of paths (S, M, D) m: the mean over the points of ((s - clearance) / s)^2 below a
        soft margin s; 1 if all points lie at clearance 0.

        s is SOFT_MARGIN_M for boxes, and for the robot itself at most a quarter of the workspace's median clearance, so
        that ordinary postures cost nothing.
        """
        paths = np.asarray(paths, dtype=float)
        low = np.maximum(1.0 - self._self_clearance(paths) / self._soft, 0.0) ** 2
        if self.boxes:
            low = low + np.maximum(1.0 - self._box_clearance(paths) / SOFT_MARGIN_M, 0.0) ** 2
        return low.mean(axis=1)

    def _box_clearance(self, xy: np.ndarray) -> np.ndarray:
        least = np.full(xy.shape[:-1], np.inf)
        for box in self.boxes:
            least = np.minimum(least, box.distance(*self.space.to_xyz(xy)))
        return least - self.margin

    def _self_clearance(self, xy: np.ndarray) -> np.ndarray:
        """Interpolate the field at xy (..., 2) bilinearly; constant beyond its edge."""
        if self._field is None:
            return np.full(xy.shape[:-1], MAX_CLEARANCE_M)
        rows, columns = self._field.shape
        u = np.clip((xy[..., 0] - self._origin[0]) / GRID_M, 0.0, rows - 1.0)
        v = np.clip((xy[..., 1] - self._origin[1]) / GRID_M, 0.0, columns - 1.0)
        i, j = np.minimum(u.astype(int), rows - 2), np.minimum(v.astype(int), columns - 2)
        u, v, flat, k = u - i, v - j, self._field.ravel(), i * columns + j
        near = flat[k] + v * (flat[k + 1] - flat[k])
        far = flat[k + columns] + v * (flat[k + columns + 1] - flat[k + columns])
        return near + u * (far - near)

    def _compute_field(self) -> tuple[np.ndarray | None, np.ndarray, float]:
        """Return the robot's own clearance (X, Y) m on a grid over the workspace and one node beyond it, the first node
        (2,) m, and the soft margin in m. In 3-D the clearance is None: a grid would be too large."""
        if self.space.axes != 2:
            return None, np.zeros(3), SOFT_MARGIN_M
        corners, pad = self.space.corners[:, :2], 2 * GRID_M
        origin = corners.min(0) - pad
        count = np.ceil((corners.max(0) + pad - origin) / GRID_M).astype(int) + 1
        field, q = np.full(count, np.nan), None
        if self.limits is None and self.collision is None:
            return np.full(count, MAX_CLEARANCE_M), origin, SOFT_MARGIN_M
        for i in range(count[0]):
            # Alternate the direction: the solution at the last node is a good start for the next.
            for j in range(count[1])[:: 1 if i % 2 == 0 else -1]:
                xy = origin + GRID_M * np.array([i, j])
                if (self.space.normals @ xy - self.space.offsets).max() <= 1.5 * GRID_M:
                    field[i, j], q = self._clearance_at(xy, q)
        unknown = np.isnan(field)
        field = field[tuple(distance_transform_edt(unknown, return_distances=False, return_indices=True))]
        common = float(np.median(field[~unknown]))
        return field, origin, min(SOFT_MARGIN_M, 0.25 * common) if common > 0 else SOFT_MARGIN_M

    def _clearance_at(self, xy: np.ndarray, start: np.ndarray | None) -> tuple[float, np.ndarray | None]:
        """Return the robot's own clearance in m with the tool at xy (2,), and its joint positions."""
        try:
            q = self.space.inverse_kinematics(xy, start)
        except InputError:
            return UNREACHABLE_M, start
        room = MAX_CLEARANCE_M
        if self.limits is not None:
            room = min(room, M_PER_RAD * float(np.minimum(q - self.limits.lower, self.limits.upper - q).min()))
        if self.collision is not None:
            room = min(room, self.collision.distance(q) - self.margin)
        return room, q

    # -- the joint path ------------------------------------------------------------------------------------------------

    def check(self, trajectory: JointTrajectory) -> str:
        """Return the first violation of a trajectory in one sentence, or "".

        Joint positions are checked every SAMPLE_PERIOD s; tool position and self-collision as well, unless a bound on
        the motion since the last check rules out a violation. What violates a constraint at the start may only move
        inward. Where the space can stretch the arm, joint velocity, acceleration and jerk are checked as well: near a
        stretched posture slow motion of the tool needs fast joints, for which the gate would stop the arm.
        """
        if tuple(trajectory.names) != self.joints:
            raise InputError(f"trajectory: expected the joints {list(self.joints)}, found {list(trajectory.names)}")
        steps = max(1, int(np.ceil(trajectory.duration / SAMPLE_PERIOD - 1e-6)))
        times = np.linspace(0.0, trajectory.duration, steps + 1)
        problem = self._exact.check(times, trajectory.sample(times)[0])
        return problem or (self._find_fast_joint(trajectory) if self.space.may_stretch else "")

    def _find_fast_joint(self, trajectory: JointTrajectory) -> str:
        """Return which joint limit of motion a trajectory exceeds, in one sentence, or ""."""
        if self.limits is None or trajectory.velocities is None or trajectory.accelerations is None:
            return ""
        states = np.stack((trajectory.positions, trajectory.velocities, trajectory.accelerations), axis=1)
        usage = self.limits.compute_usage(Path(trajectory.times, states).divided())
        return f"{usage.text}: the arm is nearly stretched" if usage.slowdown > 1.0 else ""
