"""Ways to the goal that the policy imagines, to seed the search where latent distance alone is flat."""

from __future__ import annotations

import torch

from jepa_ros.world_model.checkpoint import Checkpoint
from jepa_ros.world_model.protocol import Context, moved_on

TICKS_TO_GO = (4.0, 8.0, 12.0, 16.0, 24.0, 36.0)
BOLDNESS = (1.0, 2.0)
"""Factors on the policy's actions: the mean of many ways of random play is slower than any of them."""


def propose(
    checkpoint: Checkpoint, context: Context, goal: torch.Tensor, horizon: int, committed: torch.Tensor
) -> torch.Tensor:
    """Roll the policy out in imagination, once for each time to go and boldness: actions (count, horizon * block, A).

    context: B = 1. goal (*L). committed (c, A): ticks that are promised already.
    """
    config, policy = checkpoint.config, checkpoint.policy
    count = len(TICKS_TO_GO) * len(BOLDNESS)
    ticks = torch.tensor(TICKS_TO_GO).to(goal.device).repeat_interleave(len(BOLDNESS))
    boldness = torch.tensor(BOLDNESS).to(goal.device).repeat(len(TICKS_TO_GO)).unsqueeze(1)
    seen, goals, taken = context.expand(count), goal.flatten().expand(count, -1), []
    for step in range(horizon):
        actions = policy(seen.latents[:, -1].flatten(1), goals, seen.states[:, -1], ticks) * boldness
        actions = actions.clamp(-1.0, 1.0).reshape(count, config.block, config.action.dimension)
        promised = committed[step * config.block : (step + 1) * config.block]
        actions[:, : len(promised)] = promised
        seen = moved_on(checkpoint.model, seen, actions.flatten(1)[:, None])
        ticks = (ticks - config.block).clamp(min=4.0)
        taken.append(actions)
    return torch.cat(taken, dim=1)
