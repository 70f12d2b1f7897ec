"""The command `jepa_ros`.

Sub-commands import what they need when they are run, so that `--help` is instant and loads no torch, mujoco or rclpy.
Exit codes: 0 done, 1 a threshold not met, 2 bad input (one line on stderr, no traceback), 130 interrupted.
"""

import sys

from jepa_ros.commands import (  # noqa: F401 - each adds its own
    data,
    doctor,
    graph,
    measuring,
    models,
    reliability,
    robot,
    training,
)
from jepa_ros.commands.base import app


def main() -> None:
    """Entry point of the console script."""
    try:
        app(prog_name="jepa_ros")
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    main()
