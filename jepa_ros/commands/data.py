"""Training data: data build, inspect, export, import."""

from pathlib import Path
from typing import Annotated

import typer

from jepa_ros.commands.base import Robot, call, command, group

data = group("data", help="Turn bags into training data, and training data into other formats.")

DatasetOut = Annotated[Path, typer.Option(help="Directory of the dataset: new, or gone on with.")]


@command(data, "build")
def data_build(
    bags: Annotated[list[Path], typer.Argument(help="rosbag2 directories, or single .mcap or .db3 files.")],
    out: DatasetOut,
    mapping: Annotated[
        Path | None,
        typer.Option(help="YAML of topics, joints and actions; default: those that this stack records."),
    ] = None,
    robot: Robot = "openarm",
    camera: Annotated[
        list[str], typer.Option(help="Image topic, without --mapping; given again for each further view.")
    ] = (),
    objects: Annotated[
        list[str], typer.Option("--object", help="NAME=TOPIC of an object's positions, without --mapping.")
    ] = (),
    rate: Annotated[float, typer.Option(help="Control ticks a second, Hz.")] = 10.0,
    size: Annotated[int, typer.Option(min=8, max=1024, help="Side of the model's frames, pixels.")] = 64,
    thin_still: Annotated[
        bool, typer.Option("--thin-still", help="Leave out the middle of stretches where the arm stands still.")
    ] = False,
    min_ticks: Annotated[int, typer.Option(min=1, help="Shorter episodes are left out.")] = 1,
    workers: Annotated[int, typer.Option(min=1, max=256, help="Threads that decode pictures.")] = 2,
) -> int | None:
    """Make episodes at a model's rate from bags, cached for training; goes on where it was interrupted."""
    return call("jepa_ros.datasets.build:build_dataset", **locals())


@command(data, "inspect")
def data_inspect(
    bag: Annotated[Path, typer.Argument(help="rosbag2 directory, or a single .mcap or .db3 file.")],
    write: Annotated[Path | None, typer.Option(help="YAML file for a drafted mapping; must not exist.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="For scripts.")] = False,
) -> int | None:
    """List a bag's topics, rates and gaps, and draft its mapping with a reason for every choice."""
    return call("jepa_ros.datasets.inspection:inspect_bag", **locals())


@command(data, "export")
def data_export(
    dataset: Annotated[Path, typer.Argument(help="Dataset that `jepa_ros data build` made.")],
    out: Annotated[Path, typer.Option(help="Directory to make.")],
    format: Annotated[str, typer.Option(help="lerobot: LeRobot dataset format v3.0.")] = "lerobot",
) -> int | None:
    """Write a dataset in another format, and validate what was written."""
    return call("jepa_ros.datasets.lerobot.export:run", **locals())


@command(data, "import")
def data_import(
    source: Annotated[Path, typer.Argument(help="LeRobot dataset (format v3.0) on this machine.")],
    out: DatasetOut,
    size: Annotated[
        int | None,
        typer.Option(min=8, max=1024, help="Side of the model's frames, pixels; default: as exported, or 64."),
    ] = None,
) -> int | None:
    """Make a dataset of one in another format, once it is validated."""
    return call("jepa_ros.datasets.lerobot.importing:run", **locals())
