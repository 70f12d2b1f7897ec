"""The nodes that control a real arm: ros2 launch jepa_ros robot.launch.py camera_topic:=/camera/color/image_raw ...

The robot's own bring-up must provide joint_states, robot_description, tf and the controllers.
"""

from jepa_ros.bringup.launch_description import description


def generate_launch_description():
    """The bring-up `robot` of jepa_ros.bringup.nodes."""
    return description("robot")
