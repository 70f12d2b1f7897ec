"""The programs of the bring-up "gazebo" beside our nodes: Gazebo, the bridge, the robot and its controllers.

launch/gazebo.launch.py starts what is listed here; nothing here needs launch. Sources of the names used:

- ros_gz (branch jazzy): ros_gz_sim/launch/gz_sim.launch.py.in (gz_args, on_exit_shutdown), ros_gz_sim/src/create.cpp
  (-world, -file, -name), ros_gz_bridge/README.md (parameter_bridge, config_file).
- gz-sim (branch gz-sim8): src/cmd/cmdsim.rb.in (-r, -s, --headless-rendering).
- ros2_control (branch jazzy): controller_manager/controller_manager/spawner.py.
- robot_state_publisher's README.md; geometry2's tf2_ros/src/static_transform_broadcaster_program.cpp.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from jepa_ros.bringup.nodes import GazeboArguments
from jepa_ros.errors import InputError
from jepa_ros.resources import config_path
from jepa_ros.robot.config import load_robot
from jepa_ros.text_files import read_yaml

HARDWARE = "gz_ros2_control"
BROADCASTER = "joint_state_broadcaster"
# Packages whose plugins are loaded by name.
PLUGINS = (HARDWARE, BROADCASTER, "joint_trajectory_controller")
_FRAMES = (("/tf", "tf"), ("/tf_static", "tf_static"))  # absolute in their sources; ours follow the namespace


@dataclass(frozen=True)
class Program:
    """A program of another package, in our namespace: `ros2 run <package> <executable> <arguments>`."""

    package: str
    executable: str
    name: str
    arguments: tuple[str, ...] = ()
    parameters: Mapping[str, Any] = field(default_factory=dict)
    remappings: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class Bringup:
    """The programs beside our nodes.

    gz: arguments of ros_gz_sim's launch/gz_sim.launch.py. running: run until the end. spawning: spawns the robot in
    the world and ends. starting: then starts the controllers and ends.
    """

    gz: Mapping[str, str]
    running: tuple[Program, ...]
    spawning: Program
    starting: Program

    @property
    def packages(self) -> tuple[str, ...]:
        """All required packages, sorted."""
        programs = (*self.running, self.spawning, self.starting)
        return tuple(sorted({"ros_gz_sim", *PLUGINS, *(program.package for program in programs)}))


@dataclass(frozen=True)
class Cell:
    """The simulated cell: world file (SDF), robot file to spawn (URDF), the description to publish, and the camera's
    pose (position (3,) m and quaternion (4,) xyzw of its optical frame in `world`)."""

    world: Path
    world_name: str
    robot: Path
    description: str
    camera: tuple[tuple[float, ...], tuple[float, ...]]
    camera_frame: str


def make_cell(robot: str, namespace: str, folder: Path) -> Cell:
    """Write the MuJoCo scene into `folder` in Gazebo's formats.

    Raises InputError where the robot's joints or controllers are not simulated.
    """
    from jepa_ros.sim.gazebo import WORLD, robot_description, spawned_robot, world_sdf, write_hulls
    from jepa_ros.sim.scene import OPTICAL_FRAME, Scene

    controllers = config_path("gazebo", "controllers.yaml")
    scene = Scene()
    check_robot(robot, scene.joint_names, controllers)
    hulls = write_hulls(scene.model, folder)
    world, spawned = folder / f"{WORLD}.sdf", folder / "openarm.urdf"
    world.write_text(world_sdf(scene, hulls))
    space = f"/{namespace.strip('/')}" if namespace.strip("/") else ""
    spawned.write_text(spawned_robot(scene, hulls, controllers, space))
    position, quaternion = scene.camera_pose
    camera = tuple(position.tolist()), tuple(quaternion.tolist())
    return Cell(world, WORLD, spawned, robot_description(scene), camera, OPTICAL_FRAME)


def check_robot(name: str, joints: tuple[str, ...], controllers: Path) -> None:
    """Raise InputError where a robot has joints or controllers that are not simulated. controllers: a YAML file."""
    robot = load_robot(name)
    if missing := [joint for joint in robot.joints if joint not in joints]:
        raise InputError(f"robot '{name}': joints: not in the simulated cell: {', '.join(missing)}")
    sections = read_yaml(controllers, "controllers").items()
    known = {key.rsplit("/", 1)[1]: section["ros__parameters"] for key, section in sections}
    for controller in robot.controllers:
        own = known.get(controller.name, {}).get("joints")
        if own != list(controller.joints):
            found = "no controller of that name" if own is None else f"the joints {own}"
            raise InputError(
                f"robot '{name}': controller {controller.name}: expected it with its joints in {controllers}, "
                f"found {found}"
            )


def processes(arguments: GazeboArguments, cell: Cell) -> Bringup:
    """Return the programs beside our nodes for these arguments."""
    headless = "-s --headless-rendering " if arguments.headless else ""
    time = {"use_sim_time": arguments.use_sim_time}
    controllers = str(config_path("gazebo", "controllers.yaml"))
    (x, y, z), (qx, qy, qz, qw) = cell.camera
    pose = {"--x": x, "--y": y, "--z": z, "--qx": qx, "--qy": qy, "--qz": qz, "--qw": qw}
    pose_words = [word for key, value in pose.items() for word in (key, f"{value:.9g}")]
    folder, _, _ = arguments.camera_topic.rpartition("/")  # image_transport puts camera_info beside the image
    topics = (("image", arguments.camera_topic), ("camera_info", f"{folder}/camera_info" if folder else "camera_info"))
    running = (
        Program(
            "robot_state_publisher",
            "robot_state_publisher",
            "robot_state_publisher",
            parameters={"robot_description": cell.description, **time},
            remappings=_FRAMES,
        ),
        Program(
            "tf2_ros",
            "static_transform_publisher",
            "camera_pose",
            arguments=(*pose_words, "--frame-id", "world", "--child-frame-id", cell.camera_frame),
            remappings=_FRAMES,
        ),
        Program(
            "ros_gz_bridge",
            "parameter_bridge",
            "ros_gz_bridge",
            parameters={"config_file": str(config_path("gazebo", "bridge.yaml")), **time},
            remappings=topics,
        ),
    )
    spawn = ("-world", cell.world_name, "-file", str(cell.robot), "-name", "openarm")
    names = [controller.name for controller in load_robot(arguments.robot).controllers]
    return Bringup(
        gz={"gz_args": f"-r {headless}{shlex.quote(str(cell.world))}", "on_exit_shutdown": "true"},
        running=running,
        spawning=Program("ros_gz_sim", "create", "spawn_robot", arguments=spawn),
        starting=Program(
            "controller_manager",
            "spawner",
            "start_controllers",
            arguments=(BROADCASTER, *names, "--param-file", controllers),
        ),
    )


def check_packages(packages: tuple[str, ...], find: Callable[[str], Any], distribution: str = "jazzy") -> None:
    """Raise InputError with the Debian packages to install if `find` (ament's get_package_prefix) misses some."""
    missing = []
    for package in packages:
        try:
            find(package)
        except (LookupError, ValueError):
            missing.append(package)
    if missing:
        names = " ".join(f"ros-{distribution}-{package.replace('_', '-')}" for package in missing)
        counts = f"{len(missing)} of the {len(packages)} required ROS packages are missing"
        raise InputError(f"gazebo: {counts}: apt install {names}")
