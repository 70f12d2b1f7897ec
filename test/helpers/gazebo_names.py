"""Names that Gazebo's and ros2_control's packages give their programs, arguments, parameters and keys.

Copied by hand from the sources that jepa_ros/bringup/gazebo.py and config/gazebo/*.yaml name.
"""

# (package, executable) → arguments and parameters, as the sources named in jepa_ros/bringup/gazebo.py have them.
PUBLISHED = {
    ("robot_state_publisher", "robot_state_publisher"): (
        set(),
        {"robot_description", "publish_frequency", "ignore_timestamp", "frame_prefix", "use_sim_time"},
    ),
    ("tf2_ros", "static_transform_publisher"): (
        {"--x", "--y", "--z", "--qx", "--qy", "--qz", "--qw", "--roll", "--pitch", "--yaw"}
        | {"--frame-id", "--child-frame-id"},
        set(),
    ),
    ("ros_gz_bridge", "parameter_bridge"): (
        set(),
        {"config_file", "expand_gz_topic_names", "override_timestamps_with_wall_time", "subscription_heartbeat"}
        | {"use_sim_time"},
    ),
    ("ros_gz_sim", "create"): (
        {"-world", "-file", "-param", "-string", "-topic", "-name", "-allow_renaming"}
        | {"-x", "-y", "-z", "-R", "-P", "-Y"},
        set(),
    ),
    ("controller_manager", "spawner"): (
        {"-c", "--controller-manager", "-p", "--param-file", "--inactive", "--controller-manager-timeout"}
        | {"--activate-as-group", "--service-call-timeout", "--switch-timeout", "--unload-on-kill", "--load-only"},
        set(),
    ),
}
GZ_LAUNCH_ARGUMENTS = {"gz_args", "gz_version", "ign_args", "ign_version", "debugger", "on_exit_shutdown"}
GZ_OPTIONS = {"-r", "-s", "-g", "-v", "--headless-rendering", "--physics-engine", "--render-engine"}
BRIDGE_KEYS = {
    "topic_name",
    "ros_topic_name",
    "gz_topic_name",
    "ros_type_name",
    "gz_type_name",
    "direction",
    "lazy",
} | {
    "publisher_queue",
    "subscriber_queue",
}
BRIDGE_TYPES = {
    ("rosgraph_msgs/msg/Clock", "gz.msgs.Clock"),
    ("sensor_msgs/msg/Image", "gz.msgs.Image"),
    ("sensor_msgs/msg/CameraInfo", "gz.msgs.CameraInfo"),
}
CONTROLLER_KEYS = {
    "controller_manager": {"update_rate", "enforce_command_limits", "hardware_components_initial_state"},
    "joint_state_broadcaster": {"update_rate", "use_local_topics", "joints", "interfaces", "extra_joints", "frame_id"},
    "right_joint_trajectory_controller": {
        *("joints", "command_interfaces", "state_interfaces", "allow_partial_joints_goal", "constraints"),
        *("interpolate_from_desired_state", "allow_nonzero_velocity_at_trajectory_end", "action_monitor_rate"),
    },
}
CONSTRAINTS = {"stopped_velocity_tolerance", "goal_time", "trajectory", "goal"}
