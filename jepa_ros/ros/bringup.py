"""Which nodes a bring-up consists of, and with what they start.

``jepa_ros up`` and ``jepa_ros demo`` start what is listed here. The launch files say the same in launch's own words; a
test holds the two together.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from jepa_ros.errors import InputError
from jepa_ros.resources import config_path, resolve_model, resolve_robot

PACKAGE = "jepa_ros"
LOG_LEVELS = ("debug", "info", "warn", "error", "fatal")
RESPAWN_DELAY = 2.0  # s
# Added to the niceness of all nodes but arm_gate: on a busy machine the gate's 200 Hz come first.
NICE = 5

# In the order in which they are started; nothing depends on it, but the log reads better.
NODES: Mapping[str, tuple[str, ...]] = {
    "sim": ("simulator", "camera", "world_model", "planner", "arm_gate"),
    "robot": ("camera", "world_model", "planner", "arm_gate"),
}
# Arguments of the bring-up that a node takes as parameters of the same name.
NODE_PARAMETERS: Mapping[str, tuple[str, ...]] = {
    "simulator": ("robot",),
    "camera": ("model",),
    "world_model": ("robot", "model"),
    "planner": ("robot", "model"),
    "arm_gate": ("robot",),
}
_ARGUMENT_PARAMETERS = {"robot", "model", "use_sim_time"}
# Nodes that follow the argument camera_topic with their topic `image`.
CAMERA_NODES = ("simulator", "camera")


@dataclass(frozen=True)
class Arguments:
    """The arguments of a bring-up; the same names and defaults as the launch files declare.

    params_file: None for config/<kind>.yaml. namespace: "" or a namespace with or without its leading slash.
    """

    robot: str = "openarm"
    model: str = "openarm_reach"
    camera_topic: str = "image"
    params_file: str | os.PathLike | None = None
    namespace: str = ""
    use_sim_time: bool = False
    respawn: bool = False
    log_level: str = "info"


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
    """The nodes of the bring-up ``kind`` ("sim" or "robot").

    Raises InputError for an unknown kind, robot, model or log level, a camera topic or namespace that is no ROS name,
    and a parameters file that is missing or malformed.
    """
    arguments = arguments or Arguments()
    if kind not in NODES:
        raise InputError(f"bring-up '{kind}': expected one of {', '.join(NODES)}")
    if arguments.log_level not in LOG_LEVELS:
        raise InputError(f"log level '{arguments.log_level}': expected one of {', '.join(LOG_LEVELS)}")
    resolve_robot(arguments.robot)
    resolve_model(arguments.model)
    params_file = Path(arguments.params_file) if arguments.params_file is not None else config_path(f"{kind}.yaml")
    check_params_file(params_file)
    namespace = _namespace(arguments.namespace)
    camera_topic = _topic(arguments.camera_topic)
    specs = []
    for name in NODES[kind]:
        parameters = {key: getattr(arguments, key) for key in NODE_PARAMETERS[name]}
        specs.append(
            NodeSpec(
                executable=name,
                name=name,
                namespace=namespace,
                params_file=params_file,
                parameters={**parameters, "use_sim_time": arguments.use_sim_time},
                remappings=(("image", camera_topic),) if name in CAMERA_NODES else (),
                log_level=arguments.log_level,
                nice=0 if name == "arm_gate" else NICE,
            )
        )
    return specs


def check_inputs(arguments: Arguments) -> None:
    """Raise InputError, in one line, where the nodes would refuse the robot's file or the model's config.json."""
    from jepa_ros.robot.config import load_robot
    from jepa_ros.world_model.config import read_config

    load_robot(arguments.robot)
    read_config(resolve_model(arguments.model))


def check_params_file(path: Path) -> None:
    """Raise InputError, in one line, where nodes would refuse a ROS parameters file or silently not hear it.

    Keys must be absolute (``/**``, ``/name`` or ``/**/name``): a bare ``name`` would win over later arguments. What the
    bring-up's arguments set may not be set for one node alone: that would win over them, too.
    """
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "something that is not text"
        raise InputError(f"parameters file {path}: expected a readable YAML file, found: {reason}") from None
    except yaml.YAMLError as error:
        raise InputError(f"parameters file {path}: expected YAML, found {str(error)}") from None
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
    taken = _ARGUMENT_PARAMETERS & set(values)
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


def _namespace(namespace: str) -> str:
    stripped = namespace.strip("/")
    if not stripped:
        return ""
    _check_tokens("namespace", namespace, stripped)
    return f"/{stripped}"


def _topic(topic: str) -> str:
    _check_tokens("camera topic", topic, topic.removeprefix("/").removeprefix("~/"))
    return topic


def _check_tokens(what: str, given: str, name: str) -> None:
    for token in name.split("/"):
        if not (token.isascii() and token.isidentifier()):
            raise InputError(f"{what} '{given}': expected a ROS name of letters, digits, _ and /, found '{token}'")
