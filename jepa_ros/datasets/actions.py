"""Actions between frames, from what a bag holds: executed actions, commands, or states. All are mean velocities over a
tick, over a scale, so that they mean the same at any rate."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import numpy as np

from jepa_ros.bags.grid import interpolate
from jepa_ros.datasets.mapping import PLANAR, BagMapping
from jepa_ros.datasets.segments import Segment
from jepa_ros.datasets.signals import Signals

Executed = Callable[[np.ndarray, np.ndarray], np.ndarray]
"""ActionSpace.executed: from joint positions at a tick's start and end to the action."""


class ActionSource(Protocol):
    """Actions of one segment. end: s, after which nothing is known. holes: (n, 2) s, begins and ends of times of which
    nothing is known."""

    end: float
    holes: np.ndarray

    def between(self, at: np.ndarray) -> np.ndarray:
        """(n - 1, A) actions between times at (n,) s."""


NO_HOLES = np.empty((0, 2))


class ExecutedActions:
    """Displacements of ticks of `recorded` s, brought to ticks of `period` s."""

    def __init__(self, times: np.ndarray, values: np.ndarray, recorded: float, period: float):
        recorded = period if abs(recorded - period) < 1e-6 else recorded  # it is kept as a float32
        self._edges = np.append(times, times[-1] + recorded)
        self._travelled = np.vstack([np.zeros(values.shape[1]), np.cumsum(values, axis=0)])
        self._factor = recorded / period
        self.end = self._edges[-1]
        late = np.flatnonzero(np.diff(times) > 1.5 * recorded)
        holes = [(-np.inf, times[0] - 0.5 * recorded), *((times[k] + recorded, times[k + 1]) for k in late)]
        self.holes = np.array(holes)

    def between(self, at: np.ndarray) -> np.ndarray:
        """See ActionSource."""
        actions = np.diff(interpolate(at, self._edges, self._travelled), axis=0)
        return actions if self._factor == 1.0 else actions * self._factor


class HeldVelocity:
    """Velocity commands, each held until the next, `hold` s at most."""

    def __init__(self, times: np.ndarray, values: np.ndarray, hold: float, scale: float):
        ends = np.minimum(np.append(times[1:], np.inf), times + hold)
        # Velocity is constant between edges: the command's from its time on, zero from its end on.
        self._edges = np.stack([times, ends], axis=1).ravel()
        moved = values * (ends - times)[:, None] / scale
        steps = np.stack([np.zeros_like(moved), moved], axis=1).reshape(-1, values.shape[1])
        self._travelled = np.cumsum(steps, axis=0)
        self.end, self.holes = np.inf, NO_HOLES

    def between(self, at: np.ndarray) -> np.ndarray:
        """See ActionSource."""
        return np.diff(interpolate(at, self._edges, self._travelled), axis=0) / np.diff(at)[:, None]


class JointMotion:
    """Motion of joints: `positions` maps times (n,) to (n, J) rad."""

    def __init__(self, positions, scale: float, period: float, space: Executed | None, begin: float, end: float):
        self._positions, self._scale, self._period, self._space = positions, scale, period, space
        self.end, self.holes = end, np.array([(-np.inf, begin)])

    def between(self, at: np.ndarray) -> np.ndarray:
        """See ActionSource."""
        q = self._positions(at)
        if self._space is not None:
            return np.array([self._space(a, b) for a, b in zip(q[:-1], q[1:], strict=True)]).reshape(len(q) - 1, -1)
        return np.diff(q, axis=0) / np.diff(at)[:, None] / self._scale


class Reference:
    """What joint_trajectory_controller follows: each trajectory from its stamp on, beginning where the one before it is
    then, linearly from point to point, and its last point when it is over."""

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
        """(n, J) rad at times (n,) s."""
        which = np.maximum(np.searchsorted(self._starts, at, "right") - 1, 0)
        made = [
            interpolate(np.array([t - self._starts[k]]), *self._parts[k])[0] for t, k in zip(at, which, strict=True)
        ]
        return np.array(made)


def action_source(
    segment: Segment, signals: Signals, mapping: BagMapping, period: float, executed: Executed | None
) -> ActionSource | None:
    """The actions of a segment; None where it has none. executed: of the robot's action space, for PLANAR."""
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
    reference = Reference(track.times, track.values)
    return JointMotion(reference, a.scale, period, space, track.times[0], np.inf)
