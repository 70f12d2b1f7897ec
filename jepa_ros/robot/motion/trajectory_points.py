"""Trajectories as messages have them: nothing is checked, and fields may be missing or of any length.

`JointTrajectory` is the checked form, which this package computes with. Controllers judge what they are sent by rules
of their own, so that a model of a controller needs the points unchecked.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from jepa_ros.errors import InputError
from jepa_ros.robot.motion.trajectory import JointTrajectory

Values = Sequence[float] | np.ndarray


@dataclass(frozen=True)
class Point:
    """One point of a message. time_from_start: s. positions: rad, velocities: rad/s, accelerations: rad/s^2, effort:
    N m, each in the order of the names; empty where not given."""

    time_from_start: float
    positions: Values = ()
    velocities: Values = ()
    accelerations: Values = ()
    effort: Values = ()


@dataclass(frozen=True)
class Points:
    """A trajectory message. stamp: s, time at which time_from_start is 0; 0: on receipt."""

    names: tuple[str, ...]
    points: tuple[Point, ...]
    stamp: float = 0.0

    @classmethod
    def from_trajectory(cls, trajectory: JointTrajectory, stamp: float = 0.0) -> Points:
        """Return what is sent for a checked trajectory."""
        n = len(trajectory.times)
        velocities, accelerations = trajectory.velocities, trajectory.accelerations
        rows = zip(
            trajectory.times.tolist(),
            trajectory.positions,
            [()] * n if velocities is None else velocities,
            [()] * n if accelerations is None else accelerations,
            strict=True,
        )
        return cls(tuple(trajectory.names), tuple(Point(*row) for row in rows), stamp)

    def to_trajectory(self) -> JointTrajectory:
        """Return the checked trajectory. Raises InputError where it is empty, lengths of its fields differ, or
        JointTrajectory refuses it. Efforts are left out."""
        if not self.names or not self.points:
            raise InputError(f"trajectory: no {'points' if self.names else 'joint names'}")
        fields: dict[str, np.ndarray | None] = {}
        for field in ("positions", "velocities", "accelerations"):
            rows = [getattr(p, field) for p in self.points]
            lengths = sorted({len(row) for row in rows})
            if lengths == [0] and field != "positions":
                fields[field] = None
            elif lengths != [len(self.names)]:
                raise InputError(f"trajectory {field}: expected {len(self.names)} for each point, found {lengths}")
            else:
                fields[field] = np.array(rows, dtype=float)
        times = np.array([p.time_from_start for p in self.points])
        return JointTrajectory(self.names, times, **fields)  # type: ignore[arg-type]
