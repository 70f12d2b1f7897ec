"""A small convolutional encoder: on a CPU five times faster to train than a small vision transformer."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn


class ConvEncoder(nn.Module):
    """(B, 3, size, size) float images in [-1, 1] → (B, latent_dim) latents.

    The first stage takes the side to a quarter, each further one halves it: two thirds of the time of a training step
    would otherwise go into the first. The projector's BatchNorm follows LeWM (arXiv 2603.19312): a LayerNorm there
    would keep SIGReg from shaping the distribution of latents.
    """

    def __init__(self, size: int, channels: Sequence[int], hidden: int, latent_dim: int):
        super().__init__()
        stages, inputs = [], 3
        for outputs in channels:
            kernel, stride = (6, 4) if inputs == 3 else (3, 2)
            stages += [nn.Conv2d(inputs, outputs, kernel, stride, 1, bias=False), nn.BatchNorm2d(outputs), nn.GELU()]
            inputs = outputs
        side = size // 2 ** (len(channels) + 1)
        self.stages = nn.Sequential(*stages)
        self.projector = nn.Sequential(
            nn.Linear(inputs * side * side, hidden, bias=False),
            nn.BatchNorm1d(hidden),
            nn.GELU(),
            nn.Linear(hidden, latent_dim),
        )

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.projector(self.stages(images).flatten(1))
