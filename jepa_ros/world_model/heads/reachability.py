"""A learned distance: how many control ticks a goal is away, where the latent distance is flat and says nothing."""

from __future__ import annotations

import torch
from torch import nn

SLACK = 0.5
"""Share by which what the arm is doing now may lengthen or shorten the way."""


class Reachability(nn.Module):
    """Latent (B, D), goal latent (B, D), proprioception (B, P) → control ticks to go (B,), at least 0.

    The distance of two embeddings, so that it is 0 at the goal, holds to the triangle inequality and goes on growing
    beyond the ways that play ever took in one piece; times a factor of 1 ± SLACK by latent, goal and proprioception,
    as an arm on its way there is sooner there than one that moves off. Patch tokens come flattened.
    """

    def __init__(self, latent_dim: int, proprioception_dim: int, width: int, embedding: int, max_ticks: int):
        super().__init__()
        self.max_ticks = max_ticks
        self.embed = nn.Sequential(
            nn.Linear(latent_dim, width), nn.GELU(), nn.Linear(width, width), nn.GELU(), nn.Linear(width, embedding)
        )
        self.haste = nn.Sequential(
            nn.Linear(2 * latent_dim + proprioception_dim, width), nn.GELU(), nn.Linear(width, 1)
        )

    def forward(self, latent: torch.Tensor, goal: torch.Tensor, proprioception: torch.Tensor) -> torch.Tensor:
        """See the class; a goal (1, D) counts for all B."""
        goal = goal.expand(len(latent), -1)
        both = self.embed(torch.cat([latent, goal]))
        square = (both[: len(latent)] - both[len(latent) :]).square().sum(1)
        # The root has no slope at 0; what is added under it (a millionth of a tick) keeps gradients finite.
        distance = self.max_ticks * ((square + 1e-12).sqrt() - 1e-6)
        factor = 1.0 + SLACK * torch.tanh(self.haste(torch.cat([latent, goal, proprioception], dim=1))).squeeze(1)
        return distance * factor
