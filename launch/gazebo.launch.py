"""The simulated cell in Gazebo and all nodes that control it: ros2 launch jepa_ros gazebo.launch.py headless:=true ...

Requirements, and what has been tested: docs/how_to/gazebo.md.
"""

from jepa_ros.bringup.launch_description import description


def generate_launch_description():
    """The bring-up `gazebo` of jepa_ros.bringup.nodes, and Gazebo itself."""
    return description("gazebo")
