"""The second look at a bag: decodes the pictures that episodes are made of, and no others, on several cores."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor

import cv2
import numpy as np

from jepa_ros.bags.recovery import Rescued
from jepa_ros.bags.source import Source
from jepa_ros.bags.typestore import typestore
from jepa_ros.datasets.mapping import View
from jepa_ros.images import ImageError, decode, decode_compressed, preprocess


def fill(
    frames: np.ndarray,
    source: Source,
    topics: list[tuple[str, str]],
    views: tuple[View, ...],
    numbers: np.ndarray,
    workers: int,
    dropped: Counter,
    progress: Callable[[int], None] = lambda frames: None,
) -> np.ndarray:
    """Write pictures into frames (N, views, size, size, 3); returns which rows (N,) are whole.

    topics: names and types of the views'. numbers (N, views): of the pictures, counted by topic in the order of
    recording. Pictures are decoded by `workers` threads, a few at a time. progress: called with the number of rows that
    were filled.
    """
    wanted: dict[str, list[tuple[int, dict[int, list[int]]]]] = {}
    for view, (topic, _) in enumerate(topics):
        rows: dict[int, list[int]] = {}
        for row, number in enumerate(numbers[:, view]):
            rows.setdefault(int(number), []).append(row)
        wanted.setdefault(topic, []).append((view, rows))
    whole, counts, done = np.ones(len(frames), bool), dict.fromkeys((topic for topic, _ in topics), 0), 0
    pending: deque[tuple[Future, list[int], str]] = deque()

    def finish() -> None:
        nonlocal done
        future, rows, topic = pending.popleft()
        if problem := future.result():
            dropped[f"{topic}: pictures that cannot be decoded ({problem})"] += 1
            whole[rows] = False
        done += len(rows)
        progress(done)

    cv2.setNumThreads(1)  # the workers are the threads
    pool = ThreadPoolExecutor(workers)
    try:
        for raw in source.messages(topics):
            number = counts[raw.topic]
            counts[raw.topic] += 1
            for view, rows in wanted[raw.topic]:
                if number in rows:
                    job = pool.submit(_put, frames, rows[number], view, raw, views[view])
                    pending.append((job, rows[number], raw.topic))
            while len(pending) > 4 * workers:
                finish()
        while pending:
            finish()
    finally:
        pool.shutdown(cancel_futures=True)
    return whole


def _put(frames: np.ndarray, rows: list[int], view: int, raw: Rescued, settings: View) -> str:
    """Decode one picture into its rows. Returns in a word why it cannot be, if so."""
    try:
        frames[rows, view] = picture(raw, settings, frames.shape[2])
    except ImageError as error:
        return error.cause
    except Exception:  # garbage in place of a message may trip any part of its deserialisation
        return "unreadable"
    return ""


def picture(raw: Rescued, settings: View, size: int) -> np.ndarray:
    """(size, size, 3) uint8 rgb of a message, as the camera node makes it. Raises ImageError."""
    m = typestore().deserialize_cdr(raw.data, raw.msgtype)
    if hasattr(m, "format"):
        rgb = decode_compressed(m.format, m.data)
    else:
        rgb = decode(m.encoding, m.width, m.height, m.step, m.data, m.is_bigendian)
    if settings.crop is not None:
        left, top, width, height = settings.crop
        if left + width > rgb.shape[1] or top + height > rgb.shape[0]:
            raise ImageError("size", f"crop {settings.crop}: expected one inside of {rgb.shape[1]} x {rgb.shape[0]}")
        rgb = rgb[top : top + height, left : left + width]
    return preprocess(rgb, size)
