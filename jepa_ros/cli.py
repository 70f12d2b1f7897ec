"""The command `jepa_ros`.

A command imports what it needs when it runs, so that `--help` is instant and loads no torch, mujoco or rclpy.
Exit codes: 0 done, 1 a threshold not met or a run that failed, 2 bad input (one line on stderr, no traceback), 130
interrupted. Shell completion: `jepa_ros --install-completion`.
"""

from jepa_ros.commands import data, evaluation, graph, models, operating, robots, training  # noqa: F401 - each adds its commands
from jepa_ros.commands.base import app


def main() -> None:
    """Entry point of the console script."""
    app(prog_name="jepa_ros")


if __name__ == "__main__":
    main()
