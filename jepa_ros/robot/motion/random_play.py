"""Random play: what an arm does to learn its world, with no goal and no expert."""

from __future__ import annotations

import numpy as np

STILL, SLOW = 0.12, 0.5
"""Shares of stretches that stand still, and that move at less than full speed."""


def sample_random_play(ticks: int, rng: np.random.Generator) -> np.ndarray:
    """Velocity knots (ticks, 2) asked for, over max_speed: stretches of 0.1 to 1.1 s in one direction, with noise.

    Long straight stretches reach across the workspace, which the policy learns far goals from; short and slow ones are
    what the last centimetres before a goal look like.
    """
    knots: list[np.ndarray] = []
    while len(knots) < ticks:
        kind, angle = rng.random(), rng.uniform(0, 2 * np.pi)
        speed = 0.0 if kind < STILL else rng.uniform(0.1, 1.0) if kind < STILL + SLOW else 1.0
        velocity = speed * np.array([np.cos(angle), np.sin(angle)])
        knots += [velocity + rng.normal(0, 0.15, 2) for _ in range(int(rng.integers(1, 12)))]
    return np.array(knots[:ticks])
