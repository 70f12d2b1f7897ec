"""The nodes that control a real arm: ros2 launch jepa_ros robot.launch.py camera_topic:=/camera/color/image_raw ...

The robot's own bring-up gives joint_states, robot_description, tf and the controllers.
"""

from launch import LaunchDescription
from launch.actions import DeclareLaunchArgument as argument
from launch.actions import EmitEvent, OpaqueFunction, RegisterEventHandler, SetEnvironmentVariable
from launch.conditions import IfCondition, UnlessCondition
from launch.event_handlers import OnProcessExit
from launch.events import Shutdown
from launch.substitutions import (
    EnvironmentVariable,
    EqualsSubstitution,
    IfElseSubstitution,
    LaunchConfiguration,
    PathJoinSubstitution,
)
from launch_ros.actions import Node
from launch_ros.parameter_descriptions import ParameterValue
from launch_ros.substitutions import FindPackageShare

from jepa_ros.ros.bringup import Arguments, check_inputs, node_list


def default_environment(name, value, condition=None) -> SetEnvironmentVariable:
    """Set for the nodes, unless the user has set it."""
    return SetEnvironmentVariable(name, EnvironmentVariable(name, default_value=value), condition=condition)


def refuse_what_does_not_fit(context) -> None:
    """Raise InputError, in one line, before any node starts."""
    names = ("robot", "model", "camera_topic", "params_file", "namespace", "log_level")
    arguments = Arguments(**{name: LaunchConfiguration(name).perform(context) for name in names})
    node_list("robot", arguments)
    check_inputs(arguments)


def generate_launch_description() -> LaunchDescription:
    share = FindPackageShare("jepa_ros")
    default_params = PathJoinSubstitution([share, "config", "robot.yaml"])
    is_local = EqualsSubstitution(EnvironmentVariable("ROS_AUTOMATIC_DISCOVERY_RANGE", default_value=""), "LOCALHOST")
    fastdds_file = IfElseSubstitution(is_local, "fastdds_localhost.xml", "fastdds.xml")
    fastdds_profile = PathJoinSubstitution([share, "config", fastdds_file])
    no_own_transport = EqualsSubstitution(EnvironmentVariable("FASTDDS_BUILTIN_TRANSPORTS", default_value=""), "")
    params_file = LaunchConfiguration("params_file")
    robot = ParameterValue(LaunchConfiguration("robot"), value_type=str)
    model = ParameterValue(LaunchConfiguration("model"), value_type=str)
    camera_topic = LaunchConfiguration("camera_topic")
    use_sim_time = ParameterValue(LaunchConfiguration("use_sim_time"), value_type=bool)
    respawn = LaunchConfiguration("respawn")
    common = {
        "package": "jepa_ros",
        "namespace": LaunchConfiguration("namespace"),
        "output": "screen",
        "respawn": respawn,
        "respawn_delay": 2.0,
        "ros_arguments": ["--log-level", LaunchConfiguration("log_level")],
    }
    # On a busy machine the gate's 200 Hz come first.
    others = {**common, "prefix": "nice -n 5"}

    return LaunchDescription(
        [
            argument("robot", default_value="openarm", description="name in config/robots, or a file"),
            argument("model", default_value="openarm_reach", description="name in config/models, or a directory"),
            argument("camera_topic", default_value="image", description="topic of the camera, raw or compressed"),
            argument("params_file", default_value=default_params, description="ROS parameters of all nodes"),
            argument("namespace", default_value="", description="namespace of all nodes and topics"),
            argument("use_sim_time", default_value="false", description="follow /clock"),
            argument("respawn", default_value="false", description="start a node again when it ends"),
            argument("log_level", default_value="info", description="debug, info, warn, error or fatal"),
            OpaqueFunction(function=refuse_what_does_not_fit),
            # They let big images through and keep a node to one core.
            default_environment("FASTRTPS_DEFAULT_PROFILES_FILE", fastdds_profile, IfCondition(no_own_transport)),
            default_environment("FASTDDS_DEFAULT_PROFILES_FILE", fastdds_profile, IfCondition(no_own_transport)),
            default_environment("OMP_NUM_THREADS", "1"),
            Node(
                executable="camera",
                name="camera",
                exec_name="camera",
                parameters=[params_file, {"model": model, "use_sim_time": use_sim_time}],
                remappings=[("image", camera_topic)],
                **others,
            ),
            Node(
                executable="world_model",
                name="world_model",
                exec_name="world_model",
                parameters=[params_file, {"robot": robot, "model": model, "use_sim_time": use_sim_time}],
                **others,
            ),
            Node(
                executable="planner",
                name="planner",
                exec_name="planner",
                parameters=[params_file, {"robot": robot, "model": model, "use_sim_time": use_sim_time}],
                **others,
            ),
            Node(
                executable="arm_gate",
                name="arm_gate",
                exec_name="arm_gate",
                parameters=[params_file, {"robot": robot, "use_sim_time": use_sim_time}],
                **common,
            ),
            RegisterEventHandler(
                OnProcessExit(on_exit=[EmitEvent(event=Shutdown(reason="a node ended"))]),
                condition=UnlessCondition(respawn),
            ),
        ]
    )
