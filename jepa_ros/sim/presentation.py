"""A view of the simulated cell for reports and videos: the whole robot, the tool's path and the goal.

It has its own camera, light and colours; the model's camera (scene.CAMERA) is not changed. It renders recorded joint
positions, so nothing is rendered while a graph runs.
"""

from __future__ import annotations

from collections.abc import Mapping

import cv2
import mujoco
import numpy as np

from jepa_ros.errors import InputError
from jepa_ros.sim.scene import SHOWN_GROUPS, load_spec, simplify

EYE, TARGET = np.array([1.02, -0.80, 1.20]), np.array([0.155, -0.175, 0.54])
"""Position of the camera, and the point that it looks at, m in the frame `world`."""
FIELD_OF_VIEW_DEG = 33.0
ROBOT, HAND = (0.86, 0.87, 0.90, 1.0), (0.22, 0.24, 0.28, 1.0)
FIXTURES = {
    "floor": (0.80, 0.83, 0.86, 1.0),
    "table_top": (0.72, 0.66, 0.58, 1.0),
    "puck_geom": (0.62, 0.56, 0.48, 1.0),
}
GOAL_GREEN, TOOL_RED, PATH_BLUE = (22, 160, 80), (225, 60, 40), (45, 105, 235)
"""RGB, 0 to 255."""


class PresentationView:
    """Renders images (height, width, 3) uint8 RGB. To be used in one thread.

    shadows: three times slower. Raises InputError if OpenGL cannot start.
    """

    def __init__(self, width: int = 480, height: int = 360, shadows: bool = False):
        self.width, self.height = width, height
        self._model = _compile(width, height)
        self._data = mujoco.MjData(self._model)
        self._joints = {self._model.joint(j).name: self._model.jnt_qposadr[j] for j in range(self._model.njnt)}
        table, half = self._model.body("table").pos, self._model.geom("table_top").size
        self._table_centre, self._table_half, self._table_height = table[:2], half[:2], float(table[2] + half[2])
        try:
            self._renderer = mujoco.Renderer(self._model, height, width)
        except Exception as error:  # mujoco and EGL raise many types
            raise InputError(f"presentation view: OpenGL does not start: {error}") from None
        self._renderer.scene.flags[:] = 0
        self._renderer.scene.flags[mujoco.mjtRndFlag.mjRND_SHADOW] = shadows
        self._options = mujoco.MjvOption()
        self._options.geomgroup[:] = SHOWN_GROUPS
        self._options.sitegroup[:] = 0  # the disks on the table are not the goal
        self._options.flags[mujoco.mjtVisFlag.mjVIS_CONVEXHULL] = 1

    def render(
        self,
        positions: Mapping[str, float],
        goal: np.ndarray | None = None,
        tool_path: np.ndarray | None = None,
    ) -> np.ndarray:
        """Render the robot at joint positions (rad, by name; others at home).

        goal: of the tool, (3,) m in `world`: a green ball on a pole, and a ring that the robot does not hide.
        tool_path: (N, 3) m, oldest first: a blue line with a red dot for the tool at its end.
        """
        model, data = self._model, self._data
        mujoco.mj_resetDataKeyframe(model, data, model.key("home").id)
        for name, value in positions.items():
            if name in self._joints:
                data.qpos[self._joints[name]] = value
        mujoco.mj_forward(model, data)
        self._renderer.update_scene(data, camera="presentation", scene_option=self._options)
        if goal is not None:
            self._add_goal(np.asarray(goal, dtype=float))
        image = self._renderer.render().copy()
        if goal is not None:
            _draw_circle(image, self.project(goal)[0], 9, GOAL_GREEN, thickness=2)
        if tool_path is not None and len(tool_path):
            pixels = self.project(tool_path)
            cv2.polylines(image, [_fixed_point(pixels)], False, PATH_BLUE, 2, cv2.LINE_AA, _SHIFT)
            _draw_circle(image, pixels[-1], 4, TOOL_RED)
        return image

    def project(self, points: np.ndarray) -> np.ndarray:
        """Return the pixels (N, 2) of points (N, 3) or (3,) m in `world`."""
        camera = self._model.camera("presentation").id
        seen = (np.atleast_2d(points) - self._data.cam_xpos[camera]) @ self._data.cam_xmat[camera].reshape(3, 3)
        focal = 0.5 * self.height / np.tan(0.5 * np.deg2rad(FIELD_OF_VIEW_DEG))
        return np.array([self.width, self.height]) / 2 - focal * seen[:, :2] * [1, -1] / seen[:, 2:]

    def close(self) -> None:
        """Free the OpenGL context; call it in the thread that rendered."""
        self._renderer.close()

    def _add_goal(self, goal: np.ndarray) -> None:
        colour, low = np.append(np.array(GOAL_GREEN) / 255, 1.0), self._table_height
        self._add_mark(mujoco.mjtGeom.mjGEOM_SPHERE, goal, [0.022] * 3, colour)
        if (np.abs(goal[:2] - self._table_centre) > self._table_half).any():
            return  # there is no table below
        middle, half = 0.5 * (goal[2] + low), 0.5 * abs(goal[2] - low)
        self._add_mark(mujoco.mjtGeom.mjGEOM_CYLINDER, [*goal[:2], middle], [0.003, half, 0.0], colour)
        self._add_mark(mujoco.mjtGeom.mjGEOM_CYLINDER, [*goal[:2], low + 0.001], [0.022, 0.001, 0.0], colour)

    def _add_mark(self, kind: int, position, size, rgba) -> None:
        scene = self._renderer.scene
        geom = scene.geoms[scene.ngeom]
        mujoco.mjv_initGeom(geom, kind, np.array(size), np.array(position), np.eye(3).ravel(), np.float32(rgba))
        geom.emission = 0.3
        scene.ngeom += 1


def _compile(width: int, height: int) -> mujoco.MjModel:
    with load_spec() as spec:
        simplify(spec)
        spec.visual.quality.offsamples, spec.visual.quality.shadowsize = 4, 1024
        spec.visual.global_.offwidth, spec.visual.global_.offheight = width, height
        headlight = spec.visual.headlight
        headlight.ambient, headlight.diffuse, headlight.specular = [0.35] * 3, [0.25] * 3, [0.0] * 3
        for light in spec.lights:
            light.pos, light.dir, light.diffuse, light.specular = (
                [1.2, -1.0, 2.6],
                [-0.45, 0.4, -1.0],
                [0.55] * 3,
                [0.1] * 3,
            )
        for geom in spec.geoms:
            if geom.group == 3:
                geom.rgba = HAND if "finger" in geom.name or "ee_base" in geom.name else ROBOT
            elif geom.name in FIXTURES:
                geom.rgba = FIXTURES[geom.name]
        back = (EYE - TARGET) / np.linalg.norm(EYE - TARGET)
        right = np.cross([0.0, 0.0, 1.0], back)
        right /= np.linalg.norm(right)
        axes = [*right, *np.cross(back, right)]
        spec.worldbody.add_camera(name="presentation", pos=EYE, xyaxes=axes, fovy=FIELD_OF_VIEW_DEG)
        return spec.compile()


_SHIFT = 4  # bits of a pixel's fraction that OpenCV draws with


def _fixed_point(pixels: np.ndarray) -> np.ndarray:
    return np.int32(np.round(np.clip(pixels, -1e4, 1e4) * 2**_SHIFT))


def _draw_circle(image: np.ndarray, centre: np.ndarray, radius: int, colour: tuple, thickness: int = -1) -> None:
    at = tuple(int(value) for value in _fixed_point(centre))
    cv2.circle(image, at, radius << _SHIFT, colour, thickness, cv2.LINE_AA, _SHIFT)
