"""All nodes on a recording and its time: ros2 launch jepa_ros replay.launch.py bag:=DIRECTORY [rate:=0.5] ...

The gate checks plans in shadow mode: it publishes no commands.
"""

from jepa_ros.bringup.launch_description import description


def generate_launch_description():
    """The bring-up `replay` of jepa_ros.bringup.nodes."""
    return description("replay")
