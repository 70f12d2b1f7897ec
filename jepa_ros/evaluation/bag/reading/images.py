"""Images of a bag: decoded by worker threads in the order of the recording, and encoded in batches of one size."""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import torch
from torch import nn

from jepa_ros.bags.cameras import decode_image
from jepa_ros.images import ImageError, preprocess
from jepa_ros.world_model.protocol import WorldModel

MAX_PENDING, CHUNK = 64, 8
"""Images that are decoded or wait, at most, which limits memory; and images that a thread decodes in one job."""
SWITCH_INTERVAL_S = 5e-4
"""Python's thread switch interval while decoding; its default is ten times as long as an image takes."""
DISPLAY_PX = 320
"""Longer side of images for people."""
ENCODER_BATCH = 64  # frames
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


def to_display_size(rgb: np.ndarray) -> np.ndarray:
    """Return an image scaled down so that its longer side is at most DISPLAY_PX."""
    height, width = rgb.shape[:2]
    scale = DISPLAY_PX / max(height, width)
    if scale >= 1.0:
        return np.ascontiguousarray(rgb)
    return cv2.resize(rgb, (round(width * scale), round(height * scale)), interpolation=cv2.INTER_AREA)


class ImageDecoder:
    """Decodes image messages and yields them in the same order for any number of threads (0: the caller's thread). A
    context manager."""

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
            rgb = decode_image(message)
            image.frame = preprocess(rgb, self._size)
        except ImageError as error:
            image.problem = error
        else:
            if copy:
                bgr = cv2.cvtColor(to_display_size(rgb), cv2.COLOR_RGB2BGR)
                image.jpeg = cv2.imencode(".jpg", bgr, JPEG_QUALITY)[1].tobytes()
        return image


class BatchEncoder:
    """Encodes frames and computes the distance of each to the training data, where the model allows it.

    A projector with BatchNorm knows the mean and variance of its inputs over the training data. The distance is the
    mean over these inputs of ((x - mean) / std)²: 1 on average over the training data.
    """

    def __init__(self, model: WorldModel):
        self._model, self._norm = model, _training_norm(model)
        self._norm_inputs: torch.Tensor | None = None

    @property
    def knows_training(self) -> bool:
        """The model allows distances to be computed."""
        return self._norm is not None

    @torch.inference_mode()
    def encode(self, frames: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
        """Encode frames (b, *F) uint8; return latents (b, *L) and distances (b,), NaN where not allowed."""
        hook = None if self._norm is None else self._norm.register_forward_pre_hook(self._keep_inputs)
        try:
            latents = self._model.encode(np.stack(frames)).float().numpy()
        finally:
            if hook is not None:
                hook.remove()
        if self._norm is None or self._norm_inputs is None:
            return latents, np.full(len(frames), np.nan)
        scaled = (self._norm_inputs - self._norm.running_mean).square() / (self._norm.running_var + self._norm.eps)
        return latents, scaled.mean(1).view(len(frames), -1).mean(1).cpu().numpy()

    def _keep_inputs(self, module: nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
        self._norm_inputs = inputs[0]


def _training_norm(model: WorldModel) -> nn.BatchNorm1d | None:
    projector = getattr(model, "projector", None)
    found = projector.modules() if isinstance(projector, nn.Module) else ()
    return next((m for m in found if isinstance(m, nn.BatchNorm1d) and m.running_mean is not None), None)
