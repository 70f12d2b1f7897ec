"""Commands about datasets: data build, inspect, export, import."""

from pathlib import Path
from typing import Annotated

import typer

from jepa_ros.bringup.ros_names import check_ros_name
from jepa_ros.commands.base import (
    MAX_WORKERS,
    TRAINING,
    Bag,
    Bags,
    Robot,
    argument,
    call,
    check_directory,
    check_with,
    choice,
    command,
    group,
    number,
    option,
    out_directory,
    out_file,
)
from jepa_ros.commands.training import ObjectTopics

data = group("data", "Convert bags to training data, and training data to other formats.", TRAINING)


@command(data, "build")
def data_build(
    bags: Bags,
    out: Annotated[Path, out_directory("Output dataset directory (created, or resumed).")],
    mapping: Annotated[
        Path | None,
        option(
            "YAML file that maps topics, joints and actions; default: for bags of this stack.",
            check=check_with("jepa_ros.datasets.mapping:read_mapping"),
        ),
    ] = None,
    robot: Robot = "openarm",
    camera: Annotated[
        list[str], option("Image topic, without --mapping; repeat for each further view.", check=check_ros_name)
    ] = (),
    objects: ObjectTopics = (),
    rate: Annotated[float, number("Control rate, Hz.", 0.1, 1000.0)] = 10.0,
    size: Annotated[int, number("Side of the model's images, pixels.", 8, 1024)] = 64,
    thin_still: Annotated[
        bool, typer.Option("--thin-still", help="Drop the middle of periods without motion.")
    ] = False,
    min_ticks: Annotated[int, number("Drop episodes with fewer control ticks.", 1)] = 1,
    workers: Annotated[int, number("Threads that decode images.", 1, MAX_WORKERS)] = 2,
) -> int | None:
    """Build a dataset of episodes at the model's rate from bags; resumes an interrupted run."""
    return call("jepa_ros.datasets.build:build_dataset", **locals())


@command(data, "inspect")
def data_inspect(
    bag: Bag,
    write: Annotated[Path | None, out_file("Write the drafted mapping to this new YAML file.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> int | None:
    """List a bag's topics, rates and gaps, and draft its mapping with a reason for every choice."""
    return call("jepa_ros.datasets.inspection:inspect_bag", **locals())


@command(data, "export")
def data_export(
    dataset: Annotated[Path, argument("Dataset of `jepa_ros data build`.", check=check_directory)],
    out: Annotated[Path, out_directory("Output directory, new or empty.")],
    format: Annotated[str, choice("Format: LeRobot dataset v3.0.", "lerobot")] = "lerobot",
) -> int | None:
    """Convert a dataset to another format and validate the result."""
    return call("jepa_ros.datasets.lerobot.export:export_dataset", **locals())


@command(data, "import")
def data_import(
    source: Annotated[Path, argument("LeRobot dataset (v3.0) on this machine.", check=check_directory)],
    out: Annotated[Path, out_directory("Output dataset directory, new or empty.")],
    size: Annotated[
        int | None,
        number("Side of the model's images, pixels; default: as exported, or 64.", 8, 1024),
    ] = None,
) -> int | None:
    """Validate a dataset in another format and convert it to ours."""
    return call("jepa_ros.datasets.lerobot.importing:import_dataset", **locals())
