"""LeWM's embedding of action blocks."""

from __future__ import annotations

import torch
from torch import nn


class ActionEncoder(nn.Module):
    """(B, T, K) action blocks → (B, T, width), each block for itself.

    LeWM's reference implementation begins with a convolution over time of kernel 1: that is the layer `smoothing`.
    """

    def __init__(self, inputs: int, smoothed: int, width: int, scale: int = 4):
        super().__init__()
        self.smoothing = nn.Linear(inputs, smoothed)
        self.layers = nn.Sequential(nn.Linear(smoothed, scale * width), nn.SiLU(), nn.Linear(scale * width, width))

    def forward(self, actions: torch.Tensor) -> torch.Tensor:
        return self.layers(self.smoothing(actions))
