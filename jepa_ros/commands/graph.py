"""The nodes: up, demo."""

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
) -> int | None:
    """Start the simulator and all nodes from config/sim.yaml, as launch/sim.launch.py does."""
    return call("jepa_ros.ros.up:run", bringup="sim", **locals())


@command(up, "robot")
def up_robot(
    robot: Robot = "openarm",
    model: Model = "openarm_reach",
    camera_topic: CameraTopic = "image",
    params_file: ParamsFile = None,
    namespace: Namespace = "",
    use_sim_time: UseSimTime = False,
    respawn: Respawn = False,
    log_level: LogLevel = "info",
) -> int | None:
    """Start the nodes for hardware from config/robot.yaml, as launch/robot.launch.py does."""
    return call("jepa_ros.ros.up:run", bringup="robot", **locals())


@command(app)
def demo(
    goals: Annotated[int, typer.Option(help="Goal images to send, at least 1.")] = 20,
    seed: Seed = 0,
    out: Out = Path("runs/demo"),
    model: Model = "openarm_reach",
    headless: Annotated[bool, typer.Option("--headless", help="Plain lines in place of the live display.")] = False,
) -> int | None:
    """Start the whole graph in simulation and reach goal images that training never saw."""
    return call("jepa_ros.ros.demo:run", goals=goals, seed=seed, out=out, model=model, headless=headless)
