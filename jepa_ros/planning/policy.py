"""Ways to the goal that the policy imagines, to seed the search where latent distance alone is flat."""

from __future__ import annotations

import math

import torch

from jepa_ros.errors import InputError
from jepa_ros.world_model.checkpoint import Checkpoint
from jepa_ros.world_model.protocol import Context, step_context

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
        seen = step_context(checkpoint.model, seen, actions.flatten(1)[:, None])
        ticks = (ticks - config.block).clamp(min=4.0)
        taken.append(actions)
    return torch.cat(taken, dim=1)


OWN = 2
"""Control ticks after the promised ones that the policy itself decides; by then the next decision is there. Each model
step more costs a prediction and brings no goal nearer."""
PATIENCE = 2.0
"""Control ticks added to the learned time to go, which is that of the fastest play: asked for as little, the policy
ends nearly twice as far from the goal."""


class PolicyOnlyPlanner:
    """Asks the policy with the time to go that is predicted, so that it slows down as it nears the goal and stands
    still on it; where what is promised outlasts a model step, it asks in the model's imagination of that step.

    Raises InputError where the model has no policy or no learned distance.
    """

    def __init__(self, checkpoint: Checkpoint):
        if checkpoint.policy is None or checkpoint.reachability is None:
            missing = "policy" if checkpoint.policy is None else "learned distance"
            raise InputError(
                f"model {checkpoint.directory}: expected a policy and a learned distance (`jepa_ros train heads` adds "
                f"them), found no {missing}"
            )
        self._checkpoint, self._policy, self._reachability = checkpoint, checkpoint.policy, checkpoint.reachability

    @torch.inference_mode()
    def decide(self, context: Context, goal: torch.Tensor, committed: torch.Tensor, horizon: int) -> torch.Tensor:
        """Actions (horizon * block, A) from the frame on.

        context: B = 1, its last entry the frame's. goal: (*L). committed: (c, A), ticks that are promised already.
        horizon: model steps; after those that hold OWN ticks the last action goes on for as long as the way takes, then
        rest.
        """
        steps = min(horizon, math.ceil((len(committed) + OWN) / self._checkpoint.config.block))
        config, goals, taken = self._checkpoint.config, goal.flatten()[None], []
        for step in range(steps):
            if step:
                context = step_context(self._checkpoint.model, context, taken[-1].flatten()[None, None])
            latent, state = context.latents[:, -1].flatten(1), context.states[:, -1]
            ticks = self._reachability(latent, goals, state)
            actions = self._policy(latent, goals, state, ticks + PATIENCE).clamp(-1.0, 1.0)
            actions = actions.reshape(config.block, config.action.dimension)
            promised = committed[step * config.block : (step + 1) * config.block]
            actions[: len(promised)] = promised
            taken.append(actions)
        after = torch.arange((horizon - len(taken)) * config.block, device=goal.device).unsqueeze(1)
        return torch.cat([*taken, taken[-1][-1:] * (after + config.block < ticks)])
