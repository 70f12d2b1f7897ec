"""Commands that start or record the ROS graph: up, record, demo, soak, security."""

from pathlib import Path
from typing import Annotated

import typer

from jepa_ros.bringup.ros_names import check_ros_name
from jepa_ros.commands.base import (
    RUN,
    Model,
    Namespace,
    Out,
    Robot,
    Seed,
    SimTask,
    UseSimTime,
    app,
    argument,
    call,
    check_bag,
    check_file,
    choice,
    command,
    group,
    number,
    option,
    out_file,
)
from jepa_ros.reporting.output import prepare_out

up = group("up", "Start the nodes, until Ctrl-C.", RUN)
security = group("security", "Access control of the graph (SROS2).", RUN)

COMMAND_INTERFACES = ("", "joint_trajectory", "forward_position", "servo_twist", "servo_joint_jog")

CameraTopic = Annotated[str, option("Topic of the camera images.", check=check_ros_name)]
ParamsFile = Annotated[
    Path | None,
    option(
        "ROS parameter file for all nodes; default: config/sim.yaml, robot.yaml, replay.yaml or record.yaml.",
        check=check_file,
    ),
]
BagName = Annotated[
    str,
    argument("Bag: a rosbag2 directory, or one file of it.", check=lambda name, path: check_bag(name, Path(path))),
]
Respawn = Annotated[bool, typer.Option("--respawn", help="Restart a node that ends.")]
LogLevel = Annotated[str, choice("Log level of the nodes.", "debug", "info", "warn", "error", "fatal")]
RobotNamespace = Annotated[
    str,
    option(
        "Namespace of joint_states, robot_description and the controllers; default: the nodes' own.",
        check=check_ros_name,
    ),
]
CommandInterface = Annotated[
    str,
    choice(
        "Which of the robot's controllers to command; default: those listed first in its file.", *COMMAND_INTERFACES
    ),
]


RecordTo = Annotated[
    str,
    option(
        "Bag directory for all inputs and outputs; empty: do not record.",
        check=lambda name, path: prepare_out(path, name) if path else None,
    ),
]


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
    record: RecordTo = "",
) -> int | None:
    """Start the simulator and all nodes with config/sim.yaml (as launch/sim.launch.py does)."""
    return call("jepa_ros.bringup.up:run", kind="sim", **locals())


@command(up, "robot")
def up_robot(
    robot: Robot = "openarm",
    arm: Annotated[str, choice("Which arm, if the robot has two.", "right", "left")] = "right",
    command_interface: CommandInterface = "",
    robot_namespace: RobotNamespace = "",
    bringup: Annotated[
        bool, typer.Option("--bringup", help="Start the vendor's bring-up: with `ros2 launch` only.", hidden=True)
    ] = False,
    model: Model = "openarm_reach",
    camera_topic: CameraTopic = "image",
    params_file: ParamsFile = None,
    namespace: Namespace = "",
    use_sim_time: UseSimTime = False,
    respawn: Respawn = False,
    log_level: LogLevel = "info",
    record: RecordTo = "",
) -> int | None:
    """Start the nodes for a real robot with config/robot.yaml (as launch/robot.launch.py does)."""
    return call("jepa_ros.bringup.up:run", kind="robot", **locals())


@command(up, "gazebo")
def up_gazebo() -> int | None:
    """Tell how to start Gazebo, which needs `ros2 launch`."""
    return call("jepa_ros.bringup.up:run", kind="gazebo")


@command(up, "replay")
def up_replay(
    bag: BagName,
    robot: Robot = "openarm",
    model: Model = "openarm_reach",
    camera_topic: CameraTopic = "image",
    params_file: ParamsFile = None,
    namespace: Namespace = "",
    rate: Annotated[float, number("Playback speed; 1: real time.", 0.01, 100.0)] = 1.0,
    loop: Annotated[bool, typer.Option("--loop", help="Restart at the end of the bag.")] = False,
    paused: Annotated[
        bool, typer.Option("--paused", help="Start paused, until the service /player/resume is called.")
    ] = False,
    record: RecordTo = "runs/replay",
    log_level: LogLevel = "info",
) -> int | None:
    """Start all nodes on a recorded bag, at its time stamps. The gate checks plans; no controller is commanded."""
    return call("jepa_ros.bringup.up:run", kind="replay", **locals())


@command(app, panel=RUN)
def record(
    out: Annotated[
        str,
        option("Bag directory; a number is added if it exists.", check=lambda name, path: prepare_out(path, name)),
    ] = "runs/recording",
    robot: Robot = "openarm",
    model: Model = "openarm_reach",
    camera_topic: CameraTopic = "image",
    params_file: ParamsFile = None,
    namespace: Namespace = "",
    use_sim_time: UseSimTime = False,
    log_level: LogLevel = "info",
) -> int | None:
    """Record the running graph's inputs and outputs to a rosbag2 (mcap) bag, until Ctrl-C."""
    options = locals()
    return call("jepa_ros.bringup.up:run", kind="record", record=options.pop("out"), **options)


@command(app, panel=RUN)
def demo(
    goals: Annotated[int, number("Number of goal images.", 1)] = 20,
    seed: Seed = 0,
    out: Out = Path("runs/demo"),
    model: Model = "openarm_reach",
    headless: Annotated[bool, typer.Option("--headless", help="Print plain lines instead of a live display.")] = False,
    task: SimTask = "reach",
) -> int | None:
    """Start the whole graph in simulation and reach goal images that were not in the training data."""
    return call("jepa_ros.demo.run:run", **locals())


@command(app, panel=RUN)
def soak(
    minutes: Annotated[
        float, number("Duration in minutes, once all nodes are active; at most a week.", 0.1, 10080)
    ] = 60.0,
    seed: Seed = 0,
    out: Out = Path("runs/soak"),
    model: Model = "openarm_reach",
    robot: Robot = "openarm",
    load: Annotated[int, number("Processes that keep the CPU busy beside the graph.", 0, 64)] = 1,
    faults: Annotated[int | None, number("End after this many faults, if sooner.", 1)] = None,
) -> int | None:
    """Run the simulated graph under load, inject random faults, and check every command sent to the arm."""
    return call("jepa_ros.soak.run:run_soak", **locals())


@command(security, "policy")
def security_policy(
    out: Annotated[Path, out_file("XML file to write.")],
    namespace: Namespace = "",
    robot: Robot = "openarm",
    model: Model = "openarm_reach",
) -> int | None:
    """Start the graph in simulation, and write an SROS2 policy (XML) of the topics and services that each node uses."""
    return call("jepa_ros.security.run:write_policy_file", **locals())
