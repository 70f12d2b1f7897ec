"""Runs of consecutive frames from image topics of any robot's bags, without actions: the data of pre-training."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from jepa_ros.bags.cameras import IMAGE_TYPES, decode_image, image_topics
from jepa_ros.bags.reader import open_bag
from jepa_ros.bags.typestore import header_stamp
from jepa_ros.errors import InputError
from jepa_ros.images import ImageError, preprocess

GAP_PERIODS = 1.5  # median periods of a topic; frames further apart than this are not consecutive


@dataclass(frozen=True)
class FrameRun:
    """Frames of one topic without a gap. frames: (n, size, size, 3) uint8 rgb, preprocessed. stamps: (n,) s, ascending.
    source: "bag topic"."""

    frames: np.ndarray
    stamps: np.ndarray
    source: str


@dataclass
class _Topic:
    """The part of a topic that has been read. stamps: ns. undecodable: number of images. problem: that of the first."""

    frames: list[np.ndarray | None] = field(default_factory=list)
    stamps: list[int] = field(default_factory=list)
    undecodable: int = 0
    problem: ImageError | None = None


def read_frame_runs(
    bag: Path, topics: Sequence[str], size: int, progress: Callable[[int], None] = lambda frames: None
) -> tuple[list[FrameRun], int]:
    """Return the frame runs of a bag's image topics, and the number of undecodable images that were skipped.

    A topic is an Image or a CompressedImage, with or without `/compressed` in its name. Stamps are the headers', or the
    time of recording where a header has none. Time that jumps backwards, or forwards by more than GAP_PERIODS, starts a
    new run; a repeated stamp is the same frame. progress: called with the number of frames read.

    Raises InputError: no such bag or topic, a damaged bag, or a topic without a decodable image.
    """
    read = {topic: _Topic() for topic in topics}
    with open_bag(bag, strict=True) as opened:
        names = {found.topic: topic for topic in topics for found in image_topics(opened, topic)}
        wanted = [t[:2] for t in opened.topics if t.topic in names and t.msgtype in IMAGE_TYPES]
        for count, (raw, message) in enumerate(opened.decoded(wanted), 1):
            _add(read[names[raw.topic]], message, raw.recorded, size)
            progress(count)
    runs = []
    for name, topic in read.items():
        if not topic.frames:
            found = f"{topic.undecodable} undecodable ones: {topic.problem}" if topic.undecodable else "none"
            raise InputError(f"bag {bag}: {name}: expected images, found {found}")
        runs += _split_at_gaps(topic, f"{bag} {name}")
    return runs, sum(topic.undecodable for topic in read.values())


def _add(topic: _Topic, message, recorded: int, size: int) -> None:
    stamp = header_stamp(message) or recorded
    if topic.stamps and stamp == topic.stamps[-1]:
        return
    try:
        topic.frames.append(preprocess(decode_image(message), size))
    except ImageError as error:
        topic.undecodable += 1
        topic.problem = topic.problem or error
        return
    topic.stamps.append(stamp)


def _split_at_gaps(topic: _Topic, source: str) -> Iterator[FrameRun]:
    stamps = np.array(topic.stamps, np.int64)
    steps = np.diff(stamps)
    forward = steps[steps > 0]
    period = np.median(forward) if len(forward) else 0.0
    edges = np.flatnonzero((steps < 0) | (steps > GAP_PERIODS * period)) + 1
    for low, high in zip([0, *edges], [*edges, len(stamps)], strict=True):
        frames = np.stack(topic.frames[low:high])
        topic.frames[low:high] = [None] * (high - low)  # frees them: at most one run is in memory twice
        yield FrameRun(frames, stamps[low:high] * 1e-9, source)
