"""Images of a bag: decoded ahead by worker threads, returned in the order of the recording."""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np

from jepa_ros.images import ImageError, decode, decode_compressed, preprocess

MAX_PENDING, CHUNK = 64, 8
"""Images that are decoded or wait, at most, which limits memory; and images that a thread decodes in one job."""
SWITCH_INTERVAL_S = 5e-4
"""Python's thread switch interval while decoding; its default is ten times as long as an image takes."""
DISPLAY_PX = 320
"""Longer side of images for people."""
JPEG_QUALITY = [cv2.IMWRITE_JPEG_QUALITY, 85]


@dataclass
class CameraImage:
    """An image message. camera: its number. stamp, recorded: ns. frame: (size, size, 3) uint8 rgb, or else problem.
    jpeg: of display size, if requested."""

    camera: int
    epoch: int
    stamp: int
    recorded: int
    frame_id: str
    data: Any
    frame: np.ndarray | None = None
    problem: ImageError | None = None
    jpeg: bytes | None = None


def decode_message(message: Any) -> np.ndarray:
    """Return (H, W, 3) uint8 rgb of an Image or CompressedImage. Raises ImageError with the cause."""
    if hasattr(message, "format"):
        return decode_compressed(message.format, message.data)
    m = message
    return decode(m.encoding, m.width, m.height, m.step, m.data, m.is_bigendian)


def to_display_size(rgb: np.ndarray) -> np.ndarray:
    """Return an image scaled down so that its longer side is at most DISPLAY_PX."""
    height, width = rgb.shape[:2]
    scale = DISPLAY_PX / max(height, width)
    if scale >= 1.0:
        return np.ascontiguousarray(rgb)
    return cv2.resize(rgb, (round(width * scale), round(height * scale)), interpolation=cv2.INTER_AREA)


def to_display_jpeg(rgb: np.ndarray) -> bytes:
    """Return an image as JPEG of display size."""
    return cv2.imencode(".jpg", cv2.cvtColor(to_display_size(rgb), cv2.COLOR_RGB2BGR), JPEG_QUALITY)[1].tobytes()


class ImageDecoder:
    """Decodes image messages and yields them in the same order, whatever the number of threads (0: the caller's thread
    decodes). A context manager."""

    def __init__(self, workers: int, size: int):
        cv2.setNumThreads(1)  # the threads here run in parallel instead
        self._size = size
        self._pool = ThreadPoolExecutor(workers, "decode") if workers else None
        self._next: list[tuple[CameraImage, Any, bool]] = []
        self._waiting: deque[Callable[[], list[CameraImage]]] = deque()

    def __enter__(self) -> ImageDecoder:
        self._interval = sys.getswitchinterval()
        sys.setswitchinterval(SWITCH_INTERVAL_S)
        return self

    def __exit__(self, *exception: object) -> None:
        sys.setswitchinterval(self._interval)
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)

    def add(self, image: CameraImage, message: Any, copy: bool) -> Iterator[CameraImage]:
        """Add an image, with a JPEG where `copy` is set; yield those that are decoded and due."""
        self._next.append((image, message, copy))
        if len(self._next) == CHUNK:
            self._submit()
        while len(self._waiting) > MAX_PENDING // CHUNK:
            yield from self._waiting.popleft()()

    def finish(self) -> Iterator[CameraImage]:
        """Yield all that are left."""
        self._submit()
        while self._waiting:
            yield from self._waiting.popleft()()

    def _submit(self) -> None:
        """Queue the next images for decoding, by a thread or when they are due."""
        some, self._next = self._next, []
        if self._pool is None:
            self._waiting.append(lambda: [self._decode(*one) for one in some])
        else:
            self._waiting.append(self._pool.submit(lambda: [self._decode(*one) for one in some]).result)

    def _decode(self, image: CameraImage, message: Any, copy: bool) -> CameraImage:
        try:
            rgb = decode_message(message)
            image.frame = preprocess(rgb, self._size)
        except ImageError as error:
            image.problem = error
        else:
            if copy:
                image.jpeg = to_display_jpeg(rgb)
        return image
