"""Rotation between the axes of a world model's actions and the robot's base frame: estimated from predicted and
measured motion, and read from the robot's file.

A model that infers directions from the image alone is sensitive to the position of the camera (arXiv 2506.09985 lists
this among V-JEPA 2-AC's limitations). The least-squares rotation solves Wahba's problem (1965), by SVD (Kabsch 1976).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from jepa_ros.errors import InputError
from jepa_ros.robot.transforms import rotation_matrix

MIN_MOVES = 10
"""Number of moves that an estimate needs."""
COLLINEAR_RATIO = 0.05
"""Ratio of singular values below which motion counts as being along one line."""
MIN_EXPLAINED = 0.2
"""Share of the measured motion that the rotated prediction must explain."""
OUTLIER_FACTOR = 3.0
"""Moves whose residual exceeds this many times the median are left out."""
BOOTSTRAP_DRAWS = 200
MAX_TILT_DEG = 5.0
"""Maximum tilt of the vertical axis where only the rotation about it is used; the ignored part then changes the motion
in the plane by less than 1 %."""


@dataclass(frozen=True)
class CameraRotation:
    """rotation (3, 3): from the model's axes to the base frame's. degrees: its angle. error_degrees: 95th percentile of
    the bootstrap error. explained: share of the measured motion. scale: measured length per predicted length. moves:
    number used; left_out: number of outliers."""

    rotation: np.ndarray
    degrees: float
    error_degrees: float
    explained: float
    scale: float
    moves: int
    left_out: int

    @property
    def quaternion(self) -> tuple[float, float, float, float]:
        """Quaternion xyzw with w >= 0."""
        from scipy.spatial.transform import Rotation

        x, y, z, w = Rotation.from_matrix(self.rotation).as_quat(canonical=True).tolist()
        return x, y, z, w

    @property
    def axis(self) -> np.ndarray:
        """Rotation axis (3,) of length 1; zero without a rotation."""
        vector = np.array(self.quaternion[:3])
        length = float(np.linalg.norm(vector))
        return vector / length if length > 1e-9 else np.zeros(3)


def estimate_rotation(predicted: np.ndarray, measured: np.ndarray, seed: int = 0) -> CameraRotation:
    """Return the rotation R for which R @ predicted is closest to measured, both (N, 3), or (N, 2) in the base frame's
    plane, in any unit. seed: of the bootstrap.

    Raises InputError where moves are too few, not finite, along one line, mirrored, or unrelated to the prediction.
    """
    predicted, measured = (np.asarray(x, float) for x in (predicted, measured))
    _check_moves(predicted, measured)
    rotation, keep = _fit_rotation(predicted, measured), np.ones(len(predicted), bool)
    for _ in range(2):
        scale = _scale(rotation, predicted[keep], measured[keep])
        off = np.linalg.norm(measured - scale * predicted @ rotation.T, axis=1)
        keep = off <= OUTLIER_FACTOR * max(float(np.median(off)), 1e-12)
        rotation = _fit_rotation(predicted[keep], measured[keep])
    p, m = predicted[keep], measured[keep]
    scale = _scale(rotation, p, m)
    explained = 1.0 - float(np.square(m - scale * p @ rotation.T).sum() / np.square(m).sum())
    if explained < MIN_EXPLAINED or scale <= 0:
        raise InputError(
            f"moves: expected predictions that explain at least {100 * MIN_EXPLAINED:.0f} % of the measured motion, "
            f"found {100 * max(explained, 0.0):.0f} %: the model does not predict motion in this view well enough"
        )
    error = _uncertainty(p, m, rotation, np.random.default_rng(seed))
    rotation = _in_space(rotation)
    return CameraRotation(rotation, _degrees(rotation), error, explained, scale, len(p), int((~keep).sum()))


def _check_moves(predicted: np.ndarray, measured: np.ndarray) -> None:
    shape = predicted.shape
    if shape != measured.shape or len(shape) != 2 or shape[1] not in (2, 3):
        raise InputError(f"moves: expected two arrays (N, 2) or (N, 3), found {shape} and {measured.shape}")
    if shape[0] < MIN_MOVES:
        raise InputError(f"moves: expected at least {MIN_MOVES}, found {shape[0]}")
    if not (np.isfinite(predicted).all() and np.isfinite(measured).all()):
        raise InputError("moves: expected finite numbers, found NaN or Inf")
    for name, moves in (("measured", measured), ("predicted", predicted)):
        sizes = np.linalg.svd(moves, compute_uv=False)
        if sizes[0] < 1e-9:
            raise InputError(f"moves: expected motion, found no {name} motion")
        if sizes[1] < COLLINEAR_RATIO * sizes[0]:
            raise InputError(f"moves: expected several directions, found {name} motion along one line")


def _fit_rotation(predicted: np.ndarray, measured: np.ndarray) -> np.ndarray:
    """Return the proper rotation (d, d). Raises InputError where a reflection fits much better."""
    u, sizes, vt = np.linalg.svd(measured.T @ predicted)
    sign = np.linalg.det(u @ vt)
    if sign < 0 and sizes[-1] > 0.3 * sizes[0]:
        raise InputError("moves: expected a rotation, found mirrored motion: is the camera image flipped?")
    return u @ np.diag([*np.ones(len(sizes) - 1), np.sign(sign)]) @ vt


def _scale(rotation: np.ndarray, predicted: np.ndarray, measured: np.ndarray) -> float:
    turned = predicted @ rotation.T
    return float((turned * measured).sum() / np.square(turned).sum())


def _uncertainty(p: np.ndarray, m: np.ndarray, rotation: np.ndarray, rng: np.random.Generator) -> float:
    """Return the 95th percentile of the bootstrap error in degrees."""
    off = []
    for _ in range(BOOTSTRAP_DRAWS):
        rows = rng.integers(0, len(p), len(p))
        try:
            off.append(_degrees(_in_space(_fit_rotation(p[rows], m[rows]) @ rotation.T)))
        except InputError:
            off.append(180.0)
    return float(np.percentile(off, 95))


def _in_space(rotation: np.ndarray) -> np.ndarray:
    """Return a rotation (3, 3); one in the plane (2, 2) becomes one about the vertical axis."""
    if rotation.shape == (3, 3):
        return rotation
    out = np.eye(3)
    out[:2, :2] = rotation
    return out


def _degrees(rotation: np.ndarray) -> float:
    return float(np.degrees(np.arccos(np.clip((np.trace(rotation) - 1.0) / 2.0, -1.0, 1.0))))


def tilt_degrees(quaternion: ArrayLike) -> float:
    """Return the angle in degrees by which a rotation xyzw tilts the vertical axis."""
    return float(np.degrees(np.arccos(np.clip(rotation_matrix(quaternion)[2, 2], -1.0, 1.0))))


def yaw_rotation(quaternion: ArrayLike) -> np.ndarray:
    """Return the part of a rotation xyzw about the vertical axis (swing-twist decomposition), in the plane (2, 2)."""
    _, _, z, w = np.asarray(quaternion, float)
    length = np.hypot(z, w)
    z, w = z / length, w / length
    return np.array([[w * w - z * z, -2.0 * z * w], [2.0 * z * w, w * w - z * z]])
