"""Random play: motion for collecting training data, without a goal or demonstrations."""

from __future__ import annotations

import numpy as np

STILL_SHARE, SLOW_SHARE = 0.12, 0.5  # of segments that stand still, and that move at less than full speed


def sample_random_play(ticks: int, rng: np.random.Generator) -> np.ndarray:
    """Return velocity knots (ticks, 2) over max_speed: noisy segments of 0.1 to 1.1 s in one direction each.

    Long straight segments cross the workspace, from which the policy learns far goals; short and slow ones resemble the
    last centimetres before a goal.
    """
    knots: list[np.ndarray] = []
    while len(knots) < ticks:
        kind, angle = rng.random(), rng.uniform(0, 2 * np.pi)
        speed = 0.0 if kind < STILL_SHARE else rng.uniform(0.1, 1.0) if kind < STILL_SHARE + SLOW_SHARE else 1.0
        velocity = speed * np.array([np.cos(angle), np.sin(angle)])
        knots += [velocity + rng.normal(0, 0.15, 2) for _ in range(int(rng.integers(1, 12)))]
    return np.array(knots[:ticks])
