"""Launch descriptions of the bring-ups, for the launch files: what nodes.py and gazebo.py list, as launch actions."""

from __future__ import annotations

import os
import tempfile
from dataclasses import fields
from pathlib import Path
from typing import Any

from ament_index_python.packages import get_package_prefix
from launch import LaunchDescription
from launch.actions import (
    DeclareLaunchArgument,
    EmitEvent,
    GroupAction,
    IncludeLaunchDescription,
    LogInfo,
    OpaqueFunction,
    RegisterEventHandler,
    SetEnvironmentVariable,
)
from launch.conditions import IfCondition, UnlessCondition
from launch.event_handlers import OnProcessExit
from launch.events import Shutdown
from launch.launch_description_sources import AnyLaunchDescriptionSource, PythonLaunchDescriptionSource
from launch.substitutions import (
    EnvironmentVariable,
    EqualsSubstitution,
    IfElseSubstitution,
    LaunchConfiguration,
    NotEqualsSubstitution,
    PathJoinSubstitution,
)
from launch_ros.actions import Node
from launch_ros.parameter_descriptions import ParameterValue
from launch_ros.substitutions import FindPackageShare

from jepa_ros.bringup import gazebo
from jepa_ros.bringup import nodes as bringup
from jepa_ros.bringup.environment import PROCESS_DEFAULTS

RANGE = "ROS_AUTOMATIC_DISCOVERY_RANGE"
_KEPT = []  # temporary directories that exist as long as this process


def description(kind: str, *others) -> LaunchDescription:
    """Return the bring-up `kind`; its arguments are declared, and checked before any node starts.

    others: actions before those of the nodes.
    """
    own = (*bringup.NODES[kind], "recorder")

    def end_all(event, context):
        """End everything when one of our nodes ends; other processes may come and go."""
        ours = event.process_name.rpartition("-")[0] in own  # launch numbers the processes
        return [EmitEvent(event=Shutdown(reason="a node ended"))] if ours else None

    vendor = OpaqueFunction(function=_include_vendor, condition=IfCondition(LaunchConfiguration("bringup")))
    return LaunchDescription(
        [
            *_declare_arguments(kind),
            OpaqueFunction(function=_check_arguments, args=[kind]),
            *([vendor] if kind == "robot" else ()),
            *_set_environment(),
            *others,
            *(_node(kind, name) for name in own),
            RegisterEventHandler(
                OnProcessExit(on_exit=end_all), condition=UnlessCondition(LaunchConfiguration("respawn"))
            ),
        ]
    )


def gazebo_description() -> LaunchDescription:
    """Return Gazebo with the cell and the robot in it, and all nodes on its time.

    Unless the user's shell says otherwise the graph stays on this machine: topics of a real arm have the same names.
    """
    default = EnvironmentVariable(RANGE, default_value="LOCALHOST")
    rest = description("gazebo", OpaqueFunction(function=_start_gazebo))
    return LaunchDescription([SetEnvironmentVariable(RANGE, default), *rest.entities])


# -- arguments ---------------------------------------------------------------------------------------------------------


def _declare_arguments(kind: str) -> list[DeclareLaunchArgument]:
    declared = []
    for argument in fields(bringup.ARGUMENTS[kind]):
        default: Any = argument.default
        if argument.name == "params_file":
            default = PathJoinSubstitution([FindPackageShare(bringup.PACKAGE), "config", f"{kind}.yaml"])
        elif not isinstance(default, str):
            default = str(default).lower()
        choices = {"choices": list(argument.metadata["choices"])} if argument.metadata["choices"] else {}
        text = argument.metadata["text"]
        declared.append(DeclareLaunchArgument(argument.name, default_value=default, description=text, **choices))
    return declared


def _check_arguments(context, kind: str) -> None:
    """Raise InputError, in one line, before any node starts."""
    arguments = _read_arguments(context, kind)
    bringup.node_list(kind, arguments)
    bringup.check_inputs(arguments)


def _read_arguments(context, kind: str) -> bringup.Arguments:
    """Return the arguments as given, without numbers, which the nodes check."""
    values = {}
    for argument in fields(bringup.ARGUMENTS[kind]):
        text = LaunchConfiguration(argument.name).perform(context)
        if isinstance(argument.default, bool):
            values[argument.name] = text.lower() in ("true", "1")
        elif isinstance(argument.default, str) or argument.name == "params_file":
            values[argument.name] = text
    return bringup.ARGUMENTS[kind](**values)


# -- nodes -------------------------------------------------------------------------------------------------------------


def _set_environment() -> list[SetEnvironmentVariable]:
    """Set what process_environment sets for a graph that is not isolated, unless the user has set it."""
    is_local = EqualsSubstitution(EnvironmentVariable(RANGE, default_value=""), "LOCALHOST")
    file = IfElseSubstitution(is_local, "fastdds_localhost.xml", "fastdds.xml")
    profile = PathJoinSubstitution([FindPackageShare(bringup.PACKAGE), "config", file])
    free = IfCondition(EqualsSubstitution(EnvironmentVariable("FASTDDS_BUILTIN_TRANSPORTS", default_value=""), ""))

    def default(name: str, value, condition=None) -> SetEnvironmentVariable:
        return SetEnvironmentVariable(name, EnvironmentVariable(name, default_value=value), condition=condition)

    return [
        default("FASTRTPS_DEFAULT_PROFILES_FILE", profile, free),
        default("FASTDDS_DEFAULT_PROFILES_FILE", profile, free),
        *(default(name, value) for name, value in PROCESS_DEFAULTS.items()),
    ]


def _node(kind: str, name: str) -> Node:
    types = {a.name: type(a.default) for a in fields(bringup.ARGUMENTS[kind])}
    taken = {**{key: key for key in bringup.parameters_of(kind, name)}, "use_sim_time": "use_sim_time"}
    options: dict[str, Any] = {}
    if name == "recorder":
        taken["out"] = "record"
        options["condition"] = IfCondition(NotEqualsSubstitution(LaunchConfiguration("record"), ""))
    if name != "arm_gate":  # see bringup.NICE
        options["prefix"] = f"nice -n {bringup.NICE}"
    given = {key: ParameterValue(LaunchConfiguration(a), value_type=types[a]) for key, a in taken.items()}
    if kind == "robot" and "robot" in given:
        left = EqualsSubstitution(LaunchConfiguration("arm"), "left")
        suffix = IfElseSubstitution(left, bringup.LEFT_ARM_SUFFIX, "")
        given["robot"] = ParameterValue([LaunchConfiguration("robot"), suffix], value_type=str)
    camera = [("image", LaunchConfiguration("camera_topic"))] if name in bringup.CAMERA_NODES else []
    return Node(
        package=bringup.PACKAGE,
        executable=name,
        name=name,
        exec_name=name,
        namespace=LaunchConfiguration("namespace"),
        parameters=[LaunchConfiguration("params_file"), given | bringup.FIXED_PARAMETERS.get((kind, name), {})],
        remappings=[*camera, *bringup.REMAPPINGS.get((kind, name), ())],
        output="screen",
        respawn=LaunchConfiguration("respawn"),
        respawn_delay=bringup.RESPAWN_DELAY,
        ros_arguments=["--log-level", LaunchConfiguration("log_level")],
        **options,
    )


def _include_vendor(context) -> list[GroupAction]:
    vendor = bringup.vendor_of(_read_arguments(context, "robot"))
    file = PathJoinSubstitution([FindPackageShare(vendor.package), *vendor.file.split("/")])
    included = IncludeLaunchDescription(AnyLaunchDescriptionSource(file), launch_arguments=vendor.arguments.items())
    # In its own scope, since arguments of the same name (namespace, robot, ...) have other meanings there.
    return [GroupAction([included], scoped=True, forwarding=False)]


# -- Gazebo ------------------------------------------------------------------------------------------------------------


def _start_gazebo(context) -> list:
    """Make world and robot from the MuJoCo scene, and start what runs beside our nodes."""
    arguments = _read_arguments(context, "gazebo")
    _KEPT.append(tempfile.TemporaryDirectory(prefix="jepa_ros_gazebo_"))
    cell = gazebo.make_cell(arguments.robot, arguments.namespace, Path(_KEPT[-1].name))
    programs = gazebo.processes(arguments, cell)
    gazebo.check_packages(programs.packages, get_package_prefix, os.environ.get("ROS_DISTRO") or "jazzy")
    on_exit = [] if arguments.respawn else _end("a part of the simulation ended")
    running = [_program(program, arguments, respawn=arguments.respawn, on_exit=on_exit) for program in programs.running]
    spawning, starting = (_program(program, arguments) for program in (programs.spawning, programs.starting))
    file = PathJoinSubstitution([FindPackageShare("ros_gz_sim"), "launch", "gz_sim.launch.py"])
    return [
        IncludeLaunchDescription(PythonLaunchDescriptionSource([file]), launch_arguments=programs.gz.items()),
        *running,
        _after(spawning, [starting], "the robot could not be spawned in the world"),
        _after(starting, [], "the controllers could not be started"),
        spawning,
    ]


def _program(program: gazebo.Program, arguments: bringup.GazeboArguments, **options) -> Node:
    # Without ParameterValue, launch would parse the XML of a description as YAML.
    values = {key: ParameterValue(value, value_type=type(value)) for key, value in program.parameters.items()}
    return Node(
        package=program.package,
        executable=program.executable,
        name=program.name,
        exec_name=program.name,
        namespace=arguments.namespace,
        arguments=list(program.arguments),
        parameters=[values] if values else None,
        remappings=list(program.remappings),
        output="screen",
        **options,
    )


def _after(node: Node, actions: list, failure: str) -> RegisterEventHandler:
    """Run actions when a process has ended with code 0; on another code end everything."""

    def on_exit(event, context):
        return actions if event.returncode == 0 else _end(failure)

    return RegisterEventHandler(OnProcessExit(target_action=node, on_exit=on_exit))


def _end(reason: str) -> list:
    """Return actions that log a reason, which launch does not, and end everything."""
    return [LogInfo(msg=f"{reason}: ending everything"), EmitEvent(event=Shutdown(reason=reason))]
