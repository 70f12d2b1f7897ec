"""Optional losses beside the one-step prediction; `losses.py` adds them up with the weights of a recipe."""

from __future__ import annotations

from typing import Literal

import torch
from torch import nn
from torch.nn import functional as F

from jepa_ros.errors import InputError
from jepa_ros.world_model.config import ModelConfig
from jepa_ros.world_model.protocol import Context, PredictiveModel

MIN_LATENT_MOTION = 1e-2
"""A latent that moves by less has no direction: its gradient would be rounding noise divided by almost zero."""


class Rollout(nn.Module):
    """Predictions from predictions must stay accurate, as a planner uses the model: V-JEPA 2-AC (arXiv 2506.09985: L1,
    two steps), JEPA-WMs (arXiv 2512.24497: two or six steps).

    The loss is the error of the predicted latents of steps 2 to H, averaged; step 1 is the one-step loss itself.

    error: mean square (l2) or mean absolute (l1).
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
    """The action must be readable from the latents before and after it: Pathak et al. (arXiv 1705.05363), for features
    of what an agent controls; PLDM (arXiv 2502.14819), with VICReg in world models.

    A small learned head maps two consecutive latents to the action block between them.

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
    """Straight trajectories, so that latent distance grows with the way to a goal: Temporal Straightening for Latent
    Planning (arXiv 2603.12231), L_curv = 1 - C.

    The loss is 1 - cos(z[t+1] - z[t], z[t+2] - z[t+1]), averaged: 0 on a line, 1 at right angles, 2 on a reversal.

    Where a latent moves less than MIN_LATENT_MOTION, the cosine counts as 0 and has no gradient.
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
