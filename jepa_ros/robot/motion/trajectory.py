"""Joint trajectories and their interpolation.

The interpolation is that of joint_trajectory_controller (ros2_controllers, "Trajectory Representation"): linear for
positions alone, cubic with velocities, quintic with velocities and accelerations.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from jepa_ros.errors import InputError


@dataclass(frozen=True)
class JointTrajectory:
    """Waypoints of J joints at N times.

    names: J joint names. times: (N,) s from the start, >= 0, strictly increasing. positions: (N, J) rad.
    velocities: (N, J) rad/s or None. accelerations: (N, J) rad/s^2 or None (only together with velocities).

    Raises InputError where shapes do not match, a value is not finite or the times do not increase.
    """

    names: tuple[str, ...]
    times: np.ndarray
    positions: np.ndarray
    velocities: np.ndarray | None = None
    accelerations: np.ndarray | None = None

    def __post_init__(self) -> None:
        shape = (len(self.times), len(self.names))
        if shape[0] == 0:
            raise InputError("trajectory: expected at least one point, found none")
        for field in ("positions", "velocities", "accelerations"):
            values = getattr(self, field)
            if values is None and field != "positions":
                continue
            if np.shape(values) != shape:
                raise InputError(f"trajectory {field}: expected shape {shape}, found {np.shape(values)}")
            if not np.isfinite(values).all():
                raise InputError(f"trajectory {field}: expected finite values, found NaN or Inf")
        if not np.isfinite(self.times).all() or self.times[0] < 0 or (np.diff(self.times) <= 0).any():
            raise InputError("trajectory times: expected finite, strictly increasing values from 0 on")
        if self.accelerations is not None and self.velocities is None:
            raise InputError("trajectory: accelerations without velocities")

    @property
    def duration(self) -> float:
        """Time of the last point, s."""
        return float(self.times[-1])

    def sample(self, t: float | np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return position, velocity and acceleration at time(s) t in s: each (J,) for a scalar, (M, J) for (M,) times.

        Before the first point and after the last one its position is held at rest.
        """
        t = np.asarray(t, dtype=float)
        times = np.atleast_1d(t)
        segment = np.clip(np.searchsorted(self.times, times, side="right") - 1, 0, max(len(self.times) - 2, 0))
        coefficients = self._coefficients[segment]  # (M, 6, J)
        s = (times - self.times[segment])[:, None]
        c = [coefficients[:, k] for k in range(6)]
        q = c[0] + s * (c[1] + s * (c[2] + s * (c[3] + s * (c[4] + s * c[5]))))
        qd = c[1] + s * (2 * c[2] + s * (3 * c[3] + s * (4 * c[4] + s * 5 * c[5])))
        qdd = 2 * c[2] + s * (6 * c[3] + s * (12 * c[4] + s * 20 * c[5]))
        for outside, index in ((times < self.times[0], 0), (times > self.times[-1], -1)):
            q[outside], qd[outside], qdd[outside] = self.positions[index], 0.0, 0.0
        return (q[0], qd[0], qdd[0]) if t.ndim == 0 else (q, qd, qdd)

    @cached_property
    def _coefficients(self) -> np.ndarray:
        """Polynomial coefficients (max(N - 1, 1), 6, J) of each segment, in its own time."""
        n, j = self.positions.shape
        c = np.zeros((max(n - 1, 1), 6, j))
        if n == 1:
            c[0, 0] = self.positions[0]
            return c
        h = np.diff(self.times)[:, None]
        q0, q1 = self.positions[:-1], self.positions[1:]
        c[:, 0] = q0
        if self.velocities is None:
            c[:, 1] = (q1 - q0) / h
            return c
        v0, v1 = self.velocities[:-1], self.velocities[1:]
        c[:, 1] = v0
        if self.accelerations is None:
            c[:, 2] = (3 * (q1 - q0) / h - 2 * v0 - v1) / h
            c[:, 3] = (-2 * (q1 - q0) / h + v0 + v1) / h**2
            return c
        a0, a1 = self.accelerations[:-1], self.accelerations[1:]
        d = q1 - q0
        c[:, 2] = a0 / 2
        c[:, 3] = (20 * d - (8 * v1 + 12 * v0) * h - (3 * a0 - a1) * h**2) / (2 * h**3)
        c[:, 4] = (-30 * d + (14 * v1 + 16 * v0) * h + (3 * a0 - 2 * a1) * h**2) / (2 * h**4)
        c[:, 5] = (12 * d - 6 * (v1 + v0) * h - (a0 - a1) * h**2) / (2 * h**5)
        return c
