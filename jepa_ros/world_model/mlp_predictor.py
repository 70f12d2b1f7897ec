"""A residual MLP that predicts the next latent and the next proprioception."""

from __future__ import annotations

import torch
from torch import nn


class MlpPredictor(nn.Module):
    """History of latents, proprioception and one action block → next latent, next proprioception.

    latents (B, history, D), proprioception (B, P) normalised, actions (B, block * A) → ((B, D), (B, P)).
    """

    def __init__(self, latent_dim: int, history: int, proprioception_dim: int, action_dim: int, width: int, depth: int):
        super().__init__()
        self.latent_dim = latent_dim
        self.input = nn.Linear(history * latent_dim + proprioception_dim + action_dim, width)
        self.blocks = nn.ModuleList(
            nn.Sequential(nn.LayerNorm(width), nn.Linear(width, width), nn.GELU(), nn.Linear(width, width))
            for _ in range(depth)
        )
        self.output = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, latent_dim + proprioception_dim))

    def forward(
        self, latents: torch.Tensor, proprioception: torch.Tensor, actions: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        x = self.input(torch.cat([latents.flatten(1), proprioception, actions], dim=1))
        for block in self.blocks:
            x = x + block(x)
        change = self.output(x)
        return latents[:, -1] + change[:, : self.latent_dim], proprioception + change[:, self.latent_dim :]
