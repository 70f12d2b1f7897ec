"""The nodes: up, record, demo."""

from pathlib import Path
from typing import Annotated

import typer

from jepa_ros.commands.base import Model, Out, Robot, Seed, app, call, command, group

up = group("up", help="Start the nodes.")

CameraTopic = Annotated[str, typer.Option(help="Topic of the camera's images.")]
ParamsFile = Annotated[Path | None, typer.Option(help="ROS parameters of all nodes; default: config/<bring-up>.yaml.")]
Namespace = Annotated[str, typer.Option(help="Namespace of all nodes and topics.")]
UseSimTime = Annotated[bool, typer.Option("--use-sim-time", help="Follow /clock.")]
Respawn = Annotated[bool, typer.Option("--respawn", help="Start a node again when it ends.")]
Record = Annotated[str, typer.Option(help="Directory of a bag of all that is heard and said; default: none.")]
LogLevel = Annotated[str, typer.Option(help="debug, info, warn, error or fatal.")]


@command(up, "sim")
def up_sim(
    robot: Robot = "openarm",
    model: Model = "openarm_reach",
    camera_topic: CameraTopic = "image",
    params_file: ParamsFile = None,
    namespace: Namespace = "",
    use_sim_time: UseSimTime = False,
    respawn: Respawn = False,
    log_level: LogLevel = "info",
    record: Record = "",
) -> int | None:
    """Start the simulator and all nodes from config/sim.yaml, as launch/sim.launch.py does."""
    return call("jepa_ros.bringup.up:run", kind="sim", **locals())


@command(up, "robot")
def up_robot(
    robot: Robot = "openarm",
    arm: Annotated[str, typer.Option(help="Of a robot with two arms: right or left.")] = "right",
    command_interface: Annotated[
        str,
        typer.Option(
            help="Which of the robot's controllers are commanded: joint_trajectory, forward_position, servo_twist or "
            "servo_joint_jog; default: those that its YAML names first."
        ),
    ] = "",
    robot_namespace: Annotated[
        str,
        typer.Option(help="Namespace of joint_states, robot_description and the controllers; default: the nodes' own."),
    ] = "",
    bringup: Annotated[
        bool, typer.Option("--bringup", help="Start the vendor's bring-up: by `ros2 launch` only.", hidden=True)
    ] = False,
    model: Model = "openarm_reach",
    camera_topic: CameraTopic = "image",
    params_file: ParamsFile = None,
    namespace: Namespace = "",
    use_sim_time: UseSimTime = False,
    respawn: Respawn = False,
    log_level: LogLevel = "info",
    record: Record = "",
) -> int | None:
    """Start the nodes for hardware from config/robot.yaml, as launch/robot.launch.py does."""
    return call("jepa_ros.bringup.up:run", kind="robot", **locals())


@command(up, "gazebo")
def up_gazebo() -> int | None:
    """Say how Gazebo is started: ros2 launch does."""
    return call("jepa_ros.bringup.up:run", kind="gazebo")


@command(up, "replay")
def up_replay(
    bag: Annotated[str, typer.Argument(help="A rosbag2 recording: a directory, or one file of it.")],
    robot: Robot = "openarm",
    model: Model = "openarm_reach",
    camera_topic: CameraTopic = "image",
    params_file: ParamsFile = None,
    namespace: Namespace = "",
    rate: Annotated[float, typer.Option(help="Seconds of the recording in a second.")] = 1.0,
    loop: Annotated[bool, typer.Option("--loop", help="Begin anew at the end.")] = False,
    paused: Annotated[bool, typer.Option("--paused", help="Wait for the service /player/resume.")] = False,
    record: Annotated[str, typer.Option(help="Directory of a bag of the results; empty: none.")] = "runs/replay",
    log_level: LogLevel = "info",
) -> int | None:
    """Start all nodes over a recording, on its time; the gate judges plans, and nothing leaves for controllers."""
    return call("jepa_ros.bringup.up:run", kind="replay", **locals())


@command(app)
def record(
    out: Annotated[str, typer.Option(help="Directory of the bag; a number is added where it exists.")] = (
        "runs/recording"
    ),
    robot: Robot = "openarm",
    model: Model = "openarm_reach",
    camera_topic: CameraTopic = "image",
    params_file: ParamsFile = None,
    namespace: Namespace = "",
    use_sim_time: UseSimTime = False,
    log_level: LogLevel = "info",
) -> int | None:
    """Record what the running graph hears, does and says as a rosbag2 (mcap), until Ctrl-C."""
    given = locals()
    return call("jepa_ros.bringup.up:run", kind="record", record=given.pop("out"), **given)


@command(app)
def demo(
    goals: Annotated[int, typer.Option(help="Goal images to send, at least 1.")] = 20,
    seed: Seed = 0,
    out: Out = Path("runs/demo"),
    model: Model = "openarm_reach",
    headless: Annotated[bool, typer.Option("--headless", help="Plain lines in place of the live display.")] = False,
) -> int | None:
    """Start the whole graph in simulation and reach goal images that training never saw."""
    return call("jepa_ros.demo.run:run", goals=goals, seed=seed, out=out, model=model, headless=headless)
