"""Transforms: the newest pose of each frame in another. A small part of tf2, which the wheels lack."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike


class TransformTree:
    """Keeps the newest transform of each frame to its parent. Positions in m, quaternions xyzw."""

    def __init__(self) -> None:
        self._parents: dict[str, tuple[str, np.ndarray, np.ndarray]] = {}

    def add(self, message) -> None:
        """Add the transforms of a tf2_msgs/TFMessage."""
        for one in message.transforms:
            t, r = one.transform.translation, one.transform.rotation
            self.set(one.child_frame_id, one.header.frame_id, (t.x, t.y, t.z), (r.x, r.y, r.z, r.w))

    def set(self, child: str, parent: str, position: ArrayLike, quaternion: ArrayLike) -> None:
        """Set the pose of ``child`` in ``parent``."""
        self._parents[child] = (parent, np.asarray(position, float), np.asarray(quaternion, float))

    def position(self, frame: str, base: str) -> np.ndarray | None:
        """Return the origin (3,) of ``frame`` in ``base``, or None while they are not connected."""
        pose = self.pose(frame, base)
        return None if pose is None else pose[0]

    def pose(self, frame: str, base: str) -> tuple[np.ndarray, np.ndarray] | None:
        """Return origin (3,) and rotation (3, 3) of ``frame`` in ``base``, or None while they are not connected."""
        (root, turn, origin), (base_root, rotation, offset) = self._to_root(frame), self._to_root(base)
        return (rotation.T @ (origin - offset), rotation.T @ turn) if root == base_root else None

    def _to_root(self, frame: str) -> tuple[str, np.ndarray, np.ndarray]:
        """Return the root of a frame, and the frame's rotation (3, 3) and origin (3,) in it."""
        rotation, origin, seen = np.eye(3), np.zeros(3), set()
        while frame in self._parents and frame not in seen:
            seen.add(frame)
            frame, position, quaternion = self._parents[frame]
            turn = rotation_matrix(quaternion)
            rotation, origin = turn @ rotation, turn @ origin + position
        return frame, rotation, origin


def rotation_matrix(quaternion: ArrayLike) -> np.ndarray:
    """Return the rotation (3, 3) of a quaternion xyzw of any length except 0."""
    x, y, z, w = np.asarray(quaternion, float) / np.linalg.norm(quaternion)
    return np.array(
        [
            [1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)],
            [2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)],
            [2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)],
        ]
    )
