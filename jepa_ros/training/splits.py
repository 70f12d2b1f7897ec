"""Reads the episodes that something is trained, chosen and judged on."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

from jepa_ros.bags.episodes import read_episodes, read_robot_description
from jepa_ros.bags.positions import Places
from jepa_ros.errors import InputError
from jepa_ros.evaluation.progress import LongWork
from jepa_ros.robot.config import RobotConfig
from jepa_ros.robot.kinematics import Kinematics
from jepa_ros.sim.cell import make_action_space
from jepa_ros.training.episodes import Episode

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
    """The episodes of a bag of at least `needed` ticks of `period` s, with positions (PlacedEpisode), showing progress.

    fields, size, cameras: as for read_episodes. objects: topics by name. Raises InputError where the bag cannot be read
    or a split has no such episode.
    """
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
    counts = {s: sum(e.split == s for e in episodes) for s in SPLITS}
    if missing := [s for s in SPLITS if not counts[s]]:
        raise InputError(f"bag {data}: expected {missing[0]} episodes of {needed} ticks, found {counts}")
    return episodes
