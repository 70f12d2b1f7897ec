"""Which nodes a bring-up consists of, and with what they start.

``jepa_ros up`` and ``jepa_ros demo`` start what is listed here, and so do the launch files, by ``launching``.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from jepa_ros.bringup.ros_names import check_ros_name
from jepa_ros.bringup.vendor import VendorLaunch, vendor_launch
from jepa_ros.errors import InputError
from jepa_ros.resources import config_path, list_robots, resolve_model, resolve_robot
from jepa_ros.robot.config import COMMAND_INTERFACES
from jepa_ros.text_files import read_yaml

PACKAGE = "jepa_ros"
LOG_LEVELS = ("debug", "info", "warn", "error", "fatal")
RESPAWN_DELAY = 2.0  # s
# Added to the niceness of all nodes but arm_gate: on a busy machine the gate's 200 Hz come first.
NICE = 5

# In the order in which they are started; nothing depends on it, but the log reads better.
NODES: Mapping[str, tuple[str, ...]] = {
    "sim": ("simulator", "camera", "world_model", "planner", "arm_gate"),
    "robot": ("camera", "world_model", "planner", "arm_gate"),
    "replay": ("player", "camera", "world_model", "planner", "arm_gate"),
    "record": (),
    "gazebo": ("camera", "world_model", "planner", "arm_gate"),  # and what `gazebo` lists
}
# Arguments of the bring-up that a node takes as parameters of the same name.
NODE_PARAMETERS: Mapping[str, tuple[str, ...]] = {
    "simulator": ("robot",),
    "camera": ("model",),
    "world_model": ("robot", "model"),
    "planner": ("robot", "model"),
    "arm_gate": ("robot",),
    "player": ("bag", "rate", "loop", "paused"),
    "recorder": ("robot", "model"),
}
# The same, of one bring-up only.
MORE_PARAMETERS: Mapping[tuple[str, str], tuple[str, ...]] = {
    ("robot", "world_model"): ("robot_namespace",),
    ("robot", "planner"): ("robot_namespace",),
    ("robot", "arm_gate"): ("robot_namespace", "command_interface"),
    ("robot", "recorder"): ("robot_namespace", "command_interface"),
}
ARGUMENT_PARAMETERS = {"robot", "model", "use_sim_time", "robot_namespace", "command_interface"}
# Nodes that follow the argument camera_topic with their topic `image`.
CAMERA_NODES = ("simulator", "camera", "player", "recorder")
# What else holds for a node of a bring-up, whatever the parameters file says.
FIXED_PARAMETERS: Mapping[tuple[str, str], Mapping[str, Any]] = {
    ("replay", "arm_gate"): {"shadow": True},
    ("replay", "recorder"): {"inputs": False},
    ("replay", "player"): {"use_sim_time": False},  # it gives the time
}
# The gate's own ticks beside those of the recording, which the model goes by.
REMAPPINGS: Mapping[tuple[str, str], tuple[tuple[str, str], ...]] = {
    ("replay", "arm_gate"): (("executed", "shadow/executed"),),
}


def _argument(default: Any, text: str, choices: Sequence[str] = ()) -> Any:
    return field(default=default, metadata={"text": text, "choices": tuple(choices)})


@dataclass(frozen=True)
class Arguments:
    """The arguments of a bring-up, which the launch files declare.

    params_file: None for config/<kind>.yaml. namespace: "" or a namespace with or without its leading slash.
    """

    robot: str = _argument("openarm", "name in config/robots, or a file")
    model: str = _argument("openarm_reach", "name in config/models, or a directory")
    camera_topic: str = _argument("image", "topic of the camera, raw or compressed")
    params_file: str | os.PathLike | None = _argument(None, "ROS parameters of all nodes")
    namespace: str = _argument("", "namespace of all nodes and topics")
    use_sim_time: bool = _argument(False, "follow /clock")
    respawn: bool = _argument(False, "start a node again when it ends")
    log_level: str = _argument("info", "debug, info, warn, error or fatal")
    record: str = _argument("", "directory of a bag of all that is heard and said; empty: none")


@dataclass(frozen=True)
class ReplayArguments(Arguments):
    """The arguments of the bring-up "replay"."""

    use_sim_time: bool = _argument(True, "follow /clock, which the player gives")
    record: str = _argument("runs/replay", "directory of a bag of the results; empty: none")
    bag: str = _argument("", "a rosbag2 recording: a directory, or one file of it")
    rate: float = _argument(1.0, "seconds of the recording in a second")
    loop: bool = _argument(False, "begin anew at the end")
    paused: bool = _argument(False, "wait for the service /player/resume")


@dataclass(frozen=True)
class GazeboArguments(Arguments):
    """The arguments of the bring-up "gazebo"."""

    use_sim_time: bool = _argument(True, "follow /clock, which Gazebo gives")
    headless: bool = _argument(False, "without a window; the camera draws by EGL")


@dataclass(frozen=True)
class RobotArguments(Arguments):
    """The arguments of the bring-up "robot"."""

    arm: str = _argument("right", "of a robot with two arms: right or left", ("right", "left"))
    command_interface: str = _argument(
        "",
        "which of the robot's controllers are commanded; empty: those that its YAML names first",
        ("", *COMMAND_INTERFACES),
    )
    robot_namespace: str = _argument(
        "", "namespace of joint_states, robot_description and the controllers: / for the root; empty: the nodes' own"
    )
    bringup: bool = _argument(False, "start the vendor's bring-up as well, as the robot's YAML names it")
    use_mock_hardware: bool = _argument(False, "with bringup: mock hardware in place of the robot")
    bringup_arguments: str = _argument("", "with bringup: arguments of the vendor's, as in 'robot_ip:=192.168.1.2'")


OTHER_ARM = "_left"  # what the file of the left arm is called after the robot's
ARGUMENTS: Mapping[str, type[Arguments]] = {
    **dict.fromkeys(NODES, Arguments),
    "robot": RobotArguments,
    "replay": ReplayArguments,
    "gazebo": GazeboArguments,
}


@dataclass(frozen=True)
class NodeSpec:
    """One node of a bring-up: what ``ros2 run jepa_ros <executable>`` would start, with its ROS arguments."""

    executable: str
    name: str
    namespace: str
    params_file: Path
    parameters: Mapping[str, Any] = field(default_factory=dict)  # win over params_file's `/**:` sections
    remappings: Sequence[tuple[str, str]] = ()
    log_level: str = "info"
    nice: int = 0

    def ros_arguments(self) -> list[str]:
        """The node's command line after the executable."""
        arguments = ["--ros-args", "-r", f"__node:={self.name}"]
        if self.namespace:
            arguments += ["-r", f"__ns:={self.namespace}"]
        arguments += ["--log-level", self.log_level, "--params-file", str(self.params_file)]
        for name, value in self.parameters.items():
            arguments += ["-p", f"{name}:={_yaml(value)}"]
        for topic, wanted in self.remappings:
            arguments += ["-r", f"{topic}:={wanted}"]
        return arguments

    def command(self, python: str = sys.executable) -> list[str]:
        """Command that starts the node with this Python, wherever the package is installed."""
        return [python, "-m", f"{PACKAGE}.nodes.{self.executable}", *self.ros_arguments()]


def node_list(kind: str, arguments: Arguments | None = None) -> list[NodeSpec]:
    """The nodes of the bring-up ``kind`` ("sim", "robot", "replay", "record" or "gazebo").

    Raises InputError for an unknown kind, robot, model or log level, a camera topic or namespace that is no ROS name,
    and a parameters file that is missing or malformed.
    """
    if kind not in NODES:
        raise InputError(f"bring-up '{kind}': expected one of {', '.join(NODES)}")
    arguments = arguments or ARGUMENTS[kind]()
    if arguments.log_level not in LOG_LEVELS:
        raise InputError(f"log level '{arguments.log_level}': expected one of {', '.join(LOG_LEVELS)}")
    robot = robot_of(arguments)
    resolve_robot(robot)
    resolve_model(arguments.model)
    params_file = Path(arguments.params_file) if arguments.params_file is not None else config_path(f"{kind}.yaml")
    check_params_file(params_file)
    namespace = _namespace(arguments.namespace)
    camera_topic = arguments.camera_topic
    check_ros_name("camera topic", camera_topic)
    if not camera_topic.strip("/"):
        raise InputError("camera topic: empty; give the topic of the camera images")
    _namespace(getattr(arguments, "robot_namespace", ""), "robot_namespace")
    specs = []
    for name in NODES[kind] + ("recorder",) * bool(arguments.record):
        parameters = {key: getattr(arguments, key) for key in parameters_of(kind, name)}
        parameters |= {"robot": robot} if "robot" in parameters else {}
        parameters |= {"use_sim_time": arguments.use_sim_time, **FIXED_PARAMETERS.get((kind, name), {})}
        if name == "recorder":
            parameters["out"] = arguments.record
        specs.append(
            NodeSpec(
                executable=name,
                name=name,
                namespace=namespace,
                params_file=params_file,
                parameters=parameters,
                remappings=(("image", camera_topic),) * (name in CAMERA_NODES) + REMAPPINGS.get((kind, name), ()),
                log_level=arguments.log_level,
                nice=0 if name == "arm_gate" else NICE,
            )
        )
    return specs


def parameters_of(kind: str, node: str) -> tuple[str, ...]:
    """Arguments of the bring-up ``kind`` that a node takes as parameters of the same name."""
    return NODE_PARAMETERS[node] + MORE_PARAMETERS.get((kind, node), ())


def robot_of(arguments: Arguments) -> str:
    """The robot's name or file, that of the arm which is asked for. Raises InputError where it has no such arm."""
    arm = getattr(arguments, "arm", "right")
    if arm == "right":
        return arguments.robot
    if arm != "left" or f"{arguments.robot}{OTHER_ARM}" not in list_robots():
        both = ", ".join(n.removesuffix(OTHER_ARM) for n in list_robots() if n.endswith(OTHER_ARM))
        raise InputError(f"arm '{arm}': expected right, or left of one of [{both}], found robot '{arguments.robot}'")
    return f"{arguments.robot}{OTHER_ARM}"


def vendor_of(arguments: RobotArguments) -> VendorLaunch | None:
    """The vendor's bring-up where it is asked for. Raises InputError where the arguments do not fit together."""
    if not arguments.bringup:
        for name in ("use_mock_hardware", "bringup_arguments"):
            if getattr(arguments, name):
                raise InputError(f"{name}: expected bringup:=true with it, found bringup:=false")
        return None
    return vendor_launch(
        robot_of(arguments),
        arguments.command_interface,
        arguments.robot_namespace or arguments.namespace,
        arguments.use_mock_hardware,
        arguments.bringup_arguments,
    )


def check_inputs(arguments: Arguments) -> None:
    """Raise InputError, in one line, where the nodes would refuse the robot's file or the model's config.json."""
    from jepa_ros.nodes.common.topics import command_class
    from jepa_ros.robot.config import load_robot
    from jepa_ros.world_model.config import read_config

    robot = load_robot(robot_of(arguments), getattr(arguments, "command_interface", ""))
    read_config(resolve_model(arguments.model))
    if isinstance(arguments, RobotArguments):
        for controller in robot.controllers:
            command_class(controller)
        vendor_of(arguments)
    if isinstance(arguments, ReplayArguments):
        check_bag(arguments.bag)


def check_bag(bag: str) -> None:
    """Raise InputError where there is nothing of this name."""
    if not bag or not Path(bag).exists():
        raise InputError(f"bag '{bag}': expected a rosbag2 directory or file, found nothing there")


def check_params_file(path: Path) -> None:
    """Raise InputError, in one line, where nodes would refuse a ROS parameters file or silently not hear it.

    Keys must be absolute (``/**``, ``/name`` or ``/**/name``): a bare ``name`` would win over later arguments. What the
    bring-up's arguments set may not be set for one node alone: that would win over them, too.
    """
    content = read_yaml(path, "parameters file")
    if not isinstance(content, Mapping):
        raise InputError(f"parameters file {path}: expected node names as keys, found {type(content).__name__}")
    for key, section in content.items():
        problem = _problem(str(key), section)
        if problem:
            raise InputError(f"parameters file {path}: {problem}")


def _problem(key: str, section: Any) -> str | None:
    """What is wrong with one node's section of a parameters file."""
    if not key.startswith("/"):
        return f"expected keys such as '/**' or '/**/{key}', found '{key}'"
    if not isinstance(section, Mapping) or set(section) != {"ros__parameters"}:
        found = ", ".join(map(str, section)) if isinstance(section, Mapping) else type(section).__name__
        return f"{key}: expected one key 'ros__parameters', found {found}"
    values = section["ros__parameters"] or {}
    if not isinstance(values, Mapping):
        return f"{key}: ros__parameters: expected names and values, found {type(values).__name__}"
    taken = ARGUMENT_PARAMETERS & set(values)
    if taken and key != "/**":
        return (
            f"{key}: {min(taken)} is an argument of the bring-up: expected under '/**' or as that argument, found here"
        )
    return None


def _yaml(value: Any) -> str:
    """A value as the ROS command line reads it back: text quoted, so that a robot called `1` stays text."""
    if isinstance(value, str):
        return "'" + value.replace("'", "''") + "'"
    return str(value).lower() if isinstance(value, bool) else repr(value)


def _namespace(namespace: str, what: str = "namespace") -> str:
    check_ros_name(what, namespace)
    stripped = namespace.strip("/")
    return f"/{stripped}" if stripped else ""
