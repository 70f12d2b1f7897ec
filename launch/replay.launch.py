"""All nodes over a recording, on its time: ros2 launch jepa_ros replay.launch.py bag:=DIRECTORY [rate:=0.5] ...

The gate judges plans in shadow mode: it opens no topic to any controller.
"""

from jepa_ros.bringup.launch_description import description


def generate_launch_description():
    """The bring-up `replay` of jepa_ros.bringup.nodes."""
    return description("replay")
