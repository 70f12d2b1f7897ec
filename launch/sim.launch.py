"""The simulated cell and all nodes that control it: ros2 launch jepa_ros sim.launch.py [model:=NAME] ..."""

from jepa_ros.bringup.launch_description import description


def generate_launch_description():
    """The bring-up `sim` of jepa_ros.bringup.nodes."""
    return description("sim")
