"""Reads the pictures of any robot's bags, without actions: stretches of frames that follow one another."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from jepa_ros.bags.cameras import COMPRESSED, RAW, image_connections
from jepa_ros.bags.reader import open_bag, timed_messages
from jepa_ros.errors import InputError
from jepa_ros.images import ImageError, decode, decode_compressed, preprocess

GAP = 1.5
"""Frames further apart than this many times the topic's median period do not follow one another."""


@dataclass(frozen=True)
class Stretch:
    """Frames of one topic without a gap. frames (n, size, size, 3) uint8 rgb, preprocessed. stamps (n,) s, ascending.
    source: "bag topic"."""

    frames: np.ndarray
    stamps: np.ndarray
    source: str


@dataclass
class _Topic:
    """What has been read of a topic so far; stamps in ns. unusable: pictures that could not be decoded."""

    frames: list[np.ndarray | None] = field(default_factory=list)
    stamps: list[int] = field(default_factory=list)
    unusable: int = 0
    problem: ImageError | None = None


def read_stretches(
    bag: Path, topics: Sequence[str], size: int, progress: Callable[[int], None] = lambda frames: None
) -> tuple[list[Stretch], int]:
    """The stretches of image topics of a bag, and the number of pictures that could not be decoded and were left out.

    A topic is an Image or a CompressedImage, by its name or by that name less `/compressed`. Stamps are the headers',
    or the recording's where a header has none. Time that goes back, or on by more than GAP periods, begins a new
    stretch; a stamp that comes twice is the same frame again. progress is called with the number of frames read.

    Raises InputError: no such bag or topic, or not one picture of a topic that can be decoded.
    """
    read = {topic: _Topic() for topic in topics}
    count = 0
    with open_bag(bag, {}) as reader:
        names = {c.topic: topic for topic in topics for c in image_connections(bag, reader, topic)}
        wanted = [c for c in reader.connections if c.topic in names and c.msgtype in (RAW, COMPRESSED)]
        for connection, recorded, message in timed_messages(bag, reader, wanted):
            _add(read[names[connection.topic]], message, recorded, size)
            count += 1
            progress(count)
    stretches = []
    for name, topic in read.items():
        if not topic.frames:
            found = f"{topic.unusable} that cannot be used: {topic.problem}" if topic.unusable else "none"
            raise InputError(f"bag {bag}: {name}: expected pictures, found {found}")
        stretches += _cut(topic, f"{bag} {name}")
    return stretches, sum(topic.unusable for topic in read.values())


def _add(topic: _Topic, message, recorded: int, size: int) -> None:
    stamp = message.header.stamp.sec * 10**9 + message.header.stamp.nanosec or recorded
    if topic.stamps and stamp == topic.stamps[-1]:
        return
    try:
        topic.frames.append(preprocess(_picture(message), size))
    except ImageError as error:
        topic.unusable += 1
        topic.problem = topic.problem or error
        return
    topic.stamps.append(stamp)


def _picture(message) -> np.ndarray:
    if hasattr(message, "format"):
        return decode_compressed(message.format, message.data)
    m = message
    return decode(m.encoding, m.width, m.height, m.step, m.data, m.is_bigendian)


def _cut(topic: _Topic, source: str) -> Iterator[Stretch]:
    stamps = np.array(topic.stamps, np.int64)
    steps = np.diff(stamps)
    onwards = steps[steps > 0]
    period = np.median(onwards) if len(onwards) else 0.0
    edges = np.flatnonzero((steps < 0) | (steps > GAP * period)) + 1
    for low, high in zip([0, *edges], [*edges, len(stamps)], strict=True):
        frames = np.stack(topic.frames[low:high])
        topic.frames[low:high] = [None] * (high - low)  # so that no more than one stretch is in memory twice
        yield Stretch(frames, stamps[low:high] * 1e-9, source)
