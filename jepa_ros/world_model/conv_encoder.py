"""A small convolutional encoder: on a CPU five times faster to train than a small vision transformer."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from jepa_ros.errors import InputError


class ConvEncoder(nn.Module):
    """(B, 3, size, size) normalised images → (B, width), the last stage's features in a row.

    The first stage takes the side to a quarter, each further one halves it: two thirds of the time of a training step
    would otherwise go into the first.
    """

    def __init__(self, size: int = 64, channels: Sequence[int] = (48, 96, 128)):
        super().__init__()
        stages, inputs, side = [], 3, size
        for outputs in channels:
            kernel, stride = (3, 2) if stages else (6, 4)
            stages += [nn.Conv2d(inputs, outputs, kernel, stride, 1, bias=False), nn.BatchNorm2d(outputs), nn.GELU()]
            inputs, side = outputs, (side + 2 - kernel) // stride + 1
            if side < 1:
                raise InputError(
                    f"encoder.channels: expected fewer stages for images of {size} pixels, found {len(channels)}"
                )
        self.width = inputs * side * side
        self.stages = nn.Sequential(*stages)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.stages(images).flatten(1)
