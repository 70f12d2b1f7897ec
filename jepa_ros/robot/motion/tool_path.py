"""Tool paths: smooth motion of the tool along D coordinates, from one velocity knot per control tick; random play.

Between two knots the velocity follows the smoothstep 3 f^2 - 2 f^3, so the acceleration is continuous and zero at every
knot: there another path can take over without a jump in position, velocity or acceleration.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

STILL_SHARE, SLOW_SHARE = 0.12, 0.5  # of segments that stand still, and that move at less than full speed


def _travel(f: np.ndarray) -> np.ndarray:
    """Integral of the smoothstep from 0 to f."""
    return f**3 - 0.5 * f**4


@dataclass(frozen=True)
class ToolPath:
    """start: (D,) m. knots: (n + 1, D) m/s at times 0, period, ..., n * period; the last velocity continues."""

    start: np.ndarray
    knots: np.ndarray
    period: float

    @property
    def duration(self) -> float:
        """Time of the last knot, s."""
        return (len(self.knots) - 1) * self.period

    def sample(self, t: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return position (m), velocity (m/s) and acceleration (m/s^2), each (M, D), at times t (M,) >= 0 in s."""
        matrix = travel_matrix(len(self.knots), t, self.period)
        k, f = _find_tick(t, len(self.knots), self.period)
        f = f[:, None]
        u0, u1 = self.knots[k], self.knots[k + 1]
        velocity = u0 + (u1 - u0) * (3 * f**2 - 2 * f**3)
        acceleration = (u1 - u0) * 6 * (f - f**2) / self.period
        return self.start + matrix @ self.knots, velocity, acceleration


def travel_matrix(knots: int, t: np.ndarray, period: float) -> np.ndarray:
    """Return the matrix (M, knots) from velocity knots to the displacement since time 0 at times t (M,) in s.

    After the last knot its velocity continues. The map is linear, so the planner applies it to thousands of samples.
    """
    k, f = _find_tick(t, knots, period)
    rows, columns = np.arange(len(k)), np.arange(knots)
    # A full tick moves by the mean of its two knots.
    matrix = 0.5 * (columns < k[:, None]) + 0.5 * ((columns > 0) & (columns <= k[:, None]))
    matrix[rows, k] += f - _travel(f)
    matrix[rows, k + 1] += _travel(f)
    matrix[:, -1] += np.maximum(np.asarray(t) / period - (knots - 1), 0.0)
    return matrix * period


def _find_tick(t: np.ndarray, knots: int, period: float) -> tuple[np.ndarray, np.ndarray]:
    """Return the ticks (M,) that times t (M,) lie in, the last one at most, and the elapsed shares (M,) of each."""
    ticks = np.asarray(t, dtype=float) / period
    k = np.clip((ticks + 1e-9).astype(int), 0, knots - 2)
    return k, np.clip(ticks - k, 0.0, 1.0)


def sample_random_play(ticks: int, rng: np.random.Generator, axes: int = 2, turns: int = 0) -> np.ndarray:
    """Return velocity knots (ticks, axes + turns) over max_speed, to collect training data without a goal.

    They are noisy segments of 0.1 to 1.1 s in one direction each. Long straight segments cross the workspace, from
    which the policy learns far goals; short and slow ones resemble the last centimetres before a goal. axes: 2 in a
    plane, 3 in space. turns: of these the tool turns as well, independently of its direction, each 0 to 1.
    """
    knots: list[np.ndarray] = []
    while len(knots) < ticks:
        kind = rng.random()
        direction = _sample_direction(axes, rng)
        speed = 0.0 if kind < STILL_SHARE else rng.uniform(0.1, 1.0) if kind < STILL_SHARE + SLOW_SHARE else 1.0
        velocity = speed * direction
        if turns:
            turn = rng.uniform(-1.0, 1.0, turns) * (rng.random(turns) >= STILL_SHARE)
            velocity = np.concatenate([velocity, turn])
        knots += [velocity + rng.normal(0, 0.15, axes + turns) for _ in range(int(rng.integers(1, 12)))]
    return np.array(knots[:ticks])


def _sample_direction(axes: int, rng: np.random.Generator) -> np.ndarray:
    """Return a direction (axes,) of length 1, uniform over the circle or the sphere."""
    angle = rng.uniform(0, 2 * np.pi)
    if axes == 2:
        return np.array([np.cos(angle), np.sin(angle)])
    height = rng.uniform(-1.0, 1.0)
    radius = np.sqrt(1.0 - height**2)
    return np.array([radius * np.cos(angle), radius * np.sin(angle), height])
