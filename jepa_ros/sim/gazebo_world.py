"""The simulated cell as a world of Gazebo (SDF), made from the MuJoCo scene: every number has one source.

Table, puck, goal discs, floor, lights and camera; the robot is spawned into it (gazebo_robot). Elements and their
meanings: sdformat's sdf/1.9/*.sdf; systems: gz-sim's examples/worlds/sensors_demo.sdf (branch gz-sim8).
"""

from __future__ import annotations

from xml.etree import ElementTree as ET

import mujoco
import numpy as np

from jepa_ros.sim.gazebo_shapes import Hulls, add_geom, add_pose, add_site, add_text, colour, drawn_sites
from jepa_ros.sim.scene import CAMERA, OPTICAL_FRAME, Scene

SDF_VERSION = "1.9"
WORLD = "openarm_cell"
# Of Gazebo Transport; config/gazebo/bridge.yaml says what they are called in ROS.
IMAGE_TOPIC, INFO_TOPIC = "/tablecam/image", "/tablecam/camera_info"
RATE = 15.0
"""Images in a second of simulated time, as of the node `simulator` by default."""
ROBOT_PREFIX = "openarm_"
# sensors_demo.sdf for all four; without Sensors no image is drawn, without UserCommands nothing can be spawned.
SYSTEMS = (
    ("gz-sim-physics-system", "gz::sim::systems::Physics"),
    ("gz-sim-sensors-system", "gz::sim::systems::Sensors"),
    ("gz-sim-user-commands-system", "gz::sim::systems::UserCommands"),
    ("gz-sim-scene-broadcaster-system", "gz::sim::systems::SceneBroadcaster"),
)
# SDF's camera looks along x with z up, MuJoCo's along -z with y up: SDF's axes as columns in MuJoCo's.
_CAMERA_AXES = np.array([[0.0, -1.0, 0.0], [0.0, 0.0, 1.0], [-1.0, 0.0, 0.0]])


def world_sdf(scene: Scene, hulls: Hulls) -> str:
    """SDF text of everything in the scene but the robot, as it is after a reset. hulls: files of the geoms' meshes."""
    model = scene.model
    sdf = ET.Element("sdf", version=SDF_VERSION)
    world = ET.SubElement(sdf, "world", name=WORLD)
    physics = ET.SubElement(world, "physics", name="as_in_mujoco", type="ignored")
    add_text(physics, "max_step_size", model.opt.timestep)
    add_text(physics, "real_time_factor", 1.0)
    for filename, name in SYSTEMS:
        plugin = ET.SubElement(world, "plugin", filename=filename, name=name)
        if name.endswith("Sensors"):
            add_text(plugin, "render_engine", "ogre2")
    add_text(world, "gravity", model.opt.gravity)
    _add_lighting(world, scene)
    _add_fixtures(world, model, hulls)
    for body in range(1, model.nbody):
        if not model.body(body).name.startswith(ROBOT_PREFIX):
            _add_body(world, scene, body, hulls)
    _add_camera(world, scene)
    ET.indent(sdf)
    return '<?xml version="1.0"?>\n' + ET.tostring(sdf, encoding="unicode") + "\n"


def _add_lighting(world: ET.Element, scene: Scene) -> None:
    """The lights, and MuJoCo's headlight as one that shines along the view of the camera that does not move."""
    model = scene.model
    headlight = model.vis.headlight
    look = ET.SubElement(world, "scene")
    add_text(look, "ambient", colour(headlight.ambient))
    add_text(look, "background", colour(np.zeros(3)))
    add_text(look, "shadows", False)
    camera = model.camera(CAMERA).id
    along = -scene.data.cam_xmat[camera].reshape(3, 3)[:, 2]
    _add_light(world, "headlight", scene.data.cam_xpos[camera], along, headlight.diffuse, headlight.specular)
    for i in range(model.nlight):
        place = scene.data.light_xpos[i], scene.data.light_xdir[i]
        _add_light(world, model.light(i).name or f"light_{i}", *place, model.light_diffuse[i], model.light_specular[i])


def _add_light(world, name: str, position, direction, diffuse, specular) -> None:
    light = ET.SubElement(world, "light", name=name, type="directional")
    add_text(light, "cast_shadows", False)  # the MuJoCo scene is drawn without
    add_pose(light, position, np.array([1.0, 0, 0, 0]))
    add_text(light, "direction", direction)
    add_text(light, "diffuse", colour(diffuse))
    add_text(light, "specular", colour(specular))


def _add_fixtures(world: ET.Element, model: mujoco.MjModel, hulls: Hulls) -> None:
    """What MuJoCo fixes to the world itself: the floor and the robot's pedestal.

    The pedestal is drawn only. Links beside it reach into its hull; in MuJoCo such neighbours are exempt from contacts,
    in Gazebo they would push each other. The planner and the gate keep the arms away from it.
    """
    for geom in np.flatnonzero(model.geom_bodyid == 0).tolist():
        name = model.geom(geom).name
        fixture = ET.SubElement(world, "model", name=name)
        add_text(fixture, "static", True)
        link = ET.SubElement(fixture, "link", name="link")
        add_geom(link, model, geom, hulls, solid=not name.startswith(ROBOT_PREFIX))


def _add_body(world: ET.Element, scene: Scene, body: int, hulls: Hulls) -> None:
    model = scene.model
    made = ET.SubElement(world, "model", name=model.body(body).name)
    add_text(made, "static", not model.body_jntnum[body])
    add_pose(made, scene.data.xpos[body], scene.data.xquat[body])
    link = ET.SubElement(made, "link", name="link")
    if model.body_mass[body] > 0:
        inertial = ET.SubElement(link, "inertial")
        add_pose(inertial, model.body_ipos[body], model.body_iquat[body])
        add_text(inertial, "mass", model.body_mass[body])
        inertia = ET.SubElement(inertial, "inertia")
        for key, value in zip(("ixx", "iyy", "izz"), model.body_inertia[body], strict=True):
            add_text(inertia, key, value)
    for geom in np.flatnonzero(model.geom_bodyid == body).tolist():
        add_geom(link, model, geom, hulls)
    for site in drawn_sites(model, body):
        add_site(link, model, site)


def _add_camera(world: ET.Element, scene: Scene) -> None:
    """The camera above the table. Its images carry the frame of the MuJoCo scene's (SDF: optical_frame_id)."""
    model, camera = scene.model, scene.model.camera(CAMERA).id
    quaternion = np.zeros(4)
    mujoco.mju_mat2Quat(quaternion, (scene.data.cam_xmat[camera].reshape(3, 3) @ _CAMERA_AXES).ravel())
    holder = ET.SubElement(world, "model", name=CAMERA)
    add_text(holder, "static", True)
    add_pose(holder, scene.data.cam_xpos[camera], quaternion)
    sensor = ET.SubElement(ET.SubElement(holder, "link", name="link"), "sensor", name=CAMERA, type="camera")
    add_text(sensor, "topic", IMAGE_TOPIC)
    add_text(sensor, "update_rate", RATE)
    add_text(sensor, "always_on", True)
    lens = ET.SubElement(sensor, "camera")
    add_text(lens, "camera_info_topic", INFO_TOPIC)
    add_text(lens, "horizontal_fov", 2 * np.arctan(0.5 * scene.width / scene.camera_intrinsics["fx"]))
    image = ET.SubElement(lens, "image")
    add_text(image, "width", str(scene.width))
    add_text(image, "height", str(scene.height))
    add_text(image, "format", "R8G8B8")
    clip = ET.SubElement(lens, "clip")
    add_text(clip, "near", model.vis.map.znear * model.stat.extent)
    add_text(clip, "far", model.vis.map.zfar * model.stat.extent)
    add_text(lens, "optical_frame_id", OPTICAL_FRAME)
