"""The policy alone (System 1): the way that it would go, without a search."""

from __future__ import annotations

import math

import torch

from jepa_ros.errors import InputError
from jepa_ros.world_model.checkpoint import Checkpoint
from jepa_ros.world_model.protocol import Context, moved_on

OWN = 2
"""Control ticks after the promised ones that the policy itself decides; by then the next decision is there. Each model
step more costs a prediction and brings no goal nearer."""
PATIENCE = 2.0
"""Control ticks added to the learned time to go, which is that of the fastest play: asked for as little, the policy
ends nearly twice as far from the goal."""


class PolicyAlone:
    """Asks the policy with the time to go that is predicted, so that it slows down as it nears the goal and stands
    still on it; where what is promised outlasts a model step, it asks in the model's imagination of that step.

    Raises InputError where the model has no policy or no learned distance.
    """

    def __init__(self, checkpoint: Checkpoint):
        if checkpoint.policy is None or checkpoint.reachability is None:
            missing = "policy" if checkpoint.policy is None else "learned distance"
            raise InputError(
                f"model {checkpoint.directory}: expected a policy and a learned distance (`jepa_ros train policy` adds "
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
                context = moved_on(self._checkpoint.model, context, taken[-1].flatten()[None, None])
            latent, state = context.latents[:, -1].flatten(1), context.states[:, -1]
            ticks = self._reachability(latent, goals, state)
            actions = self._policy(latent, goals, state, ticks + PATIENCE).clamp(-1.0, 1.0)
            actions = actions.reshape(config.block, config.action.dimension)
            promised = committed[step * config.block : (step + 1) * config.block]
            actions[: len(promised)] = promised
            taken.append(actions)
        after = torch.arange((horizon - len(taken)) * config.block, device=goal.device).unsqueeze(1)
        return torch.cat([*taken, taken[-1][-1:] * (after + config.block < ticks)])
