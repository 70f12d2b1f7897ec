"""Forward and inverse kinematics of one arm from its URDF (Pinocchio)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import pinocchio as pin

from jepa_ros.errors import InputError
from jepa_ros.robot.motion.angles import nearest_turn
from jepa_ros.robot.urdf import RobotDescription, replace_continuous_joints


class Kinematics:
    """One arm: J joints in the given order, a tool frame, poses in `base_frame`. model: Pinocchio's, of the arm alone.
    continuous: (J,) bool. lower, upper: (J,) rad or m, infinite for continuous joints.

    Raises InputError where the URDF is invalid or lacks a joint or frame.
    """

    def __init__(self, urdf: str, joints: Sequence[str], tool_frame: str, base_frame: str = "world"):
        self.joints, self.tool_frame = tuple(joints), tool_frame
        with pinocchio_errors():
            self._build(urdf, base_frame)

    def _build(self, urdf: str, base_frame: str) -> None:
        full = pin.buildModelFromXML(replace_continuous_joints(urdf, 2.0 * np.pi))
        known = list(full.names)
        missing = [j for j in self.joints if j not in known]
        if missing:
            raise InputError(f"robot_description: expected the joints {missing}, found {known[1:]}")
        locked = [full.getJointId(n) for n in known[1:] if n not in self.joints]
        self.model = pin.buildReducedModel(full, locked, pin.neutral(full))
        self._data = self.model.createData()
        for frame in (self.tool_frame, base_frame):
            if not self.model.existFrame(frame):
                raise InputError(f"robot_description: expected a link {frame!r}, found none")
        self._tool = self.model.getFrameId(self.tool_frame)
        self._base = self.model.getFrameId(base_frame)
        order = [self.model.joints[self.model.getJointId(j)].idx_q for j in self.joints]
        self._order = np.argsort(order) if sorted(order) != order else None
        self._description = RobotDescription.from_urdf(urdf)
        self.continuous = self.find_continuous(self.joints)
        self.lower = np.where(self.continuous, -np.inf, self.model.lowerPositionLimit[order])
        self.upper = np.where(self.continuous, np.inf, self.model.upperPositionLimit[order])
        self._columns = order

    def find_continuous(self, names: Sequence[str]) -> np.ndarray:
        """Return a mask (len(names),): True for continuous joints of the description, False for unknown names."""
        return np.array(self._description.find_continuous(names), dtype=bool)

    def forward(self, q: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return position (3,) in m and rotation (3, 3) of the tool in the base frame at joint positions q (J,) rad."""
        pin.framesForwardKinematics(self.model, self._data, self._native(q))
        pose = self._data.oMf[self._base].actInv(self._data.oMf[self._tool])
        return pose.translation.copy(), pose.rotation.copy()

    def jacobian(self, q: np.ndarray) -> np.ndarray:
        """Return the tool Jacobian (6, J): linear (m/rad) then angular (rad/rad), both in base-frame axes."""
        jacobian = pin.computeFrameJacobian(
            self.model, self._data, self._native(q), self._tool, pin.ReferenceFrame.LOCAL_WORLD_ALIGNED
        )
        pin.updateFramePlacement(self.model, self._data, self._base)
        rotation = self._data.oMf[self._base].rotation.T
        return np.vstack([rotation @ jacobian[:3], rotation @ jacobian[3:]])[:, self._columns]

    def inverse(
        self,
        position: np.ndarray,
        rotation: np.ndarray,
        start: np.ndarray,
        posture: np.ndarray,
        *,
        iterations: int = 50,
        margin: float = 0.02,
        posture_weight: float = 0.05,
        same_turn: bool = False,
    ) -> tuple[np.ndarray, float]:
        """Return joint positions (J,) that bring the tool to a position (3,), and the remaining position error in m.

        The position has priority; in its null space the orientation (3, 3) is held and the joints are drawn weakly to
        `posture` (J,), so that a path through the same points returns to the same joints (task priority, Nakamura et
        al. 1987, with damped least squares). `margin` rad is kept to the joint limits. Continuous joints are drawn to
        the turn of `posture` that is nearest to `start`, or with same_turn to `posture` as it is.
        """
        q = np.array(start, dtype=float)
        if not same_turn:
            posture = nearest_turn(posture, q, self.continuous)
        low, high = self.lower + margin, self.upper - margin
        eye, lean = np.eye(len(q)), posture_weight
        for _ in range(iterations):
            here, r = self.forward(q)
            error, turn = position - here, _rotation_error(rotation, r)
            j = self.jacobian(q)
            linear, angular = j[:3], j[3:]
            inverse = linear.T @ np.linalg.inv(linear @ linear.T + 1e-6 * np.eye(3))
            first = inverse @ error
            null = eye - inverse @ linear
            a = null @ (angular.T @ angular + lean * eye) @ null + 1e-6 * eye
            b = null @ (angular.T @ (turn - angular @ first) + lean * (posture - q - first))
            step = first + null @ np.linalg.solve(a, b)
            q = np.clip(q + np.clip(step, -0.2, 0.2), low, high)
            # Newton's method: the error after a small step is of the order of its square.
            if np.abs(error).max() < 1e-3 and np.abs(step).max() < 5e-3:
                break
        return q, float(np.linalg.norm(position - self.forward(q)[0]))

    def _native(self, q: np.ndarray) -> np.ndarray:
        q = np.asarray(q, dtype=float)
        if q.shape != (len(self.joints),):
            raise InputError(f"joint positions: expected shape ({len(self.joints)},), found {q.shape}")
        return q if self._order is None else q[self._order]


def _rotation_error(target: np.ndarray, current: np.ndarray) -> np.ndarray:
    """Return the small-angle rotation vector (3,) in rad from `current` to `target`, in base axes."""
    r = target @ current.T
    return 0.5 * np.array([r[2, 1] - r[1, 2], r[0, 2] - r[2, 0], r[1, 0] - r[0, 1]])


@contextmanager
def pinocchio_errors() -> Iterator[None]:
    """Turn what Pinocchio raises for an invalid or inconsistent URDF into an InputError of one line."""
    try:
        yield
    except InputError:
        raise
    except (ValueError, RuntimeError, IndexError) as error:
        line = next(iter(str(error).strip().splitlines()), type(error).__name__)
        raise InputError(f"robot_description: expected a URDF, found {line}") from None
