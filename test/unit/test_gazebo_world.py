"""The world that Gazebo is given is the MuJoCo scene: every place, size, colour and lens, read back and compared."""

from __future__ import annotations

import shutil
import subprocess
from xml.etree import ElementTree as ET

import numpy as np
import pinocchio as pin
import pytest
import yaml

from helpers import sim_arm
from jepa_ros.resources import config_path
from jepa_ros.sim import gazebo
from jepa_ros.sim.gazebo import hull_triangles, world_sdf, write_hulls
from jepa_ros.sim.scene import CAMERA, Scene, mujoco  # noqa: E402 - mujoco, once OpenGL is chosen


@pytest.fixture(scope="module")
def scene():
    return Scene()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("a cell")  # with a space, as a user's folder may have


@pytest.fixture(scope="module")
def world(scene, folder):
    text = world_sdf(scene, write_hulls(scene.model, folder))
    (folder / "world.sdf").write_text(text)
    return ET.fromstring(text).find("world")


def values(element: ET.Element, path: str) -> np.ndarray:
    return np.array(element.find(path).text.split(), dtype=float)


def pose(element: ET.Element) -> tuple[np.ndarray, np.ndarray]:
    """Position (3,) and rotation (3, 3) of an element's pose."""
    numbers = values(element, "pose")
    return numbers[:3], pin.rpy.rpyToMatrix(numbers[3:])


def model(world: ET.Element, name: str) -> ET.Element:
    [found] = [m for m in world.findall("model") if m.get("name") == name]
    return found


@pytest.mark.skipif(shutil.which("ign") is None, reason="ign (ignition-tools, libsdformat-dev) is not installed")
def test_sdformat_accepts_the_world(world, folder):
    done = subprocess.run(["ign", "sdf", "-k", "world.sdf"], cwd=folder, capture_output=True, text=True, timeout=60)
    assert done.stdout.strip() == "Valid." and "Warning" not in done.stderr + done.stdout


def test_the_world_has_every_body_but_the_robots(world, scene):
    m = scene.model
    bodies = {m.body(b).name for b in range(1, m.nbody)}
    fixed = {m.geom(g).name for g in range(m.ngeom) if m.geom_bodyid[g] == 0}
    expected = {b for b in bodies if not b.startswith("openarm_")} | fixed | {CAMERA}
    assert {"table", "puck", "goal_a", "goal_b", "floor"} < expected
    assert {found.get("name") for found in world.findall("model")} == expected


@pytest.mark.parametrize("name", ["table", "puck", "goal_a", "goal_b"])
def test_objects_have_the_same_pose_size_and_colour(world, scene, name):
    m, d = scene.model, scene.data
    found, body = model(world, name), m.body(name).id
    position, rotation = pose(found)
    np.testing.assert_allclose(position, d.xpos[body], atol=1e-6)
    np.testing.assert_allclose(rotation, d.xmat[body].reshape(3, 3), atol=1e-6)
    assert (found.find("static").text == "false") == (name == "puck")
    visuals = {v.get("name"): v for v in found.iter("visual")}
    for g in np.flatnonzero(m.geom_bodyid == body):
        visual = visuals.pop(m.geom(g).name)
        np.testing.assert_allclose(values(visual, "geometry/box/size"), 2 * m.geom_size[g])
        np.testing.assert_allclose(pose(visual)[0], m.geom_pos[g], atol=1e-9)
        np.testing.assert_allclose(values(visual, "material/diffuse"), m.geom_rgba[g], atol=1e-6)
        collision = found.find("link/collision")
        np.testing.assert_allclose(values(collision, "geometry/box/size"), 2 * m.geom_size[g])
        np.testing.assert_allclose(values(collision, "surface/friction/ode/mu"), m.geom_friction[g, 0])
    for s in np.flatnonzero(m.site_bodyid == body):
        visual = visuals.pop(m.site(s).name)
        np.testing.assert_allclose(values(visual, "geometry/cylinder/radius"), m.site_size[s, 0])
        np.testing.assert_allclose(values(visual, "geometry/cylinder/length"), 2 * m.site_size[s, 1])
        np.testing.assert_allclose(values(visual, "material/diffuse")[:3], m.site_rgba[s, :3], atol=1e-6)
        np.testing.assert_allclose(1 - values(visual, "transparency"), m.site_rgba[s, 3], atol=1e-6)
    assert not visuals


def test_the_puck_has_the_same_mass(world, scene):
    body, inertial = scene.model.body("puck").id, model(world, "puck").find("link/inertial")
    np.testing.assert_allclose(values(inertial, "mass"), scene.model.body_mass[body])
    found = [float(inertial.find(f"inertia/{key}").text) for key in ("ixx", "iyy", "izz")]
    np.testing.assert_allclose(found, scene.model.body_inertia[body])


def test_the_camera_has_the_pose_and_field_of_view_of_the_mujoco_scene(world, scene):
    holder = model(world, CAMERA)
    position, rotation = pose(holder)
    expected, quaternion = scene.camera_pose
    optical = pin.Quaternion(quaternion).toRotationMatrix()  # z forward, x right, y down
    np.testing.assert_allclose(position, expected, atol=1e-6)
    forward, left, up = rotation.T  # SDF's camera looks along x
    np.testing.assert_allclose([forward, -left, -up], [optical[:, 2], optical[:, 0], optical[:, 1]], atol=1e-6)
    lens = holder.find("link/sensor/camera")
    width, height = values(lens, "image/width")[0], values(lens, "image/height")[0]
    assert (width, height) == (scene.width, scene.height)
    upright = 2 * np.arctan(np.tan(values(lens, "horizontal_fov")[0] / 2) * height / width)
    np.testing.assert_allclose(np.rad2deg(upright), scene.model.camera(CAMERA).fovy[0], rtol=1e-6)
    assert lens.find("optical_frame_id").text == sim_arm.robot().camera.frame_id


def test_images_have_the_rate_and_size_of_the_simulators(world, scene):
    from jepa_ros.nodes.simulator import PARAMETERS

    defaults = {p.name: p.default for p in PARAMETERS}
    assert values(model(world, CAMERA), "link/sensor/update_rate")[0] == defaults["rate"]
    assert (scene.width, scene.height) == (defaults["width"], defaults["height"])
    assert values(world, "physics/max_step_size")[0] == defaults["timestep"]


def test_lights_are_the_same(world, scene):
    m = scene.model
    head, other = world.findall("light")
    np.testing.assert_allclose(values(world, "scene/ambient")[:3], m.vis.headlight.ambient, atol=1e-6)
    np.testing.assert_allclose(values(head, "diffuse")[:3], m.vis.headlight.diffuse, atol=1e-6)
    np.testing.assert_allclose(values(other, "diffuse")[:3], m.light_diffuse[0], atol=1e-6)
    np.testing.assert_allclose(values(other, "direction"), m.light_dir[0], atol=1e-6)
    assert m.light_type[0] == mujoco.mjtLightType.mjLIGHT_DIRECTIONAL and other.get("type") == "directional"
    assert all(light.find("cast_shadows").text == "false" for light in (head, other))


def test_meshes_are_the_rendered_hulls(world, scene, folder):
    m = scene.model
    meshes = np.flatnonzero(m.geom_type == mujoco.mjtGeom.mjGEOM_MESH)
    assert len(meshes) == len(list(folder.glob("*.stl")))
    for g in meshes:
        triangles = hull_triangles(m, g)
        mesh = m.geom_dataid[g]
        vertices = m.mesh_vert[m.mesh_vertadr[mesh] :][: m.mesh_vertnum[mesh]]
        normals = np.cross(triangles[:, 1] - triangles[:, 0], triangles[:, 2] - triangles[:, 0])
        outward = triangles.mean(axis=1) - triangles.mean(axis=(0, 1))
        assert (np.einsum("ni,ni->n", normals, outward) > 0).all()
        # At most 64 of the vertices make the hull (Scene): it may miss the others by a little.
        np.testing.assert_allclose(triangles.reshape(-1, 3).min(0), vertices.min(0), atol=2e-3)
        np.testing.assert_allclose(triangles.reshape(-1, 3).max(0), vertices.max(0), atol=2e-3)
        content = (folder / f"{m.geom(g).name}.stl").read_bytes()
        assert not content.startswith(b"solid") and len(content) == 84 + 50 * len(triangles)
        read = np.frombuffer(content[84:], dtype=[("n", "<f4", 3), ("c", "<f4", (3, 3)), ("a", "<u2")])
        np.testing.assert_allclose(read["c"], triangles, atol=1e-7)
    uris = [element.text for element in world.iter("uri")]
    assert uris == [f"file://{folder}/openarm_body_link0_collision.stl"]


def test_the_pedestal_is_visual_only(world):
    assert model(world, "openarm_body_link0_collision").find("link/collision") is None


def test_the_bridge_carries_the_topics_of_the_world(world):
    bridged = {entry["ros_topic_name"]: entry for entry in yaml.safe_load(config_path("gazebo/bridge.yaml").open())}
    sensor = model(world, CAMERA).find("link/sensor")
    assert bridged["image"]["gz_topic_name"] == sensor.find("topic").text
    assert bridged["camera_info"]["gz_topic_name"] == sensor.find("camera/camera_info_topic").text
    assert bridged["/clock"]["gz_topic_name"] == f"/world/{world.get('name')}/clock"
    assert set(bridged) == {"image", "camera_info", "/clock"}
    assert sim_arm.robot().camera.topic == "image"


def test_the_systems_exist_in_gazebo(world):
    # gz-sim, branch gz-sim8: examples/worlds/sensors_demo.sdf
    published = {
        "gz-sim-physics-system": "gz::sim::systems::Physics",
        "gz-sim-sensors-system": "gz::sim::systems::Sensors",
        "gz-sim-user-commands-system": "gz::sim::systems::UserCommands",
        "gz-sim-scene-broadcaster-system": "gz::sim::systems::SceneBroadcaster",
    }
    assert {p.get("filename"): p.get("name") for p in world.findall("plugin")} == published
    [engine] = world.iter("render_engine")
    assert engine.text == "ogre2" and gazebo.SDF_VERSION == "1.9"
