"""Launch descriptions of the bring-ups, for the launch files: what nodes.py and gazebo.py list, as launch actions."""

from __future__ import annotations

import os
import tempfile
from dataclasses import fields
from pathlib import Path

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
from launch.event_handlers import OnProcessExit
from launch.events import Shutdown
from launch.launch_description_sources import AnyLaunchDescriptionSource, PythonLaunchDescriptionSource
from launch.substitutions import LaunchConfiguration, PathJoinSubstitution
from launch_ros.actions import Node
from launch_ros.parameter_descriptions import ParameterValue
from launch_ros.substitutions import FindPackageShare

from jepa_ros.bringup import gazebo
from jepa_ros.bringup import nodes as bringup
from jepa_ros.bringup.environment import process_environment
from jepa_ros.errors import InputError
from jepa_ros.resources import config_path

_KEPT = []  # temporary directories that exist as long as this process


def description(kind: str) -> LaunchDescription:
    """Return the bring-up `kind`; its arguments are declared, and checked before anything starts."""
    others = {"robot": _include_vendor, "gazebo": _start_gazebo}
    return LaunchDescription(
        [
            *_declare_arguments(kind),
            OpaqueFunction(function=_prepare, args=[kind]),
            *([OpaqueFunction(function=others[kind])] if kind in others else ()),
            OpaqueFunction(function=_start_nodes, args=[kind]),
        ]
    )


def _declare_arguments(kind: str) -> list[DeclareLaunchArgument]:
    declared = []
    for argument in fields(bringup.ARGUMENTS[kind]):
        default = argument.default
        if argument.name == "params_file":
            default = str(config_path(f"{kind}.yaml"))
        elif not isinstance(default, str):
            default = str(default).lower()
        choices = {"choices": list(argument.metadata["choices"])} if argument.metadata["choices"] else {}
        text = argument.metadata["text"]
        declared.append(DeclareLaunchArgument(argument.name, default_value=default, description=text, **choices))
    return declared


def _read_arguments(context, kind: str) -> bringup.Arguments:
    values = {}
    for argument in fields(bringup.ARGUMENTS[kind]):
        text = LaunchConfiguration(argument.name).perform(context)
        if isinstance(argument.default, bool):
            values[argument.name] = text.lower() in ("true", "1")
        elif isinstance(argument.default, float):
            try:
                values[argument.name] = float(text)
            except ValueError:
                raise InputError(f"{argument.name}: expected a number, found '{text}'") from None
        else:
            values[argument.name] = text
    return bringup.ARGUMENTS[kind](**values)


def _prepare(context, kind: str) -> list[SetEnvironmentVariable]:
    """Check the arguments and set the environment. Raises InputError, in one line, before anything starts.

    Unless the user's shell says otherwise, Gazebo's graph stays on this machine: topics of a real arm have the same
    names.
    """
    arguments = _read_arguments(context, kind)
    bringup.node_list(kind, arguments)
    bringup.check_inputs(arguments)
    bringup.check_model_fits(kind, arguments)
    present = dict(context.environment)
    if kind == "gazebo":
        present = {"ROS_AUTOMATIC_DISCOVERY_RANGE": "LOCALHOST"} | present
    wanted = process_environment(present, isolate=False)
    return [SetEnvironmentVariable(k, v) for k, v in wanted.items() if context.environment.get(k) != v]


def _start_nodes(context, kind: str) -> list:
    arguments = _read_arguments(context, kind)
    specs = bringup.node_list(kind, arguments)
    own = {spec.name for spec in specs}

    def end_all(event, context):
        """End everything when one of our nodes ends; other processes may come and go."""
        ours = event.process_name.rpartition("-")[0] in own  # launch numbers the processes
        return [EmitEvent(event=Shutdown(reason="a node ended"))] if ours else None

    nodes = [
        _node(
            bringup.PACKAGE,
            spec.name,
            spec,
            spec.namespace,
            [str(spec.params_file)],
            respawn=arguments.respawn,
            respawn_delay=bringup.RESPAWN_DELAY,
            ros_arguments=["--log-level", spec.log_level],
            prefix=f"nice -n {spec.nice}" if spec.nice else None,
        )
        for spec in specs
    ]
    return nodes + [RegisterEventHandler(OnProcessExit(on_exit=end_all))] * (not arguments.respawn)


def _node(package: str, executable: str, program, namespace: str, params_files=(), **options) -> Node:
    """Return the action that starts a NodeSpec or a gazebo.Program."""
    # Without ParameterValue launch would parse strings, such as a robot's description, as YAML.
    values = {key: ParameterValue(value, value_type=type(value)) for key, value in program.parameters.items()}
    return Node(
        package=package,
        executable=executable,
        name=program.name,
        exec_name=program.name,
        namespace=namespace,
        parameters=[*params_files, *([values] if values else ())],
        remappings=list(program.remappings),
        output="screen",
        **options,
    )


def _include_vendor(context) -> list[GroupAction]:
    vendor = bringup.vendor_of(_read_arguments(context, "robot"))
    if vendor is None:
        return []
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

    def make_node(program: gazebo.Program, **options) -> Node:
        options["arguments"] = list(program.arguments)
        return _node(program.package, program.executable, program, arguments.namespace, **options)

    on_exit = [] if arguments.respawn else _end("a part of the simulation ended")
    running = [make_node(program, respawn=arguments.respawn, on_exit=on_exit) for program in programs.running]
    spawning, starting = make_node(programs.spawning), make_node(programs.starting)
    file = PathJoinSubstitution([FindPackageShare("ros_gz_sim"), "launch", "gz_sim.launch.py"])
    return [
        IncludeLaunchDescription(PythonLaunchDescriptionSource([file]), launch_arguments=programs.gz.items()),
        *running,
        _after(spawning, [starting], "the robot could not be spawned in the world"),
        _after(starting, [], "the controllers could not be started"),
        spawning,
    ]


def _after(node: Node, actions: list, failure: str) -> RegisterEventHandler:
    """Run actions when a process has ended with code 0; on another code end everything."""

    def on_exit(event, context):
        return actions if event.returncode == 0 else _end(failure)

    return RegisterEventHandler(OnProcessExit(target_action=node, on_exit=on_exit))


def _end(reason: str) -> list:
    """Return actions that log a reason, which launch does not, and end everything."""
    return [LogInfo(msg=f"{reason}: ending everything"), EmitEvent(event=Shutdown(reason=reason))]
