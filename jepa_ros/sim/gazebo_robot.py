"""The arms for Gazebo, from the description that the rest of the stack uses (urdf.py).

Two descriptions of the same links and joints: the one that is published as robot_description, whose collision elements
are the capsules that planner and gate go by, and the one that is spawned, whose shapes are the hulls that MuJoCo draws
and collides with. Tags: gz_ros2_control's doc/index.rst; URDF extensions: sdformat's src/parser_urdf.cc (branch sdf14).
"""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree as ET

import mujoco
import numpy as np

from jepa_ros.sim.gazebo_shapes import Hulls, add_text, colour, drawn_sites, mesh_uri
from jepa_ros.sim.scene import Scene
from jepa_ros.sim.urdf import add_origin, numbers

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
