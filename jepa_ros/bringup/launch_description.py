"""The bring-ups in launch's own words, for the launch files: the nodes, arguments and defaults that `bringup` lists."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

from launch import LaunchDescription
from launch.actions import (
    DeclareLaunchArgument,
    EmitEvent,
    GroupAction,
    IncludeLaunchDescription,
    OpaqueFunction,
    RegisterEventHandler,
    SetEnvironmentVariable,
)
from launch.conditions import IfCondition, UnlessCondition
from launch.event_handlers import OnProcessExit
from launch.events import Shutdown
from launch.launch_description_sources import AnyLaunchDescriptionSource
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

from jepa_ros.bringup import nodes as bringup
from jepa_ros.bringup.environment import GIVE_BACK, ONE_THREAD


def description(kind: str, *others) -> LaunchDescription:
    """The bring-up `kind`, with its arguments declared and looked at before any node starts.

    others: actions that come before the nodes'.
    """
    own = (*bringup.NODES[kind], "recorder")

    def end_all(event, context):
        """The end of one of our nodes is the end of all; what is started besides may come and go."""
        ours = event.process_name.rpartition("-")[0] in own  # launch numbers the processes
        return [EmitEvent(event=Shutdown(reason="a node ended"))] if ours else None

    return LaunchDescription(
        [
            *_arguments(kind),
            OpaqueFunction(function=_refuse_what_does_not_fit, args=[kind]),
            *(_vendor() if kind == "robot" else ()),
            *_environment(),
            *others,
            *(_node(kind, name) for name in own),
            RegisterEventHandler(
                OnProcessExit(on_exit=end_all), condition=UnlessCondition(LaunchConfiguration("respawn"))
            ),
        ]
    )


def _vendor() -> list[OpaqueFunction]:
    """The vendor's bring-up with bringup:=true; which file that is stands in the robot's YAML."""
    return [OpaqueFunction(function=_include_vendor, condition=IfCondition(LaunchConfiguration("bringup")))]


def _include_vendor(context) -> list[GroupAction]:
    vendor = bringup.vendor_of(given(context, "robot"))
    file = PathJoinSubstitution([FindPackageShare(vendor.package), *vendor.file.split("/")])
    included = IncludeLaunchDescription(AnyLaunchDescriptionSource(file), launch_arguments=vendor.arguments.items())
    # On its own: arguments of the same name (namespace, robot, ...) mean other things there.
    return [GroupAction([included], scoped=True, forwarding=False)]


def _arguments(kind: str) -> list[DeclareLaunchArgument]:
    made = []
    for argument in fields(bringup.ARGUMENTS[kind]):
        default: Any = argument.default
        if argument.name == "params_file":
            default = PathJoinSubstitution([FindPackageShare(bringup.PACKAGE), "config", f"{kind}.yaml"])
        elif not isinstance(default, str):
            default = str(default).lower()
        choices = {"choices": list(argument.metadata["choices"])} if argument.metadata["choices"] else {}
        text = argument.metadata["text"]
        made.append(DeclareLaunchArgument(argument.name, default_value=default, description=text, **choices))
    return made


def _refuse_what_does_not_fit(context, kind: str) -> None:
    """Raise InputError, in one line, before any node starts."""
    arguments = given(context, kind)
    bringup.node_list(kind, arguments)
    bringup.check_inputs(arguments)


def given(context, kind: str) -> bringup.Arguments:
    """The arguments as they were given; numbers are the nodes' to look at."""
    kept = bringup.ARGUMENTS[kind]
    values = {}
    for argument in fields(kept):
        text = LaunchConfiguration(argument.name).perform(context)
        if isinstance(argument.default, bool):
            values[argument.name] = text.lower() in ("true", "1")
        elif isinstance(argument.default, str) or argument.name == "params_file":
            values[argument.name] = text
    return kept(**values)


def _environment() -> list[SetEnvironmentVariable]:
    """What lets big images through and keeps a node to one core, unless the user has set it."""
    is_local = EqualsSubstitution(EnvironmentVariable("ROS_AUTOMATIC_DISCOVERY_RANGE", default_value=""), "LOCALHOST")
    file = IfElseSubstitution(is_local, "fastdds_localhost.xml", "fastdds.xml")
    profile = PathJoinSubstitution([FindPackageShare(bringup.PACKAGE), "config", file])
    free = IfCondition(EqualsSubstitution(EnvironmentVariable("FASTDDS_BUILTIN_TRANSPORTS", default_value=""), ""))

    def default(name: str, value, condition=None) -> SetEnvironmentVariable:
        return SetEnvironmentVariable(name, EnvironmentVariable(name, default_value=value), condition=condition)

    return [
        default("FASTRTPS_DEFAULT_PROFILES_FILE", profile, free),
        default("FASTDDS_DEFAULT_PROFILES_FILE", profile, free),
        *(default(name, value) for name, value in (*ONE_THREAD.items(), *GIVE_BACK.items())),
    ]


def _node(kind: str, name: str) -> Node:
    kinds = {a.name: type(a.default) for a in fields(bringup.ARGUMENTS[kind])}
    taken = {**{key: key for key in bringup.parameters_of(kind, name)}, "use_sim_time": "use_sim_time"}
    options: dict[str, Any] = {}
    if name == "recorder":
        taken["out"] = "record"
        options["condition"] = IfCondition(NotEqualsSubstitution(LaunchConfiguration("record"), ""))
    if name != "arm_gate":  # on a busy machine the gate's 200 Hz come first
        options["prefix"] = f"nice -n {bringup.NICE}"
    given = {key: ParameterValue(LaunchConfiguration(a), value_type=kinds[a]) for key, a in taken.items()}
    if kind == "robot" and "robot" in given:
        left = EqualsSubstitution(LaunchConfiguration("arm"), "left")
        other_arm = IfElseSubstitution(left, bringup.OTHER_ARM, "")
        given["robot"] = ParameterValue([LaunchConfiguration("robot"), other_arm], value_type=str)
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
