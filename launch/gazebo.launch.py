"""The simulated cell in Gazebo and all nodes that control it: ros2 launch jepa_ros gazebo.launch.py headless:=true ...

docs/gazebo.md says what it needs, and what of it has been tried.
"""

from jepa_ros.ros.gazebo_launching import description


def generate_launch_description():
    """The bring-up `gazebo` of jepa_ros.ros.bringup, and Gazebo itself."""
    return description()
