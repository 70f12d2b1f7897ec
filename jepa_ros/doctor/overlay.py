"""The live picture under what the training camera would see: its reference picture, and the arm's own skeleton."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from jepa_ros.doctor.examine import positions
from jepa_ros.doctor.observations import Job, Seen
from jepa_ros.errors import InputError
from jepa_ros.images import decode_compressed
from jepa_ros.robot.transforms import rotation_matrix
from jepa_ros.world_model.config import REFERENCES, CameraReference

_LINE, _DOT = (255, 80, 40), (255, 220, 60)


def reference(directory: Path, seen: Seen, job: Job) -> tuple[np.ndarray, str] | None:
    """A picture (H, W, 3) uint8 rgb of the training camera and where it is from: where the model was trained in the
    simulated cell, one drawn of the arm as it stands now, else the checkpoint's own. None where there is none."""
    try:
        drawn = _drawn(seen, job)
    except (ImportError, InputError):  # no MuJoCo, or no OpenGL
        drawn = None
    if drawn is not None:
        return drawn, "the simulated cell with the arm as it stands now"
    for name in REFERENCES:
        if (directory / name).is_file():
            return read_picture(directory / name), f"the model's {name}"
    return None


def read_picture(path: Path) -> np.ndarray:
    """(H, W, 3) uint8 rgb. Raises InputError."""
    try:
        return decode_compressed(path.suffix, path.read_bytes())
    except OSError as problem:
        raise InputError(f"picture {path}: expected a JPEG or PNG, found {problem}") from None


def _drawn(seen: Seen, job: Job) -> np.ndarray | None:
    trained, q = job.model.camera, positions(seen, job)
    if trained is None or q is None:
        return None
    from jepa_ros.sim.scene import Scene

    scene = Scene(width=trained.width, height=trained.height)
    place, intrinsics = scene.camera_pose[0], scene.camera_intrinsics
    same = np.allclose(place, trained.position, atol=1e-3) and np.isclose(intrinsics["fx"], trained.fx, rtol=1e-3)
    if not same or not set(job.robot.joints) <= set(scene.joint_names):
        return None
    scene.teleport(dict(zip(job.robot.joints, q.tolist(), strict=True)))
    drawn = scene.render().copy()
    scene.close_renderer()
    return drawn


def project(points: np.ndarray, camera: CameraReference) -> np.ndarray:
    """Points (n, 3) m in the base frame → pixels (n, 2) of the training camera, NaN behind it."""
    rotation = rotation_matrix(np.array(camera.orientation))
    x, y, z = ((points - np.array(camera.position)) @ rotation).T
    z = np.where(z > 1e-6, z, np.nan)
    return np.stack([camera.fx * x / z + camera.cx, camera.fy * y / z + camera.cy], axis=1)


def skeleton(seen: Seen, job: Job) -> np.ndarray | None:
    """(J + 1, 3) m in the base frame: the joints in their order, then the tool. None where nothing tells."""
    q = positions(seen, job)
    if q is None or seen.description is None:
        return None
    from jepa_ros.robot.motion.kinematics import Kinematics

    try:
        frames = [*job.robot.joints, job.robot.tool_frame]
        made = [Kinematics(seen.description, job.robot.joints, frame, job.robot.base_frame) for frame in frames]
        return np.array([kinematics.forward(q)[0] for kinematics in made])
    except InputError:
        return None


def draw(live: np.ndarray, drawn: np.ndarray | None, points: np.ndarray | None, job: Job) -> np.ndarray:
    """The live picture, half of it the reference where there is one, with the skeleton: (H, W, 3) uint8 rgb at the
    training camera's size, both cut to its centred square and brought back."""
    trained = job.model.camera
    if trained is None:
        return live
    size = (trained.width, trained.height)
    canvas = _fitted(live, size)
    if drawn is not None:
        canvas = cv2.addWeighted(canvas, 0.5, _fitted(drawn, size), 0.5, 0.0)
    if points is None:
        return canvas
    pixels = project(points, trained)
    known = [tuple(int(round(v)) for v in p) for p in pixels if np.isfinite(p).all() and np.abs(p).max() < 1e5]
    for a, b in zip(known[:-1], known[1:], strict=True):
        cv2.line(canvas, a, b, _LINE, 1, cv2.LINE_AA)
    for p in known:
        cv2.circle(canvas, p, 3, _DOT, -1, cv2.LINE_AA)
    return canvas


def _fitted(picture: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """So that the centred squares, which are all that a model sees, lie on each other."""
    height, width = picture.shape[:2]
    scale = min(size) / min(height, width)
    matrix = np.array(
        [
            [scale, 0.0, (size[0] - 1) / 2 - scale * (width - 1) / 2],
            [0.0, scale, (size[1] - 1) / 2 - scale * (height - 1) / 2],
        ]
    )
    return cv2.warpAffine(np.ascontiguousarray(picture), matrix, size, flags=cv2.INTER_AREA)
