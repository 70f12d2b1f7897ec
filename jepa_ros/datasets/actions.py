"""Actions between frames, from executed actions, commands or joint states.

All are mean velocities over a tick, divided by a scale, so that they mean the same at any rate.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import numpy as np

from jepa_ros.datasets.mapping import PLANAR, BagMapping
from jepa_ros.datasets.segments import Segment
from jepa_ros.datasets.signals import Signals
from jepa_ros.datasets.stamps import interpolate

Executed = Callable[[np.ndarray, np.ndarray], np.ndarray]
"""MotionSpace.executed: from joint positions at a tick's start and end to the action."""


class ActionSource(Protocol):
    """Actions of one segment. end: s, after which no action is known. holes: (n, 2) s, start and end of the gaps in
    which no action is known."""

    end: float
    holes: np.ndarray

    def between(self, at: np.ndarray) -> np.ndarray:
        """Return the actions (n - 1, A) between times at (n,) s."""


NO_HOLES = np.empty((0, 2))


class ExecutedActions:
    """Executed displacements per tick of `recorded` s, converted to ticks of `period` s."""

    def __init__(self, times: np.ndarray, values: np.ndarray, recorded: float, period: float):
        recorded = period if abs(recorded - period) < 1e-6 else recorded  # the message holds a float32
        self._edges = np.append(times, times[-1] + recorded)
        self._travelled = np.vstack([np.zeros(values.shape[1]), np.cumsum(values, axis=0)])
        self._factor = recorded / period
        self.end = self._edges[-1]
        gaps = np.flatnonzero(np.diff(times) > 1.5 * recorded)
        holes = [(-np.inf, times[0] - 0.5 * recorded), *((times[k] + recorded, times[k + 1]) for k in gaps)]
        self.holes = np.array(holes)

    def between(self, at: np.ndarray) -> np.ndarray:
        actions = np.diff(interpolate(at, self._edges, self._travelled), axis=0)
        return actions if self._factor == 1.0 else actions * self._factor


class HeldVelocity:
    """Velocity commands, each held until the next one, at most for `hold` s."""

    def __init__(self, times: np.ndarray, values: np.ndarray, hold: float, scale: float):
        ends = np.minimum(np.append(times[1:], np.inf), times + hold)
        # The velocity is constant between edges: the command's from its time on, zero from its end on.
        self._edges = np.stack([times, ends], axis=1).ravel()
        moved = values * (ends - times)[:, None] / scale
        steps = np.stack([np.zeros_like(moved), moved], axis=1).reshape(-1, values.shape[1])
        self._travelled = np.cumsum(steps, axis=0)
        self.end, self.holes = np.inf, NO_HOLES

    def between(self, at: np.ndarray) -> np.ndarray:
        return np.diff(interpolate(at, self._edges, self._travelled), axis=0) / np.diff(at)[:, None]


class JointMotion:
    """Motion of joints. positions: maps times (n,) to (n, J) rad. space: converts it to actions of the robot."""

    def __init__(self, positions, scale: float, period: float, space: Executed | None, begin: float, end: float):
        self._positions, self._scale, self._period, self._space = positions, scale, period, space
        self.end, self.holes = end, np.array([(-np.inf, begin)])

    def between(self, at: np.ndarray) -> np.ndarray:
        q = self._positions(at)
        if self._space is not None:
            return np.array([self._space(a, b) for a, b in zip(q[:-1], q[1:], strict=True)]).reshape(len(q) - 1, -1)
        return np.diff(q, axis=0) / np.diff(at)[:, None] / self._scale


class TrajectoryReference:
    """The reference that joint_trajectory_controller follows: each trajectory from its stamp on, starting where the one
    before it is at that time, linear between points, then at rest at the last point."""

    def __init__(self, times: np.ndarray, trajectories: list[tuple[np.ndarray, np.ndarray]]):
        self._starts, self._parts = times, []
        at = trajectories[0][1][0]
        for k, (offsets, positions) in enumerate(trajectories):
            if offsets[0] > 0:
                offsets, positions = np.append(0.0, offsets), np.vstack([at, positions])
            self._parts.append((offsets, positions))
            if k + 1 < len(times):
                at = interpolate(np.array([times[k + 1] - times[k]]), offsets, positions)[0]

    def __call__(self, at: np.ndarray) -> np.ndarray:
        """Return the positions (n, J) rad at times (n,) s."""
        which = np.maximum(np.searchsorted(self._starts, at, "right") - 1, 0)
        made = [
            interpolate(np.array([t - self._starts[k]]), *self._parts[k])[0] for t, k in zip(at, which, strict=True)
        ]
        return np.array(made)


def action_source(
    segment: Segment, signals: Signals, mapping: BagMapping, period: float, executed: Executed | None
) -> ActionSource | None:
    """Return the actions of a segment; None where it has none. executed: of the robot's action space, for PLANAR."""
    a, arm = mapping.actions, len(mapping.joint_states.joints)
    space = executed if getattr(a, "space", "") == PLANAR else None
    if a.source == "states":
        states = segment.states
        if len(states.times) < 2:
            return None
        q = states.array()[:, :arm]
        begin, end = states.times[0] - period, states.times[-1] + period
        return JointMotion(lambda at: interpolate(at, states.times, q), a.scale, period, space, begin, end)
    track = segment.actions
    if not len(track.times):
        return None
    if a.source == "executed":
        return ExecutedActions(track.times, track.array(), signals.action_period, period)
    if a.source in ("velocity", "joint_velocity"):
        return HeldVelocity(track.times, track.array(), a.hold, a.scale)
    reference = TrajectoryReference(track.times, track.values)
    return JointMotion(reference, a.scale, period, space, track.times[0], np.inf)
