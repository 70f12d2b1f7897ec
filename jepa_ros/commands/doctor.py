"""Before anything moves: doctor, calibrate."""

from pathlib import Path
from typing import Annotated

import typer

from jepa_ros.commands.base import Model, Robot, app, call, command, group

calibrate = group("calibrate", help="Fit what is known of the robot to what is seen.")


@command(app)
def doctor(
    robot: Robot = "openarm",
    model: Model = "openarm_reach",
    camera_topic: Annotated[
        list[str],
        typer.Option(help="Topic of the camera's images; given again for each further view. Default: the robot's."),
    ] = (),
    namespace: Annotated[str, typer.Option(help="Namespace of nodes and topics.")] = "",
    robot_namespace: Annotated[
        str,
        typer.Option(help="Namespace of joint_states, robot_description and the controllers; default: the same."),
    ] = "",
    command_interface: Annotated[
        str,
        typer.Option(help="Which of the robot's controllers are looked at; default: those that its YAML names first."),
    ] = "",
    seconds: Annotated[float, typer.Option(min=0.5, max=600.0, help="How long to listen, s.")] = 5.0,
    out: Annotated[
        Path | None, typer.Option(help="Directory for summary.json, report.html and overlay.jpg; default: none.")
    ] = None,
    use_sim_time: Annotated[bool, typer.Option("--use-sim-time", help="The nodes will follow /clock.")] = False,
    reference: Annotated[
        Path | None, typer.Option(help="Picture of the training camera for the overlay; default: the model's.")
    ] = None,
) -> int | None:
    """Look at a running robot, camera and model, and say what does not fit; nothing moves, nothing is published."""
    return call("jepa_ros.doctor.run:run_doctor", **locals())


@command(calibrate, "camera")
def calibrate_camera(
    bag: Annotated[Path, typer.Option(help="Recording of small random moves, as `jepa_ros collect` makes it.")],
    robot: Annotated[
        str | None, typer.Option(help="Robot in the bag; default: the first that the model was trained for.")
    ] = None,
    model: Model = "openarm_reach",
    camera: Annotated[list[str], typer.Option(help="Image topic; given again for each further view.")] = (),
    description: Annotated[Path | None, typer.Option(help="URDF file, for bags without robot_description.")] = None,
    pairs: Annotated[int, typer.Option(min=10, help="Moves that are looked at, evenly spread.")] = 300,
    seed: Annotated[int, typer.Option(help="Seed of the bootstrap that gives the uncertainty.")] = 0,
    out: Annotated[Path | None, typer.Option(help="YAML file for the robot with its camera's rotation.")] = None,
    write: Annotated[bool, typer.Option("--write", help="Change the robot's own YAML file.")] = False,
) -> int | None:
    """Find how the model's axes are turned against the robot's base, from motion predicted and motion measured."""
    return call("jepa_ros.evaluation.bag.camera_calibration:calibrate_camera", **locals())
