"""LeWM's projector, one after the encoder and one of the same form after the predictor."""

from __future__ import annotations

import torch
from torch import nn


class Projector(nn.Module):
    """(..., inputs) → (..., outputs): Linear, BatchNorm over all that is not the last axis, GELU, Linear.

    LeWM (arXiv 2603.19312), section 4: a LayerNorm in place of the BatchNorm keeps SIGReg from shaping the
    distribution of latents, because every latent then has the same norm.
    """

    def __init__(self, inputs: int, hidden: int, outputs: int):
        super().__init__()
        self.outputs = outputs
        self.layers = nn.Sequential(
            nn.Linear(inputs, hidden), nn.BatchNorm1d(hidden), nn.GELU(), nn.Linear(hidden, outputs)
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layers(x.flatten(0, -2)).view(*x.shape[:-1], self.outputs)
