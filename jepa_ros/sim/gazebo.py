"""Export of the MuJoCo scene to Gazebo: hulls as STL files, the robot as URDF, everything else as an SDF world."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from xml.etree import ElementTree as ET

import mujoco
import numpy as np

from jepa_ros.sim.scene import CAMERA, OPTICAL_FRAME, Scene
from jepa_ros.sim.urdf import add_origin, numbers, roll_pitch_yaw

Hulls = Mapping[int, Path]
"""Geom index → STL file of its convex hull."""
VISIBLE_SITE_GROUPS = 3  # 0 to 2
FLOOR_SIZE_M = 10.0  # infinite in MuJoCo
_STL = np.dtype([("normal", "<f4", 3), ("corners", "<f4", (3, 3)), ("attribute", "<u2")])


def write_hulls(model: mujoco.MjModel, folder: Path) -> dict[int, Path]:
    """Write the convex hull of every mesh geom as an STL file (m, in the mesh's frame); return geom → file.

    MuJoCo renders and collides with these hulls, not with the meshes.
    """
    files = {}
    for geom in np.flatnonzero(model.geom_type == mujoco.mjtGeom.mjGEOM_MESH).tolist():
        corners = hull_triangles(model, geom)
        triangles = np.zeros(len(corners), _STL)
        triangles["corners"] = corners
        normals = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
        triangles["normal"] = normals / np.maximum(np.linalg.norm(normals, axis=1, keepdims=True), 1e-12)
        files[geom] = folder / f"{model.geom(geom).name}.stl"
        header = b"binary STL, m".ljust(80) + np.uint32(len(corners)).tobytes()
        files[geom].write_bytes(header + triangles.tobytes())
    return files


def hull_triangles(model: mujoco.MjModel, geom: int) -> np.ndarray:
    """Return the triangles (N, 3 corners, 3) m of the hull of a geom's mesh, in the mesh's frame, facing outward."""
    mesh = int(model.geom_dataid[geom])
    first, graph = int(model.mesh_vertadr[mesh]), int(model.mesh_graphadr[mesh])
    # MuJoCo's documentation of mjModel.mesh_graph: numvert, numface, vert_edgeadr[numvert], vert_globalid[numvert],
    # edge_localid[numvert + 3 numface], face_globalid[3 numface].
    vertices, faces = model.mesh_graph[graph : graph + 2]
    start = graph + 2 + 3 * vertices + 3 * faces
    indices = model.mesh_graph[start : start + 3 * faces].reshape(-1, 3)
    return model.mesh_vert[first + indices].astype(float)


def _mesh_uri(path: Path) -> str:
    """Return the URI of a file in SDF and URDF, whose parsers do not decode percent-encoding."""
    return f"file://{path.resolve()}"


def _add_text(parent: ET.Element, tag: str, value: object, /, **attributes: str) -> ET.Element:
    """Add an element with text: numbers as in SDF, booleans as true or false."""
    element = ET.SubElement(parent, tag, attributes)
    if isinstance(value, bool):
        element.text = str(value).lower()
    else:
        element.text = value if isinstance(value, str) else numbers(np.atleast_1d(value))
    return element


def _add_values(parent: ET.Element, **values: object) -> None:
    """Add one element with text for each value."""
    for tag, value in values.items():
        _add_text(parent, tag, value)


def _add_pose(parent: ET.Element, position: np.ndarray, quaternion: np.ndarray) -> None:
    """Add SDF's pose: position (3,) m and quaternion (4,) wxyz."""
    _add_text(parent, "pose", [*position, *roll_pitch_yaw(quaternion)])


def _opaque(values: np.ndarray) -> list[float]:
    """Return RGBA with the red, green and blue of values (3 or 4,), rounded to single precision."""
    return [*np.round(np.asarray(values[:3], dtype=float), 6).tolist(), 1.0]


def _visible_sites(model: mujoco.MjModel, body: int) -> list[int]:
    """Return the sites of a body that MuJoCo renders by default."""
    return [s for s in range(model.nsite) if model.site_bodyid[s] == body and model.site_group[s] < VISIBLE_SITE_GROUPS]


def _add_geom(link: ET.Element, model: mujoco.MjModel, geom: int, hulls: Hulls, *, solid: bool = True) -> None:
    """Add a geom to the SDF link of its body as visual and, where solid, as collision."""
    name = model.geom(geom).name
    for kind in ("collision", "visual") if solid else ("visual",):
        element = ET.SubElement(link, kind, name=name if kind == "visual" else f"{name}_collision")
        _add_pose(element, model.geom_pos[geom], model.geom_quat[geom])
        geometry = ET.SubElement(element, "geometry")
        if geom in hulls:
            _add_text(ET.SubElement(geometry, "mesh"), "uri", _mesh_uri(hulls[geom]))
        else:
            _add_primitive(geometry, model.geom_type[geom], model.geom_size[geom])
        if kind == "visual":
            _add_material(element, model.geom_rgba[geom])
        else:
            friction = ET.SubElement(ET.SubElement(ET.SubElement(element, "surface"), "friction"), "ode")
            _add_values(friction, mu=model.geom_friction[geom, 0], mu2=model.geom_friction[geom, 0])


def _add_site(link: ET.Element, model: mujoco.MjModel, site: int) -> None:
    """Add a site to the SDF link of its body, as visual only."""
    visual = ET.SubElement(link, "visual", name=model.site(site).name)
    _add_pose(visual, model.site_pos[site], model.site_quat[site])
    _add_primitive(ET.SubElement(visual, "geometry"), model.site_type[site], model.site_size[site])
    _add_material(visual, model.site_rgba[site])


def _add_primitive(geometry: ET.Element, kind: int, size: np.ndarray) -> None:
    """Add a shape; MuJoCo has half sizes, SDF whole ones. Raises KeyError for a shape that the scene does not have."""
    shapes = {
        mujoco.mjtGeom.mjGEOM_PLANE: ("plane", {"normal": [0, 0, 1], "size": [FLOOR_SIZE_M, FLOOR_SIZE_M]}),
        mujoco.mjtGeom.mjGEOM_BOX: ("box", {"size": 2 * size}),
        mujoco.mjtGeom.mjGEOM_SPHERE: ("sphere", {"radius": size[0]}),
        mujoco.mjtGeom.mjGEOM_CYLINDER: ("cylinder", {"radius": size[0], "length": 2 * size[1]}),
    }
    name, values = shapes[mujoco.mjtGeom(kind)]
    _add_values(ET.SubElement(geometry, name), **values)


def _add_material(visual: ET.Element, rgba: np.ndarray) -> None:
    """Add a colour RGBA (4,); SDF has an element of its own for transparency."""
    _add_text(visual, "cast_shadows", False)
    if rgba[3] < 1:
        _add_text(visual, "transparency", round(1.0 - float(rgba[3]), 6))
    _add_values(ET.SubElement(visual, "material"), ambient=_opaque(rgba), diffuse=_opaque(rgba))


HARDWARE = "gz_ros2_control/GazeboSimSystem"
PLUGIN_FILE, PLUGIN = "gz_ros2_control-system", "gz_ros2_control::GazeboSimROS2ControlPlugin"
POSITION_GAIN = 0.1
"""Share of a joint's position error that is corrected in a controller cycle (gz_ros2_control's default).

At 500 Hz joints lag their set-points by 20 ms; in MuJoCo the arm's lag by 16 ms, the wrist's by 80 ms.
"""


def robot_description(scene: Scene) -> str:
    """Return the URDF of both arms with ros2_control tags, for robot_state_publisher.

    Every joint has a position command, except mimic joints; joints that no controller claims are held. Initial
    positions are those of the scene after a reset.
    """
    robot = ET.fromstring(scene.urdf)
    joints = {joint.get("name"): joint for joint in robot.iter("joint")}
    control = ET.SubElement(robot, "ros2_control", name="openarm", type="system")
    _add_text(ET.SubElement(control, "hardware"), "plugin", HARDWARE)
    _, positions, _, _ = scene.joint_state()
    for name, position in zip(scene.joint_names, positions, strict=True):
        mimic = joints[name].find("mimic")
        element = ET.SubElement(control, "joint", name=name)
        if mimic is None:
            ET.SubElement(element, "command_interface", name="position")
        else:
            # It has no motor in MuJoCo; in Gazebo it is moved by velocity, which an effort limit of 0 would stop.
            leader = joints[mimic.get("joint")].find("limit").get("effort")
            joints[name].find("limit").set("effort", leader)
        state = ET.SubElement(element, "state_interface", name="position")
        _add_text(state, "param", float(position), name="initial_value")
        ET.SubElement(element, "state_interface", name="velocity")
    ET.indent(robot)
    return ET.tostring(robot, encoding="unicode")


def spawned_robot(scene: Scene, hulls: Hulls, controllers: Path, namespace: str = "") -> str:
    """Return the URDF of both arms for Gazebo.

    hulls: of write_hulls. controllers: parameters file of the controller manager inside Gazebo. namespace: its ROS
    namespace.
    """
    robot = ET.fromstring(robot_description(scene))
    model = scene.model
    for link in robot.findall("link"):
        for collision in link.findall("collision"):
            link.remove(collision)
    links = {link.get("name"): link for link in robot.findall("link")}
    for body in range(1, model.nbody):
        name = model.body(body).name
        if name not in links:
            continue
        _add_shapes(links[name], model, body, hulls)
        if model.body_gravcomp[body]:  # in MuJoCo the servos carry this weight
            _add_text(ET.SubElement(robot, "gazebo", reference=name), "turnGravityOff", True)
    _add_plugin(robot, controllers, namespace)
    ET.indent(robot)
    return ET.tostring(robot, encoding="unicode")


def _add_shapes(link: ET.Element, model: mujoco.MjModel, body: int, hulls: Hulls) -> None:
    """Add the hulls of a body to its URDF link as visual and collision, and its visible sites as visuals."""
    anchor = model.jnt_pos[model.body_jntadr[body]] if model.body_jntnum[body] else np.zeros(3)
    for geom in np.flatnonzero(model.geom_bodyid == body).tolist():
        for kind in ("visual", "collision"):
            shape = ET.SubElement(link, kind, name=model.geom(geom).name)
            add_origin(shape, model.geom_pos[geom] - anchor, model.geom_quat[geom])
            ET.SubElement(ET.SubElement(shape, "geometry"), "mesh", filename=_mesh_uri(hulls[geom]))
            if kind == "visual":
                _add_colour(shape, model.geom_rgba[geom])
    for site in _visible_sites(model, body):
        shape = ET.SubElement(link, "visual", name=model.site(site).name)
        add_origin(shape, model.site_pos[site] - anchor, model.site_quat[site])
        ET.SubElement(ET.SubElement(shape, "geometry"), "sphere", radius=numbers(model.site_size[site][:1]))
        _add_colour(shape, model.site_rgba[site])


def _add_colour(visual: ET.Element, rgba: np.ndarray) -> None:
    """Add a colour; sdformat divides URDF colours by 0.8 (parser_urdf.cc, CreateVisual), which this compensates."""
    wanted = numbers([*(0.8 * np.array(_opaque(rgba)[:3])), 1.0])
    ET.SubElement(ET.SubElement(visual, "material", name=f"rgba {wanted}"), "color", rgba=wanted)


def _add_plugin(robot: ET.Element, controllers: Path, namespace: str) -> None:
    plugin = ET.SubElement(ET.SubElement(robot, "gazebo"), "plugin", filename=PLUGIN_FILE, name=PLUGIN)
    _add_values(plugin, parameters=str(controllers), hold_joints=True, position_proportional_gain=POSITION_GAIN)
    if namespace:
        _add_text(ET.SubElement(plugin, "ros"), "namespace", namespace)


SDF_VERSION = "1.9"
WORLD = "openarm_cell"
# Gazebo Transport topics; config/gazebo/bridge.yaml has their names in ROS.
IMAGE_TOPIC, INFO_TOPIC = "/tablecam/image", "/tablecam/camera_info"
RATE = 15.0  # Hz of images in simulated time, the default of the node `simulator`
ROBOT_PREFIX = "openarm_"
# As in Gazebo's sensors_demo.sdf. Sensors renders images, UserCommands spawns models.
SYSTEMS = (
    ("gz-sim-physics-system", "gz::sim::systems::Physics"),
    ("gz-sim-sensors-system", "gz::sim::systems::Sensors"),
    ("gz-sim-user-commands-system", "gz::sim::systems::UserCommands"),
    ("gz-sim-scene-broadcaster-system", "gz::sim::systems::SceneBroadcaster"),
)
# SDF's camera looks along x with z up, MuJoCo's along -z with y up. Columns: SDF's axes in MuJoCo's.
_CAMERA_AXES = np.array([[0.0, -1.0, 0.0], [0.0, 0.0, 1.0], [-1.0, 0.0, 0.0]])


def world_sdf(scene: Scene, hulls: Hulls) -> str:
    """Return the SDF of everything in the scene but the robot, in its state after a reset. hulls: of write_hulls."""
    model = scene.model
    sdf = ET.Element("sdf", version=SDF_VERSION)
    world = ET.SubElement(sdf, "world", name=WORLD)
    physics = ET.SubElement(world, "physics", name="as_in_mujoco", type="ignored")
    _add_values(physics, max_step_size=model.opt.timestep, real_time_factor=1.0)
    for filename, name in SYSTEMS:
        plugin = ET.SubElement(world, "plugin", filename=filename, name=name)
        if name.endswith("Sensors"):
            _add_text(plugin, "render_engine", "ogre2")
    _add_text(world, "gravity", model.opt.gravity)
    _add_lighting(world, scene)
    _add_fixtures(world, model, hulls)
    for body in range(1, model.nbody):
        if not model.body(body).name.startswith(ROBOT_PREFIX):
            _add_body(world, scene, body, hulls)
    _add_camera(world, scene)
    ET.indent(sdf)
    return '<?xml version="1.0"?>\n' + ET.tostring(sdf, encoding="unicode") + "\n"


def _add_lighting(world: ET.Element, scene: Scene) -> None:
    """Add the lights, and MuJoCo's headlight as a directional light along the view of the fixed camera."""
    model = scene.model
    headlight = model.vis.headlight
    look = ET.SubElement(world, "scene")
    _add_values(look, ambient=_opaque(headlight.ambient), background=_opaque(np.zeros(3)), shadows=False)
    camera = model.camera(CAMERA).id
    along = -scene.data.cam_xmat[camera].reshape(3, 3)[:, 2]
    _add_light(world, "headlight", scene.data.cam_xpos[camera], along, headlight.diffuse, headlight.specular)
    for i in range(model.nlight):
        place = scene.data.light_xpos[i], scene.data.light_xdir[i]
        _add_light(world, model.light(i).name or f"light_{i}", *place, model.light_diffuse[i], model.light_specular[i])


def _add_light(world, name: str, position, direction, diffuse, specular) -> None:
    light = ET.SubElement(world, "light", name=name, type="directional")
    _add_text(light, "cast_shadows", False)  # as in MuJoCo
    _add_pose(light, position, np.array([1.0, 0, 0, 0]))
    _add_values(light, direction=direction, diffuse=_opaque(diffuse), specular=_opaque(specular))


def _add_fixtures(world: ET.Element, model: mujoco.MjModel, hulls: Hulls) -> None:
    """Add the geoms that MuJoCo fixes to the world: the floor and the robot's pedestal.

    The pedestal is visual only. Links beside it reach into its hull: MuJoCo exempts such neighbours from contacts,
    Gazebo does not. The planner and the gate keep the arms away from it.
    """
    for geom in np.flatnonzero(model.geom_bodyid == 0).tolist():
        name = model.geom(geom).name
        fixture = ET.SubElement(world, "model", name=name)
        _add_text(fixture, "static", True)
        link = ET.SubElement(fixture, "link", name="link")
        _add_geom(link, model, geom, hulls, solid=not name.startswith(ROBOT_PREFIX))


def _add_body(world: ET.Element, scene: Scene, body: int, hulls: Hulls) -> None:
    model = scene.model
    made = ET.SubElement(world, "model", name=model.body(body).name)
    _add_text(made, "static", not model.body_jntnum[body])
    _add_pose(made, scene.data.xpos[body], scene.data.xquat[body])
    link = ET.SubElement(made, "link", name="link")
    if model.body_mass[body] > 0:
        inertial = ET.SubElement(link, "inertial")
        _add_pose(inertial, model.body_ipos[body], model.body_iquat[body])
        _add_text(inertial, "mass", model.body_mass[body])
        _add_values(
            ET.SubElement(inertial, "inertia"),
            **dict(zip(("ixx", "iyy", "izz"), model.body_inertia[body], strict=True)),
        )
    for geom in np.flatnonzero(model.geom_bodyid == body).tolist():
        _add_geom(link, model, geom, hulls)
    for site in _visible_sites(model, body):
        _add_site(link, model, site)


def _add_camera(world: ET.Element, scene: Scene) -> None:
    """Add the camera above the table, whose images have the frame of the MuJoCo scene's (SDF: optical_frame_id)."""
    model, camera = scene.model, scene.model.camera(CAMERA).id
    quaternion = np.zeros(4)
    mujoco.mju_mat2Quat(quaternion, (scene.data.cam_xmat[camera].reshape(3, 3) @ _CAMERA_AXES).ravel())
    holder = ET.SubElement(world, "model", name=CAMERA)
    _add_text(holder, "static", True)
    _add_pose(holder, scene.data.cam_xpos[camera], quaternion)
    sensor = ET.SubElement(ET.SubElement(holder, "link", name="link"), "sensor", name=CAMERA, type="camera")
    _add_values(sensor, topic=IMAGE_TOPIC, update_rate=RATE, always_on=True)
    lens = ET.SubElement(sensor, "camera")
    _add_text(lens, "camera_info_topic", INFO_TOPIC)
    _add_text(lens, "horizontal_fov", 2 * np.arctan(0.5 * scene.width / scene.camera_intrinsics["fx"]))
    _add_values(ET.SubElement(lens, "image"), width=str(scene.width), height=str(scene.height), format="R8G8B8")
    near, far = (model.stat.extent * plane for plane in (model.vis.map.znear, model.vis.map.zfar))
    _add_values(ET.SubElement(lens, "clip"), near=near, far=far)
    _add_text(lens, "optical_frame_id", OPTICAL_FRAME)
