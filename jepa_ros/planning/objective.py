"""What the search minimises: the distance to the goal over the horizon, and prices on the way there."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from jepa_ros.planning.goal import Goal, Outcome
from jepa_ros.world_model.heads.probes import Probe

SURE = 0.01
"""m between where the model sees the tool and where the plan leads it, up to which it is not called uncertain."""


@dataclass(frozen=True)
class Objective:
    """Costs of candidates. along: what the steps before the last count, which counts 1; with nothing along the way the
    search is indifferent to when it arrives, and dawdles. effort: price of the mean square action. smoothness: of the
    mean square change of an action from tick to tick. uncertainty: of the model's disagreement with itself, per
    (10 cm)²: how far the tool that it sees in its predicted latents (`sight`, its probe of the tool) is from where the
    plan leads it.
    """

    along: float = 0.3
    effort: float = 0.002
    smoothness: float = 0.0
    uncertainty: float = 0.0
    sight: Probe | None = None

    def __call__(self, goal: Goal, outcome: Outcome, actions: torch.Tensor) -> torch.Tensor:
        """outcome of S candidates, whose actions are (S, ticks, A) → costs (S,)."""
        cost = goal.cost(outcome)
        weights = torch.full_like(cost[0], self.along)
        weights[-1] = 1.0
        total = cost @ weights + self.effort * actions.square().mean((1, 2))
        if self.smoothness:
            total = total + self.smoothness * actions.diff(dim=1).square().mean((1, 2))
        if self.uncertainty and self.sight is not None:
            apart = (self.sight.read(outcome.latents)[..., : outcome.tool.shape[-1]] - outcome.tool).norm(dim=-1)
            total = total + self.uncertainty * ((apart - SURE).clamp(min=0.0) / 0.1).square().mean(1)
        return total
