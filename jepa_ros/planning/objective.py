"""What a plan is judged by: the distance in latent space between what the model predicts and the goal."""

from __future__ import annotations

from dataclasses import dataclass

import torch


def latent_distance(latents: torch.Tensor, goal: torch.Tensor) -> torch.Tensor:
    """Mean square over the latent, of latents (..., *L) to goal (*L): (...,)."""
    return (latents - goal).square().flatten(-goal.ndim).mean(-1)


@dataclass(frozen=True)
class GoalDistance:
    """Latent distance over the horizon: steps count `along`, the last one 1; plus `effort` times mean square action.

    With nothing along the way the search is indifferent to when it arrives, and dawdles.
    """

    along: float = 0.3
    effort: float = 0.002

    def __call__(self, predicted: torch.Tensor, goal: torch.Tensor, actions: torch.Tensor) -> torch.Tensor:
        """predicted (S, H, *L), goal (*L), actions (S, H, K) → costs (S,)."""
        distance = latent_distance(predicted, goal)
        weights = torch.full((distance.shape[1],), self.along)
        weights[-1] = 1.0
        return distance @ weights + self.effort * actions.square().mean((1, 2))
