"""Episodes read from one bag at the control rate, into memory: what training uses without a dataset built before.

They are cut and matched as `data build` does it (`signals`, `segments`, `matching`), but strictly: a bag that is
damaged or holds a message that cannot be used is refused, as training must not silently learn from a part of it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np

from jepa_ros.bags.cameras import IMAGE_TYPES
from jepa_ros.bags.reader import Bag, open_bag
from jepa_ros.bags.typestore import ACTION, EPISODE, JOINT_STATE
from jepa_ros.datasets.actions import action_source
from jepa_ros.datasets.episodes import Episode
from jepa_ros.datasets.image_decoding import decode_images
from jepa_ros.datasets.mapping import BagMapping, own_mapping
from jepa_ros.datasets.matching import SLOWEST_PERIODS, Matched, match
from jepa_ros.datasets.positions import PositionSampler
from jepa_ros.datasets.segments import Segment, split_into_segments
from jepa_ros.datasets.signals import SignalReader, Signals
from jepa_ros.errors import InputError
from jepa_ros.images import ImageError
from jepa_ros.robot.motion.action_space import PlanarVelocity

NEEDED = {"image": IMAGE_TYPES, "joint_states": (JOINT_STATE,), "executed": (ACTION,), "episode": (EPISODE,)}
DECODING_THREADS = 2


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
    space: PlanarVelocity,
    fields: tuple[Sequence[str], Sequence[str]],
    size: int,
    progress: Callable[[int], None] = lambda frames: None,
    cameras: Sequence[str] = (),
    positions: PositionSampler | None = None,
) -> Iterator[Episode]:
    """Yield the episodes of a bag, each as soon as its images are decoded.

    fields: joints and gripper joints of the proprioception. size: side of the frames in pixels. progress: called with
    the number of frames decoded. cameras: image topics in the order of the model's views; none: the only one in the
    bag. positions: sampled along with the frames. An episode lasts until its first gap.

    Raises InputError where the bag is damaged, lacks a topic or a joint, or holds an unusable message.
    """
    objects = {} if positions is None else dict(positions.objects)
    robot = None if positions is None else "recorded"
    mapping = own_mapping(fields, cameras, objects, robot, velocity="measured")
    with open_recording(path) as bag:
        signals = SignalReader(bag, mapping, "" if positions is None else positions.base_frame).read()
        if signals.dropped:
            reasons = ", ".join(f"{count} {reason}" for reason, count in sorted(signals.dropped.items()))
            raise InputError(f"bag {path}: expected usable messages only, found {reasons}")
        found: list[tuple[Segment, Matched]] = []
        for segment in split_into_segments(signals, Counter()):
            _expect_rate(path, segment, space.period)
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


def _expect_rate(path: Path, segment: Segment, period: float) -> None:
    for view in segment.views:
        if len(view.times) > 2 and (every := float(np.median(np.diff(view.times)))) > SLOWEST_PERIODS * period:
            raise InputError(
                f"bag {path}: episode {segment.number}: expected images at {1 / period:g} Hz at least, "
                f"found {1 / every:.1f} Hz"
            )


def _decode_frames(
    bag: Bag,
    signals: Signals,
    mapping: BagMapping,
    images: list[np.ndarray],
    size: int,
    progress: Callable[[int], None],
) -> Iterator[tuple[int, np.ndarray]]:
    """Yield (episode, its frames (n, views, size, size, 3)). images: of each episode the images' numbers (n, views)."""
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
