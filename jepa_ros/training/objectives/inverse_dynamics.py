"""The action must be readable from the latents before and after it: what the arm does is then in the latent.

Pathak et al. (arXiv 1705.05363) for features of what can be controlled; PLDM (arXiv 2502.14819) beside VICReg in world
models.
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F

from jepa_ros.world_model.config import ModelConfig


class InverseDynamics(nn.Module):
    """A small head of its own: two latents in a row → the action block between them.

    Of patch latents (tokens, D) it sees the mean over tokens. width: of its hidden layer.
    """

    def __init__(self, config: ModelConfig, width: int = 256):
        super().__init__()
        self.head = nn.Sequential(
            nn.Linear(2 * config.latent_shape[-1], width), nn.GELU(), nn.Linear(width, config.action_block)
        )

    def forward(self, latents: torch.Tensor, actions: torch.Tensor) -> torch.Tensor:
        """Mean square error (scalar) for latents (B, T, *L), with gradients into them, and actions (B, T - 1, K)."""
        z = latents.mean(-2) if latents.dim() == 4 else latents
        return F.mse_loss(self.head(torch.cat([z[:, :-1], z[:, 1:]], dim=-1)), actions)
