"""The simulated cell in Gazebo and all nodes that control it: ros2 launch jepa_ros gazebo.launch.py headless:=true ...

docs/how_to/gazebo.md says what it needs, and what of it has been tried.
"""

from jepa_ros.bringup.gazebo_launch_description import description


def generate_launch_description():
    """The bring-up `gazebo` of jepa_ros.bringup.nodes, and Gazebo itself."""
    return description()
