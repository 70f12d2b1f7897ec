"""The fast policy (System 1): goal-conditioned inverse dynamics on frozen latents."""

from __future__ import annotations

import torch
from torch import nn


class GoalPolicy(nn.Module):
    """Latent (B, D), goal latent (B, D), proprioception (B, P), time to go (B,) in ticks → actions (B, block * A).

    Trained to give the actions that led from one moment of play to a later one, and none from there on; asked with a
    time to go, it answers what play did on its way there. max_ticks: longest time to go that it knows.
    """

    def __init__(
        self, latent_dim: int, proprioception_dim: int, action_dim: int, width: int, depth: int, max_ticks: int
    ):
        super().__init__()
        self.max_ticks = max_ticks
        layers: list[nn.Module] = [nn.Linear(2 * latent_dim + proprioception_dim + 1, width), nn.GELU()]
        for _ in range(depth):
            layers += [nn.Linear(width, width), nn.GELU()]
        self.layers = nn.Sequential(*layers, nn.Linear(width, action_dim))

    def forward(
        self, latent: torch.Tensor, goal: torch.Tensor, proprioception: torch.Tensor, ticks: torch.Tensor
    ) -> torch.Tensor:
        """See the class."""
        time = (ticks.clamp(0, self.max_ticks) / self.max_ticks).unsqueeze(1)
        return self.layers(torch.cat([latent, goal, proprioception, time], dim=1))
