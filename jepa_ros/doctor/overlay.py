"""Overlay of the live image and the training camera's view: its reference image, and the arm's skeleton."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from jepa_ros.doctor.examine import frame_positions, joint_positions
from jepa_ros.doctor.observations import Observations, RobotSetup
from jepa_ros.errors import InputError
from jepa_ros.images import decode_compressed
from jepa_ros.robot.transforms import rotation_matrix
from jepa_ros.world_model.config import REFERENCES, CameraReference

_LINE, _DOT = (255, 80, 40), (255, 220, 60)


def find_reference(directory: Path, observed: Observations, setup: RobotSetup) -> tuple[np.ndarray, str] | None:
    """Return an image (H, W, 3) uint8 RGB of the training camera and its source: for a model of the simulated cell the
    arm rendered in its present position, otherwise the checkpoint's reference image. None if there is none."""
    try:
        rendered = _render_arm(observed, setup)
    except (ImportError, InputError):  # no MuJoCo, or no OpenGL
        rendered = None
    if rendered is not None:
        return rendered, "the simulated cell with the arm in its present position"
    for name in REFERENCES:
        if (directory / name).is_file():
            return read_image(directory / name), f"the model's {name}"
    return None


def read_image(path: Path) -> np.ndarray:
    """Return an image file as (H, W, 3) uint8 RGB. Raises InputError."""
    try:
        return decode_compressed(path.suffix, path.read_bytes())
    except OSError as problem:
        raise InputError(f"image {path}: cannot be read as JPEG or PNG ({problem})") from None


def _render_arm(observed: Observations, setup: RobotSetup) -> np.ndarray | None:
    trained, q = setup.model.camera, joint_positions(observed, setup)
    if trained is None or q is None:
        return None
    from jepa_ros.sim.scene import Scene

    scene = Scene(width=trained.width, height=trained.height)
    place, intrinsics = scene.camera_pose[0], scene.camera_intrinsics
    same = np.allclose(place, trained.position, atol=1e-3) and np.isclose(intrinsics["fx"], trained.fx, rtol=1e-3)
    if not same or not set(setup.robot.joints) <= set(scene.joint_names):
        return None
    scene.teleport(dict(zip(setup.robot.joints, q.tolist(), strict=True)))
    rendered = scene.render().copy()
    scene.close_renderer()
    return rendered


def project(points: np.ndarray, camera: CameraReference) -> np.ndarray:
    """Return the pixels (n, 2) in the training camera of points (n, 3) m in the base frame; NaN behind it."""
    rotation = rotation_matrix(camera.orientation)
    x, y, z = ((points - np.array(camera.position)) @ rotation).T
    z = np.where(z > 1e-6, z, np.nan)
    return np.stack([camera.fx * x / z + camera.cx, camera.fy * y / z + camera.cy], axis=1)


def skeleton(observed: Observations, setup: RobotSetup) -> np.ndarray | None:
    """Return (J + 1, 3) m in the base frame: the joints in order, then the tool. None if joints or description are
    unknown."""
    return frame_positions(observed, setup, [*setup.robot.joints, setup.robot.tool_frame])


def draw_overlay(
    live: np.ndarray, reference: np.ndarray | None, points: np.ndarray | None, setup: RobotSetup
) -> np.ndarray:
    """Return the live image blended with the reference image, if there is one, and the skeleton: (H, W, 3) uint8 RGB at
    the training camera's size, with the centred squares aligned."""
    trained = setup.model.camera
    if trained is None:
        return live
    size = (trained.width, trained.height)
    canvas = _align(live, size)
    if reference is not None:
        canvas = cv2.addWeighted(canvas, 0.5, _align(reference, size), 0.5, 0.0)
    if points is None:
        return canvas
    pixels = project(points, trained)
    known = [tuple(int(round(v)) for v in p) for p in pixels if np.isfinite(p).all() and np.abs(p).max() < 1e5]
    for a, b in zip(known[:-1], known[1:], strict=True):
        cv2.line(canvas, a, b, _LINE, 1, cv2.LINE_AA)
    for p in known:
        cv2.circle(canvas, p, 3, _DOT, -1, cv2.LINE_AA)
    return canvas


def _align(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Scale an image so that its centred square, which is the model's input, is that of `size`."""
    height, width = image.shape[:2]
    scale = min(size) / min(height, width)
    matrix = np.array(
        [
            [scale, 0.0, (size[0] - 1) / 2 - scale * (width - 1) / 2],
            [0.0, scale, (size[1] - 1) / 2 - scale * (height - 1) / 2],
        ]
    )
    return cv2.warpAffine(np.ascontiguousarray(image), matrix, size, flags=cv2.INTER_AREA)
