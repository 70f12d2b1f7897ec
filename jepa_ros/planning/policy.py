"""The fast policy (System 1) in planning: its rollouts as proposals for the search, and plans of the policy only."""

from __future__ import annotations

import math

import torch

from jepa_ros.errors import InputError
from jepa_ros.world_model.checkpoint import Checkpoint
from jepa_ros.world_model.heads import GoalPolicy
from jepa_ros.world_model.protocol import Context, step_context

TICKS_TO_GO = (4.0, 8.0, 12.0, 16.0, 24.0, 36.0)
ACTION_SCALES = (1.0, 2.0)
"""Factors on the policy's actions: it predicts the mean over many motions of random play, which is slower than each."""

DECIDED_TICKS = 2
"""Control ticks after the committed ones that the policy decides; the next decision arrives before they end. Further
model steps would cost predictions and bring no goal nearer."""
EXTRA_TICKS = 2.0
"""Control ticks added to the learned time to go, which is that of the fastest play: without them the policy ends nearly
twice as far from the goal."""


def propose_actions(
    checkpoint: Checkpoint,
    policy: GoalPolicy,
    context: Context,
    goal: torch.Tensor,
    horizon: int,
    committed: torch.Tensor,
) -> torch.Tensor:
    """Roll the policy out in the model, once for each time to go and scale: actions (count, horizon * block, A).

    They lead towards the goal where the latent distance is flat. context: B = 1. goal: (*L). committed: (c, A), the
    first c actions, which are fixed.
    """
    config = checkpoint.config
    count = len(TICKS_TO_GO) * len(ACTION_SCALES)
    ticks = torch.tensor(TICKS_TO_GO).to(goal.device).repeat_interleave(len(ACTION_SCALES))
    scales = torch.tensor(ACTION_SCALES).to(goal.device).repeat(len(TICKS_TO_GO)).unsqueeze(1)
    context, goals = context.expand(count), goal.flatten().expand(count, -1)
    taken: list[torch.Tensor] = []
    for step in range(horizon):
        actions = policy(context.latents[:, -1].flatten(1), goals, context.states[:, -1], ticks) * scales
        actions = actions.clamp(-1.0, 1.0).reshape(count, config.block, config.action.dimension)
        fixed = committed[step * config.block : (step + 1) * config.block]
        actions[:, : len(fixed)] = fixed
        context = step_context(checkpoint.model, context, actions.flatten(1)[:, None])
        ticks = (ticks - config.block).clamp(min=4.0)
        taken.append(actions)
    return torch.cat(taken, dim=1)


class PolicyOnlyPlanner:
    """Plans without a search: the policy's actions for the predicted time to go.

    The time to go shrinks near the goal, so the arm slows down and rests there. If the committed actions outlast a
    model step, the policy continues from the model's prediction of that step. Raises InputError if the model has no
    policy or no learned distance.
    """

    def __init__(self, checkpoint: Checkpoint):
        if checkpoint.policy is None or checkpoint.reachability is None:
            missing = "policy" if checkpoint.policy is None else "learned distance"
            raise InputError(
                f"model {checkpoint.directory}: policy_only needs a policy and a learned distance, found no {missing}; "
                "`jepa_ros train heads` adds them"
            )
        self._checkpoint, self._policy, self._reachability = checkpoint, checkpoint.policy, checkpoint.reachability

    @torch.inference_mode()
    def decide(self, context: Context, goal: torch.Tensor, committed: torch.Tensor, horizon: int) -> torch.Tensor:
        """Return actions (horizon * block, A) from the frame on.

        context: B = 1, its last entry is the frame's. goal: (*L). committed: (c, A), the first c actions, which are
        fixed. horizon: model steps; after the committed ticks and DECIDED_TICKS the last action continues until the
        predicted arrival, then the arm rests.
        """
        steps = min(horizon, math.ceil((len(committed) + DECIDED_TICKS) / self._checkpoint.config.block))
        config, goals = self._checkpoint.config, goal.flatten()[None]
        taken: list[torch.Tensor] = []
        for step in range(steps):
            if step:
                context = step_context(self._checkpoint.model, context, taken[-1].flatten()[None, None])
            latent, state = context.latents[:, -1].flatten(1), context.states[:, -1]
            ticks = self._reachability(latent, goals, state)
            actions = self._policy(latent, goals, state, ticks + EXTRA_TICKS).clamp(-1.0, 1.0)
            actions = actions.reshape(config.block, config.action.dimension)
            fixed = committed[step * config.block : (step + 1) * config.block]
            actions[: len(fixed)] = fixed
            taken.append(actions)
        after = torch.arange((horizon - len(taken)) * config.block, device=goal.device).unsqueeze(1)
        return torch.cat([*taken, taken[-1][-1:] * (after + config.block < ticks)])
