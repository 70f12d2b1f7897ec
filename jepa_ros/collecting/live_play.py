"""Random play on a live arm: where an episode begins, and how the arm is wanted to move in it."""

from __future__ import annotations

import numpy as np

from jepa_ros.errors import InputError
from jepa_ros.robot.motion.action_space import PlanarVelocity
from jepa_ros.robot.motion.random_play import sample_random_play

JITTER = 0.5  # share of the way from the reset pose to a random place of the workspace


def middle(space: PlanarVelocity) -> np.ndarray:
    """The centroid (2,) m of the workspace."""
    a, b = space.workspace, np.roll(space.workspace, -1, axis=0)
    areas = a[:, 0] * b[:, 1] - b[:, 0] * a[:, 1]
    return ((a + b) * areas[:, None]).sum(0) / (3.0 * areas.sum())


def reset_pose(space: PlanarVelocity, given: tuple[float, float] | None) -> np.ndarray:
    """The tool position (2,) m that episodes begin at. given: None for the middle. Raises InputError outside."""
    if given is None:
        return middle(space)
    if not (np.isfinite(given).all() and space.is_inside(np.array(given))):
        low, high = space.workspace.min(0), space.workspace.max(0)
        found = f"x {low[0]:g} to {high[0]:g}, y {low[1]:g} to {high[1]:g}"
        raise InputError(f"reset {given}: expected a place inside the workspace or box ({found} m), found one outside")
    return np.array(given)


def episode(space: PlanarVelocity, reset: np.ndarray, ticks: int, seed: int, number: int) -> tuple:
    """Where play of one episode begins (2,) m, and its velocity knots (ticks, 2), over max_speed, as wanted.

    The beginnings lie around `reset`. Seed and number alone decide both.
    """
    rng = np.random.default_rng([seed, number])
    low, high = space.workspace.min(0), space.workspace.max(0)
    place = rng.uniform(low, high)
    while not space.is_inside(place):
        place = rng.uniform(low, high)
    return reset + JITTER * (place - reset), sample_random_play(ticks, rng)
