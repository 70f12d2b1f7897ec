"""Robots' files: robot new, robot check."""

from pathlib import Path
from typing import Annotated

import typer

from jepa_ros.commands.base import call, command, group

robots = group("robot", help="Draft and check a robot's file.")


@command(robots, "new")
def robot_new(
    urdf: Annotated[Path, typer.Option(help="The robot's description, expanded from xacro.")],
    name: Annotated[str | None, typer.Option(help="What to call it; default: the URDF's name.")] = None,
    out: Annotated[Path | None, typer.Option(help="File to write; default: NAME.yaml.")] = None,
    base: Annotated[str | None, typer.Option(help="Link that poses are in; default: the URDF's root.")] = None,
    tool: Annotated[
        str | None, typer.Option(help="Link that is the tool; default: the end of the longest chain of joints.")
    ] = None,
) -> int | None:
    """Draft a robot's file from its URDF; what it cannot know is marked with TODO."""
    return call("jepa_ros.robot.files.draft:run_robot_new", **locals())


@command(robots, "check")
def robot_check(
    robot: Annotated[str, typer.Argument(help="Name in config/robots, or a file.")],
    urdf: Annotated[Path | None, typer.Option(help="The robot's description: names, limits and reach too.")] = None,
) -> int | None:
    """Say what is wrong with a robot's file, a line each: exit code 0 for nothing, 1, or 2 where it cannot be read."""
    return call("jepa_ros.robot.files.check:run_robot_check", **locals())
