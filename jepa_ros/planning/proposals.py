"""Ways to the goal that the policy imagines, to seed the search where latent distance alone is flat."""

from __future__ import annotations

import torch

from jepa_ros.world_model.checkpoint import Checkpoint

TICKS_TO_GO = (4.0, 8.0, 12.0, 16.0, 24.0, 36.0)
BOLDNESS = (1.0, 1.6, 2.5)
"""Factors on the policy's actions: the mean of many ways of random play is slower than any of them."""


def propose(
    checkpoint: Checkpoint,
    latents: torch.Tensor,
    proprioception: torch.Tensor,
    goal: torch.Tensor,
    horizon: int,
    committed: torch.Tensor,
) -> torch.Tensor:
    """Roll the policy out in imagination, once for each time to go and boldness: actions (K, horizon * block, A).

    latents (history, D), proprioception (P,) normalised, goal (D,), committed (c, A): ticks that are promised already.
    """
    config = checkpoint.config
    count = len(TICKS_TO_GO) * len(BOLDNESS)
    ticks = torch.tensor(TICKS_TO_GO).repeat_interleave(len(BOLDNESS))
    boldness = torch.tensor(BOLDNESS).repeat(len(TICKS_TO_GO)).unsqueeze(1)
    history, state = latents.expand(count, -1, -1), proprioception.expand(count, -1)
    goals, taken = goal.expand(count, -1), []
    for step in range(horizon):
        actions = checkpoint.policy(history[:, -1], goals, state, ticks) * boldness
        actions = actions.clamp(-1.0, 1.0).reshape(count, config.block, config.action.dimension)
        promised = committed[step * config.block : (step + 1) * config.block]
        actions[:, : len(promised)] = promised
        latent, state = checkpoint.model.predictor(history, state, actions.flatten(1))
        history = torch.cat([history[:, 1:], latent.unsqueeze(1)], dim=1)
        ticks = (ticks - config.block).clamp(min=4.0)
        taken.append(actions)
    return torch.cat(taken, dim=1)
