"""The arms that Gazebo is given move and weigh as MuJoCo's, and have the names that everything else knows them by."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from xml.etree import ElementTree as ET

import numpy as np
import pinocchio as pin
import pytest
import yaml

from helpers import sim_arm
from jepa_ros.resources import config_path
from jepa_ros.robot.collision.shapes import link_shapes
from jepa_ros.robot.urdf import RobotDescription
from jepa_ros.sim.gazebo import POSITION_GAIN, hull_triangles, robot_description, spawned_robot, write_hulls
from jepa_ros.sim.scene import mujoco  # noqa: E402 - once OpenGL is chosen

CONTROLLERS = config_path("gazebo", "controllers.yaml")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("a robot")


@pytest.fixture(scope="module")
def texts(folder):
    """The description that is published, and the one that is spawned."""
    scene = sim_arm.scene()
    scene.reset()
    spawned = spawned_robot(scene, write_hulls(scene.model, folder), CONTROLLERS, "/cell")
    (folder / "spawned.urdf").write_text(spawned)
    return {"published": robot_description(scene), "spawned": spawned}


@pytest.fixture(params=["published", "spawned"])
def urdf(request, texts):
    return texts[request.param]


@pytest.fixture(scope="module")
def controllers():
    sections = yaml.safe_load(CONTROLLERS.open())
    assert all(key.startswith("/**/") for key in sections)
    return {key.removeprefix("/**/"): section["ros__parameters"] for key, section in sections.items()}


def test_every_link_pose_equals_mujoco_at_1000_postures(urdf):
    scene = sim_arm.scene()
    m, data = scene.model, mujoco.MjData(scene.model)
    model = pin.buildModelFromXML(urdf)
    made, random, worst = model.createData(), np.random.default_rng(0), [0.0, 0.0]
    frames = [(model.getFrameId(m.body(b).name), b) for b in range(1, m.nbody) if model.existFrame(m.body(b).name)]
    tools = [(model.getFrameId(f"openarm_{s}_ee_control_point"), m.site(f"{s}_ee_control_point").id) for s in SIDES]
    assert len(frames) == 20
    for _ in range(1000):
        q = np.zeros(model.nq)
        for name in scene.joint_names:
            value = random.uniform(*m.joint(name).range)
            data.qpos[m.joint(name).qposadr] = value
            q[model.joints[model.getJointId(name)].idx_q] = value
        mujoco.mj_kinematics(m, data)
        pin.framesForwardKinematics(model, made, q)
        pairs = [(made.oMf[f], data.xpos[b], data.xmat[b]) for f, b in frames]
        pairs += [(made.oMf[f], data.site_xpos[s], data.site_xmat[s]) for f, s in tools]
        for place, position, rotation in pairs:
            worst[0] = max(worst[0], np.abs(place.translation - position).max())
            worst[1] = max(worst[1], np.abs(place.rotation - rotation.reshape(3, 3)).max())
    assert worst[0] < 1e-3 and worst[1] < 1e-3, worst  # m, and a milliradian or so


SIDES = ("left", "right")


@pytest.mark.parametrize("kind", [pin.GeometryType.VISUAL, pin.GeometryType.COLLISION])
def test_every_mesh_hull_is_placed_as_in_mujoco(texts, kind):
    """The STL files read by Pinocchio, at some pose, corner by corner."""
    scene = sim_arm.scene()
    m, data = scene.model, mujoco.MjData(scene.model)
    model = pin.buildModelFromXML(texts["spawned"])
    shapes = pin.buildGeomFromUrdfString(model, texts["spawned"], kind)
    q = np.zeros(model.nq)
    for i, name in enumerate(scene.joint_names):
        value = m.joint(name).range @ [0.3 + 0.02 * i, 0.7 - 0.02 * i]
        data.qpos[m.joint(name).qposadr] = q[model.joints[model.getJointId(name)].idx_q] = value
    mujoco.mj_kinematics(m, data)
    made, placed = model.createData(), pin.GeometryData(shapes)
    pin.updateGeometryPlacements(model, made, shapes, placed, q)
    files = {Path(g.meshPath).stem: i for i, g in enumerate(shapes.geometryObjects) if g.meshPath.endswith(".stl")}
    hulls = [g for g in range(m.ngeom) if m.geom(g).name in files]
    assert len(hulls) == len(files) == 36
    for g in hulls:
        i = files[m.geom(g).name]
        corners = np.array(shapes.geometryObjects[i].geometry.vertices())
        corners = corners @ placed.oMg[i].rotation.T + placed.oMg[i].translation
        expected = hull_triangles(m, g).reshape(-1, 3) @ data.geom_xmat[g].reshape(3, 3).T + data.geom_xpos[g]
        found = {tuple(c) for c in np.round(corners, 4).tolist()}
        assert len(found) > 4
        np.testing.assert_allclose(corners.min(0), expected.min(0), atol=1e-4)
        np.testing.assert_allclose(corners.max(0), expected.max(0), atol=1e-4)


def test_inertias_equal_mujoco_and_are_positive_definite(urdf):
    m, model = sim_arm.scene().model, pin.buildModelFromXML(urdf)
    for element in ET.fromstring(urdf).iter("inertia"):
        moments = [float(element.get(key)) for key in ("ixx", "iyy", "izz")]
        assert min(moments) > 0 and 2 * max(moments) <= sum(moments) * (1 + 1e-6)  # as of a real body
    for j, name in enumerate(list(model.names)[1:], start=1):
        inertia = model.inertias[j]
        assert np.linalg.eigvalsh(inertia.inertia).min() > 0
        # A joint's body in Pinocchio is all that is rigidly on it, as MuJoCo's with the bodies that have no joint.
        root = m.jnt_bodyid[m.joint(name).id]
        own = [b for b in range(m.nbody) if m.body_weldid[b] == root]
        np.testing.assert_allclose(inertia.mass, m.body_mass[own].sum(), rtol=1e-6)
        if len(own) == 1:
            anchor = m.jnt_pos[m.joint(name).id]
            np.testing.assert_allclose(inertia.lever, m.body_ipos[root] - anchor, atol=1e-6)
            np.testing.assert_allclose(np.linalg.eigvalsh(inertia.inertia), np.sort(m.body_inertia[root]), rtol=1e-4)


def test_joints_have_the_limits_of_the_robot_description_and_positive_effort(urdf):
    given, expected = RobotDescription.from_urdf(urdf), RobotDescription.from_urdf(sim_arm.scene().urdf)
    assert given.joints == expected.joints
    efforts = [float(limit.get("effort")) for limit in ET.fromstring(urdf).iter("limit")]
    assert len(efforts) == 18 and min(efforts) > 0


def test_collision_shapes_equal_those_of_the_mujoco_cell(texts):
    (given, guessed), (expected, _) = link_shapes(texts["published"]), link_shapes(sim_arm.scene().urdf)
    assert [repr(shape) for shape in given] == [repr(shape) for shape in expected] and not guessed


def test_every_joint_has_the_interfaces_of_its_controller(urdf, controllers):
    scene, home = sim_arm.scene(), sim_arm.scene().model.key("home").qpos
    joints = {j.get("name"): j for j in ET.fromstring(urdf).iterfind("ros2_control/joint")}
    assert tuple(joints) == scene.joint_names
    for name, joint in joints.items():
        states = {s.get("name"): s for s in joint.findall("state_interface")}
        assert set(states) == {"position", "velocity"}
        [begin] = states["position"].findall("param")
        assert begin.get("name") == "initial_value"
        np.testing.assert_allclose(float(begin.text), home[scene.model.joint(name).qposadr[0]], atol=1e-6)
        commands = [c.get("name") for c in joint.findall("command_interface")]
        assert commands == ([] if name.endswith("finger_joint2") else ["position"])
    trajectory = controllers["right_joint_trajectory_controller"]
    assert trajectory["command_interfaces"] == ["position"] and trajectory["state_interfaces"] == [
        "position",
        "velocity",
    ]
    assert set(trajectory["joints"]) < set(joints)


def test_the_controllers_match_the_robot_file(controllers):
    [expected] = sim_arm.robot().controllers
    manager = controllers["controller_manager"]
    assert manager[expected.name]["type"] == expected.type
    assert controllers[expected.name]["joints"] == list(expected.joints)
    assert set(controllers) - {"controller_manager"} == {expected.name, "joint_state_broadcaster"}
    assert manager["joint_state_broadcaster"]["type"] == "joint_state_broadcaster/JointStateBroadcaster"
    limits = {key for key, value in controllers[expected.name]["constraints"].items() if isinstance(value, dict)}
    assert limits == set(expected.joints)


def test_controllers_run_at_the_physics_rate_and_joint_states_at_100_hz(controllers):
    from jepa_ros.nodes.simulator import CYCLE

    rate, states = (controllers[c]["update_rate"] for c in ("controller_manager", "joint_state_broadcaster"))
    np.testing.assert_allclose(rate * sim_arm.scene().model.opt.timestep, 1.0)
    assert states == round(1 / CYCLE) and rate % states == 0  # else ros2_control picks another rate


def test_the_controller_tolerance_exceeds_the_following_error_of_the_gate(controllers):
    from jepa_ros.robot.gate.types import GateSettings

    constraints = controllers["right_joint_trajectory_controller"]["constraints"]
    trajectory = [value["trajectory"] for value in constraints.values() if isinstance(value, dict)]
    assert min(trajectory) > GateSettings().following_error


def test_joints_lag_their_set_points_about_as_in_mujoco(controllers):
    m = sim_arm.scene().model
    lag = 1 / (POSITION_GAIN * controllers["controller_manager"]["update_rate"])
    servos = [a for a in range(m.nu) if "finger" not in m.actuator(a).name]
    damping = [-m.actuator_biasprm[a, 2] + m.dof_damping[m.jnt_dofadr[m.actuator_trnid[a, 0]]] for a in servos]
    theirs = damping / m.actuator_gainprm[servos, 0]
    assert theirs.min() - 0.005 < lag < theirs.max()


@pytest.mark.skipif(shutil.which("ign") is None, reason="ign (ignition-tools, libsdformat-dev) is not installed")
def test_sdformat_converts_the_urdf_with_colours_gravity_shapes_and_plugin(texts, folder):
    """What Gazebo itself does with the spawned URDF: colours, gravity, shapes and plugin as in the scene."""
    done = subprocess.run(["ign", "sdf", "-p", "spawned.urdf"], cwd=folder, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0 and "Error" not in done.stderr.replace("Library error", "")
    model, m = ET.fromstring(done.stdout).find("model"), sim_arm.scene().model
    # Links that a fixed joint ties to a moving one are merged into it.
    kept = [b for b in range(1, m.nbody) if m.body(b).name.startswith("openarm_")]
    links = {link.get("name"): link for link in model.findall("link")}
    assert set(links) <= {m.body(b).name for b in kept}
    assert all(link.find("gravity").text == "false" for link in links.values())
    meshes = sum(m.geom_bodyid[g] in kept for g in range(m.ngeom))
    assert (
        len(model.findall("link/collision/geometry/mesh")) == len(model.findall("link/visual/geometry/mesh")) == meshes
    )
    drawn = [v for v in model.iter("visual") if v.find("geometry/mesh") is not None]
    found = np.array([v.find("material/diffuse").text.split() for v in drawn], dtype=float)
    np.testing.assert_allclose(found, np.tile(m.geom("link1_right_collision_00").rgba, (len(drawn), 1)), atol=1e-5)
    assert len(model.findall("joint[@type='revolute']")) == 18
    plugin = model.find("plugin")
    assert plugin.find("parameters").text == str(CONTROLLERS) and plugin.find("ros/namespace").text == "/cell"


def test_the_gz_ros2_control_plugin_has_its_documented_name(texts):
    # gz_ros2_control, branch jazzy: doc/index.rst and gz_ros2_control_demos/urdf/test_cart_position.xacro.urdf
    robot = ET.fromstring(texts["spawned"])
    plugin = robot.find("gazebo/plugin")
    assert plugin.attrib == {
        "filename": "gz_ros2_control-system",
        "name": "gz_ros2_control::GazeboSimROS2ControlPlugin",
    }
    known = {"parameters", "controller_manager_name", "hold_joints", "position_proportional_gain", "ros"}
    assert {element.tag for element in plugin} <= known
    assert robot.find("ros2_control/hardware/plugin").text == "gz_ros2_control/GazeboSimSystem"
    assert Path(plugin.find("parameters").text).is_file()
