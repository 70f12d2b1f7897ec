"""The bring-up "gazebo" in launch's own words, for launch/gazebo.launch.py: what `gazebo` lists, and our nodes."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from ament_index_python.packages import get_package_prefix
from launch import LaunchDescription
from launch.actions import (
    EmitEvent,
    IncludeLaunchDescription,
    LogInfo,
    OpaqueFunction,
    RegisterEventHandler,
    SetEnvironmentVariable,
)
from launch.event_handlers import OnProcessExit
from launch.events import Shutdown
from launch.launch_description_sources import PythonLaunchDescriptionSource
from launch.substitutions import EnvironmentVariable, PathJoinSubstitution
from launch_ros.actions import Node
from launch_ros.parameter_descriptions import ParameterValue
from launch_ros.substitutions import FindPackageShare

from jepa_ros.bringup import gazebo
from jepa_ros.bringup import launch_description as launching
from jepa_ros.bringup import nodes as bringup

RANGE = "ROS_AUTOMATIC_DISCOVERY_RANGE"
_KEPT = []  # folders that are needed as long as this process runs, and go with it


def description() -> LaunchDescription:
    """Gazebo with the cell and the robot in it, and all nodes on its time.

    Unless the shell says otherwise the graph stays on this machine: a real arm next door has topics of the same names.
    """
    default = EnvironmentVariable(RANGE, default_value="LOCALHOST")
    rest = launching.description("gazebo", OpaqueFunction(function=_gazebo))
    return LaunchDescription([SetEnvironmentVariable(RANGE, default), *rest.entities])


def _gazebo(context) -> list:
    """The rest, once the arguments are known: world and robot are made from the MuJoCo scene here and now."""
    arguments = launching.given(context, "gazebo")
    _KEPT.append(tempfile.TemporaryDirectory(prefix="jepa_ros_gazebo_"))
    cell = gazebo.make_cell(arguments.robot, arguments.namespace, Path(_KEPT[-1].name))
    wanted = gazebo.processes(arguments, cell)
    gazebo.check_packages(wanted.packages, get_package_prefix, os.environ.get("ROS_DISTRO") or "jazzy")
    ending = [] if arguments.respawn else _end("a part of the simulation ended")
    running = [_node(program, arguments, respawn=arguments.respawn, on_exit=ending) for program in wanted.running]
    spawning, starting = (_node(program, arguments) for program in (wanted.spawning, wanted.starting))
    launched = PathJoinSubstitution([FindPackageShare("ros_gz_sim"), "launch", "gz_sim.launch.py"])
    return [
        IncludeLaunchDescription(PythonLaunchDescriptionSource([launched]), launch_arguments=wanted.gz.items()),
        *running,
        _after(spawning, [starting], "the robot could not be put into the world"),
        _after(starting, [], "the controllers could not be started"),
        spawning,
    ]


def _node(program: gazebo.Program, arguments: bringup.GazeboArguments, **options) -> Node:
    # ParameterValue: launch would take the XML of a description for YAML otherwise.
    kinds = {key: ParameterValue(value, value_type=type(value)) for key, value in program.parameters.items()}
    return Node(
        package=program.package,
        executable=program.executable,
        name=program.name,
        exec_name=program.name,
        namespace=arguments.namespace,
        arguments=list(program.arguments),
        parameters=[kinds] if kinds else None,
        remappings=list(program.remappings),
        output="screen",
        **options,
    )


def _after(node: Node, actions: list, failure: str) -> RegisterEventHandler:
    """Do this once a process has ended well; end all where it has not."""

    def ended(event, context):
        return actions if event.returncode == 0 else _end(failure)

    return RegisterEventHandler(OnProcessExit(target_action=node, on_exit=ended))


def _end(reason: str) -> list:
    """Launch itself keeps the reason of a shutdown to itself."""
    return [LogInfo(msg=f"{reason}: all is ended"), EmitEvent(event=Shutdown(reason=reason))]
