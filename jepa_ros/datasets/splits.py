"""Training, validation and test episodes, read from a bag or from a dataset that `data build` made."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

import numpy as np

from jepa_ros.bags.cameras import plain_topic, read_camera
from jepa_ros.bags.reader import read_robot_description
from jepa_ros.datasets.episodes import Episode
from jepa_ros.datasets.mapping import PLANAR, TOOL
from jepa_ros.datasets.positions import PositionSampler
from jepa_ros.datasets.recorded_episodes import open_recording, read_episodes
from jepa_ros.datasets.segments import SPLITS
from jepa_ros.datasets.store import Dataset, IndexedEpisode, is_dataset
from jepa_ros.errors import InputError
from jepa_ros.reporting.progress import ProgressDisplay
from jepa_ros.robot.config import RobotConfig
from jepa_ros.robot.motion.kinematics import Kinematics
from jepa_ros.sim.cell import make_action_space
from jepa_ros.world_model.config import CameraReference


def read_splits(
    data: Path,
    robot: RobotConfig,
    fields: tuple[tuple[str, ...], tuple[str, ...]],
    period: float,
    size: int,
    needed: int,
    bar: ProgressDisplay,
    cameras: tuple[str, ...] = (),
    objects: Mapping[str, str] = MappingProxyType({}),
) -> list[Episode]:
    """Return the episodes of at least `needed` ticks of `period` s, with positions, and show progress.

    data: a bag, or a dataset, whose frames stay on disk. fields, size, cameras: as for read_episodes. objects: topics
    by name. Raises InputError where the data is unusable, or a split has no such episode.
    """
    if is_dataset(data):
        found = _read_dataset(Dataset(data), fields, period, size, cameras, tuple(objects))
        return _expect_splits("dataset", data, [e for e in found if len(e.actions) >= needed], needed)
    urdf = read_robot_description(data)
    if urdf is None:
        raise InputError(f"bag {data}: expected the topic robot_description, found none")
    space = make_action_space(robot, urdf, period)
    kinematics = Kinematics(urdf, robot.joints, robot.tool_frame, robot.base_frame)
    positions = PositionSampler(kinematics, robot.base_frame, objects)
    task = bar.add("frames", None)
    found = read_episodes(data, space, fields, size, lambda n: bar.update(task, n), cameras, positions)
    episodes = [e for e in found if len(e.actions) >= needed]
    frames = sum(len(e.frames) for e in episodes)
    bar.update(task, frames, total=frames)
    return _expect_splits("bag", data, episodes, needed)


def expect_data(data: Path) -> None:
    """Raise InputError where data is neither a bag with episodes nor a dataset."""
    if is_dataset(data):
        Dataset(data)
        return
    open_recording(data).close()


def data_camera(data: Path, topic: str = "") -> CameraReference | None:
    """Return the camera of a dataset's first view; of a bag as read_camera."""
    return Dataset(data).index.camera if is_dataset(data) else read_camera(data, topic)


def _expect_splits(kind: str, data: Path, episodes: list[Episode], needed: int) -> list[Episode]:
    counts = {s: sum(e.split == s for e in episodes) for s in SPLITS}
    if missing := [s for s in SPLITS if not counts[s]]:
        raise InputError(f"{kind} {data}: expected {missing[0]} episodes of {needed} ticks, found {counts}")
    return episodes


def _read_dataset(
    data: Dataset,
    fields: tuple[Sequence[str], Sequence[str]],
    period: float,
    size: int,
    cameras: Sequence[str],
    objects: Sequence[str],
) -> list[Episode]:
    """Return the episodes in the order of the index. objects: names.

    Raises InputError where the dataset was built with other settings.
    """
    x = data.layout
    views = tuple(map(plain_topic, cameras))
    found = tuple(topic.strip("/") for topic in x.views)
    for what, wanted, there in (
        ("joints", tuple(fields[0]), x.joints),
        ("gripper joints", tuple(fields[1]), x.gripper),
        ("size", size, x.size),
        ("actions", PLANAR, x.action_space),
        ("number of action values", 2, len(x.action_names)),
        ("views", views or (found if len(found) == 1 else "one, or the names of cameras"), found),
        ("positions", sorted({TOOL, *objects}), sorted({TOOL, *objects} & set(x.positions))),
    ):
        if wanted != there:
            raise InputError(
                f"dataset {data.path}: expected the {what} {wanted}, found {there}; build a dataset with these"
            )
    if abs(x.rate * period - 1) > 1e-9:
        raise InputError(f"dataset {data.path}: expected a rate of {1 / period:g} Hz, found {x.rate:g} Hz")
    return [_episode(data, entry, (TOOL, *objects)) for entry in data.index.episodes]


def _episode(data: Dataset, entry: IndexedEpisode, names: Sequence[str]) -> Episode:
    frames = data.rows(entry, "frames")
    if frames.shape[1] == 1:
        frames = frames[:, 0]
    positions = np.array(data.rows(entry, "positions"))
    named = {name: positions[:, data.layout.positions.index(name)] for name in names}
    return Episode(
        frames,
        np.array(data.rows(entry, "states")),
        np.array(data.rows(entry, "actions")[:-1]),
        named[TOOL][:, :2],
        entry.split,
        named,
    )
