"""Shapes of the MuJoCo scene for Gazebo: what is drawn and collided with, as meshes and SDF elements."""

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
SITE_GROUPS = 3  # sites of groups 0 to 2 are drawn
FLOOR_SIZE = 10.0  # m; MuJoCo's is endless
_STL = np.dtype([("normal", "<f4", 3), ("corners", "<f4", (3, 3)), ("attribute", "<u2")])


def write_hulls(model: mujoco.MjModel, folder: Path) -> dict[int, Path]:
    """Write the convex hull of every mesh geom as an STL file (m, in the mesh's frame); returns geom → file.

    MuJoCo draws and collides with these hulls, not with the meshes themselves.
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
    """Triangles (N, 3 corners, 3) m of the convex hull of a geom's mesh, in the mesh's frame, facing outward."""
    mesh = int(model.geom_dataid[geom])
    first, graph = int(model.mesh_vertadr[mesh]), int(model.mesh_graphadr[mesh])
    # MuJoCo's documentation of mjModel.mesh_graph: numvert, numface, vert_edgeadr[numvert], vert_globalid[numvert],
    # edge_localid[numvert + 3 numface], face_globalid[3 numface].
    vertices, faces = model.mesh_graph[graph : graph + 2]
    start = graph + 2 + 3 * vertices + 3 * faces
    indices = model.mesh_graph[start : start + 3 * faces].reshape(-1, 3)
    return model.mesh_vert[first + indices].astype(float)


def mesh_uri(path: Path) -> str:
    """How SDF and URDF name a file. Their readers cut the scheme off and take the rest as it is, undecoded."""
    return f"file://{path.resolve()}"


def add_text(parent: ET.Element, tag: str, value: object, /, **attributes: str) -> ET.Element:
    """An element with text: numbers as SDF writes them, booleans as true or false."""
    element = ET.SubElement(parent, tag, attributes)
    if isinstance(value, bool):
        element.text = str(value).lower()
    else:
        element.text = value if isinstance(value, str) else numbers(np.atleast_1d(value))
    return element


def add_pose(parent: ET.Element, position: np.ndarray, quaternion: np.ndarray) -> None:
    """SDF's pose: a position (3,) m and a quaternion (4,) wxyz."""
    add_text(parent, "pose", [*position, *roll_pitch_yaw(quaternion)])


def colour(values: np.ndarray) -> list[float]:
    """Red, green and blue of values (3 or 4,), and no transparency; MuJoCo's single precision shows no digits more."""
    return [*np.round(np.asarray(values[:3], dtype=float), 6).tolist(), 1.0]


def drawn_sites(model: mujoco.MjModel, body: int) -> list[int]:
    """Sites of a body that MuJoCo draws by default."""
    return [s for s in range(model.nsite) if model.site_bodyid[s] == body and model.site_group[s] < SITE_GROUPS]


def add_geom(link: ET.Element, model: mujoco.MjModel, geom: int, hulls: Hulls, *, solid: bool = True) -> None:
    """A geom as SDF's visual and, where solid, collision in the link of its body."""
    name = model.geom(geom).name
    place = model.geom_pos[geom], model.geom_quat[geom]
    for kind in ("collision", "visual") if solid else ("visual",):
        element = ET.SubElement(link, kind, name=name if kind == "visual" else f"{name}_collision")
        add_pose(element, *place)
        geometry = ET.SubElement(element, "geometry")
        if geom in hulls:
            add_text(ET.SubElement(geometry, "mesh"), "uri", mesh_uri(hulls[geom]))
        else:
            _add_primitive(geometry, model.geom_type[geom], model.geom_size[geom])
        if kind == "visual":
            _add_material(element, model.geom_rgba[geom])
        else:
            friction = ET.SubElement(ET.SubElement(ET.SubElement(element, "surface"), "friction"), "ode")
            add_text(friction, "mu", model.geom_friction[geom, 0])
            add_text(friction, "mu2", model.geom_friction[geom, 0])


def add_site(link: ET.Element, model: mujoco.MjModel, site: int) -> None:
    """A site as SDF's visual in the link of its body: nothing collides with it."""
    visual = ET.SubElement(link, "visual", name=model.site(site).name)
    add_pose(visual, model.site_pos[site], model.site_quat[site])
    _add_primitive(ET.SubElement(visual, "geometry"), model.site_type[site], model.site_size[site])
    _add_material(visual, model.site_rgba[site])


def _add_primitive(geometry: ET.Element, kind: int, size: np.ndarray) -> None:
    """MuJoCo gives half sizes, SDF whole ones. Raises KeyError for a shape that the scene does not have."""
    named = {
        mujoco.mjtGeom.mjGEOM_PLANE: ("plane", {"normal": [0, 0, 1], "size": [FLOOR_SIZE, FLOOR_SIZE]}),
        mujoco.mjtGeom.mjGEOM_BOX: ("box", {"size": 2 * size}),
        mujoco.mjtGeom.mjGEOM_SPHERE: ("sphere", {"radius": size[0]}),
        mujoco.mjtGeom.mjGEOM_CYLINDER: ("cylinder", {"radius": size[0], "length": 2 * size[1]}),
    }
    name, values = named[mujoco.mjtGeom(kind)]
    element = ET.SubElement(geometry, name)
    for key, value in values.items():
        add_text(element, key, value)


def _add_material(visual: ET.Element, rgba: np.ndarray) -> None:
    """Colour (4,) rgba; SDF draws see-through by an element of its own."""
    add_text(visual, "cast_shadows", False)
    if rgba[3] < 1:
        add_text(visual, "transparency", round(1.0 - float(rgba[3]), 6))
    material = ET.SubElement(visual, "material")
    for key in ("ambient", "diffuse"):
        add_text(material, key, colour(rgba))


HARDWARE = "gz_ros2_control/GazeboSimSystem"
PLUGIN_FILE, PLUGIN = "gz_ros2_control-system", "gz_ros2_control::GazeboSimROS2ControlPlugin"
POSITION_GAIN = 0.1
"""Share of a joint's position error that is made good in a controller cycle (gz_ros2_control's default).

At 500 Hz joints trail their set-points by 20 ms of motion; in MuJoCo those of the arm by 16 ms, the wrist's by 80 ms.
"""


def robot_description(scene: Scene) -> str:
    """URDF of both arms with their ros2_control tags: what robot_state_publisher publishes.

    Every joint gets a position command, but those that mimic another; what no controller claims is held where it is.
    Joints begin where the scene's are after a reset.
    """
    robot = ET.fromstring(scene.urdf)
    joints = {joint.get("name"): joint for joint in robot.iter("joint")}
    control = ET.SubElement(robot, "ros2_control", name="openarm", type="system")
    add_text(ET.SubElement(control, "hardware"), "plugin", HARDWARE)
    _, positions, _, _ = scene.joint_state()
    for name, position in zip(scene.joint_names, positions, strict=True):
        mimic = joints[name].find("mimic")
        element = ET.SubElement(control, "joint", name=name)
        if mimic is None:
            ET.SubElement(element, "command_interface", name="position")
        else:
            # It has no motor in MuJoCo; in Gazebo it follows by a velocity, which an effort limit of 0 would stop.
            leader = joints[mimic.get("joint")].find("limit").get("effort")
            joints[name].find("limit").set("effort", leader)
        state = ET.SubElement(element, "state_interface", name="position")
        add_text(state, "param", float(position), name="initial_value")
        ET.SubElement(element, "state_interface", name="velocity")
    ET.indent(robot)
    return ET.tostring(robot, encoding="unicode")


def spawned_robot(scene: Scene, hulls: Hulls, controllers: Path, namespace: str = "") -> str:
    """URDF of both arms as Gazebo simulates them. hulls: files of the geoms' meshes; controllers: the parameters of
    the controller manager that runs inside Gazebo; namespace: its ROS namespace."""
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
        if model.body_gravcomp[body]:  # MuJoCo's servos carry this weight; Gazebo's have none to carry
            add_text(ET.SubElement(robot, "gazebo", reference=name), "turnGravityOff", True)
    _add_plugin(robot, controllers, namespace)
    ET.indent(robot)
    return ET.tostring(robot, encoding="unicode")


def _add_shapes(link: ET.Element, model: mujoco.MjModel, body: int, hulls: Hulls) -> None:
    """The hulls of a body as URDF's visual and collision, and the sites that MuJoCo draws there as visuals."""
    anchor = model.jnt_pos[model.body_jntadr[body]] if model.body_jntnum[body] else np.zeros(3)
    for geom in np.flatnonzero(model.geom_bodyid == body).tolist():
        for kind in ("visual", "collision"):
            shape = ET.SubElement(link, kind, name=model.geom(geom).name)
            add_origin(shape, model.geom_pos[geom] - anchor, model.geom_quat[geom])
            ET.SubElement(ET.SubElement(shape, "geometry"), "mesh", filename=mesh_uri(hulls[geom]))
            if kind == "visual":
                _add_colour(shape, model.geom_rgba[geom])
    for site in drawn_sites(model, body):
        shape = ET.SubElement(link, "visual", name=model.site(site).name)
        add_origin(shape, model.site_pos[site] - anchor, model.site_quat[site])
        ET.SubElement(ET.SubElement(shape, "geometry"), "sphere", radius=numbers(model.site_size[site][:1]))
        _add_colour(shape, model.site_rgba[site])


def _add_colour(visual: ET.Element, rgba: np.ndarray) -> None:
    """sdformat divides what URDF calls a colour by 0.8 (parser_urdf.cc, CreateVisual): this makes it the scene's."""
    wanted = numbers([*(0.8 * np.array(colour(rgba)[:3])), 1.0])
    ET.SubElement(ET.SubElement(visual, "material", name=f"rgba {wanted}"), "color", rgba=wanted)


def _add_plugin(robot: ET.Element, controllers: Path, namespace: str) -> None:
    plugin = ET.SubElement(ET.SubElement(robot, "gazebo"), "plugin", filename=PLUGIN_FILE, name=PLUGIN)
    add_text(plugin, "parameters", str(controllers))
    add_text(plugin, "hold_joints", True)
    add_text(plugin, "position_proportional_gain", POSITION_GAIN)
    if namespace:
        add_text(ET.SubElement(plugin, "ros"), "namespace", namespace)


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
