"""Decoding of the images that episodes are made of, and of no others, by several threads."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

import cv2
import numpy as np

from jepa_ros.bags.cameras import decode_image
from jepa_ros.bags.reader import Bag
from jepa_ros.bags.recovery import RawMessage
from jepa_ros.datasets.mapping import View
from jepa_ros.images import ImageError, preprocess

PENDING_PER_WORKER = 4  # images that wait for or are in a thread, which bounds memory


def decode_images(
    bag: Bag, topics: Sequence[tuple[str, str]], views: Sequence[View], numbers: np.ndarray, size: int, workers: int
) -> Iterator[tuple[list[int], int, str, np.ndarray | ImageError]]:
    """Yield (rows, view, topic, image) for the images in `numbers`, in the order of recording.

    topics, views: of each view its topic (name, type) and settings. numbers: (N, views), the images' numbers among
    those of their topic; a number may be in several rows. An image is (size, size, 3) uint8 rgb, or the reason why
    there is none. `workers` threads decode.
    """
    wanted: dict[str, list[tuple[int, dict[int, list[int]]]]] = {}
    for view, (topic, _) in enumerate(topics):
        rows: dict[int, list[int]] = {}
        for row, number in enumerate(numbers[:, view]):
            rows.setdefault(int(number), []).append(row)
        wanted.setdefault(topic, []).append((view, rows))
    counts = dict.fromkeys(wanted, 0)
    pending: deque[tuple[list[int], int, str, Future]] = deque()
    cv2.setNumThreads(1)  # the workers are the parallel part
    pool = ThreadPoolExecutor(workers, "decode")
    try:
        for raw in bag.messages(topics):
            number = counts[raw.topic]
            counts[raw.topic] += 1
            for view, rows in wanted[raw.topic]:
                if number in rows:
                    pending.append((rows[number], view, raw.topic, pool.submit(_decode, raw, views[view], size)))
            while len(pending) > PENDING_PER_WORKER * workers:
                *place, job = pending.popleft()
                yield *place, job.result()
        while pending:
            *place, job = pending.popleft()
            yield *place, job.result()
    finally:
        pool.shutdown(cancel_futures=True)


def _decode(raw: RawMessage, view: View, size: int) -> np.ndarray | ImageError:
    """Return the image as the camera node makes it, after the view's crop."""
    try:
        rgb = decode_image(raw.deserialise())
        if view.crop is not None:
            left, top, width, height = view.crop
            if left + width > rgb.shape[1] or top + height > rgb.shape[0]:
                found = f"{rgb.shape[1]} x {rgb.shape[0]} pixels"
                return ImageError("size", f"crop {view.crop}: expected it inside the image, found {found}")
            rgb = rgb[top : top + height, left : left + width]
        return preprocess(rgb, size)
    except ImageError as error:
        return error
    except Exception as error:  # garbage may raise anything in the deserialiser
        return ImageError("unreadable", f"expected a whole message, found {error!r}")
