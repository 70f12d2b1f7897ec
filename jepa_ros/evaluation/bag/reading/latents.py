"""Latents of a whole bag: encoded in batches of one size, kept in memory while small, otherwise on disk."""

from __future__ import annotations

import math
import os
import tempfile

import numpy as np
import torch
from torch import nn

from jepa_ros.world_model.protocol import WorldModel

ENCODER_BATCH = 64  # frames
MAX_MEMORY_BYTES = 64 * 2**20
"""Bytes of latents kept in memory; more go to a temporary file."""


class LatentStore:
    """Latents (n, *L) float32 by row."""

    def __init__(self, shape: tuple[int, ...], max_bytes: int = MAX_MEMORY_BYTES):
        self._shape, self._width = shape, math.prod(shape)
        self._limit = max_bytes
        self._parts: list[np.ndarray] = []
        self._whole: np.ndarray | None = None
        self._file = None
        self._rows = 0

    def __len__(self) -> int:
        return self._rows

    def add(self, latents: np.ndarray) -> None:
        """Append (b, *L)."""
        flat = np.ascontiguousarray(latents, np.float32).reshape(len(latents), self._width)
        self._rows += len(flat)
        self._whole = None
        if self._file is None and 4 * self._rows * self._width > self._limit:
            self._file = tempfile.TemporaryFile()
            for part in self._parts:
                self._file.write(part.tobytes())
            self._parts = []
        if self._file is not None:
            self._file.write(flat.tobytes())
        else:
            self._parts.append(flat)

    def rows(self, index: np.ndarray) -> torch.Tensor:
        """Return the latents (*index, *L) of rows `index`, integers of any shape."""
        index = np.asarray(index)
        flat = index.ravel()
        if self._file is None:
            if self._whole is None:
                self._whole = np.concatenate(self._parts) if self._parts else np.zeros((0, self._width), np.float32)
                self._parts = [self._whole]
            found = self._whole[flat]
        else:
            self._file.flush()
            size = 4 * self._width
            parts = [os.pread(self._file.fileno(), size, int(row) * size) for row in flat]
            found = np.frombuffer(b"".join(parts), np.float32).reshape(-1, self._width).copy()
        return torch.from_numpy(found).reshape(*index.shape, *self._shape)

    def close(self) -> None:
        """Free memory and disk."""
        if self._file is not None:
            self._file.close()
        self._parts, self._whole = [], None


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
