"""How the axes that a world model acts in are turned against the robot's base: by motion predicted and motion measured,
and as the robot's file says it.

A model that infers directions from the picture alone is sensitive to where the camera stands (arXiv 2506.09985 names it
among V-JEPA 2-AC's limitations). The rotation in least squares is Wahba's problem (1965), solved by SVD (Kabsch 1976).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from jepa_ros.errors import InputError
from jepa_ros.robot.transforms import rotation_matrix

MIN_MOVES = 10
"""Moves with which a rotation is given."""
FLAT = 0.05
"""Ratio of singular values under which motion counts as being along one line, or in one plane."""
AGREES = 0.2
"""Least share of the measured motion that the turned prediction must explain."""
TRIMMED = 3.0
"""Times the median residual beyond which a move is left out."""
DRAWS = 200
TILT = 5.0
"""Degrees by which a rotation may tilt the vertical axis where only what is about it can be used: what is left out then
is less than 1 % of the motion in the plane."""


@dataclass(frozen=True)
class CameraRotation:
    """rotation (3, 3): from the model's axes to the base frame's. degrees: of it. error_degrees: within which it lies
    in 95 of 100 draws of the moves (bootstrap). explained: share of the measured motion. scale: measured length for a
    predicted length of 1. moves: used; left_out: those too far off."""

    rotation: np.ndarray
    degrees: float
    error_degrees: float
    explained: float
    scale: float
    moves: int
    left_out: int

    @property
    def quaternion(self) -> tuple[float, float, float, float]:
        """xyzw, w not negative."""
        return quaternion(self.rotation)

    @property
    def axis(self) -> np.ndarray:
        """(3,) of length 1, about which it turns; zero where it does not."""
        vector = np.array(self.quaternion[:3])
        length = float(np.linalg.norm(vector))
        return vector / length if length > 1e-9 else np.zeros(3)


def estimate_rotation(predicted: np.ndarray, measured: np.ndarray, seed: int = 0) -> CameraRotation:
    """The rotation R that makes R @ predicted most like measured, both (N, 3), or (N, 2) in the base frame's plane, of
    any one unit. seed: of the bootstrap.

    Raises InputError where moves are too few, not finite, along one line (in space: what turns about it does not show),
    mirrored, or have little to do with what was predicted.
    """
    predicted, measured = (np.asarray(x, float) for x in (predicted, measured))
    _expect_moves(predicted, measured)
    rotation, keep = _turn(predicted, measured), np.ones(len(predicted), bool)
    for _ in range(2):
        off = np.linalg.norm(
            measured - _scale(rotation, predicted[keep], measured[keep]) * predicted @ rotation.T, axis=1
        )
        keep = off <= TRIMMED * max(float(np.median(off)), 1e-12)
        rotation = _turn(predicted[keep], measured[keep])
    p, m = predicted[keep], measured[keep]
    scale = _scale(rotation, p, m)
    explained = 1.0 - float(np.square(m - scale * p @ rotation.T).sum() / np.square(m).sum())
    if explained < AGREES or scale <= 0:
        raise InputError(
            f"moves: expected predictions that explain at least {100 * AGREES:.0f} % of the measured motion, found "
            f"{100 * max(explained, 0.0):.0f} %: the model does not know this view well enough"
        )
    error = _uncertainty(p, m, rotation, np.random.default_rng(seed))
    return CameraRotation(
        _in_space(rotation), _degrees(_in_space(rotation)), error, explained, scale, len(p), int((~keep).sum())
    )


def _expect_moves(predicted: np.ndarray, measured: np.ndarray) -> None:
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
            raise InputError(f"moves: expected motion, found none {name}")
        if sizes[1] < FLAT * sizes[0]:
            raise InputError(f"moves: expected several directions, found {name} ones along one line only")


def _turn(predicted: np.ndarray, measured: np.ndarray) -> np.ndarray:
    """(d, d), proper. Raises InputError where a mirror image fits better by far."""
    u, sizes, vt = np.linalg.svd(measured.T @ predicted)
    sign = np.linalg.det(u @ vt)
    if sign < 0 and sizes[-1] > 0.3 * sizes[0]:
        raise InputError("moves: expected a rotation, found mirrored motion: is the camera's picture flipped?")
    return u @ np.diag([*np.ones(len(sizes) - 1), np.sign(sign)]) @ vt


def _scale(rotation: np.ndarray, predicted: np.ndarray, measured: np.ndarray) -> float:
    turned = predicted @ rotation.T
    return float((turned * measured).sum() / np.square(turned).sum())


def _uncertainty(p: np.ndarray, m: np.ndarray, rotation: np.ndarray, rng: np.random.Generator) -> float:
    """Degrees."""
    off = []
    for _ in range(DRAWS):
        rows = rng.integers(0, len(p), len(p))
        try:
            off.append(_degrees(_in_space(_turn(p[rows], m[rows]) @ rotation.T)))
        except InputError:
            off.append(180.0)
    return float(np.percentile(off, 95))


def _in_space(rotation: np.ndarray) -> np.ndarray:
    """(3, 3); of the plane it is about the vertical axis."""
    if rotation.shape == (3, 3):
        return rotation
    out = np.eye(3)
    out[:2, :2] = rotation
    return out


def _degrees(rotation: np.ndarray) -> float:
    return float(np.degrees(np.arccos(np.clip((np.trace(rotation) - 1.0) / 2.0, -1.0, 1.0))))


def quaternion(rotation: np.ndarray) -> tuple[float, float, float, float]:
    """xyzw, w not negative, of a rotation (3, 3)."""
    from scipy.spatial.transform import Rotation

    x, y, z, w = Rotation.from_matrix(rotation).as_quat()
    sign = -1.0 if w < 0 else 1.0
    return float(sign * x), float(sign * y), float(sign * z), float(sign * w)


def tilt_degrees(quaternion: Sequence[float]) -> float:
    """Degrees between the vertical axis and where a rotation xyzw brings it."""
    return float(np.degrees(np.arccos(np.clip(rotation_matrix(quaternion)[2, 2], -1.0, 1.0))))


def yaw_rotation(quaternion: Sequence[float]) -> np.ndarray:
    """(2, 2): the part of a rotation xyzw that is about the vertical axis (swing and twist), in the plane."""
    _, _, z, w = np.asarray(quaternion, float) / np.hypot(*quaternion[2:])
    return np.array([[w * w - z * z, -2.0 * z * w], [2.0 * z * w, w * w - z * z]])
