"""Losses of the world model and of its heads."""

from __future__ import annotations

from typing import Literal

import torch
from torch import nn
from torch.nn import functional as F

from jepa_ros.datasets.episodes import EpisodeSet, Windows
from jepa_ros.errors import InputError
from jepa_ros.training.recipe import LossWeights
from jepa_ros.world_model.anti_collapse import AntiCollapse
from jepa_ros.world_model.config import ModelConfig
from jepa_ros.world_model.heads import GoalPolicy, Reachability
from jepa_ros.world_model.protocol import Context, PredictiveModel

MIN_LATENT_MOTION = 1e-2
"""A latent that moves by less has no direction: its gradient would be rounding noise divided by almost zero."""
PLAY_TIME_QUANTILE = 0.05  # quantile of the times that play took between two places: about the time of a direct way
NEAR_PAIRS_SHARE = 0.4
"""Share of the sampled pairs that are at most two blocks apart, as when a goal is about to be reached."""


class Rollout(nn.Module):
    """Loss of rollouts, in which predictions are inputs of further predictions, as in planning: V-JEPA 2-AC (arXiv
    2506.09985: L1, two steps), JEPA-WMs (arXiv 2512.24497: two or six steps).

    It is the mean error of the predicted latents of steps 2 to H; step 1 is the one-step loss itself. error: mean
    square (l2) or mean absolute (l1).
    """

    def __init__(self, error: Literal["l1", "l2"] = "l2"):
        super().__init__()
        self._error = {"l1": F.l1_loss, "l2": F.mse_loss}[error]

    def forward(
        self, model: PredictiveModel, context: Context, actions: torch.Tensor, targets: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the scalar loss and the predicted states (B, H, P), for action blocks (B, H, K) after the context and
        targets (B, H, *L). Gradients flow through every step. Raises InputError if H is 1."""
        steps = actions.shape[1]
        if steps < 2:
            raise InputError(f"rollout loss: needs at least 2 steps, found {steps}; set steps in the recipe's schedule")
        imagined, states = model.rollout(context, actions)
        return self._error(imagined[:, 1:], targets[:, 1:]), states


class InverseDynamics(nn.Module):
    """Loss of a small learned head that predicts the action block from the latents before and after it: Pathak et al.
    (arXiv 1705.05363), for features of what an agent controls; PLDM (arXiv 2502.14819), with VICReg in world models.

    Patch latents (tokens, D) are averaged over tokens. width: of the hidden layer.
    """

    def __init__(self, config: ModelConfig, width: int = 256):
        super().__init__()
        self.head = nn.Sequential(
            nn.Linear(2 * config.latent_shape[-1], width), nn.GELU(), nn.Linear(width, config.action_block)
        )

    def forward(self, latents: torch.Tensor, actions: torch.Tensor) -> torch.Tensor:
        """Return the mean square error (scalar) for latents (B, T, *L), with gradients, and actions (B, T - 1, K)."""
        z = latents.mean(-2) if latents.dim() == 4 else latents
        return F.mse_loss(self.head(torch.cat([z[:, :-1], z[:, 1:]], dim=-1)), actions)


class Straightening(nn.Module):
    """Loss of curved latent trajectories; on straight ones the latent distance grows with the way to a goal: Temporal
    Straightening for Latent Planning (arXiv 2603.12231), L_curv = 1 - C.

    It is the mean of 1 - cos(z[t+1] - z[t], z[t+2] - z[t+1]): 0 on a line, 1 at right angles, 2 on a reversal. If a
    latent moves less than MIN_LATENT_MOTION, the cosine counts as 0 and has no gradient.
    """

    def forward(self, latents: torch.Tensor) -> torch.Tensor:
        """Return the scalar loss of latents (B, T, *L), over all tokens together. Raises InputError if T < 3."""
        if latents.shape[1] < 3:
            raise InputError(f"straightening loss: needs at least 3 consecutive latents, found {latents.shape[1]}")
        velocity = latents.flatten(2).diff(dim=1)
        moves = velocity.detach().norm(dim=-1) > MIN_LATENT_MOTION
        both = moves[:, :-1] & moves[:, 1:]
        cosine = F.cosine_similarity(velocity[:, :-1][both], velocity[:, 1:][both], dim=-1)
        return 1.0 - cosine.sum() / both.numel()


class WorldModelLoss(nn.Module):
    """Prediction error of latents plus a regulariser against collapse (LeWM, arXiv 2603.19312, eq. 1-3), plus the
    optional parts whose weight is not 0. Learned parts of the loss are parameters of this module."""

    def __init__(self, config: ModelConfig, weights: LossWeights, anti_collapse: AntiCollapse, steps: int):
        super().__init__()
        self.weights, self.anti_collapse, self._history = weights, anti_collapse, config.history
        self.rollout = Rollout() if weights.rollout and steps > 1 else None
        self.straightening = Straightening() if weights.straightening else None
        self.inverse_dynamics = None
        if weights.inverse_dynamics:
            self.inverse_dynamics = InverseDynamics(config)

    def forward(
        self, model: PredictiveModel, batch: Windows, generator: torch.Generator
    ) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """Return the loss of a batch, and its parts without gradient.

        The one-step error covers every run of `history` frames in the windows, at each position of a run, so that
        shorter contexts are learnt as well.
        """
        w, h = self.weights, self._history
        b, n = batch.frames.shape[:2]
        frames = batch.frames.flatten(0, 1)
        flat = model.encode(frames)
        latents = flat.unflatten(0, (b, n))
        targets = self.anti_collapse.targets(model, frames, flat).unflatten(0, (b, n))
        latent, state = model.predict(*(_runs(x, h, n - h) for x in (latents, batch.states, batch.actions)))
        parts = {"one_step": F.mse_loss(latent, _runs(targets[:, 1:], h, n - h))}
        total = parts["one_step"]
        if w.proprioception and batch.states.shape[-1]:
            parts["proprioception"] = F.mse_loss(state, _runs(batch.states[:, 1:], h, n - h))
            total = total + w.proprioception * parts["proprioception"]
        if w.anti_collapse:
            time_first = latents.transpose(0, 1)
            images = batch.frames.transpose(0, 1).flatten(0, 1)
            parts["anti_collapse"] = self.anti_collapse.loss(time_first, images, generator)
            total = total + w.anti_collapse * parts["anti_collapse"]
        if self.rollout is not None:
            context = Context(latents[:, :h], batch.states[:, :h], batch.actions[:, : h - 1])
            parts["rollout"], states = self.rollout(model, context, batch.actions[:, h - 1 :], targets[:, h:])
            total = total + w.rollout * parts["rollout"]
            if w.proprioception and batch.states.shape[-1]:
                parts["state_rollout"] = F.mse_loss(states, batch.states[:, h:])
                total = total + w.proprioception * parts["state_rollout"]
        if self.straightening is not None:
            parts["straightening"] = self.straightening(latents)
            total = total + w.straightening * parts["straightening"]
        if self.inverse_dynamics is not None:
            parts["inverse_dynamics"] = self.inverse_dynamics(latents, batch.actions)
            total = total + w.inverse_dynamics * parts["inverse_dynamics"]
        return total, {name: value.detach() for name, value in (parts | {"loss": total}).items()}


def _runs(x: torch.Tensor, length: int, count: int) -> torch.Tensor:
    """Return the first `count` runs of `length` entries: (B, n, ...) → (B * count, length, ...)."""
    return torch.cat([x[:, k : k + length] for k in range(count)])


def policy_loss(
    policy: GoalPolicy, latents: torch.Tensor, data: EpisodeSet, batch: int, block: int, generator: torch.Generator
) -> torch.Tensor:
    """Return the mean square error of the action block at a tick of play, given a later frame of it as the goal.

    latents: (N, *L) of all frames of `data`. The wanted actions after the goal are zero, whatever play did there, so
    that the arm stays at a goal that it has reached.
    """
    now, ticks = draw_pairs(data, batch, policy.max_ticks, block, block, generator)
    before = torch.arange(block) < ticks[:, None]
    actions = torch.from_numpy(data.actions[now[:, None] + torch.arange(block)]) * before.unsqueeze(2)
    z, goal = latents[now].flatten(1), latents[now + ticks].flatten(1)
    predicted = policy(z, goal, torch.from_numpy(data.states[now.numpy()]), ticks.float())
    return F.mse_loss(predicted, actions.flatten(1))


def reachability_loss(
    reachability: Reachability,
    latents: torch.Tensor,
    data: EpisodeSet,
    batch: int,
    block: int,
    generator: torch.Generator,
) -> torch.Tensor:
    """Return the quantile loss, in ticks, of the time play took from one frame to a later one (Koenker, Bassett 1978).

    latents: as for policy_loss. The quantile is low, so that detours of play do not count.
    """
    now, ticks = draw_pairs(data, batch, reachability.max_ticks, 0, block, generator)
    z, goal = latents[now].flatten(1), latents[now + ticks].flatten(1)
    late = ticks - reachability(z, goal, torch.from_numpy(data.states[now.numpy()]))
    return torch.maximum(PLAY_TIME_QUANTILE * late, (PLAY_TIME_QUANTILE - 1.0) * late).mean()


def draw_pairs(
    data: EpisodeSet, batch: int, longest: int, room: int, block: int, generator: torch.Generator
) -> tuple[torch.Tensor, torch.Tensor]:
    """Draw pairs of frames of one episode: return the rows (batch,) of the first, and the ticks (batch,) to the second.

    At least `room` ticks follow the first frame. The second is 0 to `longest` ticks later; in NEAR_PAIRS_SHARE of the
    pairs at most two blocks.
    """
    lengths = torch.from_numpy(data.lengths)
    episode = torch.randint(len(lengths), (batch,), generator=generator)
    tick = (torch.rand(batch, generator=generator) * (lengths[episode] - room + 1)).long()
    most = (lengths[episode] - tick).clamp(max=longest)
    near = torch.rand(batch, generator=generator) < NEAR_PAIRS_SHARE
    most = torch.where(near, most.clamp(max=2 * block), most)
    ticks = (torch.rand(batch, generator=generator) * (most + 1)).long()
    return torch.from_numpy(data.index(episode.numpy(), tick.numpy())), ticks
