"""The loss of the world model and of the policy beside it."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch.nn import functional as F

from jepa_ros.planning.policy import GoalPolicy
from jepa_ros.training.episodes import EpisodeSet, Windows
from jepa_ros.world_model.jepa import Jepa
from jepa_ros.world_model.sigreg import sigreg


@dataclass(frozen=True)
class LossWeights:
    """sigreg: weight of the regulariser (LeWM: 0.1), over `directions` axes. proprioception: of predicting the next
    one. rollout: of predictions fed with predictions, beside those fed with encoded frames."""

    sigreg: float = 0.1
    directions: int = 256
    proprioception: float = 0.1
    rollout: float = 1.0


def jepa_loss(
    model: Jepa, batch: Windows, history: int, weights: LossWeights, generator: torch.Generator
) -> tuple[torch.Tensor, dict[str, float]]:
    """Mean square error of predicted latents plus SIGReg (LeWM, arXiv 2603.19312, eq. 1-3): no stop-gradient, no EMA.

    Every step is predicted twice: from encoded frames, and from the predictions before it.
    """
    b, length = batch.frames.shape[:2]
    steps = batch.actions.shape[1]
    latents = model.encode(batch.frames.flatten(0, 1)).view(b, length, -1)
    targets = latents[:, history:]
    inputs = latents.unfold(1, history, 1)[:, :steps].transpose(2, 3)  # (b, steps, history, D)
    one_step, state = model.predictor(
        inputs.flatten(0, 1), batch.states[:, :-1].flatten(0, 1), batch.actions.flatten(0, 1)
    )
    one = F.mse_loss(one_step, targets.flatten(0, 1))
    proprioception = F.mse_loss(state, batch.states[:, 1:].flatten(0, 1))
    rolled, states = model.rollout_states(latents[:, :history], batch.states[:, 0], batch.actions)
    multi = F.mse_loss(rolled[:, 1:], targets[:, 1:])
    proprioception = 0.5 * (proprioception + F.mse_loss(states, batch.states[:, 1:]))
    gaussian = sigreg(latents.transpose(0, 1), weights.directions, generator)
    loss = one + weights.rollout * multi + weights.proprioception * proprioception + weights.sigreg * gaussian
    parts = {"one_step": one, "rollout": multi, "proprioception": proprioception, "sigreg": gaussian, "loss": loss}
    return loss, {name: float(value.detach()) for name, value in parts.items()}


def policy_loss(
    policy: GoalPolicy,
    latents: torch.Tensor,
    data: EpisodeSet,
    batch: int,
    block: int,
    generator: torch.Generator,
) -> torch.Tensor:
    """Mean square error of the action block at a moment of play, given a later frame of it as the goal.

    latents: (N, D) of all frames of `data`. The time to go is uniform between a block and policy.max_ticks.
    """
    lengths = torch.from_numpy(data.lengths)
    episode = torch.randint(len(lengths), (batch,), generator=generator)
    room = lengths[episode] - block
    tick = (torch.rand(batch, generator=generator) * (room + 1)).long()
    longest = (lengths[episode] - tick).clamp(max=policy.max_ticks)
    ticks = block + (torch.rand(batch, generator=generator) * (longest - block + 1)).long()
    now = torch.from_numpy(data.index(episode.numpy(), tick.numpy()))
    actions = torch.from_numpy(data.actions[now[:, None] + torch.arange(block)]).flatten(1)
    predicted = policy(latents[now], latents[now + ticks], torch.from_numpy(data.states[now.numpy()]), ticks.float())
    return F.mse_loss(predicted, actions)
