"""Controller of the simulated arm, with the documented behaviour of joint_trajectory_controller (Jazzy)."""

from __future__ import annotations

import numpy as np

from jepa_ros.errors import InputError
from jepa_ros.robot.motion.trajectory import JointTrajectory

END_VELOCITY_TOLERANCE = 0.01  # rad/s, at or below which the last point counts as at rest


class TrajectoryController:
    """Converts trajectories to position references. Times in s on one clock.

    A new trajectory replaces the old one at once. While its first point is in the future, the reference moves there
    from its present value; afterwards the trajectory is sampled at the present time. A first point at time 0 away from
    the present reference is therefore a step.
    """

    def __init__(self, joints: tuple[str, ...], *, allow_nonzero_velocity_at_end: bool = False):
        self.joints = tuple(joints)
        self._allow_moving_end = allow_nonzero_velocity_at_end
        self._trajectory: JointTrajectory | None = None
        self._start = 0.0
        self._lead_in: tuple[JointTrajectory, float] | None = None
        self._state: tuple[np.ndarray, np.ndarray, np.ndarray] | None = None

    def hold(self, q: np.ndarray) -> None:
        """Drop any trajectory and hold q (J,) rad."""
        zero = np.zeros(len(self.joints))
        self._trajectory, self._state = None, (np.array(q, dtype=float), zero, zero)

    def accept(self, trajectory: JointTrajectory, stamp: float, now: float) -> None:
        """Start a trajectory whose times count from `stamp` (0: from now).

        Raises InputError where joint_trajectory_controller would reject it: other joints, an end in the past, an end in
        motion.
        """
        if sorted(trajectory.names) != sorted(self.joints):
            raise InputError(f"trajectory: expected the joints {list(self.joints)}, found {list(trajectory.names)}")
        start = now if stamp == 0 else stamp
        if start + trajectory.duration < now:
            late = now - start - trajectory.duration
            raise InputError(f"trajectory: expected an end in the future, found one {late:.3f} s in the past")
        if not self._allow_moving_end and trajectory.velocities is not None:
            speed = float(np.abs(trajectory.velocities[-1]).max())
            if speed > END_VELOCITY_TOLERANCE:
                raise InputError(f"trajectory: expected an end at rest, found {speed:.3f} rad/s")
        self._trajectory, self._start = _reorder(trajectory, self.joints), start
        self._lead_in = None
        lead = start + float(trajectory.times[0]) - now
        if self._state is not None and lead > 1e-6:
            self._lead_in = (_make_lead_in(self._state, self._trajectory, lead), now)

    def update(self, now: float) -> np.ndarray | None:
        """Return the position reference (J,) rad of this cycle; None before the first hold or trajectory."""
        if self._trajectory is not None:
            if self._lead_in is not None and now < self._start + self._trajectory.times[0]:
                lead_in, begin = self._lead_in
                self._state = lead_in.sample(now - begin)
            else:
                self._state = self._trajectory.sample(now - self._start)
        return None if self._state is None else self._state[0]


def _reorder(trajectory: JointTrajectory, joints: tuple[str, ...]) -> JointTrajectory:
    order = [trajectory.names.index(j) for j in joints]
    pick = [None if v is None else v[:, order] for v in (trajectory.velocities, trajectory.accelerations)]
    return JointTrajectory(joints, trajectory.times, trajectory.positions[:, order], *pick)


def _make_lead_in(state, trajectory: JointTrajectory, lead: float) -> JointTrajectory:
    """Return the segment of `lead` s from the present reference to the trajectory's first point."""
    velocities, accelerations = trajectory.velocities, trajectory.accelerations
    return JointTrajectory(
        trajectory.names,
        np.array([0.0, lead]),
        np.array([state[0], trajectory.positions[0]]),
        None if velocities is None else np.array([state[1], velocities[0]]),
        None if accelerations is None else np.array([state[2], accelerations[0]]),
    )
