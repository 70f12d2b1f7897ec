"""Hard constraints on planned motion: keep-out boxes, self-collision, joint limits, workspace.

Twice: roughly and fast on tool positions, for thousands of samples of a search; exactly on the joint path of the plan
that is to be handed over. In space the fast look is at keep-out boxes alone.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.ndimage import distance_transform_edt

from jepa_ros.errors import InputError
from jepa_ros.robot.collision.clearance import STEP, TOLERANCE, Box, Clearance
from jepa_ros.robot.collision.self_collision import SelfCollision
from jepa_ros.robot.config import RobotConfig
from jepa_ros.robot.motion.limits import JointLimits
from jepa_ros.robot.motion.motion_space import MotionSpace
from jepa_ros.robot.motion.trajectory import JointTrajectory

GRID = 0.01  # m between the nodes of the clearance field
SOFT = 0.03  # m of clearance below which a path has a price
LEVER = 0.3  # m of the tool's way that a rad of room to a joint limit counts as
FAR = 10.0  # m, clearance where nothing is near: infinite ones cannot be interpolated
UNREACHABLE = -0.05  # m, clearance of a position that no joint positions hold the tool at


class Guardrails:
    """What forbids a motion of the tool in `space`, of D coordinates.

    limits, collision: None where they are not looked at. margin: m kept to boxes and between links. The joints' own
    margin is in their limits already. The workspace's border is kept by space.constrain; here it is in the exact check
    only. A clearance field is computed once, by inverse kinematics on a grid over the workspace; it does not know of
    what is placed elsewhere later (SelfCollision.place), the exact check does.

    Raises InputError where joints do not agree, or where the robot at home is nearer to itself than the margin.
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
            ("joint limits", limits and limits.names),
            ("self-collision", collision and collision.joints),
        ):
            if found is not None and tuple(found) != self.joints:
                raise InputError(f"{name}: expected the joints {list(self.joints)}, found {list(found)}")
        if not 0 <= margin < np.inf:
            raise InputError(f"guardrails: expected a margin of 0 m or more, found {margin}")
        border = (space.normals, space.offsets)
        self._exact = Clearance(space.kinematics, limits, collision, self.boxes, margin, border)
        self._exact.check_home(space.posture)
        self._field, self._origin, self._soft = self._measure()

    @classmethod
    def from_robot(cls, robot: RobotConfig, urdf: str, space: MotionSpace, limits: JointLimits | None) -> Guardrails:
        """Those of the robot's configuration; urdf: its description. See Clearance.from_robot."""
        exact = Clearance.from_robot(robot, urdf, space.kinematics)
        return cls(space, limits, exact.collision, exact.boxes, exact.margin)

    # -- tool positions ------------------------------------------------------------------------------------------------

    def clearance(self, xy: np.ndarray) -> np.ndarray:
        """(...) m from tool positions xy (..., D) m to the nearest thing that forbids them, the margin taken off.

        Boxes exactly. Self-collision and joint limits from the field, for the posture that belongs to a position; a rad
        to a joint limit counts as LEVER m; it is UNREACHABLE where nothing can be reached, and FAR at most. Negative:
        forbidden.
        """
        xy = np.asarray(xy, dtype=float)
        return np.minimum(self._body(xy), self._boxes(xy))

    def feasible(self, paths: np.ndarray) -> np.ndarray:
        """(S,) whether all points of paths (S, M, D) m have a clearance of 0 or more.

        A path that begins with less may only move inward: its clearance never falls below its start's.
        """
        clearance = self.clearance(paths)
        return (clearance >= np.minimum(0.0, clearance[:, :1] - TOLERANCE)).all(axis=1)

    def price(self, paths: np.ndarray) -> np.ndarray:
        """(S,) >= 0: means over the points of paths (S, M, D) m of ((s - clearance) / s)^2 below a soft margin s.

        1 where all points lie at clearance 0. s is SOFT for boxes, and for the robot itself at most a quarter of the
        workspace's median clearance: ordinary postures cost nothing.
        """
        paths = np.asarray(paths, dtype=float)
        low = np.maximum(1.0 - self._body(paths) / self._soft, 0.0) ** 2
        if self.boxes:
            low = low + np.maximum(1.0 - self._boxes(paths) / SOFT, 0.0) ** 2
        return low.mean(axis=1)

    def _boxes(self, xy: np.ndarray) -> np.ndarray:
        least = np.full(xy.shape[:-1], np.inf)
        for box in self.boxes:
            least = np.minimum(least, box.distance(*self.space.to_xyz(xy)))
        return least - self.margin

    def _body(self, xy: np.ndarray) -> np.ndarray:
        """The field at xy (..., 2), bilinear; beyond its edge it goes on as it is there."""
        if self._field is None:
            return np.full(xy.shape[:-1], FAR)
        rows, columns = self._field.shape
        u = np.clip((xy[..., 0] - self._origin[0]) / GRID, 0.0, rows - 1.0)
        v = np.clip((xy[..., 1] - self._origin[1]) / GRID, 0.0, columns - 1.0)
        i, j = np.minimum(u.astype(int), rows - 2), np.minimum(v.astype(int), columns - 2)
        u, v, flat, k = u - i, v - j, self._field.ravel(), i * columns + j
        near = flat[k] + v * (flat[k + 1] - flat[k])
        far = flat[k + columns] + v * (flat[k + columns + 1] - flat[k + columns])
        return near + u * (far - near)

    def _measure(self) -> tuple[np.ndarray | None, np.ndarray, float]:
        """Clearance (X, Y) m of the robot itself on a grid over the workspace and a node beyond it, the grid's first
        node (2,) m, and the soft margin m; no clearance in space, where a grid would be too large."""
        if self.space.axes != 2:
            return None, np.zeros(3), SOFT
        corners, pad = self.space.workspace, 2 * GRID
        origin = corners.min(0) - pad
        count = np.ceil((corners.max(0) + pad - origin) / GRID).astype(int) + 1
        field, q = np.full(count, np.nan), None
        if self.limits is None and self.collision is None:
            return np.full(count, FAR), origin, SOFT
        for i in range(count[0]):
            # To and fro: the joints of the node before are a good start for the next.
            for j in range(count[1])[:: 1 if i % 2 == 0 else -1]:
                xy = origin + GRID * np.array([i, j])
                if (self.space.normals @ xy - self.space.offsets).max() <= 1.5 * GRID:
                    field[i, j], q = self._at(xy, q)
        unknown = np.isnan(field)
        field = field[tuple(distance_transform_edt(unknown, return_distances=False, return_indices=True))]
        common = float(np.median(field[~unknown]))
        return field, origin, min(SOFT, 0.25 * common) if common > 0 else SOFT

    def _at(self, xy: np.ndarray, start: np.ndarray | None) -> tuple[float, np.ndarray | None]:
        """Clearance in m of the robot itself with the tool at xy (2,), and its joints there."""
        try:
            q = self.space.inverse_kinematics(xy, start)
        except InputError:
            return UNREACHABLE, start
        room = FAR
        if self.limits is not None:
            room = min(room, LEVER * float(np.minimum(q - self.limits.lower, self.limits.upper - q).min()))
        if self.collision is not None:
            room = min(room, self.collision.distance(q) - self.margin)
        return room, q

    # -- the joint path ------------------------------------------------------------------------------------------------

    def check(self, trajectory: JointTrajectory) -> str:
        """What of a trajectory is forbidden, in one sentence; "" where nothing is.

        Joint positions are looked at every STEP s. Tool and self-collision are looked at there too, but where a bound
        on how far the robot can have moved since shows that nothing can be nearer than allowed. Whatever is outside of
        its bounds at the start may move inward only.
        """
        if tuple(trajectory.names) != self.joints:
            raise InputError(f"trajectory: expected the joints {list(self.joints)}, found {list(trajectory.names)}")
        times = np.linspace(0.0, trajectory.duration, max(1, int(np.ceil(trajectory.duration / STEP - 1e-6))) + 1)
        return self._exact.check(times, trajectory.sample(times)[0])
