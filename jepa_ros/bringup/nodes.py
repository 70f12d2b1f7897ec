"""The bring-ups: their nodes, arguments and parameters, and the vendor's bring-up of a robot.

``jepa_ros up``, ``jepa_ros demo`` and (through launch_description.py) the launch files start what is listed here.
"""

from __future__ import annotations

import json
import os
import shlex
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from jepa_ros.bringup.ros_names import check_ros_name
from jepa_ros.errors import InputError
from jepa_ros.resources import config_path, list_robots, resolve_model, resolve_robot
from jepa_ros.robot.config import COMMAND_INTERFACES, load_robot
from jepa_ros.text_files import read_yaml

PACKAGE = "jepa_ros"
LOG_LEVELS = ("debug", "info", "warn", "error", "fatal")
RESPAWN_DELAY = 2.0  # s
NICE = 5  # added to the niceness of all nodes but arm_gate, whose 200 Hz take precedence on a busy machine
LEFT_ARM_SUFFIX = "_left"  # of the name of the left arm's robot file

# In the order in which they are started; nothing depends on it, but the log is easier to read.
NODES: Mapping[str, tuple[str, ...]] = {
    "sim": ("simulator", "camera", "world_model", "planner", "arm_gate"),
    "robot": ("camera", "world_model", "planner", "arm_gate"),
    "replay": ("player", "camera", "world_model", "planner", "arm_gate"),
    "record": (),
    "gazebo": ("camera", "world_model", "planner", "arm_gate"),  # and the programs in gazebo.py
}
# Arguments that are parameters of the same name of a node, in bring-ups that have such an argument.
NODE_PARAMETERS: Mapping[str, tuple[str, ...]] = {
    "simulator": ("robot", "task"),
    "camera": ("model",),
    "world_model": ("robot", "model", "robot_namespace"),
    "planner": ("robot", "model", "robot_namespace"),
    "arm_gate": ("robot", "robot_namespace", "command_interface"),
    "player": ("bag", "rate", "loop", "paused"),
    "recorder": ("robot", "model", "robot_namespace", "command_interface"),
}
ARGUMENT_PARAMETERS = {"robot", "model", "use_sim_time", "robot_namespace", "command_interface"}
# Nodes whose topic `image` is remapped to the argument camera_topic.
CAMERA_NODES = ("simulator", "camera", "player", "recorder")
# Parameters of a node in a bring-up that override the parameters file.
FIXED_PARAMETERS: Mapping[tuple[str, str], Mapping[str, Any]] = {
    ("replay", "arm_gate"): {"shadow": True},
    ("replay", "recorder"): {"inputs": False},
    ("replay", "player"): {"use_sim_time": False},  # it publishes /clock
}
# The model uses the recorded `executed`; the gate's own is published beside it.
REMAPPINGS: Mapping[tuple[str, str], tuple[tuple[str, str], ...]] = {
    ("replay", "arm_gate"): (("executed", "shadow/executed"),)
}


def _argument(default: Any, text: str, choices: Sequence[str] = ()) -> Any:
    return field(default=default, metadata={"text": text, "choices": tuple(choices)})


@dataclass(frozen=True)
class Arguments:
    """The arguments of a bring-up; the launch files declare them.

    params_file: None for config/<kind>.yaml. namespace: "" or a namespace with or without a leading slash.
    """

    robot: str = _argument("openarm", "robot: name in config/robots, or a file")
    model: str = _argument("openarm_reach", "checkpoint: name in config/models, or a directory")
    camera_topic: str = _argument("image", "image topic of the camera, raw or compressed")
    params_file: str | os.PathLike | None = _argument(None, "ROS parameters of all nodes")
    namespace: str = _argument("", "namespace of all nodes and topics")
    use_sim_time: bool = _argument(False, "use the time on /clock")
    respawn: bool = _argument(False, "restart a node when it ends")
    log_level: str = _argument("info", "debug, info, warn, error or fatal")
    record: str = _argument("", "output directory for a bag of all inputs and outputs; empty: none")


@dataclass(frozen=True)
class SimArguments(Arguments):
    """The arguments of the bring-up "sim"."""

    task: str = _argument("reach", "simulated task whose objects are in the scene")


@dataclass(frozen=True)
class ReplayArguments(Arguments):
    """The arguments of the bring-up "replay"."""

    use_sim_time: bool = _argument(True, "use the time on /clock, which the player publishes")
    record: str = _argument("runs/replay", "output directory for a bag of the results; empty: none")
    bag: str = _argument("", "rosbag2 recording: directory, or one of its files")
    rate: float = _argument(1.0, "playback speed; 1: real time")
    loop: bool = _argument(False, "restart at the end of the bag (loop)")
    paused: bool = _argument(False, "wait for the service /player/resume")


@dataclass(frozen=True)
class GazeboArguments(Arguments):
    """The arguments of the bring-up "gazebo"."""

    use_sim_time: bool = _argument(True, "use the time on /clock, which Gazebo publishes")
    headless: bool = _argument(False, "no window; the camera is rendered by EGL")


@dataclass(frozen=True)
class RobotArguments(Arguments):
    """The arguments of the bring-up "robot"."""

    arm: str = _argument("right", "arm of a bimanual robot: right or left", ("right", "left"))
    command_interface: str = _argument(
        "",
        "command interface of the controllers to use; empty: the first one in the robot's YAML",
        ("", *COMMAND_INTERFACES),
    )
    robot_namespace: str = _argument(
        "", "namespace of joint_states, robot_description and the controllers; /: root; empty: that of the nodes"
    )
    bringup: bool = _argument(False, "also start the vendor's bring-up that the robot's YAML names")
    use_mock_hardware: bool = _argument(False, "with bringup: use mock hardware")
    bringup_arguments: str = _argument("", "with bringup: the vendor's arguments, such as 'robot_ip:=192.168.1.2'")


ARGUMENTS: Mapping[str, type[Arguments]] = {
    **dict.fromkeys(NODES, Arguments),
    "sim": SimArguments,
    "robot": RobotArguments,
    "replay": ReplayArguments,
    "gazebo": GazeboArguments,
}


@dataclass(frozen=True)
class NodeSpec:
    """One node of a bring-up, as ``ros2 run jepa_ros <name>`` would start it, with its ROS arguments."""

    name: str
    namespace: str
    params_file: Path
    parameters: Mapping[str, Any] = field(default_factory=dict)  # override the `/**:` sections of params_file
    remappings: Sequence[tuple[str, str]] = ()
    log_level: str = "info"
    nice: int = 0

    def ros_arguments(self) -> list[str]:
        """Return the node's command line after the executable."""
        arguments = ["--ros-args", "-r", f"__node:={self.name}"]
        if self.namespace:
            arguments += ["-r", f"__ns:={self.namespace}"]
        arguments += ["--log-level", self.log_level, "--params-file", str(self.params_file)]
        for name, value in self.parameters.items():  # as JSON: in quotes, a robot called `1` remains a string
            arguments += ["-p", f"{name}:={json.dumps(value, ensure_ascii=False)}"]
        for topic, wanted in self.remappings:
            arguments += ["-r", f"{topic}:={wanted}"]
        return arguments

    def command(self, python: str = sys.executable) -> list[str]:
        """Return the command that starts the node with this Python, wherever the package is installed."""
        return [python, "-m", f"{PACKAGE}.nodes.{self.name}", *self.ros_arguments()]


def node_list(kind: str, arguments: Arguments | None = None) -> list[NodeSpec]:
    """Return the nodes of the bring-up ``kind`` ("sim", "robot", "replay", "record" or "gazebo").

    Raises InputError for an unknown kind, robot, model or log level, an invalid camera topic or namespace, and a
    missing or malformed parameters file.
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
        parameters = {key: getattr(arguments, key) for key in NODE_PARAMETERS[name] if hasattr(arguments, key)}
        parameters |= {"robot": robot} if "robot" in parameters else {}
        parameters |= {"use_sim_time": arguments.use_sim_time, **FIXED_PARAMETERS.get((kind, name), {})}
        if name == "recorder":
            parameters["out"] = arguments.record
        specs.append(
            NodeSpec(
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


def robot_of(arguments: Arguments) -> str:
    """Return the name or file of the requested arm's robot. Raises InputError where the robot has no such arm."""
    arm = getattr(arguments, "arm", "right")
    if arm == "right":
        return arguments.robot
    if arm != "left" or f"{arguments.robot}{LEFT_ARM_SUFFIX}" not in list_robots():
        both = ", ".join(n.removesuffix(LEFT_ARM_SUFFIX) for n in list_robots() if n.endswith(LEFT_ARM_SUFFIX))
        raise InputError(f"arm '{arm}': expected right, or left of one of [{both}], found robot '{arguments.robot}'")
    return f"{arguments.robot}{LEFT_ARM_SUFFIX}"


@dataclass(frozen=True)
class VendorLaunch:
    """A launch file of the robot's vendor, in a package's share directory, and its arguments."""

    package: str
    file: str
    arguments: Mapping[str, str]


def vendor_of(arguments: RobotArguments) -> VendorLaunch | None:
    """Return the vendor's bring-up from the section `bringup` of the robot's YAML, or None if it is not requested.

    The user's `bringup_arguments` take precedence. Raises InputError where the robot has no such section, a required
    argument is missing, or its bring-up supports no namespace but one is requested.
    """
    if not arguments.bringup:
        for name in ("use_mock_hardware", "bringup_arguments"):
            if getattr(arguments, name):
                raise InputError(f"{name}: requires bringup:=true")
        return None
    config = load_robot(robot_of(arguments), arguments.command_interface)
    section, robot = config.bringup, f"robot {config.name}"
    if section is None:
        raise InputError(f"bringup: no section 'bringup' in the file of {robot}")
    values = dict(section.arguments) | section.interface_arguments.get(config.controllers[0].interface, {})
    if arguments.use_mock_hardware:
        if not section.mock_arguments:
            raise InputError(f"use_mock_hardware: no mock_arguments in the file of {robot}")
        values |= section.mock_arguments
    if space := (arguments.robot_namespace or arguments.namespace).strip("/"):
        if section.namespace_argument is None:
            raise InputError(f"bringup: that of {robot} supports no namespace: use robot_namespace:=/, not '{space}'")
        values[section.namespace_argument] = space
    values |= _read_launch_arguments(arguments.bringup_arguments)
    if missing := [name for name in section.required if name not in values]:
        raise InputError(f"bringup: {robot} requires bringup_arguments:='{missing[0]}:=VALUE'")
    return VendorLaunch(section.package, section.file, values)


def _read_launch_arguments(text: str) -> dict[str, str]:
    """Return the arguments in "name:=value ...", the form of launch's command line; quotes keep spaces."""
    try:
        words = shlex.split(text)
    except ValueError as error:
        raise InputError(f"bringup_arguments '{text}': expected name:=value ..., found {error}") from None
    pairs = {}
    for word in words:
        name, sign, value = word.partition(":=")
        if not sign or not name:
            raise InputError(f"bringup_arguments '{text}': expected name:=value, found '{word}'")
        pairs[name] = value
    return pairs


def check_inputs(arguments: Arguments) -> None:
    """Raise InputError, in one line, where the nodes would refuse the robot's file or the model's config.json."""
    from jepa_ros.nodes.common.topics import command_class
    from jepa_ros.robot.files.open_marks import require_finished
    from jepa_ros.world_model.config import read_config

    robot = load_robot(robot_of(arguments), getattr(arguments, "command_interface", ""))
    read_config(resolve_model(arguments.model))
    if type(arguments) is not Arguments:  # all bring-ups but `record` have a gate
        require_finished(robot_of(arguments))
    if isinstance(arguments, RobotArguments):
        for controller in robot.controllers:
            command_class(controller)
        vendor_of(arguments)
    if isinstance(arguments, ReplayArguments) and not (arguments.bag and Path(arguments.bag).exists()):
        raise InputError(f"bag '{arguments.bag}': expected a rosbag2 directory or file, found nothing there")


def check_model_fits(kind: str, arguments: Arguments) -> None:
    """Raise InputError, in one line, where the model does not fit the robot, so that a node would refuse them."""
    from jepa_ros.world_model.config import read_config
    from jepa_ros.world_model.fit import check_fit

    if kind not in ("robot", "sim", "gazebo"):  # a recording has its own control period
        return
    params_file = Path(arguments.params_file) if arguments.params_file is not None else config_path(f"{kind}.yaml")
    config, robot = read_config(resolve_model(arguments.model)), load_robot(robot_of(arguments))
    check_fit(config, robot, _control_period(params_file, _namespace(arguments.namespace)))


def _control_period(params_file: Path, namespace: str) -> float:
    """Return the control period in s that a parameters file gives arm_gate, or the gate's default."""
    from jepa_ros.robot.gate.types import GateSettings

    period = GateSettings().control_period
    for key, section in read_yaml(params_file, "parameters file").items():
        if key in ("/**", "/**/arm_gate", f"{namespace}/arm_gate"):
            given = (section["ros__parameters"] or {}).get("control_period", period)
            period = given if isinstance(given, (int, float)) else period  # a wrong type is the gate's to refuse
    return float(period)


def check_params_file(path: Path) -> None:
    """Raise InputError, in one line, where nodes would refuse or silently ignore a ROS parameters file.

    Keys must be absolute (``/**``, ``/name`` or ``/**/name``): a bare ``name`` would override later arguments. The
    bring-up's arguments may not be set for a single node: that would override them, too.
    """
    content = read_yaml(path, "parameters file")
    if not isinstance(content, Mapping):
        raise InputError(f"parameters file {path}: expected node names as keys, found {type(content).__name__}")
    for key, section in content.items():
        problem = _find_problem(str(key), section)
        if problem:
            raise InputError(f"parameters file {path}: {problem}")


def _find_problem(key: str, section: Any) -> str | None:
    """Return what is wrong with one node's section of a parameters file."""
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
        return f"{key}: {min(taken)} is an argument of the bring-up: set it under '/**' or by that argument"
    return None


def _namespace(namespace: str, what: str = "namespace") -> str:
    check_ros_name(what, namespace)
    stripped = namespace.strip("/")
    return f"/{stripped}" if stripped else ""
