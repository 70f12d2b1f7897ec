"""Training, validation and test episodes, read from a bag or from a dataset that `data build` made.

A bag is read into memory, cut and matched as `data build` does it, but strictly: a bag that is damaged or holds an
unusable message is refused, as training must not silently learn from a part of it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

import numpy as np

from jepa_ros.bags.cameras import IMAGE_TYPES, plain_topic, read_camera
from jepa_ros.bags.reader import Bag, open_bag, read_robot_description
from jepa_ros.bags.typestore import ACTION, EPISODE, JOINT_STATE
from jepa_ros.datasets.episodes import Episode
from jepa_ros.datasets.mapping import TOOL, BagMapping, default_mapping
from jepa_ros.datasets.matching import (
    SLOWEST_PERIODS,
    Matched,
    PositionSampler,
    Segment,
    action_source,
    match,
    split_into_segments,
)
from jepa_ros.datasets.signals import SignalReader, Signals, decode_images
from jepa_ros.datasets.store import SPLITS, Dataset, is_dataset
from jepa_ros.errors import InputError
from jepa_ros.images import ImageError
from jepa_ros.reporting.progress import ProgressDisplay
from jepa_ros.robot.config import RobotConfig, VelocityConfig, require_velocity_space
from jepa_ros.robot.motion.velocity_space import VelocitySpace
from jepa_ros.sim.cell import make_action_space
from jepa_ros.world_model.config import CameraReference

NEEDED = {"image": IMAGE_TYPES, "joint_states": (JOINT_STATE,), "executed": (ACTION,), "episode": (EPISODE,)}
DECODING_THREADS = 2
LARGEST_ACTION = 1.25  # of 1; above it an action counts as too fast: measured motion overshoots a little
MAX_FAST_SHARE = 0.02  # of actions that may be too fast


def open_recording(path: Path) -> Bag:
    """Open a bag that this stack recorded. Raises InputError where it is damaged or a topic of NEEDED is missing."""
    bag = open_bag(path, strict=True)
    try:
        bag.expect_types(NEEDED)
    except InputError:
        bag.close()
        raise
    return bag


def read_episodes(
    path: Path,
    space: VelocitySpace,
    fields: tuple[Sequence[str], Sequence[str]],
    size: int,
    progress: Callable[[int], None] = lambda frames: None,
    cameras: Sequence[str] = (),
    positions: PositionSampler | None = None,
) -> Iterator[Episode]:
    """Yield the episodes of a bag, each as soon as its images are decoded.

    fields: joints and gripper joints of the proprioception. size: of the frames, in pixels. progress: called with the
    number of frames decoded. cameras: image topics in the order of the model's views; empty: the bag's only camera.
    positions: sampled at the frames. An episode ends at its first gap.

    Raises InputError where the bag is damaged, lacks a topic or a joint, or holds an unusable message.
    """
    objects = {} if positions is None else dict(positions.objects)
    robot = None if positions is None else "recorded"
    mapping = default_mapping(fields, cameras, objects, robot, velocity="measured")
    with open_recording(path) as bag:
        signals = SignalReader(bag, mapping, "" if positions is None else positions.base_frame).read()
        if signals.dropped:
            reasons = ", ".join(f"{count} {reason}" for reason, count in sorted(signals.dropped.items()))
            raise InputError(f"bag {path}: expected usable messages only, found {reasons}")
        values = len(signals.actions.values[0])
        if (signals.action_space, values) != (space.name, space.dimension):
            raise InputError(
                f"bag {path}: expected executed actions in the space {space.name}, {space.dimension} values each, "
                f"found {signals.action_space}, {values}; give the robot with which it was recorded"
            )
        found: list[tuple[Segment, Matched]] = []
        for segment in split_into_segments(signals, Counter()):
            for view in segment.views:
                rate = 1 / float(np.median(np.diff(view.times))) if len(view.times) > 2 else np.inf
                if rate * SLOWEST_PERIODS * space.period < 1:
                    expected = f"images at {1 / space.period:g} Hz at least"
                    raise InputError(f"bag {path}: episode {segment.number}: expected {expected}, found {rate:.1f} Hz")
            source = action_source(segment, signals, mapping, space.period, None)
            found += [(segment, m) for m in match(segment, source, space.period, len(fields[0]), Counter())[:1]]
        for number, frames in _decode_frames(bag, signals, mapping, [m.images for _, m in found], size, progress):
            segment, matched = found[number]
            joints = matched.states[:, : len(fields[0])]
            yield Episode(
                frames[:, 0] if frames.shape[1] == 1 else frames,
                matched.states.astype(np.float32),
                matched.actions.astype(np.float32),
                np.array([space.tool_coordinates(q) for q in joints]),
                segment.split,
                {} if positions is None else positions.sample(matched.at, joints, segment.objects),
            )


def _decode_frames(
    bag: Bag,
    signals: Signals,
    mapping: BagMapping,
    images: list[np.ndarray],
    size: int,
    progress: Callable[[int], None],
) -> Iterator[tuple[int, np.ndarray]]:
    """Yield (episode, frames (n, views, size, size, 3)). images: indexes (n, views) of the images, by episode."""
    if not images:
        return
    topics = [(topic, signals.topics[topic][0]) for topic in signals.image_topics]
    first = np.cumsum([0, *map(len, images)])
    missing = [numbers.size for numbers in images]
    under_way: dict[int, np.ndarray] = {}
    done = 0
    every = np.concatenate(images)
    for rows, view, topic, image in decode_images(bag, topics, mapping.views, every, size, DECODING_THREADS):
        if isinstance(image, ImageError):
            raise InputError(f"bag {bag.path}: {topic}: {image}")
        for row in rows:
            episode = int(np.searchsorted(first, row, "right")) - 1
            if episode not in under_way:
                under_way[episode] = np.empty((*images[episode].shape, size, size, 3), np.uint8)
            under_way[episode][row - first[episode], view] = image
            missing[episode] -= 1
            done += 1
            if not missing[episode]:
                progress(done)
                yield episode, under_way.pop(episode)


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
        kind, found = "dataset", _read_dataset(Dataset(data), robot, fields, period, size, cameras, tuple(objects))
        episodes = [e for e in found if len(e.actions) >= needed]
    else:
        kind, urdf = "bag", read_robot_description(data)
        if urdf is None:
            raise InputError(f"bag {data}: expected the topic robot_description, found none")
        space = make_action_space(robot, urdf, period)
        positions = PositionSampler(space.kinematics, robot.base_frame, objects)
        task = bar.add("frames", None)
        found = read_episodes(data, space, fields, size, lambda n: bar.update(task, n), cameras, positions)
        episodes = [e for e in found if len(e.actions) >= needed]
        frames = sum(len(e.frames) for e in episodes)
        bar.update(task, frames, total=frames)
    counts = {s: sum(e.split == s for e in episodes) for s in SPLITS}
    if missing := [s for s in SPLITS if not counts[s]]:
        raise InputError(f"{kind} {data}: expected {missing[0]} episodes of {needed} ticks, found {counts}")
    _check_range(f"{kind} {data}", episodes, robot)
    return episodes


def _check_range(what: str, episodes: Sequence[Episode], robot: RobotConfig) -> None:
    """Raise InputError where many actions are faster than the robot's action space allows."""
    largest = np.abs(np.concatenate([e.actions for e in episodes])).max(1)
    share = float(np.mean(largest > LARGEST_ACTION))
    if share > MAX_FAST_SHARE:
        raise InputError(
            f"{what}: {100 * share:.0f} % of the actions are faster than the action space of {robot.name} allows, "
            f"up to {largest.max():.1f} times; increase max_speed in the robot file and build the data with it"
        )


def expect_data(data: Path) -> None:
    """Raise InputError where data is neither a bag with episodes nor a dataset."""
    if is_dataset(data):
        Dataset(data)
    else:
        open_recording(data).close()


def read_data_camera(data: Path, topic: str = "") -> CameraReference | None:
    """Return the camera of a dataset's first view, or a bag's camera as read_camera does."""
    return Dataset(data).index.camera if is_dataset(data) else read_camera(data, topic)


def _read_dataset(
    data: Dataset,
    robot: RobotConfig,
    fields: tuple,
    period: float,
    size: int,
    cameras: Sequence[str],
    objects: Sequence[str],
) -> Iterator[Episode]:
    """Yield the episodes in the order of the index. Raises InputError where the dataset has other settings."""
    x, space = data.layout, require_velocity_space(robot)
    views = tuple(map(plain_topic, cameras))
    found = tuple(topic.strip("/") for topic in x.views)
    for what, wanted, there in (
        ("joints", tuple(fields[0]), x.joints),
        ("gripper joints", tuple(fields[1]), x.gripper),
        ("size", size, x.size),
        ("actions", space.type, x.action_space),
        ("number of action values", space.dimension, len(x.action_names)),
        ("views", views or (found if len(found) == 1 else "one, or the names of cameras"), found),
        ("positions", sorted({TOOL, *objects}), sorted({TOOL, *objects} & set(x.positions))),
    ):
        if wanted != there:
            raise InputError(
                f"dataset {data.path}: expected the {what} {wanted}, found {there}; build a dataset with these"
            )
    if abs(x.rate * period - 1) > 1e-9:
        raise InputError(f"dataset {data.path}: expected a rate of {1 / period:g} Hz, found {x.rate:g} Hz")
    coordinates = _find_coordinates(data, robot, space, period)
    for entry in data.index.episodes:
        frames, positions = data.rows(entry, "frames"), np.array(data.rows(entry, "positions"))
        named = {name: positions[:, x.positions.index(name)] for name in (TOOL, *objects)}
        states = np.array(data.rows(entry, "states"))
        yield Episode(
            frames[:, 0] if frames.shape[1] == 1 else frames,
            states,
            np.array(data.rows(entry, "actions")[:-1]),
            coordinates(states, named[TOOL]),
            entry.split,
            named,
        )


def _find_coordinates(
    data: Dataset, robot: RobotConfig, config: VelocityConfig, period: float
) -> Callable[[np.ndarray, np.ndarray], np.ndarray]:
    """Return a function from states (n, P) and tool positions (n, 3) m to the tool's coordinates (n, D) in the robot's
    velocity space. A dataset has no orientations: they follow from the joints. Raises InputError where the dataset has
    no robot description, which they need."""
    count = config.dimension
    if count <= 3:
        return lambda states, positions: positions[:, :count]
    urdf = data.urdf()
    if urdf is None:
        raise InputError(f"dataset {data.path}: has no robot description, which yaw needs; build it from such a bag")
    space, arm = make_action_space(robot, urdf, period), len(robot.joints)
    return lambda states, positions: np.array([space.tool_coordinates(q) for q in states[:, :arm]])
