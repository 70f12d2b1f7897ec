"""The simulated cell: bimanual OpenArm, table, puck and a camera above, in MuJoCo (PyPI package openarm-mujoco)."""

from __future__ import annotations

import importlib.metadata
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path

import mujoco
import numpy as np

from jepa_ros.errors import InputError
from jepa_ros.sim.urdf import urdf_from_mujoco

SCENE = "share/openarm_mujoco/v2/pedestal/move_puck_scene.xml"
CAMERA = "tablecam"
OPTICAL_FRAME = "tablecam_optical_frame"
PUCK_HOME = (0.44, 0.30)
# rad/s of joints 1 to 7, then the finger: config/arm/v10/joint_limits.yaml of the vendor's openarm_description.
VELOCITY_LIMITS = (16.754666, 16.754666, 5.445426, 5.445426, 20.943946, 20.943946, 20.943946)
FINGER_VELOCITY_LIMIT = 10.0
BLOCKING_DAMPING = 1e6  # N m s/rad, which no motor overcomes
XYZW = [1, 2, 3, 0]  # MuJoCo's quaternions begin with w
SHOWN_GROUPS = (1, 1, 0, 1, 0, 0)  # of geoms


class Scene:
    """Physics, servos and camera of the cell, without ROS. To be used in one thread, as its OpenGL context is.

    width, height: image size in pixels. timestep: s of a physics step. add_objects: adds a task's bodies before the
    scene is compiled. The servos carry the arms' weight, as the vendor's driver does.
    """

    def __init__(
        self,
        *,
        width: int = 320,
        height: int = 240,
        timestep: float = 0.002,
        add_objects: Callable[[mujoco.MjSpec], None] = lambda spec: None,
    ):
        self.width, self.height = width, height
        self.model, self.object_names = _compile(width, height, timestep, add_objects)
        self.data = mujoco.MjData(self.model)
        m = self.model
        hinges = [m.joint(j).name for j in range(m.njnt) if m.jnt_type[j] == mujoco.mjtJoint.mjJNT_HINGE]
        self.joint_names = tuple(name for name in hinges if name.startswith("openarm_"))
        joints = [m.joint(name).id for name in self.joint_names]
        self._qpos, self._qvel = m.jnt_qposadr[joints], m.jnt_dofadr[joints]
        self._damping = m.dof_damping.copy()
        self._index = {name: i for i, name in enumerate(self.joint_names)}
        self._servo = {m.joint(m.actuator_trnid[a, 0]).name: a for a in range(m.nu)}
        self._puck = m.jnt_qposadr[m.body("puck").jntadr[0]]
        self.reset()

    @property
    def time(self) -> float:
        """Simulated time in s."""
        return float(self.data.time)

    def step(self, seconds: float) -> None:
        """Advance the physics by a whole number of steps (rounded)."""
        mujoco.mj_step(self.model, self.data, max(1, round(seconds / self.model.opt.timestep)))

    def reset(self, positions: dict[str, float] | None = None, puck_xy: tuple[float, float] | None = None) -> None:
        """Put everything home and at rest, and the joints named in `positions` (rad) there. Time continues."""
        time = self.data.time
        mujoco.mj_resetDataKeyframe(self.model, self.data, self.model.key("home").id)
        self.data.time = time
        self.data.qpos[self._puck : self._puck + 7] = [*(puck_xy or PUCK_HOME), 0.422, 1, 0, 0, 0]
        self.teleport(positions or {})

    def teleport(self, positions: dict[str, float]) -> None:
        """Set joints of the arms to `positions` (rad) at once, at rest; servos hold them there."""
        for name, value in positions.items():
            self.data.qpos[self._qpos[self._known(name)]] = value
            if name in self._servo:
                self.data.ctrl[self._servo[name]] = value
        self.data.qvel[:] = 0
        mujoco.mj_forward(self.model, self.data)

    def command(self, names: tuple[str, ...], positions: np.ndarray) -> None:
        """Set the set-points (rad) of the servos of joints `names`."""
        for name, value in zip(names, positions, strict=True):
            if name not in self._servo:
                raise InputError(f"joint {name!r}: expected one of {sorted(self._servo)}")
            self.data.ctrl[self._servo[name]] = value

    def block(self, joint: str) -> None:
        """Hold a joint where it is by damping that no motor overcomes; "": release all joints."""
        self.model.dof_damping[:] = self._damping
        if joint:
            self.model.dof_damping[self._qvel[self._known(joint)]] = BLOCKING_DAMPING

    def joint_state(self) -> tuple[tuple[str, ...], np.ndarray, np.ndarray, np.ndarray]:
        """Return names (n), positions (n,) rad, velocities (n,) rad/s, efforts (n,) N m of arm and finger joints."""
        d = self.data
        effort = d.qfrc_actuator[self._qvel]
        return self.joint_names, d.qpos[self._qpos].copy(), d.qvel[self._qvel].copy(), effort.copy()

    def positions(self, names: tuple[str, ...] | list[str]) -> np.ndarray:
        """Return positions (len(names),) in rad."""
        return self.data.qpos[self._qpos[[self._known(n) for n in names]]].copy()

    def velocities(self, names: tuple[str, ...] | list[str]) -> np.ndarray:
        """Return velocities (len(names),) in rad/s."""
        return self.data.qvel[self._qvel[[self._known(n) for n in names]]].copy()

    def frame_position(self, name: str) -> np.ndarray:
        """Return the true position (3,) m in `world` of a link, a tool frame or an object of the task."""
        bodies, sites = self._links
        return (self.data.site_xpos[sites[name]] if name in sites else self.data.xpos[bodies[name]]).copy()

    def frame_pose(self, name: str) -> tuple[np.ndarray, np.ndarray]:
        """Return the true position (3,) m and rotation (3, 3) in `world`; name: as in frame_position."""
        bodies, sites = self._links
        turned = self.data.site_xmat[sites[name]] if name in sites else self.data.xmat[bodies[name]]
        return self.frame_position(name), turned.reshape(3, 3).copy()

    def link_poses(self) -> dict[str, tuple[np.ndarray, np.ndarray]]:
        """Return position (3,) m and quaternion (4,) xyzw in `world` of links, tool frames and objects of the task."""
        d, (bodies, sites) = self.data, self._links
        poses = {name: (d.xpos[body].copy(), d.xquat[body][XYZW]) for name, body in bodies.items()}
        return poses | {
            name: (d.site_xpos[site].copy(), _quaternion(d.site_xmat[site])) for name, site in sites.items()
        }

    @cached_property
    def _links(self) -> tuple[dict[str, int], dict[str, int]]:
        """Body ids of links and objects, and site ids of tool frames, by name."""
        bodies = {self.model.body(i).name: i for i in range(1, self.model.nbody)}
        sites = {
            f"openarm_{s}_ee_control_point": self.model.site(f"{s}_ee_control_point").id for s in ("left", "right")
        }
        shown = [name for name in bodies if name.startswith("openarm_")] + list(self.object_names)
        return {name: bodies[name] for name in shown}, sites

    @cached_property
    def urdf(self) -> str:
        """The URDF of both arms, made from the compiled model."""
        limits = {}
        for side in ("left", "right"):
            limits |= {f"openarm_{side}_joint{i}": v for i, v in enumerate(VELOCITY_LIMITS, start=1)}
            limits |= {f"openarm_{side}_finger_joint{i}": FINGER_VELOCITY_LIMIT for i in (1, 2)}
        sites = {f"{side}_ee_control_point": f"openarm_{side}_ee_control_point" for side in ("left", "right")}
        return urdf_from_mujoco(self.model, name="openarm", prefix="openarm_", velocity_limits=limits, sites=sites)

    @cached_property
    def camera_intrinsics(self) -> dict[str, float]:
        """The camera's pinhole model: width, height, fx, fy, cx, cy in pixels."""
        focal = 0.5 * self.height / np.tan(0.5 * np.deg2rad(self.model.camera(CAMERA).fovy[0]))
        size = {"width": self.width, "height": self.height}
        return size | {"fx": focal, "fy": focal, "cx": self.width / 2 - 0.5, "cy": self.height / 2 - 0.5}

    @property
    def camera_pose(self) -> tuple[np.ndarray, np.ndarray]:
        """Position (3,) m and quaternion (4,) xyzw of the optical frame (z forward, y down; REP 103) in `world`."""
        camera = self.model.camera(CAMERA).id
        flip = np.diag([1.0, -1.0, -1.0])  # MuJoCo's camera looks along -z with y up
        return self.data.cam_xpos[camera].copy(), _quaternion(self.data.cam_xmat[camera].reshape(3, 3) @ flip)

    def render(self, data: mujoco.MjData | None = None) -> np.ndarray:
        """Return the camera image (height, width, 3) uint8 RGB of `data` (default: the present state)."""
        renderer, options = self._renderer
        renderer.update_scene(self.data if data is None else data, camera=CAMERA, scene_option=options)
        return renderer.render()

    def close_renderer(self) -> None:
        """Free the OpenGL context; call it in the thread that rendered. The next `render` makes a new one."""
        renderer, _ = self.__dict__.pop("_renderer", (None, None))
        if renderer is not None:
            renderer.close()

    @cached_property
    def _renderer(self) -> tuple[mujoco.Renderer, mujoco.MjvOption]:
        renderer = mujoco.Renderer(self.model, self.height, self.width)
        renderer.scene.flags[:] = 0
        options = mujoco.MjvOption()
        options.geomgroup[:] = SHOWN_GROUPS
        options.flags[mujoco.mjtVisFlag.mjVIS_CONVEXHULL] = 1
        return renderer, options

    def _known(self, name: str) -> int:
        if name not in self._index:
            raise InputError(f"joint {name!r}: expected one of {list(self.joint_names)}")
        return self._index[name]


def _scene_file() -> Path:
    """Return the path of SCENE by the package's own list of files, which works across environments."""
    try:
        files = importlib.metadata.files("openarm-mujoco") or []
    except importlib.metadata.PackageNotFoundError:
        files = []
    for file in files:
        if file.as_posix().endswith(SCENE) and (path := Path(file.locate()).resolve()).exists():
            return path
    raise InputError(f"simulated scene: expected the file {SCENE} of the package openarm-mujoco, found none")


def _quaternion(rotation: np.ndarray) -> np.ndarray:
    """Return the quaternion (4,) xyzw of a rotation matrix of 9 numbers."""
    quaternion = np.zeros(4)
    mujoco.mju_mat2Quat(quaternion, rotation.ravel())
    return quaternion[XYZW]


def _compile(
    width: int, height: int, timestep: float, add_objects: Callable[[mujoco.MjSpec], None]
) -> tuple[mujoco.MjModel, tuple[str, ...]]:
    """Return the package's scene with a task's objects, and the names of their bodies.

    It is made cheap to render in software, where vertices cost most, then filled pixels.
    """
    with load_spec() as spec:
        simplify(spec)
        spec.option.timestep = timestep
        spec.visual.quality.offsamples = 1
        spec.visual.global_.offwidth, spec.visual.global_.offheight = max(width, 640), max(height, 480)
        spec.camera(CAMERA).fovy = 50.0  # the reachable plane fills the square that the model sees
        for body in spec.bodies:
            if body.name.startswith("openarm_"):
                body.gravcomp = 1.0
        for side in ("left", "right"):  # closed fingers always touch, which triples the time of a step
            names = [f"openarm_{side}_ee_{finger}_finger" for finger in ("inner", "outer")]
            spec.add_exclude(bodyname1=names[0], bodyname2=names[1])
        before = {body.name for body in spec.bodies}
        add_objects(spec)
        return spec.compile(), tuple(body.name for body in spec.bodies if body.name not in before)


@contextmanager
def load_spec() -> Iterator[mujoco.MjSpec]:
    """Load the package's scene, to be changed and compiled within the context.

    MuJoCo's warnings are off within it: the scene warns about an empty prefix, on stderr and in a log file in the
    working directory.
    """
    mujoco.set_mju_user_warning(lambda message: None)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield mujoco.MjSpec.from_file(str(_scene_file()))
    finally:
        mujoco.set_mju_user_warning(None)


def simplify(spec: mujoco.MjSpec) -> None:
    """Replace the visual meshes by collision hulls of at most 64 vertices; make floor and sky plain."""
    shown = set()
    for geom in list(spec.geoms):
        if geom.group == 2:
            spec.delete(geom)
        elif geom.group == 3:
            geom.rgba, geom.material = [0.25, 0.25, 0.28, 1.0], ""
            shown.add(geom.meshname)
        elif geom.name == "floor":
            geom.rgba, geom.material = [0.35, 0.35, 0.38, 1.0], ""
    for mesh in list(spec.meshes):
        if mesh.name in shown:
            mesh.maxhullvert = 64
        else:
            spec.delete(mesh)
    for texture in list(spec.textures):
        if texture.type == mujoco.mjtTexture.mjTEXTURE_SKYBOX:
            spec.delete(texture)
