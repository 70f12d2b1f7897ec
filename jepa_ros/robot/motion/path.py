"""Joint paths: knots joined by quintics, as joint_trajectory_controller interpolates them.

Paths are twice continuously differentiable. Position, velocity and acceleration at its two ends define a quintic, so
cutting one in two does not change it: windows can be cut from plans anywhere, and controllers follow the same curve.
"""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right
from functools import cached_property, lru_cache

import numpy as np

MAX_SEGMENT = 0.05  # s, of a path; bounds the cost of a check and the size of a controller message
MERGE = 1e-4  # s; knots closer to a cut are dropped: the jerk of so short a segment would be rounding noise

# Ends of a segment (q0, v0 h, a0 h², q1, v1 h, a1 h²) → coefficients in normalised time u = t / h.
_HERMITE = np.array(
    [
        [1, 0, 0, 0, 0, 0],
        [0, 1, 0, 0, 0, 0],
        [0, 0, 0.5, 0, 0, 0],
        [-10, -6, -1.5, 10, -4, 0.5],
        [15, 8, 1.5, -15, 7, -1],
        [-6, -3, -0.5, 6, -3, 0.5],
    ]
)


class Path:
    """Knots of J joints: times (N,) s, increasing; states (N, 3, J): position rad, velocity rad/s, acceleration rad/s².

    Times are on any clock. After the last knot (and before the first) its position is held at rest. Immutable.
    """

    def __init__(self, times: np.ndarray, states: np.ndarray):
        self.times = np.asarray(times, dtype=float)
        self.states = np.asarray(states, dtype=float)
        self._times = self.times.tolist()
        self.start, self.end = self._times[0], self._times[-1]
        self._rest = self.states[-1].copy()
        self._rest[1:] = 0.0

    @classmethod
    def rest(cls, q: np.ndarray, t: float) -> Path:
        """Return a path at rest at q (J,) rad from t s on."""
        states = np.zeros((1, 3, len(q)))
        states[0, 0] = q
        return cls(np.array([t]), states)

    def __len__(self) -> int:
        return len(self._times)

    @cached_property
    def _durations(self) -> np.ndarray:
        """(N - 1, 1) s of each segment."""
        return (self.times[1:] - self.times[:-1])[:, None]

    @cached_property
    def _coefficients(self) -> np.ndarray:
        """(6, N - 1, J) coefficients of each segment in its normalised time."""
        h = self._durations
        scaled = np.array((np.ones_like(h), h, h * h))
        states = self.states.transpose(1, 0, 2)
        ends = np.concatenate((states[:, :-1] * scaled, states[:, 1:] * scaled))
        return (_HERMITE @ ends.reshape(6, -1)).reshape(ends.shape)

    def at(self, t: float) -> np.ndarray:
        """Return position, velocity and acceleration (3, J) at t s."""
        if t >= self.end:
            return self._rest
        i = bisect_right(self._times, t) - 1
        if i < 0:
            first = np.zeros_like(self._rest)
            first[0] = self.states[0, 0]
            return first
        h = self._times[i + 1] - self._times[i]
        u = (t - self._times[i]) / h
        u2 = u * u
        u3 = u2 * u
        v, a = 1.0 / h, 1.0 / (h * h)
        basis = np.array(
            (
                (1.0, u, u2, u3, u3 * u, u3 * u2),
                (0.0, v, 2 * u * v, 3 * u2 * v, 4 * u3 * v, 5 * u3 * u * v),
                (0.0, 0.0, 2 * a, 6 * u * a, 12 * u2 * a, 20 * u3 * a),
            )
        )
        return basis @ self._coefficients[:, i]

    def samples(self, step: float = 0.005) -> np.ndarray:
        """Sample every segment at m times at most `step` s apart, both ends included: (4, m, N - 1, J).

        First axis: position rad, velocity rad/s, acceleration rad/s², jerk rad/s³. With one knot, m = 1.
        """
        if len(self) == 1:
            return np.concatenate((self._rest, np.zeros((1, self._rest.shape[1]))))[:, None, None, :]
        h = self._durations
        m = max(1, int(math.ceil(float(h.max()) / step - 1e-9)))
        c = self._coefficients
        out = (_basis(m) @ c.reshape(6, -1)).reshape(4, m + 1, *c.shape[1:])
        scale = 1.0 / h
        out[1] *= scale
        out[2] *= scale**2
        out[3] *= scale**3
        return out

    def knot_at_or_after(self, t: float) -> float:
        """Return the time of the first knot at or after t, or of the last knot."""
        i = bisect_left(self._times, t)
        return self._times[min(i, len(self) - 1)]

    def between(self, start: float, end: float) -> Path:
        """Return the part from the knot at or before `start` (after the path's end: from `start`) to exactly `end`."""
        if start >= self.end - MERGE:
            return _hold(self._rest, start, end)
        i = max(bisect_right(self._times, start) - 1, 0)
        if end > self.end + MERGE:
            tail, times, states = _hold(self._rest, self.end, end), self.times[i:-1], self.states[i:-1]
            return Path(np.concatenate((times, tail.times)), np.concatenate((states, tail.states)))
        if end <= self._times[i] + MERGE:
            return Path(np.array([end]), self.at(end)[None])
        k = bisect_left(self._times, end - MERGE)  # knots i..k-1 stay
        k = max(k, i + 1)
        if k < len(self) and self._times[k] == end:
            return Path(self.times[i : k + 1], self.states[i : k + 1])
        last = self.at(end) if end < self.end else self._rest
        return Path(np.append(self.times[i:k], end), np.concatenate((self.states[i:k], last[None])))

    def after(self, start: float) -> Path:
        """Return the part from exactly `start` on (at or before the path's end)."""
        k = bisect_right(self._times, start + MERGE)
        if k >= len(self):
            return Path(np.array([start]), self._rest[None])
        first = self.at(start)[None]
        return Path(np.concatenate(([start], self.times[k:])), np.concatenate((first, self.states[k:])))

    def then(self, other: Path) -> Path:
        """Return this path followed by `other`, whose first knot (replaced) is this path's last."""
        return Path(
            np.concatenate((self.times, other.times[1:])),
            np.concatenate((self.states, other.states[1:])),
        )

    def slowed(self, factor: float) -> Path:
        """Return the same motion, `factor` times slower in all joints, with the same start time."""
        scale = np.array([1.0, 1.0 / factor, 1.0 / factor**2])[:, None]
        return Path(self.start + (self.times - self.start) * factor, self.states * scale)

    def moved(self, by: np.ndarray) -> Path:
        """Return the same motion with `by` (J,) rad added to every position."""
        states = self.states.copy()
        states[:, 0] += by
        return Path(self.times, states)

    def divided(self) -> Path:
        """Return the same curve with no segment longer than MAX_SEGMENT."""
        h = self._durations[:, 0]
        if not len(h) or h.max() <= MAX_SEGMENT * 1.001:
            return self
        parts = np.maximum(np.ceil(h / MAX_SEGMENT - 1e-3), 1).astype(int)
        segment = np.repeat(np.arange(len(h)), parts)
        first = np.cumsum(parts) - parts
        u = (np.arange(len(segment)) - first[segment]) / parts[segment]
        scale = h[segment] ** -np.arange(3.0)[:, None]  # of the derivatives with respect to time
        basis = (_powers(u)[:3] * scale[..., None]).transpose(1, 0, 2)
        states = basis @ self._coefficients[:, segment].transpose(1, 0, 2)
        states[first] = self.states[:-1]  # the given knots stay exact
        times = self.times[segment] + u * h[segment]
        return Path(np.append(times, self.end), np.concatenate((states, self.states[-1:])))


def _hold(rest: np.ndarray, start: float, end: float) -> Path:
    """Hold rest (3, J) from start to end, in segments no longer than MAX_SEGMENT."""
    n = max(int(np.ceil((end - start) / MAX_SEGMENT - 1e-3)), 1) if end > start else 0
    return Path(np.linspace(start, end, n + 1), np.broadcast_to(rest, (n + 1, *rest.shape)))


@lru_cache(maxsize=256)
def _basis(m: int) -> np.ndarray:
    """Return `_powers` (4 (m + 1), 6) at m + 1 even times of [0, 1]."""
    return _powers(np.linspace(0.0, 1.0, m + 1)).reshape(-1, 6)


def _powers(u: np.ndarray) -> np.ndarray:
    """Return the powers 0 to 5 of normalised times u (n,) and their first three derivatives: (4, n, 6)."""
    out, factor = np.zeros((4, len(u), 6)), np.ones(6)
    for d in range(4):
        for k in range(d, 6):
            out[d, :, k] = factor[k] * u ** (k - d)
        factor = factor * np.maximum(np.arange(6) - d, 0)
    return out
