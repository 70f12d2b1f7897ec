"""Pictures on their way to the encoder: decoded ahead by worker threads, handed on in the order of the recording."""

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

AHEAD, TOGETHER = 64, 8
"""Pictures that are being decoded or wait, at most, which bounds memory; and that one thread is given at a time."""
SWITCH = 5e-4
"""s after which a thread that wants to go on with Python may: by default it is ten times as long as a picture takes."""
SHOWN = 320
"""px, the longer side of pictures for people."""
JPEG = [cv2.IMWRITE_JPEG_QUALITY, 85]


@dataclass
class Picture:
    """One message of a camera. stamp, recorded: ns. frame: (size, size, 3) uint8 rgb, or why there is none. jpeg: for
    people, where it was asked for."""

    view: int
    epoch: int
    stamp: int
    recorded: int
    frame_id: str
    data: Any
    frame: np.ndarray | None = None
    problem: ImageError | None = None
    jpeg: bytes | None = None


def picture(message: Any) -> np.ndarray:
    """(H, W, 3) uint8 rgb of an Image or CompressedImage. Raises ImageError with the cause."""
    if hasattr(message, "format"):
        return decode_compressed(message.format, message.data)
    m = message
    return decode(m.encoding, m.width, m.height, m.step, m.data, m.is_bigendian)


def shown(rgb: np.ndarray) -> np.ndarray:
    """A picture at a size for people."""
    height, width = rgb.shape[:2]
    scale = SHOWN / max(height, width)
    if scale >= 1.0:
        return np.ascontiguousarray(rgb)
    return cv2.resize(rgb, (round(width * scale), round(height * scale)), interpolation=cv2.INTER_AREA)


def as_jpeg(rgb: np.ndarray) -> bytes:
    """A picture as JPEG at a size for people."""
    return cv2.imencode(".jpg", cv2.cvtColor(shown(rgb), cv2.COLOR_RGB2BGR), JPEG)[1].tobytes()


class Decoder:
    """Takes messages, hands pictures on in the same order: the same ones however many threads decode (0: none does).
    A context manager."""

    def __init__(self, workers: int, size: int):
        cv2.setNumThreads(1)  # the threads here are the parallel part
        self._size = size
        self._pool = ThreadPoolExecutor(workers, "decode") if workers else None
        self._next: list[tuple[Picture, Any, bool]] = []
        self._waiting: deque[Callable[[], list[Picture]]] = deque()

    def __enter__(self) -> Decoder:
        self._interval = sys.getswitchinterval()
        sys.setswitchinterval(SWITCH)
        return self

    def __exit__(self, *exception: object) -> None:
        sys.setswitchinterval(self._interval)
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)

    def add(self, made: Picture, message: Any, copy: bool) -> Iterator[Picture]:
        """One more, of which to make a JPEG where `copy`; yields those that are due."""
        self._next.append((made, message, copy))
        if len(self._next) == TOGETHER:
            self._submit()
        while len(self._waiting) > AHEAD // TOGETHER:
            yield from self._waiting.popleft()()

    def rest(self) -> Iterator[Picture]:
        """All that are left."""
        self._submit()
        while self._waiting:
            yield from self._waiting.popleft()()

    def _submit(self) -> None:
        """Have the next few decoded, by a thread or when they are due."""
        some, self._next = self._next, []
        if self._pool is None:
            self._waiting.append(lambda: [self._decoded(*one) for one in some])
        else:
            self._waiting.append(self._pool.submit(lambda: [self._decoded(*one) for one in some]).result)

    def _decoded(self, made: Picture, message: Any, copy: bool) -> Picture:
        try:
            rgb = picture(message)
            made.frame = preprocess(rgb, self._size)
        except ImageError as error:
            made.problem = error
        else:
            if copy:
                made.jpeg = as_jpeg(rgb)
        return made
