"""Reads the episodes that something is trained, chosen and judged on: from a bag, or from a dataset built of bags."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

from jepa_ros.bags.episodes import open_bag, read_camera, read_episodes, read_robot_description
from jepa_ros.bags.positions import Places
from jepa_ros.datasets.store import Dataset, is_dataset
from jepa_ros.datasets.training import read_training_episodes
from jepa_ros.errors import InputError
from jepa_ros.evaluation.progress import LongWork
from jepa_ros.robot.config import RobotConfig
from jepa_ros.robot.kinematics import Kinematics
from jepa_ros.sim.cell import make_action_space
from jepa_ros.training.episodes import Episode
from jepa_ros.world_model.config import CameraReference

SPLITS = ("train", "val", "test")


def read_splits(
    data: Path,
    robot: RobotConfig,
    fields: tuple[tuple[str, ...], tuple[str, ...]],
    period: float,
    size: int,
    needed: int,
    bar: LongWork,
    cameras: tuple[str, ...] = (),
    objects: Mapping[str, str] = MappingProxyType({}),
) -> list[Episode]:
    """The episodes of at least `needed` ticks of `period` s, with positions (PlacedEpisode), showing progress.

    data: a bag, or a dataset, whose frames stay on disk. fields, size, cameras: as for read_episodes. objects: topics
    by name. Raises InputError where the data cannot be read or used, or a split has no such episode.
    """
    if is_dataset(data):
        found = read_training_episodes(Dataset(data), fields, period, size, cameras, tuple(objects))
        return _expect_splits("dataset", data, [e for e in found if len(e.actions) >= needed], needed)
    urdf = read_robot_description(data)
    if urdf is None:
        raise InputError(f"bag {data}: expected the topic robot_description, found none")
    space = make_action_space(robot, urdf, period)
    places = Places(Kinematics(urdf, robot.joints, robot.tool_frame, robot.base_frame), robot.base_frame, objects)
    task = bar.add("frames", None)
    found = read_episodes(data, space, fields, size, lambda n: bar.update(task, n), cameras, places)
    episodes = [e for e in found if len(e.actions) >= needed]
    frames = sum(len(e.frames) for e in episodes)
    bar.update(task, frames, total=frames)
    return _expect_splits("bag", data, episodes, needed)


def expect_data(data: Path) -> None:
    """Raise InputError where data is neither a bag with episodes nor a dataset, before anything is made."""
    if is_dataset(data):
        Dataset(data)
        return
    with open_bag(data):
        pass


def data_camera(data: Path, topic: str = "") -> CameraReference | None:
    """The camera of a dataset's first view; of a bag as read_camera."""
    return Dataset(data).index.camera if is_dataset(data) else read_camera(data, topic)


def _expect_splits(kind: str, data: Path, episodes: list[Episode], needed: int) -> list[Episode]:
    counts = {s: sum(e.split == s for e in episodes) for s in SPLITS}
    if missing := [s for s in SPLITS if not counts[s]]:
        raise InputError(f"{kind} {data}: expected {missing[0]} episodes of {needed} ticks, found {counts}")
    return episodes
