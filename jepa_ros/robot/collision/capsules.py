"""Capsules: the smallest capsule around a cloud of points, as the collision shape of a link."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.optimize import minimize
from scipy.spatial import ConvexHull, QhullError

from jepa_ros.errors import InputError

MAX_EVALUATIONS = 120  # of the search for a better axis


@dataclass(frozen=True)
class Capsule:
    """All points within `radius` m of the segment from start (3,) to end (3,) m; a sphere where they are equal."""

    start: np.ndarray
    end: np.ndarray
    radius: float

    @property
    def volume(self) -> float:
        """Volume in m^3."""
        return float(np.pi * self.radius**2 * (np.linalg.norm(self.end - self.start) + 4 / 3 * self.radius))

    @property
    def placement(self) -> tuple[np.ndarray, np.ndarray, float]:
        """Centre (3,) m, rotation (3, 3) whose z axis is the capsule's, and length m of the segment."""
        along = self.end - self.start
        length = float(np.linalg.norm(along))
        axis = along / length if length > 1e-9 else np.array([0.0, 0.0, 1.0])
        side, up = _across(axis)
        return 0.5 * (self.start + self.end), np.column_stack([side, up, axis]), length


def enclosing_capsule(points: np.ndarray) -> Capsule:
    """Return a capsule around all points (N, 3) m whose volume is close to the smallest; it encloses them exactly.

    Starts with the best of the principal and the coordinate axes, and improves axis and offset by the Nelder-Mead
    method. For an axis and an offset, radius and ends follow from the points (see _around). Raises InputError where
    there are no points or one is not finite.
    """
    points = np.asarray(points, dtype=float)
    if points.ndim != 2 or points.shape[1] != 3 or not len(points):
        raise InputError(f"capsule: expected points (N, 3), found shape {points.shape}")
    if not np.isfinite(points).all():
        raise InputError("capsule: expected finite points, found NaN or Inf")
    points = hull_points(points)
    middle = points - points.mean(0)
    principal = np.linalg.eigh(middle.T @ middle)[1].T
    starts = [_around(points, axis, _middle(points, axis)) for axis in np.vstack([principal, np.eye(3)])]
    first = min(starts, key=lambda capsule: capsule.volume)
    centre, rotation, _ = first.placement
    size = max(first.radius, 1e-6)

    def at(x: np.ndarray) -> Capsule:
        axis = rotation @ np.array([x[0], x[1], 1.0])
        offset = centre + rotation[:, :2] @ (x[2:] * size)
        return _around(points, axis / np.linalg.norm(axis), offset)

    simplex = np.vstack([np.zeros(4), 0.15 * np.eye(4)])
    found = minimize(
        lambda x: at(x).volume,
        np.zeros(4),
        method="Nelder-Mead",
        options={"maxfev": MAX_EVALUATIONS, "initial_simplex": simplex, "fatol": 0.0, "xatol": 1e-4},
    )
    return min((first, at(found.x)), key=lambda capsule: capsule.volume)


def hull_points(points: np.ndarray) -> np.ndarray:
    """Return the points of (N, 3) that span their convex hull; all of them where it is flat."""
    try:
        return points[ConvexHull(points).vertices]
    except QhullError:
        return points


def _around(points: np.ndarray, axis: np.ndarray, offset: np.ndarray) -> Capsule:
    """Return the shortest capsule around points (N, 3) with its axis (3,) of length 1 through `offset` (3,).

    A point at t along the axis, at distance e from it, is covered if the segment ends at t - sqrt(r^2 - e^2) or later
    and begins at t + sqrt(r^2 - e^2) or earlier.
    """
    relative = points - offset
    along = relative @ axis
    away = relative - along[:, None] * axis  # not by Pythagoras, which loses half the digits near the axis
    beside = np.sqrt(np.einsum("ij,ij->i", away, away))
    radius = float(beside.max()) * (1 + 1e-9)
    cap = np.sqrt(np.maximum(radius * radius - beside * beside, 0.0))
    low, high = float((along + cap).min()), float((along - cap).max())
    if high < low:  # one sphere covers all
        low = high = 0.5 * (low + high)
    return Capsule(offset + low * axis, offset + high * axis, radius)


def _middle(points: np.ndarray, axis: np.ndarray) -> np.ndarray:
    """Return the middle (3,) of the points' extent perpendicular to the axis."""
    basis = np.stack(_across(axis))
    spread = points @ basis.T
    return 0.5 * (spread.min(0) + spread.max(0)) @ basis


def _across(axis: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return two unit vectors (3,) that form a right-handed frame with `axis` as its z."""
    side = np.cross(np.eye(3)[int(np.abs(axis).argmin())], axis)
    side /= np.linalg.norm(side)
    return side, np.cross(axis, side)
