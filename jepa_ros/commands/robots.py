"""Commands about a robot before it moves: robot new, robot check, doctor, calibrate."""

from pathlib import Path
from typing import Annotated

import typer

from jepa_ros.bringup.ros_names import check_ros_name
from jepa_ros.commands.base import (
    ROBOT,
    ROBOT_HELP,
    BagCamera,
    BagRobot,
    Model,
    Namespace,
    Robot,
    Seed,
    app,
    argument,
    call,
    check_bag,
    check_image,
    check_name,
    check_urdf,
    check_with,
    command,
    group,
    number,
    option,
    out_directory,
    out_file,
)
from jepa_ros.commands.graph import CommandInterface, RobotNamespace
from jepa_ros.resources import list_robots

robots = group("robot", "Draft and check a robot's file.", ROBOT)
calibrate = group("calibrate", "Calibrate the robot description from recordings.", ROBOT)


@command(robots, "new")
def robot_new(
    urdf: Annotated[Path, option("The robot's URDF, expanded from xacro.", check=check_urdf)],
    name: Annotated[str | None, option("Name of the robot; default: the URDF's.", check=check_name)] = None,
    out: Annotated[Path | None, out_file("YAML file to write; default: NAME.yaml.")] = None,
    base: Annotated[str | None, typer.Option(help="Base link: frame of all poses; default: the URDF's root.")] = None,
    tool: Annotated[
        str | None, typer.Option(help="Tool link; default: the end of the longest chain of joints.")
    ] = None,
) -> int | None:
    """Draft a robot's file from its URDF; values to fill in are marked TODO."""
    return call("jepa_ros.robot.files.draft:run_robot_new", **locals())


@command(robots, "check")
def robot_check(
    robot: Annotated[
        str, argument(ROBOT_HELP, check=check_with("jepa_ros.resources:resolve_robot"), autocompletion=list_robots)
    ],
    urdf: Annotated[
        Path | None, option("The robot's URDF, to check names, limits and reach as well.", check=check_urdf)
    ] = None,
) -> int | None:
    """Check a robot's file; print one line per problem. Exit code 1: problems, 2: unreadable."""
    return call("jepa_ros.robot.files.check:run_robot_check", **locals())


@command(app, panel=ROBOT)
def doctor(
    robot: Robot = "openarm",
    model: Model = "openarm_reach",
    camera_topic: Annotated[
        list[str],
        option("Camera image topic; repeat for each further view. Default: the robot's.", check=check_ros_name),
    ] = (),
    namespace: Namespace = "",
    robot_namespace: RobotNamespace = "",
    command_interface: CommandInterface = "",
    seconds: Annotated[float, number("Time to listen, s.", 0.5, 600.0)] = 5.0,
    out: Annotated[
        Path | None,
        out_directory("Directory for summary.json, report.html and overlay.jpg; default: print only."),
    ] = None,
    use_sim_time: Annotated[
        bool, typer.Option("--use-sim-time", help="The nodes will use simulation time (/clock).")
    ] = False,
    reference: Annotated[
        Path | None, option("Image of the training camera for the overlay; default: the model's.", check=check_image)
    ] = None,
) -> int | None:
    """Check a running robot, its camera and the model before motion. Nothing moves, nothing is published."""
    return call("jepa_ros.doctor.run:run_doctor", **locals())


@command(calibrate, "camera")
def calibrate_camera(
    bag: Annotated[Path, option("Recording of small random motions, from `jepa_ros collect live`.", check=check_bag)],
    robot: BagRobot = None,
    model: Model = "openarm_reach",
    camera: BagCamera = (),
    description: Annotated[
        Path | None, option("URDF file, for bags without robot_description.", check=check_urdf)
    ] = None,
    pairs: Annotated[int, number("Number of motions to use, evenly spaced.", 10, 10**6)] = 300,
    seed: Seed = 0,
    out: Annotated[Path | None, out_file("Write the robot's file with the rotation to this YAML file.")] = None,
    write: Annotated[bool, typer.Option("--write", help="Write the rotation into the robot's own YAML file.")] = False,
) -> int | None:
    """Estimate how the camera is rotated against the training camera, from predicted and measured motion."""
    return call("jepa_ros.evaluation.bag.camera_calibration:calibrate_camera", **locals())
